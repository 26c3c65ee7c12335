//! Conformance of python3 (the ActionLoop column), with a real interpreter.

mod support;

use serde_json::{Value, json};
use support::{Proxy, SENTINEL, binary, error_of, sentinels, wait_gone, zip};

const ECHO: &str = "def main(args):\n    return args\n";
const BAD_CODE: &str = "The action failed to generate or locate a binary. See logs for details.";

fn python() -> Proxy {
    Proxy::start("python:3")
}

#[test]
fn rt_01_init_then_run_returns_the_object() {
    let proxy = python();
    let answer = proxy.init_code("def main(args):\n    return {'got': args['x']}\n");
    assert_eq!((answer.status, answer.body), (200, json!({"ok": true})));
    let answer = proxy.run(json!({"x": 1}));
    assert_eq!((answer.status, answer.body), (200, json!({"got": 1})));
}

#[test]
fn rt_02_and_03_init_without_code_is_refused() {
    let proxy = python();
    for body in [
        "{}",
        r#"{"value":{}}"#,
        r#"{"value":{"code":""}}"#,
        r#"{"value":null}"#,
    ] {
        let answer = proxy.post("/init", body.as_bytes()).unwrap();
        assert_eq!(
            (answer.status, error_of(&answer)),
            (403, "Missing main/no code to execute."),
            "{body}"
        );
    }
    let answer = proxy.post("/init", b"nonsense").unwrap();
    assert_eq!(answer.status, 400);
    assert!(error_of(&answer).starts_with("Error unmarshaling request: "));
    assert_eq!(proxy.init_code(ECHO).status, 200, "a good init after bad ones");
}

#[test]
fn rt_04_second_init_is_refused_and_said_in_the_log() {
    let proxy = python().loaded(ECHO);
    let answer = proxy.init_code(ECHO);
    let text = "Cannot initialize the action more than once.";
    assert_eq!((answer.status, error_of(&answer)), (403, text));
    assert!(proxy.stderr().contains(text));
    assert_eq!(sentinels(&proxy.stderr()), 0);
    assert_eq!(
        proxy.run(json!({"a": 1})).body,
        json!({"a": 1}),
        "the first code still runs"
    );
}

#[test]
fn rt_05_syntax_error_is_in_the_log_and_init_may_be_tried_again() {
    let proxy = python();
    let answer = proxy.init_code("def main(args)\n  return }\n");
    assert_eq!((answer.status, error_of(&answer)), (502, BAD_CODE));
    assert!(proxy.stderr().contains("SyntaxError"), "{}", proxy.stderr());
    assert_eq!((sentinels(&proxy.stdout()), sentinels(&proxy.stderr())), (1, 1));
    assert_eq!(proxy.init_code(ECHO).status, 200);
    assert_eq!(proxy.run(json!({"a": 1})).body, json!({"a": 1}));
}

#[test]
fn code_that_fails_or_exits_while_loading_is_reported() {
    for code in [
        "raise ValueError('at load')\n",
        "import os\nprint('at load', flush=True)\nos._exit(3)\n",
    ] {
        let proxy = python();
        let answer = proxy.init_code(code);
        assert_eq!(
            (answer.status, error_of(&answer)),
            (502, "Cannot start action. Check logs for details.")
        );
        assert!((proxy.stderr() + &proxy.stdout()).contains("at load"));
    }
}

#[test]
fn rt_06_and_07_entry_point() {
    let code = "def niam(args):\n    return {'by': 'niam'}\nvalue = 3\n";
    let init = |main: &str| {
        let proxy = python();
        let answer = proxy.init(json!({"main": main, "code": code}));
        (proxy, answer)
    };
    let (proxy, answer) = init("niam");
    assert_eq!(
        (answer.status, proxy.run(json!({})).body),
        (200, json!({"by": "niam"}))
    );
    for main in ["absent", "value"] {
        let (proxy, answer) = init(main);
        assert_eq!((answer.status, error_of(&answer)), (502, BAD_CODE), "{main}");
        assert!(proxy.stderr().contains(main));
    }
}

