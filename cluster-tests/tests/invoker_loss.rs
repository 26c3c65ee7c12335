//! An invoker dies with work in its hands: callers learn it soon, slots come back, limits hold at every revision.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use whiskraft_client::InvokeOptions;
use whiskraft_cluster_tests::{Cluster, ClusterOptions, Deadline, SlotWatch, until};
use whiskraft_types::{ActivationStatus, NamespaceLimits, NamespaceName};

/// Activations under way when the invoker dies.
const RUNNING: u64 = 20;
/// Container limit of the namespace; the same number, so that one slot too many would show.
const LIMIT: u32 = 20;
/// Session TTL and a second for detection and delivery.
const ERROR_LIMIT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_invoker_ends_its_activations_within_ttl() {
    let options = ClusterOptions {
        invoker_set: vec!["invoker.pool.memory=6GiB".to_owned()],
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let guest: NamespaceName = "guest".parse().unwrap();
    client
        .put_namespace(&guest, &NamespaceLimits::containers(LIMIT))
        .await
        .unwrap();
    cluster.put_recorder(&client).await;
    let slots = SlotWatch::start(&client, &guest).await;

    let mut calls = JoinSet::new();
    for n in 0..RUNNING {
        let (client, guest) = (client.clone(), guest.clone());
        calls.spawn(async move {
            let arguments = json!({"n": n, "sleep_ms": 50_000});
            client
                .invoke(
                    &guest,
                    &"guest/record".parse().unwrap(),
                    arguments,
                    InvokeOptions::default(),
                )
                .await
        });
    }
    until("all run", Duration::from_secs(60), async || {
        (cluster.recorder.runs().len() as u64 == RUNNING).then_some(())
    })
    .await;

    let killed = Deadline::after(ERROR_LIMIT);
    cluster.kill_invoker(1);
    let mut slowest = Duration::ZERO;
    while let Some(call) = calls.join_next().await {
        let record = call.unwrap().expect("a record, not a broken call");
        slowest = slowest.max(killed.elapsed());
        assert_eq!(record.status, ActivationStatus::WhiskError);
        assert!(
            String::from_utf8_lossy(&record.result).contains("invoker 1"),
            "{record:?}"
        );
    }
    assert!(slowest < ERROR_LIMIT, "the slowest error took {slowest:?}");
    let (_, freed) = until("slots are free", ERROR_LIMIT, async || {
        (slots.slots().now == 0).then_some(())
    })
    .await;
    let seen = slots.slots();
    println!(
        "{RUNNING} typed errors, slowest {slowest:?} after the kill; slots free {freed:?} later; {seen:?}"
    );
    assert_eq!(
        seen.most, LIMIT as usize,
        "the limit is reached and never exceeded"
    );

    cluster.start_invoker(1);
    cluster.invokers_are(1).await;
    let record = client
        .invoke(
            &guest,
            &"guest/record".parse().unwrap(),
            json!({"n": 99}),
            InvokeOptions::default(),
        )
        .await
        .expect("the namespace has room again");
    assert_eq!(record.status, ActivationStatus::Success);
    assert!(slots.slots().most <= LIMIT as usize);
    let runs = cluster.recorder.runs_per_id();
    assert!(
        runs.values().all(|count| *count == 1),
        "nothing ran again: {runs:?}"
    );
}
