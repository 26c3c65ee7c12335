//! The operators' commands as a user meets them, against scripted schedulers: text, JSON, exit codes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use fake::{Fake, Seen, World, cluster, key, namespace_event, queue_event};
use serde_json::Value;
use support::{command, run, says};
use whiskraft_proto::v1;
use whiskraft_proto::v1::drain_response::Outcome;
use whiskraft_proto::v1::find_activation_response::State;

const ID: &str = "03030303030303030303030303030303";

fn queue(waiting: u64) -> v1::QueueStatus {
    v1::QueueStatus {
        queue: Some(v1::QueueInfo {
            key: Some((&key()).into()),
            leader: 1,
            epoch: 7,
            revision: 1,
            removed: false,
        }),
        state: "running".to_owned(),
        waiting,
        oldest_ms: 2310,
        containers_running: 30,
        wait_reason: v1::WaitReason::NamespaceLimit.into(),
        wait_detail: "30 of 30 containers".to_owned(),
        last_decision: "none: full".to_owned(),
        containers_limit: 30,
        ..Default::default()
    }
}

fn waits(fake: &Fake, reason: v1::WaitReason) {
    fake.with(|state| {
        state.operations.queues = v1::QueuesResponse {
            queues: vec![queue(41)],
            queues_total: 3,
            queues_matching: 3,
            waiting_total: 50,
            ..Default::default()
        };
        state.operations.explain = v1::ExplainResponse {
            found: Some(v1::FindActivationResponse {
                state: State::Waiting.into(),
                record: None,
                key: Some((&key()).into()),
                epoch: 7,
                ..Default::default()
            }),
            position: Some(12),
            waited_ms: 2310,
            attempt: 1,
            queue: Some(v1::QueueStatus {
                wait_reason: reason.into(),
                ..queue(41)
            }),
            ..Default::default()
        };
    });
}

async fn one() -> (World, Vec<Fake>) {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 7));
    waits(&fakes[0], v1::WaitReason::NamespaceLimit);
    (world, fakes)
}

#[tokio::test]
async fn queues_are_a_table_and_json() {
    let (_, fakes) = one().await;
    let (text, _) = run(&fakes, &["queues", "--wide"], 0).await;
    says(
        &text,
        &[
            "lib/hello of guest 1 7 running 41 2.31 s 30+0/30 - namespace-limit none: full",
            "1 of 3 queues shown; 50 activations wait",
            "2 more queues are not shown, those that wait less: see them with --limit 3",
        ],
    );
    let (text, _) = run(&fakes, &["queues", "--json"], 0).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["queues"][0]["wait_reason"], "namespace-limit");
    assert_eq!(json["answered"][0], 1);
}

#[tokio::test]
async fn a_watch_appends_where_there_is_no_terminal_and_ends_well_at_an_interrupt() {
    let (_, fakes) = one().await;
    let mut command = command(&fakes, &["queues", "--watch", "--interval", "10ms"]);
    let watch = tokio::task::spawn_blocking(move || {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut tables = lines
            .map(Result::unwrap)
            .filter(|line| line.trim_start().starts_with("lib/hello"));
        assert_eq!(tables.by_ref().take(3).count(), 3);
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        // Read to the end: a process whose reader is gone ends otherwise.
        tables.for_each(drop);
        child.wait().unwrap()
    });
    assert_eq!(watch.await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn an_explanation_tells_why_and_what_helps() {
    let (world, fakes) = one().await;
    world.log(namespace_event(30, false));
    let (text, _) = run(&fakes, &["explain", ID], 0).await;
    says(
        &text,
        &[
            "waits in the queue lib/hello of guest, 2.31 s so far",
            "12 activations are served before it",
            "uses all the containers it may (30 of 30 containers)",
            "raise the limit of 30 with: whiskraft namespace set guest --containers 60",
        ],
    );
    let (text, _) = run(&fakes, &["explain", ID, "--json"], 0).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["queue"]["wait_reason"], "namespace-limit");
    assert_eq!(
        (&json["state"], &json["position"]),
        (&"waiting".into(), &12.into())
    );
}

#[tokio::test]
async fn an_unknown_activation_is_a_no_that_says_what_it_can_mean() {
    let (_, fakes) = cluster(2).await;
    let (_, error) = run(&fakes, &["explain", ID], 1).await;
    says(&error, &["knows activation", "never accepted", "record is gone"]);
    // A scheduler that did not answer may know it: that is no definite no.
    fakes[1].die().await;
    let (_, error) = run(&fakes[..1], &["explain", ID], 4).await;
    says(&error, &["scheduler 2 did not answer and may know it"]);
}

#[tokio::test]
async fn a_drain_goes_on_until_no_queue_is_left() {
    let (_, fakes) = cluster(1).await;
    let left = |queues_left| Outcome::Drained(v1::Drained { queues_left });
    fakes[0].with(|state| state.operations.drain = vec![left(5), left(2), left(0)]);
    let (text, _) = run(&fakes, &["drain", "1"], 0).await;
    says(&text, &["scheduler 1 leads no queues", "--undo"]);
    fakes[0].with(|state| state.operations.drain = vec![left(5)]);
    let (text, _) = run(&fakes, &["drain", "1", "--wait", "0s", "--json"], 0).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["queues_left"], 5);
    let (_, error) = run(&fakes, &["drain", "1", "--wait", "300ms"], 1).await;
    says(&error, &["still leads 5 queues", "the order stands"]);
    let (text, _) = run(&fakes, &["drain", "1", "--undo"], 0).await;
    says(&text, &["is given queues again"]);
    let invalid = v1::rejection::Kind::Invalid(v1::Invalid {
        reason: "no other live scheduler could take the queues".to_owned(),
    });
    let refused = Outcome::Rejection(v1::Rejection { kind: Some(invalid) });
    fakes[0].with(|state| state.operations.drain = vec![refused]);
    let (_, error) = run(&fakes, &["drain", "1"], 1).await;
    says(&error, &["no other live scheduler could take the queues"]);
}

