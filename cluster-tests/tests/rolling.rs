//! All schedulers are restarted one after the other while callers are at work, also as another build of the program and back:
//! nobody notices.
//!
//! `WHISKRAFT_BIN_OLD` names the other build.

use std::time::Duration;

use whiskraft_client::Client;
use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, Load, Spread, binary, ensure_queues, machine, old_binary, tenants, until,
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

/// Stores what is called and what else there is, and starts the callers.
async fn load(cluster: &Cluster, client: &Client) -> Load {
    cluster.put_recorder(client).await;
    let other = tenants::namespace("other", 0);
    let keys: Vec<_> = (0..QUEUES).map(|n| tenants::queue(&other, n)).collect();
    tenants::put_actions(
        client,
        keys.iter().map(|key| (key.clone(), tenants::small(128, 1))),
    )
    .await;
    assert_eq!(ensure_queues(&cluster.endpoints(), keys).await, 0);
    // Half of what the machine does: each caller rests as long as it runs.
    Load::start(client, CALLERS, 10)
}

/// Waits until a scheduler that was started again takes part.
async fn is_back(cluster: &Cluster, id: u64) {
    until("the restarted scheduler holds a session", LIMIT, async || {
        let status = cluster.status_of(id).await?;
        (!status.fenced && status.nodes.iter().all(|node| node.session.is_some())).then_some(())
    })
    .await;
}

/// Ends the load and checks it.
async fn check(cluster: &Cluster, load: Load, moved: u64) {
    let left = REQUESTS.saturating_sub(load.done());
    progress(&load, left).await;
    let runs = cluster.recorder.runs();
    let containers: std::collections::BTreeSet<_> = runs.iter().map(|run| run.pid).collect();
    let report = load.finish().await;
    println!(
        "  {} queues, the loaded one moved {moved} times; right {} lost {} failed {:?} longest gap {:?}; containers {}; latency {}",
        QUEUES + 1,
        report.right,
        report.lost.len(),
        report.failed,
        report.gap_max,
        containers.len(),
        Spread::of(report.latencies.iter().copied()),
    );
    report.assert_exact(&cluster.recorder);
    assert!(moved >= 1, "the queue under load never had to move");
    assert!(
        report.right >= REQUESTS,
        "too few calls to judge: {}",
        report.right
    );
}

/// F37 with one version: each scheduler in turn is stopped in good order and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_request() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await;
    let client = cluster.client().await;
    let load = load(&cluster, &client).await;
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
        is_back(&cluster, id).await;
        progress(&load, REQUESTS / 6).await;
    }
    println!("rolling restart ({}): stopped within {stops:?}", machine());
    check(&cluster, load, led).await;
}

/// F37: each scheduler in turn is replaced by another build, and then all of them go back. One does not stop, it dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_and_the_way_back_fail_no_request() {
    let old = old_binary();
    let other = old
        .as_ref()
        .map_or("the same: WHISKRAFT_BIN_OLD names no other", |_| "another");
    println!("upgrade ({}): the build before is {other}", machine());
    let old = old.unwrap_or_else(binary);
    let mut cluster = Cluster::start(ClusterOptions {
        invokers: 2,
        binary: Some(old.clone()),
        ..ClusterOptions::default()
    })
    .await;
    // One invoker of each build.
    cluster.kill_invoker(2);
    cluster
        .invokers
        .get_mut(&2)
        .expect("two invokers")
        .set_binary(None);
    cluster.start_invoker(2);
    cluster.invokers_are(2).await;
    let client = cluster.client().await;
    let load = load(&cluster, &client).await;
    progress(&load, REQUESTS / 13).await;
    let mut led = 0;
    for (way, build) in [("there", None), ("back", Some(old))] {
        for id in 1..=3 {
            led += u64::from(cluster.leader_of(&client, "guest/record").await == id);
            if (way, id) == ("there", 2) {
                cluster.kill_scheduler(id);
            } else {
                cluster.stop_scheduler(id).await;
            }
            progress(&load, REQUESTS / 26).await;
            cluster
                .schedulers
                .get_mut(&id)
                .expect("a scheduler")
                .set_binary(build.clone());
            cluster.start_scheduler(id);
            is_back(&cluster, id).await;
            progress(&load, REQUESTS / 13).await;
        }
        let version = cluster.status_of(1).await.expect("a status").version;
        println!("  {way}: all of release {version} after {} calls", load.done());
    }
    check(&cluster, load, led).await;
}
