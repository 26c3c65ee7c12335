//! The commands of `whiskraft bench` that measure one property each, on small clusters of their own.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;
mod support;

use serde_json::Value;
use support::{run, says};

/// The only run of a measurement, and what it says to people meanwhile.
async fn measured(args: &str) -> (Value, String) {
    let args: Vec<&str> = args.split_whitespace().chain(["--json", "-"]).collect();
    let (text, error) = run(&[], &args, 0).await;
    let mut report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["place"]["started_here"], true);
    let run = report["runs"][0].take();
    assert_eq!(run["failed"], 0, "{run}");
    (run, error)
}

fn count(run: &Value, kind: &str) -> u64 {
    run["latency"][kind]["count"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn documents_are_stored_by_all_clients() {
    for what in ["action", "namespace"] {
        let args = format!("bench puts --clients 4 --what {what} --time 500ms --warm-up 100ms");
        let (run, _) = measured(&args).await;
        assert!(run["figures"]["puts_per_s"].as_f64().unwrap() > 0.0, "{run}");
        assert_eq!(run["done"], count(&run, "put"));
    }
}

#[tokio::test]
async fn every_watcher_sees_every_change() {
    let (run, _) = measured("bench watch --watchers 6 --per-connection 2 --time 1s --warm-up 100ms").await;
    assert_eq!(run["figures"]["not_seen"], 0.0, "{run}");
    assert_eq!((count(&run, "watched"), count(&run, "put")), (300, 50), "{run}");
}

#[tokio::test]
async fn idle_queues_are_made_and_looked_at() {
    let (run, error) = measured("bench idle --queues 60 --time 300ms --warm-up 100ms").await;
    assert_eq!(run["done"], 60);
    assert!(
        run["figures"]["scheduler_resident_max_mb"].as_f64().unwrap() > 1.0,
        "{run}"
    );
    says(&error, &["60 queues made"]);
}

#[tokio::test]
async fn first_activations_have_stages() {
    let (run, _) =
        measured("bench run --start --cold --once --stages --rate 20 --time 1s --warm-up 500ms").await;
    let kinds = ["leading", "reserving", "placing", "starting", "queueing"];
    let counts = kinds.map(|kind| count(&run, kind));
    assert_eq!(counts, [20; 5], "{run}");
}

#[tokio::test]
async fn a_lost_invoker_leaves_the_rotation_and_comes_back() {
    for more in ["", "--freeze --busy 1"] {
        let args = format!("bench lose invoker --times 2 --pause 200ms {more}");
        let (run, error) = measured(&args).await;
        let counts = ["out_of_rotation", "expired"].map(|kind| count(&run, kind));
        assert_eq!(counts, [2, 2], "{run}");
        says(&error, &["invoker-1 lost", "invoker-2 lost"]);
    }
}

#[tokio::test]
async fn queues_of_a_lost_leader_go_on() {
    for more in ["", "--freeze"] {
        let args = format!("bench lose scheduler --times 1 --pause 200ms --queues 6 --rate 60 {more}");
        let (run, _) = measured(&args).await;
        assert!(count(&run, "takeover") > 0, "{run}");
        assert_eq!(run["figures"]["losses"], 1.0);
    }
}

#[tokio::test]
async fn queues_work_again_after_all_schedulers_were_killed() {
    let (run, _) = measured("bench restart --queues 20").await;
    assert_eq!((&run["done"], count(&run, "usable")), (&20.into(), 20), "{run}");
}
