//! F23: activations are cancelled at any moment of their life, while leaders of their queues die.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::json;
use whiskraft_client::{CancelOutcome, Client, InvokeOptions};
use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, Deadline, Spread, drawn, machine, pass, size, tenants, until,
};
use whiskraft_types::{ActivationId, QueueKey};

const INVOKERS: u64 = 4;
const QUEUES: usize = 3;
/// Few, so that many wait.
const CONTAINERS: u32 = 4;
const AT_ONCE: usize = 48;
const RUN_MS_MAX: u64 = 300;
/// Latest moment of a cancel, after the acknowledgement: some come too late.
const CANCEL_MS_MAX: u64 = 1500;
const LIMIT: Duration = Duration::from_secs(60);

/// One activation that was cancelled.
#[derive(Debug)]
struct Cancelled {
    id: ActivationId,
    key: QueueKey,
    outcome: CancelOutcome,
    /// From the answer until its record could be read.
    settled: Duration,
    is_cancelled: bool,
}

/// Submits, cancels at some moment, asks twice, and waits for the record.
async fn one(client: &Client, key: QueueKey, n: u64) -> Cancelled {
    let (namespace, action) = (&key.namespace, &key.action);
    let arguments = json!({"n": n, "sleep_ms": drawn(n) % RUN_MS_MAX});
    let submitted = client
        .submit(namespace, action, arguments, InvokeOptions::default())
        .await;
    let id = submitted.expect("accepted").id();
    pass(Duration::from_millis(drawn(n + 1_000_000) % CANCEL_MS_MAX)).await;
    let cancel = async || client.cancel(namespace, id).await.ok();
    let (outcome, _) = until("a cancel is answered", LIMIT, cancel).await;
    let clock = Deadline::after(LIMIT);
    let record = client.result(namespace, id, LIMIT).await;
    let record = record.unwrap_or_else(|error| panic!("{id} after {outcome:?}: {error}"));
    let settled = clock.elapsed();
    // The record can be read a moment before the leader of the queue hears that it is written.
    let ended = async || cancel().await.filter(|outcome| *outcome == CancelOutcome::Ended);
    until("a second cancel finds it ended", LIMIT, ended).await;
    Cancelled {
        id,
        key,
        outcome,
        settled,
        is_cancelled: record.cancelled,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_activation_ends_once_and_starts_only_if_it_was_not_told_otherwise() {
    let count = size("WHISKRAFT_CANCELS", 600);
    let mut cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts()).await;
    let client = cluster.client().await;
    let queues = tenants::put_queues(&client, "c", QUEUES, CONTAINERS).await;
    let over = Cell::new(false);
    let work = async {
        let all = (0..count).map(|n| {
            one(
                &client,
                queues[usize::try_from(n).unwrap_or(0) % QUEUES].clone(),
                n,
            )
        });
        let all = stream::iter(all)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        over.set(true);
        all
    };
    let faults = async {
        let mut kills = 0;
        while !over.get() {
            pass(Duration::from_secs(2)).await;
            let key = &queues[kills % QUEUES];
            let leader = cluster.leader_of(&client, key.action.as_str()).await;
            cluster.kill_scheduler(leader);
            pass(Duration::from_secs(3)).await;
            cluster.start_scheduler(leader);
            cluster.healed().await;
            kills += 1;
        }
        kills
    };
    let (all, kills) = tokio::join!(work, faults);

    let mut outcomes = BTreeMap::<String, usize>::new();
    all.iter()
        .for_each(|one| *outcomes.entry(format!("{:?}", one.outcome)).or_default() += 1);
    let of = |outcome| all.iter().filter(move |one| one.outcome == outcome);
    let starts = cluster.starts.by_id();
    println!(
        "cancelled ({}): {} activations, {kills} leaders killed, {outcomes:?}; record after the answer: before the start {}, \
         running {}",
        machine(),
        all.len(),
        Spread::of(of(CancelOutcome::BeforeStart).map(|one| one.settled)),
        Spread::of(of(CancelOutcome::Stopping).map(|one| one.settled)),
    );
    let started: Vec<_> = of(CancelOutcome::BeforeStart)
        .filter(|one| starts.contains_key(&one.id.to_string()))
        .collect();
    assert!(
        started.is_empty(),
        "told that it never starts, and started: {started:?}"
    );
    let kept: Vec<_> = of(CancelOutcome::BeforeStart)
        .filter(|one| !one.is_cancelled)
        .collect();
    assert!(
        kept.is_empty(),
        "told that it never starts, and ended otherwise: {kept:?}"
    );
    let twice: Vec<_> = starts
        .values()
        .filter(|starts| starts.len() > 1)
        .take(3)
        .collect();
    assert!(twice.is_empty(), "started twice: {twice:?}");
    let stranger = tenants::namespace("c", QUEUES);
    let last = all.last().expect("activations");
    assert_ne!(stranger, last.key.namespace);
    let answer = client.cancel(&stranger, last.id).await.expect("an answer");
    assert_eq!(answer, CancelOutcome::Unknown, "it is of another namespace");
    for outcome in [
        CancelOutcome::BeforeStart,
        CancelOutcome::Stopping,
        CancelOutcome::Ended,
    ] {
        assert!(of(outcome).count() > 0, "never seen: {outcome:?} of {outcomes:?}");
    }
}
