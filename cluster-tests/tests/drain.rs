//! Each scheduler in turn is drained under load: nobody notices, and nothing of it is left.

use std::time::Duration;

use whiskraft_client::Client;
use whiskraft_client::watch::{ContainerState, Table, WatchEvent, WatchUpdate};
use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, Load, Spread, ensure_queues, machine, tenants, until,
};
use whiskraft_types::{SchedulerId, SessionId};

const CALLERS: u64 = 8;
const CALLS_BETWEEN: u64 = 200;
/// Queues besides the one under load.
const QUEUES: usize = 60;
const LIMIT: Duration = Duration::from_secs(30);

async fn progress(load: &Load, calls: u64) {
    let wanted = load.done() + calls;
    until("calls go on", LIMIT, async || {
        (load.done() >= wanted).then_some(())
    })
    .await;
}

/// Slots that a session reserved and no container uses yet, in a snapshot of now.
async fn jobs_of(client: &Client, session: SessionId) -> usize {
    let mut updates = client
        .watch(&[Table::Containers], None)
        .await
        .expect("the watch starts");
    let mut jobs = 0;
    while let Some(update) = updates.next().await {
        let WatchUpdate::Snapshot { events, last, .. } = update else {
            continue;
        };
        let own = events.iter().filter(|event| {
            matches!(event, WatchEvent::Container(info)
                if info.state == ContainerState::InProgress && info.container.session == session)
        });
        jobs += own.count();
        if last {
            break;
        }
    }
    jobs
}

async fn drained(cluster: &Cluster, client: &Client, id: u64) -> Duration {
    let number = id.to_string();
    let output = cluster.command(&["drain", &number]).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "drain {id}: {text}");
    until("it leads no queue and creates no container", LIMIT, async || {
        let status = client.status().await.ok()?;
        let node = status
            .nodes
            .iter()
            .find(|node| node.member.scheduler == SchedulerId(id))?;
        let session = node.session?;
        (node.queues == 0 && node.member.draining && jobs_of(client, session).await == 0).then_some(())
    })
    .await
    .1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scheduler_drained_in_turn_loses_nothing() {
    let cluster = Cluster::start(ClusterOptions::default()).await;
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
    let load = Load::start(&client, CALLERS, 5);
    progress(&load, CALLS_BETWEEN).await;

    let (mut times, mut led) = (Vec::new(), 0);
    for id in 1..=3 {
        led += u64::from(cluster.leader_of(&client, "guest/record").await == id);
        times.push(drained(&cluster, &client, id).await);
        progress(&load, CALLS_BETWEEN).await;
        let now = client.status().await.expect("a scheduler answers");
        assert_eq!(now.queues_total, QUEUES as u64 + 1, "no queue is lost");
        let undone = cluster.command(&["drain", &id.to_string(), "--undo"]).await;
        assert!(
            undone.status.success(),
            "{}",
            String::from_utf8_lossy(&undone.stderr)
        );
        progress(&load, CALLS_BETWEEN).await;
    }
    let report = load.finish().await;
    println!(
        "drain ({}): each of 3 schedulers in turn, {} queues; drained within {times:?}; the loaded queue moved {led} times\n  \
         right {} lost {} failed {:?} longest gap {:?}; latency {}",
        machine(),
        QUEUES + 1,
        report.right,
        report.lost.len(),
        report.failed,
        report.gap_max,
        Spread::of(report.latencies.iter().copied()),
    );
    report.assert_exact(&cluster.recorder);
    assert!(led >= 1, "the queue under load never had to move");
    assert!(
        report.right >= 3 * CALLS_BETWEEN,
        "too few calls to judge: {}",
        report.right
    );
}
