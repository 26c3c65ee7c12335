//! A scheduler that was cut off for longer than the log is kept catches up by a snapshot, with load going on.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use whiskraft_cluster_tests::{Cluster, ClusterOptions, Load, until};
use whiskraft_types::NamespaceLimits;

/// Log entries that the follower misses.
const ENTRIES: u64 = 10_000;
/// Proposals in flight, so that the test takes seconds.
const IN_FLIGHT: usize = 64;
const CALLS_PER_PHASE: u64 = 100;
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for calls to go on: load overlaps every phase.
async fn progress(load: &Load) {
    let wanted = load.done() + CALLS_PER_PHASE;
    until("calls go on", LIMIT, async || {
        (load.done() >= wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_cut_off_for_ten_thousand_entries_catches_up_by_snapshot() {
    let set = ["raft.snapshot-logs=2000", "raft.logs-kept=1000"]
        .map(str::to_owned)
        .to_vec();
    let mut cluster = Cluster::start(ClusterOptions {
        set,
        ..ClusterOptions::default()
    })
    .await;
    let client = cluster.client().await;
    cluster.put_recorder(&client).await;
    let leader = cluster.status_of(1).await.unwrap().raft.leader.unwrap().0;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let load = Load::start(&client, 4, 5);
    progress(&load).await;

    let before = cluster.status_of(follower).await.unwrap().raft;
    cluster.cut_off(follower);
    stream::iter(0..ENTRIES)
        .for_each_concurrent(IN_FLIGHT, |n| {
            let client = client.clone();
            async move {
                let namespace = format!("filler-{}", n % 100).parse().unwrap();
                let limits = NamespaceLimits::containers(1 + u32::try_from(n).unwrap() / 100);
                client.put_namespace(&namespace, &limits).await.expect("written");
            }
        })
        .await;
    progress(&load).await;
    let ahead = cluster.status_of(leader).await.unwrap().raft;
    assert!(
        ahead.purged > before.last_log,
        "the log that the follower misses is gone: {ahead:?}"
    );

    cluster.switchboard.heal();
    let (after, took) = until("the follower has caught up", LIMIT, async || {
        let status = cluster.status_of(follower).await?;
        (status.raft.applied >= ahead.applied && !status.fenced).then_some(status.raft)
    })
    .await;
    assert!(
        after.snapshot > before.last_log,
        "by snapshot, not by log: {after:?}"
    );
    progress(&load).await;
    let report = load.finish().await;
    println!(
        "entries={ENTRIES} caught up in {took:?}: before {before:?}, after {after:?}; load right={} gap_max={:?}",
        report.right, report.gap_max
    );
    report.assert_exact(&cluster.recorder);
    // It takes part again: with the other follower gone the two that are left are a majority.
    let third = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();
    cluster.kill_scheduler(third);
    cluster.serves().await;
}
