//! `whiskraft bench` as a user meets it: against scripted schedulers, and with a cluster of its own.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use fake::{Fake, Mode, cluster, leadership};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use support::{command, run, says};
use whiskraft_proto::v1;

/// A scheduler that runs everything at once.
async fn echo() -> Vec<Fake> {
    let (_world, fakes) = cluster(1).await;
    fakes[0].with(|state| {
        state.mode = Mode::Echo;
        state.window = 4096;
    });
    let leads = leadership(&fakes[0], 1);
    fakes[0].with(|state| state.ensure = Some(leads));
    fakes
}

fn parsed(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A short run with these arguments more.
fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    // A scripted scheduler answers on the newest stream only.
    let all = [
        "bench",
        "run",
        "-q",
        "--connections",
        "1",
        "--time",
        "500ms",
        "--warm-up",
        "100ms",
    ];
    [&all[..], more].concat()
}

#[tokio::test]
async fn a_run_is_shown_as_tables_json_and_a_page() {
    let fakes = echo().await;
    let dir = tempfile::tempdir().unwrap();
    let (json, html) = (dir.path().join("report.json"), dir.path().join("report.html"));
    let args = [
        "--rate",
        "200",
        "--runs",
        "2",
        "--actions",
        "3",
        "--json",
        json.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ];
    let (text, _) = run(&fakes, &short(&args), 0).await;
    says(
        &text,
        &[
            "200/s offered for 500ms after 100ms; 3 actions in 1 namespaces",
            "2 runs: median (min–max)",
            "end to end",
            "USED BY",
            "load",
            "note: 200 results did not say when they began",
        ],
    );
    let report = parsed(&json);
    assert_eq!(report["runs"].as_array().unwrap().len(), 2);
    for run in report["runs"].as_array().unwrap() {
        assert_eq!((&run["due"], &run["done"]), (&100.into(), &100.into()), "{run}");
        assert_eq!(run["latency"]["end_to_end"]["count"], 100);
        assert!(run["latency"]["end_to_end"]["p50_ms"].as_f64().unwrap() > 0.0);
        assert!(run["used"]["roles"]["load"]["resident_mib"].as_f64().unwrap() > 1.0);
    }
    assert_eq!(report["summary"]["offered_per_s"]["median"], 200.0);
    let page = std::fs::read_to_string(&html).unwrap();
    assert_eq!(page.matches("<svg ").count(), 3);
}

#[tokio::test]
async fn durable_ones_are_submitted_and_timed_until_accepted() {
    let fakes = echo().await;
    let args = short(&[
        "--closed",
        "4",
        "--durable",
        "100",
        "--forget",
        "--cold",
        "--json",
        "-",
    ]);
    let (text, _) = run(&fakes, &args, 0).await;
    let report: Value = serde_json::from_str(&text).unwrap();
    let times = &report["runs"][0]["latency"];
    assert!(
        times["durable_acceptance"]["count"].as_u64().unwrap() > 0,
        "{times}"
    );
    assert!(
        times["end_to_end"].is_null() && times["durable_end_to_end"].is_null(),
        "{times}"
    );
    let sent = fakes[0].submissions_now();
    let durable = |sent: &v1::Submission| sent.durability() == v1::Durability::Quorum && !sent.blocking;
    assert!(!sent.is_empty() && sent.iter().all(durable));
    let first: Value = serde_json::from_slice(&sent[0].payload).unwrap();
    assert_eq!(first["stamp"], true);
}

#[tokio::test]
async fn no_arrival_waits_for_the_answer_to_an_earlier_one() {
    let fakes = echo().await;
    fakes[0].with(|state| state.mode = Mode::Silent);
    let args = short(&["--rate", "100", "--cold", "--timeout", "1s", "--json", "-"]);
    let (text, _) = run(&fakes, &args, 1).await;
    let report: Value = serde_json::from_str(&text).unwrap();
    let run = &report["runs"][0];
    assert_eq!(
        (&run["due"], &run["failed"], &run["held_back"]),
        (&50.into(), &50.into(), &0.into()),
        "{run}"
    );
    assert_eq!(run["errors"]["no result within the deadline"], 50);
    assert_eq!(
        fakes[0].submissions_now().len(),
        60,
        "those of the warm-up were sent too"
    );
}

