//! Schedulers are killed under load: nothing is lost, nothing runs twice, nobody has to help.

use std::time::Duration;

use whiskraft_cluster_tests::{Cluster, ClusterOptions, Load, percentile, until};

const CALLERS: u64 = 8;
/// Calls that must end between two faults, so that load overlaps each of them.
const CALLS_BETWEEN: u64 = 200;
const PROGRESS_LIMIT: Duration = Duration::from_secs(30);

async fn progress(load: &Load, calls: u64) -> Duration {
    let wanted = load.done() + calls;
    until("calls go on", PROGRESS_LIMIT, async || {
        (load.done() >= wanted).then_some(())
    })
    .await
    .1
}

/// F01: each scheduler in turn is killed and restarted, 20 rounds, with callers at work all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scheduler_killed_in_turn_loses_nothing() {
    const ROUNDS: u64 = 20;

    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let client = cluster.client().await;
    cluster.put_recorder(&client).await;
    let load = Load::start(&client, CALLERS, 5);
    progress(&load, CALLS_BETWEEN).await;
    let mut leaders_killed = 0;
    for round in 0..ROUNDS {
        let victim = round % 3 + 1;
        leaders_killed += u64::from(cluster.leader_of(&client, "guest/record").await == victim);
        cluster.kill_scheduler(victim);
        progress(&load, CALLS_BETWEEN).await;
        cluster.start_scheduler(victim);
        until(
            "the restarted scheduler holds a session",
            PROGRESS_LIMIT,
            async || {
                let status = cluster.status_of(victim).await?;
                (!status.fenced && status.nodes.iter().all(|node| node.session.is_some())).then_some(())
            },
        )
        .await;
        progress(&load, CALLS_BETWEEN).await;
    }
    let report = load.finish().await;
    println!(
        "rounds={ROUNDS} queue leaders killed={leaders_killed} right={} lost={} wrong={} gap_max={:?} p50={:?} p99={:?} max={:?}",
        report.right,
        report.lost.len(),
        report.wrong.len(),
        report.gap_max,
        percentile(&report.latencies, 0.5),
        percentile(&report.latencies, 0.99),
        percentile(&report.latencies, 1.0),
    );
    report.assert_exact(&cluster.recorder);
    assert!(
        leaders_killed >= 3,
        "only {leaders_killed} of the kills hit the queue's leader"
    );
    assert!(
        report.right >= ROUNDS * CALLS_BETWEEN,
        "too few calls to judge: {}",
        report.right
    );
}

/// All schedulers die in the same moment and come back: they serve again by themselves, with everything stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_schedulers_killed_at_once_serve_again() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let client = cluster.client().await;
    cluster.put_recorder(&client).await;
    let load = Load::start(&client, CALLERS, 5);
    progress(&load, CALLS_BETWEEN).await;
    (1..=3).for_each(|id| cluster.kill_scheduler(id));
    (1..=3).for_each(|id| cluster.start_scheduler(id));
    let back = progress(&load, 1).await;
    progress(&load, CALLS_BETWEEN).await;
    let report = load.finish().await;
    println!(
        "first result {back:?} after the restart, right={} gap_max={:?}",
        report.right, report.gap_max
    );
    report.assert_exact(&cluster.recorder);
    assert!(
        client.get_action(&"guest/record".parse().unwrap()).await.is_ok(),
        "the action is still stored"
    );
}
