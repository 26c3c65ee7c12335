//! F09: a scheduler that was cut off for longer than the logs are kept catches up by snapshots, with load going on.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::json;
use whiskraft_client::LaneStatus;
use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, DurableLoad, Load, Work, judge, machine, pass, tenants, until,
};
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
        was_sent_rows(&cluster, follower, None),
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

/// Whether a scheduler says that it has taken what it missed of the tables, or of a lane, as a whole. It says so before what it
/// took shows in its status.
fn was_sent_rows(cluster: &Cluster, scheduler: u64, lane: Option<u32>) -> bool {
    let log = std::fs::read_to_string(cluster.schedulers[&scheduler].log()).unwrap_or_default();
    let mut installed = log.lines().filter(|line| line.contains("snapshot installed"));
    installed.any(|line| match lane {
        Some(lane) => line.contains(&format!(" lane={lane} ")),
        None => !line.contains(" lane="),
    })
}

/// Lanes of one list that are, by a number of theirs, beyond what another list says that they had.
fn beyond(lanes: &[LaneStatus], number: fn(&LaneStatus) -> u64, others: &[LaneStatus]) -> Vec<u32> {
    let pairs = lanes.iter().zip(others);
    let beyond = pairs.filter(|(lane, other)| lane.lane == other.lane && number(lane) > other.last_log);
    beyond.map(|(lane, _)| lane.lane).collect()
}

/// The journal: the follower misses more of a lane than its log keeps, so that rows are sent; it is killed while it takes them.
/// A scheduler that leads two lanes writes to one of them, so not all need have gone on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_misses_the_lanes_logs_catches_up_by_their_rows() {
    const INVOKERS: u64 = 2;
    const FILL: usize = 64 << 10;
    const STEP: u64 = 100;
    /// Entries that a follower gets between a look and the cut, at most.
    const ON_THE_WAY: u64 = 16;

    let options = ClusterOptions::simulated(INVOKERS, "8GiB")
        .with("raft.lane-snapshot-bytes=1048576")
        .with("raft.lane-log-bytes=2097152")
        .recording_starts();
    let mut cluster = Cluster::start(options).await;
    let clients = cluster.clients(2).await;
    let queues = tenants::put_queues(&clients[0], "c", 6, 10).await;
    let mut work = Work::new(queues, 32, u64::MAX);
    work.more = |_| json!({"fill": "x".repeat(FILL)});
    let load = DurableLoad::start(clients, work);
    load.progress(STEP, LIMIT).await;

    let leader = cluster.raft_leader().await;
    let follower = (1..=3).find(|id| *id != leader).expect("a follower");
    let third = 6 - leader - follower;
    let before = cluster.status_of(follower).await.expect("status").raft.lanes;
    cluster.cut_off(follower);
    let gone = async || {
        let mut gone: Vec<u32> = before.iter().map(|lane| lane.lane).collect();
        for id in [leader, third] {
            let lanes = cluster.status_of(id).await?.raft.lanes;
            // What was on its way when it was cut off is there too.
            let there = beyond(&lanes, |lane| lane.purged.saturating_sub(ON_THE_WAY), &before);
            gone.retain(|lane| there.contains(lane));
        }
        (!gone.is_empty()).then_some(gone)
    };
    let (gone, _) = until("what it misses of a lane's log is gone", LIMIT, gone).await;
    let ahead = cluster.status_of(leader).await.expect("status").raft.lanes;

    cluster.switchboard.heal();
    for millis in [50, 150, 450] {
        pass(Duration::from_millis(millis)).await;
        cluster.kill_scheduler(follower);
        cluster.start_scheduler(follower);
    }
    let caught_up = async || {
        let lanes = cluster.status_of(follower).await?.raft.lanes;
        let there = beyond(&lanes, |lane| lane.applied + 1, &ahead);
        (there.len() == ahead.len()).then_some(lanes)
    };
    let (after, took) = until("the follower has caught up", LIMIT, caught_up).await;
    // It may have been killed between the rows and its word; its log begins after them then.
    let begins_later = beyond(&after, |lane| lane.purged, &before);
    let is_by_rows =
        |lane: &u32| was_sent_rows(&cluster, follower, Some(*lane)) || begins_later.contains(lane);
    assert!(
        gone.iter().all(is_by_rows),
        "by rows, not by log: {gone:?}, {after:?}"
    );
    load.progress(STEP, LIMIT).await;
    let history = load.finish().await;
    let judgement = judge(&cluster, &history, &BTreeMap::new()).await;
    println!(
        "lanes ({}): {gone:?} by rows, caught up {took:.1?} after the last of 3 kills, from {:?} to {:?}\n  {judgement}",
        machine(),
        before.iter().map(|lane| lane.last_log).collect::<Vec<_>>(),
        after.iter().map(|lane| lane.applied).collect::<Vec<_>>(),
    );
    judgement.assert_kept();
}