#[tokio::test]
async fn a_load_that_gets_no_answer_is_still_offered_and_its_failures_are_told() {
    let fakes = echo().await;
    fakes[0].with(|state| state.mode = Mode::Silent);
    let args = short(&[
        "--rate",
        "100",
        "--cold",
        "--timeout",
        "300ms",
        "--under-way",
        "10",
        "--json",
        "-",
    ]);
    let (text, error) = run(&fakes, &args, 1).await;
    let report: Value = serde_json::from_str(&text).unwrap();
    let run = &report["runs"][0];
    assert_eq!(run["due"], 50, "nothing waits for an answer");
    assert_eq!((&run["done"], &run["achieved_per_s"]), (&0.into(), &0.0.into()));
    let sum = ["failed", "never_sent", "unfinished"].map(|what| run[what].as_u64().unwrap());
    assert_eq!(sum.iter().sum::<u64>(), 50, "{run}");
    assert!(
        run["held_back"].as_u64().unwrap() > 0,
        "ten were under way: {run}"
    );
    says(&error, &["nothing ended well"]);
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused() {
    let (_, error) = run(&[], &["bench", "run", "--actions", "1", "--namespaces", "2"], 2).await;
    says(&error, &["--namespaces 2", "--actions 1"]);
    let (_, error) = run(&[], &["bench", "run", "--watch", "scheduler"], 2).await;
    says(&error, &["scheduler=4711"]);
    let (_, error) = run(&[], &["bench", "run", "--json", "/does/not/exist/report.json"], 2).await;
    says(&error, &["/does/not/exist/report.json"]);
    let (_, error) = run(&[], &["bench", "run", "--invokers", "1"], 2).await;
    says(&error, &["required arguments were not provided", "--start"]);
    let (_, error) = run(&[], &["bench", "run", "--fresh"], 2).await;
    says(&error, &["--start"]);
    let fakes = echo().await;
    let (_, error) = run(&fakes, &["bench", "run", "--watch", "scheduler=4294967295"], 2).await;
    says(&error, &["no process 4294967295"]);
}

#[test]
fn a_cluster_of_its_own_gives_a_figure_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("cluster");
    let args = [
        "bench",
        "run",
        "--start",
        "--dir",
        home.to_str().unwrap(),
        "--invokers",
        "1",
        "--rate",
        "50",
        "--time",
        "1s",
        "--warm-up",
        "200ms",
        "--actions",
        "4",
        "--namespaces",
        "2",
        "--duration",
        "0.5",
        "--durable",
        "50",
        "--json",
        "-",
    ];
    let output = command(&[], &args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    says(
        &error,
        &[
            "started 3 schedulers and 1 simulated invokers",
            "4 actions run once",
        ],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = &report["runs"][0];
    assert_eq!((&run["due"], &run["unstamped"]), (&50.into(), &0.into()), "{run}");
    assert!(run["done"].as_u64().unwrap() > 0, "{run}");
    for kind in [
        "queueing",
        "end_to_end",
        "durable_acceptance",
        "durable_queueing",
        "durable_end_to_end",
    ] {
        assert!(
            run["latency"][kind]["count"].as_u64().unwrap() > 0,
            "{kind}: {run}"
        );
    }
    let roles = &run["used"]["roles"];
    // Each scheduler with its supervisor.
    assert_eq!(
        (&roles["scheduler"]["processes"], &roles["invoker"]["processes"]),
        (&6.into(), &1.into())
    );
    assert_eq!(roles["scheduler"]["gone"], 0);
    assert!(roles["scheduler"]["resident_mib"].as_f64().unwrap() > 1.0);
}

#[test]
fn the_wire_alone_gives_every_record_back() {
    let args = [
        "bench",
        "echo",
        "--in-flight",
        "1,64",
        "--payload",
        "100",
        "--time",
        "300ms",
        "--warm-up",
        "50ms",
        "--runs",
        "2",
        "--json",
        "-",
    ];
    let output = command(&[], &args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    says(&error, &["ready per frame, 64 in flight: run 2 of 2"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(
        cases.len(),
        4,
        "one and 64 in flight, one and what is ready per frame"
    );
    for case in cases {
        for run in case["runs"].as_array().unwrap() {
            assert!(run["done"].as_u64().unwrap() > 0, "{run}");
            assert_eq!((&run["wrong"], &run["lost"]), (&0.into(), &0.into()), "{run}");
            assert_eq!(run["sent"], run["done"], "{run}");
            for role in ["server", "worker"] {
                let usage = &run["used"]["roles"][role];
                assert_eq!((&usage["processes"], &usage["gone"]), (&1.into(), &0.into()));
            }
        }
        assert!(
            case["summary"]["latency.end_to_end.p50_ms"]["median"]
                .as_f64()
                .unwrap()
                > 0.0
        );
    }
}

#[test]
fn the_wire_alone_keeps_a_rate_over_several_servers() {
    let args = [
        "bench",
        "echo",
        "--rate",
        "100,400",
        "--servers",
        "2",
        "--per-frame",
        "ready",
        "--time",
        "500ms",
        "--warm-up",
        "50ms",
        "--json",
        "-",
    ];
    let output = command(&[], &args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    says(&error, &["ready per frame, 400 per second: run 1 of 1"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for (case, rate) in cases.iter().zip([100, 400]) {
        assert_eq!(case["per_second"], rate);
        let run = &case["runs"][0];
        assert_eq!(
            (&run["sent"], &run["done"]),
            (&(rate / 2).into(), &(rate / 2).into())
        );
        assert_eq!((&run["wrong"], &run["lost"]), (&0.into(), &0.into()), "{run}");
        for role in ["server", "worker"] {
            let usage = &run["used"]["roles"][role];
            assert_eq!((&usage["processes"], &usage["gone"]), (&2.into(), &0.into()));
        }
        let (there, back) = (&run["there"]["p50_ms"], &run["latency"]["p50_ms"]);
        assert!(there.as_f64().unwrap() < back.as_f64().unwrap(), "{run}");
    }
}

#[test]
fn what_was_started_ends_with_a_measurement_that_is_killed() {
    let args = ["bench", "echo", "--time", "1h"];
    let mut child = command(&[], &args).stderr(Stdio::piped()).spawn().unwrap();
    // It says so once both processes are there.
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("run 1 of 1"), "{line}");
    let tasks = format!("/proc/{0}/task/{0}/children", child.id());
    let children = std::fs::read_to_string(tasks).unwrap();
    let open = |pid: &str| {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        pidfd_open(pid, PidfdFlags::empty()).unwrap()
    };
    let started: Vec<_> = children.split_whitespace().map(open).collect();
    assert_eq!(started.len(), 2, "{children}");
    child.kill().unwrap();
    child.wait().unwrap();
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    for process in &started {
        let ended = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)).unwrap();
        assert_eq!(ended, 1, "it still runs");
    }
}