#[tokio::test]
async fn a_moved_queue_says_where_it_is_and_what_went_with_it() {
    use v1::move_queue_response::Outcome;

    let (_, fakes) = cluster(1).await;
    let moved = v1::MovedTo {
        epoch: 812,
        activations: 10_000,
        took_us: 43_400,
    };
    fakes[0].with(|state| state.operations.move_queue = Some(Outcome::Moved(moved)));
    let (text, _) = run(
        &fakes,
        &["queue", "move", "guest/hello", "-n", "anna", "--to", "2"],
        0,
    )
    .await;
    says(
        &text,
        &[
            "scheduler 2 leads queue",
            "epoch 812",
            "10000 activations",
            "43 ms",
        ],
    );
    let asked = fakes[0].with(|state| {
        state.seen.iter().find_map(|seen| match seen {
            Seen::MoveQueue(request) => Some(request.clone()),
            _ => None,
        })
    });
    let key = v1::QueueKey {
        namespace: "anna".to_owned(),
        action: "guest/hello".to_owned(),
    };
    assert_eq!(asked.unwrap().key, Some(key));
    let (text, _) = run(&fakes, &["queue", "move", "hello", "--to", "2", "--json"], 0).await;
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap()["activations"],
        10_000
    );
    let refused = v1::rejection::Kind::Invalid(v1::Invalid {
        reason: "scheduler 2 drains".to_owned(),
    });
    let refused = Outcome::Rejection(v1::Rejection { kind: Some(refused) });
    fakes[0].with(|state| state.operations.move_queue = Some(refused));
    let (_, error) = run(&fakes, &["queue", "move", "hello", "--to", "2"], 1).await;
    says(&error, &["scheduler 2 drains"]);
}

#[tokio::test]
async fn setting_one_limit_of_a_namespace_keeps_the_others() {
    let (world, fakes) = cluster(1).await;
    let (text, _) = run(&fakes, &["namespace", "get", "guest"], 0).await;
    says(
        &text,
        &[
            "at most 30 containers",
            "these are the defaults",
            "whiskraft namespace set guest",
        ],
    );
    let (text, _) = run(&fakes, &["namespace", "get", "guest", "--json"], 0).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["containers"], &json["defaults"]),
        (&30.into(), &true.into())
    );
    world.log(namespace_event(4, false));
    let (text, _) = run(&fakes, &["namespace", "set", "guest", "--containers", "9"], 0).await;
    let expected = "namespace guest: at most 9 containers, over-provision 150 % (up to 14 for actions that have none), at most 600 invocations per minute, weight 200";
    assert_eq!(text, expected);
    let args = ["namespace", "put", "guest", "--invocations-per-minute", "none"];
    run(&fakes, &args, 0).await;
    let (text, _) = run(&fakes, &["namespace", "list", "--json"], 0).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json[0]["containers"], 9);
    assert_eq!(json[0]["invocations_per_minute"], Value::Null);
    let (_, error) = run(&fakes, &["namespace", "set", "guest"], 2).await;
    says(&error, &["--containers"]);
}

#[tokio::test]
async fn an_invocation_that_cannot_start_says_why_while_it_waits_and_at_its_end() {
    let (_, fakes) = one().await;
    waits(&fakes[0], v1::WaitReason::NoInvoker);
    let fake = fakes[0].clone();
    let accepting = tokio::spawn(async move {
        let sent = fake.submissions(1).await;
        fake.accept(&sent[0].id).await;
    });
    let args = ["invoke", "lib/hello", "--timeout", "4500ms"];
    let (_, error) = run(&fakes, &args, 1).await;
    accepting.await.unwrap();
    assert_eq!(
        error
            .matches("does not run yet: it waits because no invoker")
            .count(),
        1,
        "once per reason: {error}"
    );
    assert_eq!(
        error.matches("no invoker runs this kind").count(),
        2,
        "and in the last words: {error}"
    );
    says(&error, &["whiskraft explain"]);
}

#[tokio::test]
async fn a_minority_says_that_there_is_no_quorum_and_who_was_asked() {
    let (_, fakes) = one().await;
    fakes[0].with(|state| {
        let node = |scheduler| v1::NodeStatus {
            member: Some(v1::MemberInfo {
                scheduler,
                ..Default::default()
            }),
            voter: true,
            ..Default::default()
        };
        state.operations.nodes = (1..=3).map(node).collect();
    });
    let (text, _) = run(&fakes, &["status"], 0).await;
    says(&text, &["NO QUORUM: 1 of 3 schedulers answered", "may be old"]);
    assert!(!text.contains("raft leader"), "{text}");
}

#[tokio::test]
async fn an_interval_of_nothing_is_refused_with_what_to_write() {
    for command in ["queues", "status"] {
        let (_, error) = run(&[], &[command, "--watch", "--interval", "0s"], 2).await;
        says(&error, &["longer than 0", "500ms"]);
    }
}