#[test]
fn rt_08_echo() {
    let proxy = python().loaded(ECHO);
    for value in [
        json!({"text": "a \"quoted\" \\ text\nwith lines\t"}),
        json!({"snow": "☃ ä 😀 \u{0} \u{7f}"}),
        json!({"nested": {"a": {"b": [1, {"c": null}, true, 1.5e300, -7]}}}),
        json!({"numbers": [1, 2, 3]}),
        json!({}),
    ] {
        let answer = proxy.run(value.clone());
        assert_eq!((answer.status, answer.body), (200, value));
    }
}

#[test]
fn rt_09_one_sentinel_per_stream_and_run_after_the_users_lines() {
    let code = "import sys\ndef main(args):\n    print('out', args['n'])\n    print('err', args['n'], file=sys.stderr)\n    return {}\n";
    let proxy = python().loaded(code);
    assert_eq!(
        (proxy.stdout(), proxy.stderr()),
        (String::new(), String::new()),
        "none for a good init"
    );
    proxy.run(json!({"n": 1}));
    proxy.run(json!({"n": 2}));
    assert_eq!(proxy.stdout(), format!("out 1\n{SENTINEL}\nout 2\n{SENTINEL}\n"));
    assert_eq!(proxy.stderr(), format!("err 1\n{SENTINEL}\nerr 2\n{SENTINEL}\n"));
}

#[test]
fn rt_10_unicode_everywhere() {
    let proxy =
        python().loaded("def main(args):\n    s = args['é'] + ' ☃'\n    print(s)\n    return {'ü': s}\n");
    assert_eq!(proxy.run(json!({"é": "😀"})).body, json!({"ü": "😀 ☃"}));
    assert!(proxy.stdout().starts_with("😀 ☃\n"));
}

#[test]
fn rt_11_init_environment_is_there_at_load_time() {
    let code = "import os\nA = os.environ['A']\nE = os.environ.get('E', 'unset')\ndef main(args):\n    return {'a': A, 'e': E}\n";
    let proxy = python();
    let answer = proxy.init(json!({"main": "main", "code": code, "env": {"A": "x y", "E": ""}}));
    assert_eq!(answer.status, 200, "{}", proxy.stderr());
    assert_eq!(proxy.run(json!({})).body, json!({"a": "x y", "e": ""}));
}

#[test]
fn rt_12_13_and_29_context_and_nothing_else_in_the_environment() {
    let proxy = python().loaded("import os\ndef main(args):\n    return dict(os.environ)\n");
    for deadline in ["1", "2"] {
        let answer = proxy.run_with(json!({
            "value": {}, "namespace": "n", "action_name": "/n/a", "action_version": "0.0.1", "activation_id": "i",
            "transaction_id": "t", "deadline": deadline, "api_key": "k",
        }));
        let expected = json!({
            "__OW_NAMESPACE": "n", "__OW_ACTION_NAME": "/n/a", "__OW_ACTION_VERSION": "0.0.1",
            "__OW_ACTIVATION_ID": "i", "__OW_TRANSACTION_ID": "t", "__OW_DEADLINE": deadline, "__OW_API_KEY": "k",
            "__OW_API_HOST": "https://api.example",
        });
        assert_eq!(answer.body, expected);
    }
}

#[test]
fn rt_14_a_mebibyte_round_trips() {
    let proxy = python().loaded(ECHO);
    let value = json!({"big": "0123456789abcdef".repeat(1 << 16)});
    assert_eq!(proxy.run(value.clone()).body, value);
}

#[test]
fn rt_15_results_must_be_dictionaries_or_arrays() {
    for result in ["3", "'text'", "True"] {
        let proxy = python().loaded(&format!("def main(args):\n    return {result}\n"));
        let answer = proxy.run(json!({}));
        assert_eq!(
            (answer.status, error_of(&answer)),
            (502, "The action did not return a dictionary or array.")
        );
        assert_eq!(sentinels(&proxy.stdout()), 1);
    }
    let proxy = python().loaded("def main(args):\n    pass\n");
    let answer = proxy.run(json!({}));
    assert_eq!((answer.status, answer.body), (200, Value::Null));
}

#[test]
fn rt_16_arrays() {
    let proxy = python().loaded("def main(args):\n    return args[::-1]\n");
    assert_eq!(proxy.run(json!([1, 2, 3])).body, json!([3, 2, 1]));
}

