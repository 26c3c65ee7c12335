//! F20: a scheduler dies at each step of durable acceptance and completion. Before the answer the same id settles what
//! happened; after it nothing is lost; at no step does anything run twice.
//!
//! `WHISKRAFT_POINT` chooses steps by a part of their name, `WHISKRAFT_ROUNDS` how often each is taken. Needs a binary with the feature `failpoints`, which `scripts/cluster-tests.sh` builds beside the release one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, DurableLoad, Fate, Judgement, Operation, Work, binary, judge, machine, size,
    tenants, until,
};

const INVOKERS: u64 = 4;
const QUEUES: usize = 6;
const LIMIT: Duration = Duration::from_secs(60);
/// Times that the step is passed before it kills: the crash meets work in every state.
const PASSED: u32 = 40;
/// A submitter's fate is known again so soon after the crash.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// Steps of acceptance and completion, in their order.
const POINTS: [&str; 8] = [
    "lane-append-before",
    "lane-append-after",
    "acceptance-written",
    "accepted-before-sent",
    "deliver-before-sent",
    "end-before-journaled",
    "end-written",
    "completed-before-sent",
];

/// What came of one crash.
struct Row {
    point: &'static str,
    crashed_after: Duration,
    slowest: Duration,
    judgement: Judgement,
}

/// The binary with failpoints, beside the plain one.
fn failing_binary() -> Option<PathBuf> {
    let path = binary().with_file_name("whiskraft-failpoints");
    if !path.is_file() {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
        println!("not run: {} is missing", path.display());
        return None;
    }
    Some(path)
}

async fn crash_at(cluster: &mut Cluster, failing: &Path, point: &'static str, nth: u64) -> Row {
    let victim = nth % 3 + 1;
    cluster.stop_scheduler(victim).await;
    let member = cluster.schedulers.get_mut(&victim).expect("a scheduler");
    member.set_binary(Some(failing.to_path_buf()));
    member.set_env(vec![(
        "FAILPOINTS".to_owned(),
        format!("{point}={PASSED}*off->panic"),
    )]);
    cluster.start_scheduler(victim);
    cluster.healed().await;
    let clients = cluster.clients(2).await;
    // New queues go to whoever leads the fewest, which is the one that just came.
    let queues = tenants::put_queues(&clients[0], &format!("at{nth}x"), QUEUES, 8).await;
    let load = DurableLoad::start(clients, Work::new(queues, 64, 20_000));
    let dead = async || {
        let member = cluster.schedulers.get_mut(&victim)?;
        (!member.is_running()).then_some(())
    };
    let (_, crashed_after) = until(&format!("the scheduler dies {point}"), LIMIT, dead).await;
    let crash = load.elapsed();
    cluster.kill_scheduler(victim);
    let member = cluster.schedulers.get_mut(&victim).expect("a scheduler");
    member.set_binary(None);
    member.set_env(Vec::new());
    cluster.start_scheduler(victim);
    cluster.healed().await;
    let history = load.finish().await;
    let judgement = judge(cluster, &history, &BTreeMap::new()).await;
    let met = |one: &&Operation| one.began < crash && one.began + one.took > crash;
    let slowest = history
        .iter()
        .filter(met)
        .map(|one| (one.began + one.took).saturating_sub(crash))
        .max();
    let open = history.iter().filter(|one| one.fate != Fate::Accepted).count();
    assert_eq!(open, 0, "{point}: every fate is settled in the end");
    Row {
        point,
        crashed_after,
        slowest: slowest.unwrap_or_default(),
        judgement,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_each_step_loses_nothing_and_repeats_nothing() {
    let Some(failing) = failing_binary() else { return };
    let mut cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts()).await;
    let mut rows = Vec::new();
    let chosen = std::env::var("WHISKRAFT_POINT").unwrap_or_default();
    for round in 0..size("WHISKRAFT_ROUNDS", 1) {
        for (nth, point) in (0..).zip(POINTS).filter(|(_, point)| point.contains(&chosen)) {
            let nth = round * POINTS.len() as u64 + nth;
            rows.push(crash_at(&mut cluster, &failing, point, nth).await);
        }
    }
    for row in rows.iter().filter(|row| !row.judgement.is_kept()) {
        println!("{}: {:#?}", row.point, row.judgement);
    }
    println!("crash at each step ({}):", machine());
    println!(
        "  {:<34} {:>9} {:>9} {:>9} {:>5} {:>5} {:>8}",
        "step", "crash at", "accepted", "settled", "lost", "twice", "resubmit"
    );
    for row in &rows {
        let found = &row.judgement;
        println!(
            "  {:<34} {:>9.1?} {:>9} {:>9.1?} {:>5} {:>5} {:>8}",
            row.point,
            row.crashed_after,
            found.accepted,
            row.slowest,
            found.lost.len(),
            found.started_twice.len(),
            found.resubmitted
        );
    }
    for row in &rows {
        row.judgement.assert_kept();
    }
    for row in &rows {
        assert!(
            row.slowest < SETTLED_WITHIN,
            "{}: settled after {:?}",
            row.point,
            row.slowest
        );
    }
}
