//! The process backend with real proxies: results, limits, logs, and that nothing of a container is ever left.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Host, example, init, is_gone, json, log_texts, proxy_of, run, spec, state_of, text, until};
use whiskraft_invoker::backend::process::{ProcessBackend, ProcessConfig};
use whiskraft_invoker::backend::{Backend, InitOutcome, LogOutcome, PauseError, RunOutcome, RunRequest};
use whiskraft_types::{ActivationStatus, ByteSize, CreationError, InvokerId};

const ECHO: &str = "def main(args):\n    return args\n";
const LIMIT: Duration = Duration::from_millis(300);
/// Starts a child in the group and one that leaves it, says who they are, and never ends.
const STUCK: &str = "\
import os, subprocess, sys
def main(args):
    a = subprocess.Popen(['/bin/sleep', '1000'])
    b = subprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)
    print(os.getpid(), a.pid, b.pid)
    while True:
        pass
";

fn error(text: &str) -> String {
    json!({ "error": text }).to_string()
}

#[tokio::test]
async fn a_function_runs_and_its_record_has_result_logs_and_times() {
    let host = Host::start().await;
    let code = "import sys\nprint('at load')\ndef main(args):\n    print('hello ☃')\n    print('oops', file=sys.stderr, end='')\n    return {'sum': args['a'] + args['b']}\n";
    let instance = host.create("python:3").await;
    let InitOutcome::Ready(span) = host.backend.init(instance, init(code)).await else {
        panic!("init failed")
    };
    let ended = host.run(instance, r#"{"a":1,"b":2}"#).await;
    assert_eq!(
        (ended.status, json(&ended), ended.size),
        (ActivationStatus::Success, json!({"sum": 3}), Some(10))
    );
    let mut lines = log_texts(&ended);
    lines.sort_unstable();
    assert_eq!(lines, ["stderr: oops", "stdout: at load", "stdout: hello ☃"]);
    assert_eq!(ended.log_outcome, LogOutcome::Complete);
    assert!(ended.start_ms >= span.start_ms && !ended.timed_out && ended.is_reusable());
    let again = host.run(instance, r#"{"a":5,"b":2}"#).await;
    assert_eq!(
        (json(&again), log_texts(&again).len()),
        (json!({"sum": 7}), 2),
        "nothing of the first run"
    );
}

#[tokio::test]
async fn the_action_sees_its_context_and_nothing_of_the_invoker() {
    let host = Host::start().await;
    let code = "import os\nL = os.environ['__OW_ACTION_NAME']\ndef main(args):\n    fds = [os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)]\n    return {'env': dict(os.environ), 'load': L, 'files': [f for f in fds if f.startswith('/') and f != '/dev/null' and not f.startswith('/proc')]}\n";
    let instance = host.python(code).await;
    let mut got = json(&host.run(instance, "{}").await);
    let deadline = got["env"]
        .as_object_mut()
        .unwrap()
        .remove("__OW_DEADLINE")
        .unwrap();
    assert!(deadline.as_str().unwrap().parse::<u64>().is_ok());
    let env = json!({
        "__OW_NAMESPACE": "guest", "__OW_ACTION_NAME": "/guest/n", "__OW_ACTION_VERSION": "0.0.1",
        "__OW_ACTIVATION_ID": "ab".repeat(16), "__OW_TRANSACTION_ID": "t", "__OW_API_HOST": "https://api.example",
    });
    assert_eq!(got, json!({"env": env, "load": "/guest/n", "files": []}));
}

#[tokio::test]
async fn shell_native_and_node_run_too() {
    let host = Host::start().await;
    for (kind, code) in [
        ("sh", "cat"),
        ("native", "#!/bin/sh\ncat"),
        ("nodejs:20", "function main(a) { return a; }"),
    ] {
        if !host
            .backend
            .capabilities()
            .kinds
            .iter()
            .any(|known| kind.starts_with(known))
        {
            eprintln!("skipped: the interpreter of {kind} is not installed");
            continue;
        }
        let instance = host.loaded(kind, code).await;
        assert_eq!(
            json(&host.run(instance, r#"{"x":"ä"}"#).await),
            json!({"x": "ä"}),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn outcomes_are_classified() {
    let host = Host::start().await;
    let code = "import os\ndef main(args):\n    if args['do'] == 'exit':\n        os._exit(1)\n    return eval(args['do'])\n";
    for (code_of_run, status, result, reusable) in [
        (
            "{'error': 'mine'}",
            ActivationStatus::ApplicationError,
            error("mine"),
            true,
        ),
        (
            "1 / 0",
            ActivationStatus::ApplicationError,
            error("division by zero"),
            true,
        ),
        ("[1]", ActivationStatus::Success, "[1]".to_owned(), true),
        (
            "3",
            ActivationStatus::DeveloperError,
            error("The action did not return a dictionary or array."),
            false,
        ),
        (
            "exit",
            ActivationStatus::DeveloperError,
            error("command exited"),
            false,
        ),
    ] {
        let instance = host.python(code).await;
        let ended = host
            .run(instance, &json!({ "do": code_of_run }).to_string())
            .await;
        assert_eq!(
            (ended.status, json(&ended).to_string()),
            (status, result),
            "{code_of_run}"
        );
        assert_eq!(ended.is_reusable(), reusable, "{code_of_run}");
        let notice = "stderr: The action did not initialize or run as expected. Log data might be missing.";
        assert_eq!(log_texts(&ended).contains(&notice), !reusable);
    }
    let instance = host.create("python:3").await;
    let InitOutcome::Failed(ended) = host.backend.init(instance, init("def main(:")).await else {
        panic!()
    };
    assert_eq!(
        (ended.status, ended.in_init),
        (ActivationStatus::DeveloperError, true)
    );
    assert!(log_texts(&ended).iter().any(|line| line.contains("SyntaxError")));
}

#[tokio::test]
async fn too_large_a_result_is_cut_and_the_container_lives() {
    let host = Host::start_with(|config| {
        config.response_len_max = ByteSize::bytes(100);
        config.response_truncation = ByteSize::bytes(10);
    })
    .await;
    let instance = host
        .python("def main(args):\n    return {'a': 'x' * args['n']}\n")
        .await;
    let ended = host.run(instance, r#"{"n":200}"#).await;
    assert_eq!(
        (ended.status, ended.size),
        (ActivationStatus::ApplicationError, Some(209))
    );
    assert!(
        text(&ended).contains("exceeded the allowed length: 209 > 100 bytes."),
        "{}",
        text(&ended)
    );
    assert_eq!(
        host.run(instance, r#"{"n":1}"#).await.status,
        ActivationStatus::Success
    );
}

#[tokio::test]
async fn rt_22_an_init_over_its_time_ends_with_every_process() {
    let mut host = Host::start().await;
    let instance = host.create("python:3").await;
    let request = whiskraft_invoker::backend::InitRequest {
        timeout: LIMIT,
        ..init("import time\ntime.sleep(1000)\n")
    };
    let InitOutcome::Failed(ended) = host.backend.init(instance, request).await else {
        panic!("not failed")
    };
    let expected = error("The action exceeded its time limits of 300 milliseconds during initialization.");
    assert_eq!(
        (text(&ended), ended.timed_out, ended.in_init),
        (expected.as_str(), true, true)
    );
    assert!(ended.took >= LIMIT);
    assert!(is_gone(&host.proxy(instance)));
    assert_eq!(host.next_death().await.0, instance);
}

#[tokio::test]
async fn rt_23_a_run_over_its_time_ends_with_its_children() {
    let mut host = Host::start().await;
    let instance = host.python(STUCK).await;
    let ended = host
        .run_request(
            instance,
            RunRequest {
                timeout: LIMIT,
                ..run("{}")
            },
        )
        .await;
    let expected = error("The action exceeded its time limits of 300 milliseconds.");
    assert_eq!(
        (text(&ended), ended.timed_out, ended.is_reusable()),
        (expected.as_str(), true, false)
    );
    let pids = log_texts(&ended)[0].strip_prefix("stdout: ").unwrap().to_owned();
    assert_eq!(
        pids.split(' ').count(),
        3,
        "what was printed before the end is in the log"
    );
    assert!(pids.split(' ').all(is_gone), "{pids}");
    assert_eq!(host.next_death().await.0, instance);
}

#[tokio::test]
async fn rt_24_memory_over_the_limit_has_its_own_text() {
    let mut host = Host::start().await;
    // In steps, which the sum over all processes sees, and at once, which the kernel refuses.
    for code in [
        "def main(args):\n    kept = []\n    while True:\n        kept.append(b'x' * (1 << 20))\n",
        "def main(args):\n    return {'n': len(bytearray(4 << 30))}\n",
    ] {
        let instance = host.python(code).await;
        let ended = host.run(instance, "{}").await;
        let expected = error("The action exhausted its memory and was aborted.");
        assert_eq!(
            (text(&ended), ended.status),
            (expected.as_str(), ActivationStatus::DeveloperError),
            "{code}"
        );
        assert!(!ended.timed_out);
        host.backend.remove(instance).await;
    }
    let (_, reason) = host.next_death().await;
    assert_eq!(reason, "it used more than 128 MiB of memory");
}

#[tokio::test]
async fn too_many_processes_end_the_container() {
    let mut host = Host::start_with(|config| config.processes_max = 30).await;
    let code = "import os, time\ndef main(args):\n    for _ in range(60):\n        if os.fork() == 0:\n            os.setsid()\n            time.sleep(1000)\n    time.sleep(1000)\n";
    let instance = host.python(code).await;
    let ended = host.run(instance, "{}").await;
    let expected = error("The action did not produce a valid response and exited unexpectedly.");
    assert_eq!(text(&ended), expected);
    assert!(
        log_texts(&ended)
            .iter()
            .any(|line| line.contains("of 30 processes and threads")),
        "{:?}",
        ended.logs
    );
    assert_eq!(
        host.next_death().await,
        (instance, "it started too many processes".to_owned())
    );
}

#[tokio::test]
async fn rt_25_a_paused_container_uses_no_processor_and_runs_after_resume() {
    let host = Host::start().await;
    let code = "import os, threading\ndef spin():\n    while True:\n        pass\nthreading.Thread(target=spin, daemon=True).start()\ndef main(args):\n    return {'pid': os.getpid()}\n";
    let instance = host.python(code).await;
    let pid = json(&host.run(instance, "{}").await)["pid"].to_string();
    host.backend.pause(instance).await.unwrap();
    for process in [&pid, &host.proxy(instance)] {
        until("the process to be stopped", || state_of(process) == Some('T')).await;
    }
    let RunOutcome::GiveBack(_) = host.backend.run(instance, run("{}")).await else {
        panic!("ran while paused")
    };
    host.backend.resume(instance).await.unwrap();
    assert_eq!(json(&host.run(instance, "{}").await)["pid"].to_string(), pid);
    host.backend.pause(instance).await.unwrap();
    host.backend.remove(instance).await;
    assert!(is_gone(&pid), "a paused container can be removed");
}

#[tokio::test]
async fn pausing_is_refused_while_something_runs_and_when_it_is_gone() {
    let host = Host::start().await;
    let instance = host
        .loaded("sh", "echo started >&2; read x < gate; echo '{}'")
        .await;
    // A pipe that the action waits at, so that it runs until we say so.
    let gate = host.directory(instance).join("w/code/gate");
    let made = std::process::Command::new("/usr/bin/mkfifo")
        .arg(&gate)
        .status()
        .unwrap();
    assert!(made.success());
    let running = host.run(instance, "{}");
    let pause = async {
        let opened = gate.clone();
        // Opening returns once the action has the other end.
        let gate =
            tokio::task::spawn_blocking(move || std::fs::File::options().write(true).open(opened).unwrap());
        let gate = gate.await.unwrap();
        assert_eq!(
            host.backend.pause(instance).await,
            Err(PauseError::Busy(instance))
        );
        drop(gate);
    };
    let (ended, ()) = tokio::join!(running, pause);
    assert_eq!(ended.status, ActivationStatus::Success);
    host.backend.remove(instance).await;
    assert_eq!(
        host.backend.pause(instance).await,
        Err(PauseError::Gone(instance))
    );
}

#[tokio::test]
async fn rt_26_removal_leaves_nothing_and_may_be_repeated() {
    let host = Host::start().await;
    let instance = host.python(STUCK).await;
    let stuck = host.backend.run(instance, run("{}"));
    let proxy = host.proxy(instance);
    let family =
        || std::fs::read_to_string(format!("/proc/{proxy}/task/{proxy}/children")).unwrap_or_default();
    let remove = async {
        let sleeping = || {
            let python = family();
            let python = python.trim();
            let children = std::fs::read_to_string(format!("/proc/{python}/task/{python}/children"));
            children.unwrap_or_default().split_whitespace().count() == 2
        };
        until("the children to be started", sleeping).await;
        let python = family().trim().to_owned();
        let children = std::fs::read_to_string(format!("/proc/{python}/task/{python}/children")).unwrap();
        tokio::join!(host.backend.remove(instance), host.backend.remove(instance));
        [python]
            .into_iter()
            .chain(children.split_whitespace().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let (outcome, pids) = tokio::join!(stuck, remove);
    assert!(pids.len() == 3 && pids.iter().all(|pid| is_gone(pid)), "{pids:?}");
    assert!(!host.directory(instance).exists());
    let RunOutcome::Ended(ended) = outcome else {
        panic!("it had started")
    };
    assert_eq!(
        text(&ended),
        error("The action did not produce a valid response and exited unexpectedly.")
    );
    host.backend.remove(instance).await;
    let RunOutcome::GiveBack(_) = host.backend.run(instance, run("{}")).await else {
        panic!("ran after removal")
    };
}

#[tokio::test]
async fn removal_tells_no_death_and_a_directory_without_rights_goes_too() {
    let mut host = Host::start().await;
    let instance = host.python("import os\nos.mkdir('d')\nopen('d/f', 'w').close()\nos.chmod('d', 0)\ndef main(a):\n    return a\n").await;
    host.backend.remove(instance).await;
    assert!(!host.directory(instance).exists());
    let other = host
        .python("import os\ndef main(a):\n    os.kill(os.getppid(), 9)\n")
        .await;
    host.backend.run(other, run("{}")).await;
    assert_eq!(
        host.next_death().await.0,
        other,
        "the first event is that of the one that was not removed"
    );
}

#[tokio::test]
async fn the_death_of_an_idle_container_is_told() {
    let mut host = Host::start().await;
    let code = "import os, threading\ndef main(args):\n    threading.Timer(0.02, lambda: os._exit(1)).start()\n    return {}\n";
    let instance = host.python(code).await;
    assert_eq!(host.run(instance, "{}").await.status, ActivationStatus::Success);
    assert_eq!(host.next_death().await.0, instance);
    let RunOutcome::GiveBack(_) = host.backend.run(instance, run("{}")).await else {
        panic!("ran in a dead container")
    };
    host.backend.remove(instance).await;
    assert!(!host.directory(instance).exists());
}

#[tokio::test]
async fn rt_27_overlapping_runs_never_meet_unless_the_runtime_can() {
    let host = Host::start().await;
    let code = "import time\nBUSY = False\ndef main(args):\n    global BUSY\n    seen = BUSY\n    BUSY = True\n    time.sleep(0.03)\n    BUSY = False\n    return {'seen': seen}\n";
    let instance = host.python(code).await;
    let runs = futures::future::join_all((0..4).map(|_| host.run(instance, "{}"))).await;
    assert!(
        runs.iter()
            .all(|ended| json(ended) == json!({"seen": false}) && ended.took < Duration::from_secs(5))
    );

    if !host
        .backend
        .capabilities()
        .kinds
        .iter()
        .any(|kind| kind == "nodejs")
    {
        eprintln!("skipped: node is not installed");
        return;
    }
    let mut two = spec("nodejs:20");
    two.concurrency = 2;
    let instance = host.backend.create(two).await.unwrap();
    let code = "let first; function main() { if (!first) return new Promise((done) => { first = done; }); first({}); return {}; }";
    assert!(matches!(
        host.backend.init(instance, init(code)).await,
        InitOutcome::Ready(_)
    ));
    let (one, two) = tokio::join!(host.run(instance, "{}"), host.run(instance, "{}"));
    assert_eq!(
        (one.status, two.status),
        (ActivationStatus::Success, ActivationStatus::Success)
    );
}

#[tokio::test]
async fn rt_30_the_log_limit_cuts_and_keeps_the_container() {
    let host = Host::start().await;
    let instance = host
        .python("def main(args):\n    for n in range(args['n']):\n        print('line', n)\n    return {}\n")
        .await;
    let limited = |bytes| RunRequest {
        logs_max: ByteSize::bytes(bytes),
        ..run(r#"{"n":20000}"#)
    };
    let none = host.run_request(instance, limited(0)).await;
    assert_eq!((none.logs.len(), none.log_outcome), (0, LogOutcome::Complete));
    let cut = host.run_request(instance, limited(1000)).await;
    assert_eq!(
        (cut.status, cut.log_outcome),
        (ActivationStatus::Success, LogOutcome::Truncated)
    );
    let lines = log_texts(&cut);
    assert_eq!(lines[0], "stdout: line 0");
    let notice = "stderr: Logs were truncated because the total bytes size exceeds the limit of 1000 bytes.";
    assert_eq!(lines.last(), Some(&notice));
    assert!(cut.is_reusable());
    let all = host
        .run_request(
            instance,
            RunRequest {
                logs_max: ByteSize::mib(10),
                ..run(r#"{"n":20000}"#)
            },
        )
        .await;
    assert_eq!((all.logs.len(), all.log_outcome), (20_000, LogOutcome::Complete));
    assert_eq!(log_texts(&all)[19_999], "stdout: line 19999");
}

#[tokio::test]
async fn what_cannot_be_created_is_said_with_its_kind() {
    let host = Host::start().await;
    let refused = host.backend.create(spec("java:8")).await.unwrap_err();
    assert_eq!(refused.error, CreationError::NonExecutable);
    assert!(refused.message.contains("java:8"));
    let broken = Host::start_with(|config| config.runtime = vec!["/nonexistent/proxy".into()]).await;
    let refused = broken.backend.create(spec("sh")).await.unwrap_err();
    assert_eq!(refused.error, CreationError::Whisk);
    assert!(refused.message.contains("/nonexistent/proxy"), "{refused}");
    let silent = Host::start_with(|config| {
        config.runtime = vec!["/bin/sh".into(), "-c".into(), "echo no way >&2".into()]
    })
    .await;
    let refused = silent.backend.create(spec("sh")).await.unwrap_err();
    assert!(refused.message.contains("ended while it started"), "{refused}");
    assert!(!silent.root.path().join("invoker-1/1").exists());
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let slow = Host::start_with(|config| {
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        config.runtime = vec!["/bin/sh".into(), "-c".into(), script.into()];
        config.start_timeout = Duration::from_millis(300);
    })
    .await;
    let refused = slow.backend.create(spec("sh")).await.unwrap_err();
    assert!(refused.message.contains("not ready within 300 ms"), "{refused}");
    let child = std::fs::read_to_string(&pid_file).unwrap();
    assert!(is_gone(child.trim()), "what the proxy had started is ended");
}

#[tokio::test]
async fn shutdown_removes_all_and_refuses_more() {
    let host = Host::start().await;
    let instances = [host.python(ECHO).await, host.create("sh").await];
    let proxies = instances.map(|instance| host.proxy(instance));
    host.backend.shutdown().await;
    assert!(proxies.iter().all(|pid| is_gone(pid)));
    assert!(
        instances
            .iter()
            .all(|instance| !host.directory(*instance).exists())
    );
    assert!(host.backend.create(spec("sh")).await.is_err());
}

#[tokio::test]
async fn nothing_survives_an_invoker_that_is_killed_and_its_successor_clears_up() {
    let root = tempfile::tempdir().unwrap();
    let mut host = tokio::process::Command::new(example("process_host"))
        .arg(example("action_proxy"))
        .env("WHISKRAFT_HOLD", root.path())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    let mut stdout = host.stdout.take().unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut ready)
        .await
        .unwrap();
    let containers: Vec<_> = (1..=3)
        .map(|n| root.path().join("invoker-7").join(n.to_string()))
        .collect();
    let proxies: Vec<String> = containers.iter().map(|directory| proxy_of(directory)).collect();
    let children =
        |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let pythons: Vec<String> = proxies
        .iter()
        .map(|pid| children(pid).trim().to_owned())
        .collect();
    assert!(pythons.iter().all(|pid| state_of(pid).is_some()), "{pythons:?}");
    until("the third to be paused", || state_of(&pythons[2]) == Some('T')).await;

    host.kill().await.unwrap();
    until("every process to end", || {
        proxies.iter().chain(&pythons).all(|pid| is_gone(pid))
    })
    .await;

    let config = ProcessConfig {
        root: root.path().to_owned(),
        runtime: vec![example("action_proxy")],
        ..Default::default()
    };
    let successor = ProcessBackend::start(InvokerId(7), config.clone()).await.unwrap();
    assert!(containers.iter().all(|directory| !directory.exists()));
    let second = ProcessBackend::start(InvokerId(7), config).await.unwrap_err();
    assert!(
        second
            .to_string()
            .contains("invoker 7 is already running on this host"),
        "{second}"
    );
    successor.shutdown().await;
}

#[tokio::test]
async fn a_proxy_that_outlived_its_invoker_is_ended_at_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("invoker-1/4");
    std::fs::create_dir_all(&directory).unwrap();
    let mut left = tokio::process::Command::new("/bin/sh")
        .args(["-c", "sleep 1000 & wait"])
        .current_dir(&directory)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = left.id().unwrap().to_string();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(directory.join("proxy"), format!("{pid} {start} {boot}")).unwrap();
    let config = ProcessConfig {
        root: root.path().to_owned(),
        ..ProcessConfig::default()
    };
    let (backend, ended) = tokio::join!(ProcessBackend::start(InvokerId(1), config), left.wait());
    assert!(backend.is_ok() && !ended.unwrap().success());
    assert!(!directory.exists());
}