#[test]
fn missing_and_null_arguments_are_empty() {
    let proxy = python().loaded("def main(args):\n    return {'n': len(args)}\n");
    assert_eq!(proxy.run_with(json!({})).body, json!({"n": 0}));
    assert_eq!(
        proxy
            .run_with(json!({"value": null, "action_version": null}))
            .body,
        json!({"n": 0})
    );
}

#[test]
fn rt_17_and_18_errors_are_results_and_exceptions_keep_the_process() {
    let code = "N = 0\ndef main(args):\n    global N\n    N += 1\n    if args.get('bad'):\n        raise ValueError('boom ☃')\n    return {'error': N}\n";
    let proxy = python().loaded(code);
    let answer = proxy.run(json!({"bad": 1}));
    assert_eq!((answer.status, answer.body), (200, json!({"error": "boom ☃"})));
    assert!(proxy.stderr().contains("ValueError: boom ☃"));
    assert_eq!(proxy.run(json!({})).body, json!({"error": 2}));
}

#[test]
fn results_that_are_no_json_are_errors_and_keep_the_process() {
    let proxy = python().loaded("def main(args):\n    return {'a': eval(args['x'])}\n");
    for x in ["object()", "float('nan')", "{1, 2}"] {
        let answer = proxy.run(json!({"x": x}));
        assert_eq!(answer.status, 200, "{x}");
        assert!(!error_of(&answer).is_empty());
    }
    assert_eq!(
        proxy.run(json!({"x": "'\\ud800'"})).status,
        200,
        "a lone surrogate"
    );
}

#[test]
fn rt_19_a_process_that_ends_itself_is_said_so() {
    for how in [
        "import os; os._exit(7)",
        "import sys; sys.exit(0)",
        "import os; os.kill(os.getpid(), 9)",
    ] {
        let proxy = python().loaded(&format!("def main(args):\n    {how}\n"));
        let answer = proxy.run(json!({}));
        assert_eq!(
            (answer.status, error_of(&answer)),
            (400, "command exited"),
            "{how}"
        );
        assert_eq!((sentinels(&proxy.stdout()), sentinels(&proxy.stderr())), (1, 1));
        let answer = proxy.run(json!({}));
        assert_eq!((answer.status, error_of(&answer)), (500, "no action defined yet"));
    }
}

#[test]
fn a_process_that_ends_between_activations_ends_the_proxy_when_asked_to() {
    let mut proxy = Proxy::start_with("python:3", &["--stop-with-child"], &[]);
    let code = "import os, threading\ndef main(args):\n    threading.Timer(0.05, lambda: os._exit(1)).start()\n    return {}\n";
    assert_eq!(proxy.init_code(code).status, 200);
    assert_eq!(proxy.run(json!({})).status, 200);
    assert_eq!(proxy.wait().code(), Some(3));
}

#[test]
fn rt_20_run_before_init() {
    let answer = python().run(json!({}));
    assert_eq!((answer.status, error_of(&answer)), (500, "no action defined yet"));
}

#[test]
fn rt_21_output_without_line_end_keeps_the_sentinel_whole() {
    let proxy = python().loaded("def main(args):\n    print('no end', end='')\n    return {}\n");
    proxy.run(json!({}));
    assert!(proxy.stdout().ends_with(&format!("no end{SENTINEL}\n")));
}

#[test]
fn rt_26_the_end_of_the_owner_ends_every_process_even_one_that_left_the_group() {
    let code = "import subprocess\ndef main(args):\n    a = subprocess.Popen(['/bin/sleep', '1000'])\n    b = subprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)\n    return {'a': a.pid, 'b': b.pid}\n";
    let mut proxy = python().loaded(code);
    let pids = proxy.run(json!({})).body;
    proxy.lifeline = None;
    proxy.wait();
    wait_gone(&pids["a"].to_string());
    wait_gone(&pids["b"].to_string());
}

