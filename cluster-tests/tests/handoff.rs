//! A queue with ten thousand waiting activations is given to another scheduler while it is served: nothing is lost, nothing
//! runs twice, and the order stays.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use whiskraft_client::{Client, Durability, Invocation, InvokeOptions};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, Deadline, machine, percentile, until};
use whiskraft_types::{ActivationStatus, NamespaceName};

const COUNT: u64 = 10_000;
/// Above the time that one container takes for all of them.
const LIMIT: Duration = Duration::from_secs(500);

/// Submits all of them, each after the one before was accepted, so that their numbers are the order of acceptance. The first
/// runs until the gate is there, and everything else waits behind it.
async fn submit_in_order(client: &Client, gate: &Path) -> Vec<Invocation> {
    let namespace: NamespaceName = "guest".parse().expect("a valid name");
    let action = "guest/record".parse().expect("a valid name");
    let mut submitted = Vec::new();
    for n in 0..COUNT {
        let options = InvokeOptions {
            deadline: LIMIT,
            durability: Durability::Memory,
            ..InvokeOptions::default()
        };
        let arguments = if n == 0 {
            json!({"n": n, "gate": gate.display().to_string()})
        } else {
            json!({"n": n})
        };
        let invocation = client.submit(&namespace, &action, arguments, options).await;
        submitted.push(invocation.unwrap_or_else(|error| panic!("submission {n}: {error}")));
    }
    submitted
}

/// When each ended.
async fn ends(submitted: Vec<Invocation>, clock: Deadline) -> Vec<Duration> {
    let end = |mut invocation: Invocation| async move {
        let id = invocation.id();
        let record = invocation.result().await;
        let record = record.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(record.status, ActivationStatus::Success, "{id}");
        clock.elapsed()
    };
    join_all(submitted.into_iter().map(end)).await
}

async fn move_queue(cluster: &Cluster, to: u64) -> Value {
    let output = cluster
        .command(&["queue", "move", "record", "--to", &to.to_string(), "--json"])
        .await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).expect("the answer is JSON")
}

/// F21 without a fault besides: the queue goes once round all three schedulers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_that_wait_move_under_load_in_their_order() {
    let options = ClusterOptions::default()
        .with("scheduler.queue.len-max=20000")
        .with("scheduler.submit.window=20000")
        .with("scheduler.queue.retention=10m")
        .with("scheduler.balance.enabled=false");
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    cluster.put_recorder_alone(&client).await;
    let gate = cluster.dir().join("gate");
    let submitted = submit_in_order(&client, &gate).await;
    let clock = Deadline::after(LIMIT);
    let ending = tokio::spawn(ends(submitted, clock));
    std::fs::write(&gate, "").expect("the gate opens");
    let first = cluster.leader_of(&client, "guest/record").await;
    let mut moves = Vec::new();
    for step in 0..3 {
        let to = (first + step) % 3 + 1;
        let before = cluster.recorder.runs().len();
        let at = clock.elapsed();
        let moved = move_queue(&cluster, to).await;
        moves.push((at, moved));
        until("it is served again", LIMIT, async || {
            (cluster.recorder.runs().len() > before + 300).then_some(())
        })
        .await;
    }
    let mut ended = ending.await.expect("nothing panics there");
    let runs = cluster.recorder.runs();
    let out_of_order: Vec<_> = runs.windows(2).filter(|pair| pair[0].n > pair[1].n).collect();
    ended.sort_unstable();
    let mut gaps: Vec<Duration> = ended.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let around = |at: Duration| {
        let pairs = ended.windows(2);
        let near = pairs.filter(|pair| pair[1] >= at && pair[0] <= at + Duration::from_secs(2));
        near.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    gaps.sort_unstable();
    println!(
        "hand-over under load ({}): {COUNT} waiting, one container",
        machine()
    );
    for (at, moved) in &moves {
        println!(
            "  {moved}; longest time without a result around it {:?}",
            around(*at)
        );
    }
    println!(
        "  time between results: p50 {:?} p99 {:?} max {:?}; out of order {}",
        percentile(&gaps, 0.5),
        percentile(&gaps, 0.99),
        percentile(&gaps, 1.0),
        out_of_order.len()
    );
    let ids: BTreeSet<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(
        (runs.len() as u64, ids.len() as u64),
        (COUNT, COUNT),
        "each runs once"
    );
    assert!(
        out_of_order.is_empty(),
        "out of order: {:?}",
        out_of_order.first()
    );
    let went: Vec<u64> = moves
        .iter()
        .filter_map(|(_, moved)| moved["activations"].as_u64())
        .collect();
    assert!(
        went[0] >= COUNT - COUNT / 100,
        "too little waited when the queue moved: {went:?}"
    );
}
