//! All schedulers are restarted one after the other while callers are at work: nobody notices.

use std::time::Duration;

use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, Load, Spread, ensure_queues, machine, tenants, until,
};

const CALLERS: u64 = 8;
/// Queues besides the one under load.
const QUEUES: usize = 60;
const REQUESTS: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(120);

async fn progress(load: &Load, calls: u64) {
    let wanted = load.done() + calls;
    until("calls go on", LIMIT, async || {
        (load.done() >= wanted).then_some(())
    })
    .await;
}

/// F37 with one version: each scheduler in turn is stopped in good order and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_request() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let client = cluster.client().await;
    cluster.put_recorder(&client).await;
    let other = tenants::namespace("other", 0);
    let keys: Vec<_> = (0..QUEUES).map(|n| tenants::queue(&other, n)).collect();
    tenants::put_actions(
        &client,
        keys.iter().map(|key| (key.clone(), tenants::small(128, 1))),
    )
    .await;
    assert_eq!(ensure_queues(&cluster.endpoints(), keys).await, 0);
    // Half of what the machine does: each caller rests as long as it runs.
    let load = Load::start(&client, CALLERS, 10);
    progress(&load, REQUESTS / 6).await;
    let (mut stops, mut led) = (Vec::new(), 0);
    for id in 1..=3 {
        led += u64::from(cluster.leader_of(&client, "guest/record").await == id);
        let (_, stopped) = until("it is stopped", LIMIT, async || {
            cluster.stop_scheduler(id).await;
            Some(())
        })
        .await;
        stops.push(stopped);
        progress(&load, REQUESTS / 12).await;
        cluster.start_scheduler(id);
        until("the restarted scheduler holds a session", LIMIT, async || {
            let status = cluster.status_of(id).await?;
            (!status.fenced && status.nodes.iter().all(|node| node.session.is_some())).then_some(())
        })
        .await;
        progress(&load, REQUESTS / 6).await;
    }
    let left = REQUESTS.saturating_sub(load.done());
    progress(&load, left).await;
    let containers = cluster
        .recorder
        .runs()
        .iter()
        .map(|run| run.pid)
        .collect::<std::collections::BTreeSet<_>>();
    let report = load.finish().await;
    println!(
        "rolling restart ({}): 3 schedulers, {} queues, stopped within {stops:?}; the loaded queue moved {led} times\n  \
         right {} lost {} failed {:?} longest gap {:?}; containers {}; latency {}",
        machine(),
        QUEUES + 1,
        report.right,
        report.lost.len(),
        report.failed,
        report.gap_max,
        containers.len(),
        Spread::of(report.latencies.iter().copied()),
    );
    report.assert_exact(&cluster.recorder);
    assert!(led >= 1, "the queue under load never had to move");
    assert!(
        report.right >= REQUESTS,
        "too few calls to judge: {}",
        report.right
    );
}