#[test]
fn the_interpreter_dies_with_a_proxy_that_is_killed() {
    let mut proxy = python().loaded(
        "import os\ndef main(args):\n    while args:\n        pass\n    return {'pid': os.getpid()}\n",
    );
    let pid = proxy.run(json!({})).body["pid"].to_string();
    let busy = std::thread::scope(|scope| {
        let running = scope.spawn(|| proxy.post("/run", br#"{"value":{"busy":1}}"#));
        let proxy_pid = rustix::process::Pid::from_raw(proxy.pid().cast_signed()).unwrap();
        rustix::process::kill_process(proxy_pid, rustix::process::Signal::KILL).unwrap();
        running.join().unwrap()
    });
    assert!(busy.is_none());
    proxy.wait();
    wait_gone(&pid);
}

#[test]
fn rt_28_zip_with_a_module_inside() {
    let proxy = python();
    let files = [
        (
            "__main__.py",
            "from lib.helper import twice\nfrom lone import x\ndef main(args):\n    return {'n': twice(args['n']), 'x': x}\n",
        ),
        ("lib/__init__.py", ""),
        ("lib/helper.py", "def twice(n):\n    return 2 * n\n"),
        (
            "virtualenv/lib/python3.9/site-packages/lone.py",
            "x = 'installed'\n",
        ),
    ];
    let answer = proxy.init(binary(&zip(&files)));
    assert_eq!(answer.status, 200, "{}", proxy.stderr());
    assert_eq!(proxy.run(json!({"n": 4})).body, json!({"n": 8, "x": "installed"}));
}

#[test]
fn zip_without_entry_is_refused() {
    let proxy = python();
    let answer = proxy.init(binary(&zip(&[("other.py", "")])));
    assert_eq!((answer.status, error_of(&answer)), (502, BAD_CODE));
    assert!(proxy.stderr().contains("__main__.py"));
}

#[test]
fn standard_input_is_empty_and_no_descriptor_of_others_is_inherited() {
    let code = "import os, sys, subprocess\ndef main(args):\n    child = subprocess.run(['/bin/ls', '/proc/self/fd'], capture_output=True, close_fds=False)\n    return {'in': sys.stdin.read(), 'fds': child.stdout.decode().split()}\n";
    let proxy = python().loaded(code);
    let answer = proxy.run(json!({})).body;
    assert_eq!(
        answer,
        json!({"in": "", "fds": ["0", "1", "2", "3"]}),
        "3 is that of ls itself"
    );
}

#[test]
fn private_memory_over_the_limit_is_reported_as_such() {
    let limit = (256_u64 << 20).to_string();
    let proxy = Proxy::start_with("python:3", &["--memory-max", &limit], &[])
        .loaded("def main(args):\n    return {'n': len(bytearray(args['mib'] << 20))}\n");
    assert_eq!(proxy.run(json!({"mib": 16})).body, json!({"n": 16 << 20}));
    let answer = proxy.run(json!({"mib": 1024}));
    assert_eq!((answer.status, error_of(&answer)), (400, "command exited"));
    assert!(
        answer.headers.contains("whiskraft-exhausted: memory"),
        "{}",
        answer.headers
    );
}

#[test]
fn open_files_are_limited() {
    let proxy = Proxy::start_with("python:3", &["--files-max", "64"], &[])
        .loaded("import os\ndef main(args):\n    return {'fds': len([os.open('/dev/null', 0) for _ in range(100)])}\n");
    assert!(error_of(&proxy.run(json!({}))).contains("Too many open files"));
}

#[test]
fn many_orphans_are_reaped() {
    let code = "import os\ndef main(args):\n    for _ in range(50):\n        if os.fork() == 0:\n            if os.fork() == 0:\n                os._exit(0)\n            os._exit(0)\n        os.wait()\n    return {}\n";
    let proxy = python().loaded(code);
    assert_eq!(proxy.run(json!({})).status, 200);
    let deadline = support::deadline();
    let children = format!("/proc/{0}/task/{0}/children", proxy.pid());
    while std::fs::read_to_string(&children)
        .unwrap()
        .split_whitespace()
        .count()
        > 1
    {
        support::pause(&deadline, "orphans to be reaped");
    }
}

#[test]
fn overlapping_runs_come_one_after_the_other() {
    let code = "import time\nBUSY = False\ndef main(args):\n    global BUSY\n    seen = BUSY\n    BUSY = True\n    time.sleep(0.05)\n    BUSY = False\n    return {'seen': seen}\n";
    let proxy = python().loaded(code);
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| proxy.run(json!({})).body))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(
        answers.iter().all(|answer| *answer == json!({"seen": false})),
        "{answers:?}"
    );
}

#[test]
fn unknown_path_is_empty() {
    let answer = python().post("/other", b"{}").unwrap();
    assert_eq!((answer.status, answer.body), (200, json!("")));
}
