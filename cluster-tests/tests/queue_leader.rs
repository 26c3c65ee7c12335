//! F19: the leader of a queue is killed while activations wait, are delivered, run, and have ended without anybody knowing.
//!
//! `WHISKRAFT_ROUNDS` is the number of kills (10 unless set).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whiskraft_client::ActivationRecord;
use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Done, Driver, Outcome, Spread, drawn, machine, pass, size, tenants, until,
};
use whiskraft_types::ActivationStatus;

const INVOKERS: u64 = 8;
/// More than there are containers, so that some wait.
const CALLERS: usize = 48;
const CONTAINERS: u32 = 16;
/// Longest run: some end while nobody leads.
const RUN_MS_MAX: u64 = 600;
const CALLS_BETWEEN: u64 = 60;
/// Time for which every second leader stands still before it is killed: what ends meanwhile is acknowledged by nobody.
const STILL: Duration = Duration::from_millis(150);
const LIMIT: Duration = Duration::from_secs(60);

/// What the activations in flight were doing at the moment of a kill.
#[derive(Debug, Default)]
struct InFlight {
    waiting: u64,
    started: u64,
    ended_unknown: u64,
}

#[expect(clippy::disallowed_methods, reason = "compared with the wall time in records")]
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn record(done: &Done) -> Option<&ActivationRecord> {
    match &done.outcome {
        Outcome::Record(record) => Some(record),
        Outcome::Refused(_) | Outcome::Lost(_) => None,
    }
}

impl InFlight {
    /// `kill_ms` and `kill` are the moment by the two clocks.
    fn at(calls: &[Done], kill: Duration, kill_ms: u64) -> Self {
        let mut found = Self::default();
        let open = calls
            .iter()
            .filter(|one| one.began < kill && one.began + one.took > kill);
        for record in open.filter_map(record) {
            match (record.start_ms > kill_ms, record.end_ms > kill_ms) {
                (true, _) => found.waiting += 1,
                (false, true) => found.started += 1,
                (false, false) => found.ended_unknown += 1,
            }
        }
        found
    }
}

/// Longest time without an answer around a moment.
fn gap(ends: &[Duration], kill: Duration) -> Duration {
    let after = ends.iter().position(|end| *end > kill).unwrap_or(ends.len());
    let before = after.checked_sub(1).map_or(kill, |at| ends[at]);
    let window = &ends[after..ends.len().min(after + 50)];
    let mut last = before;
    let mut longest = Duration::ZERO;
    for end in window {
        longest = longest.max(end.saturating_sub(last));
        last = *end;
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_a_queue_is_killed_with_work_in_every_state() {
    let rounds = size("WHISKRAFT_ROUNDS", 10);
    let options = ClusterOptions::simulated(INVOKERS, "1GiB").recording_starts();
    let mut cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let key = tenants::put_queues(&client, "led", 1, CONTAINERS).await.remove(0);
    let mut driver = Driver::new(&client);
    let asked = key.clone();
    driver.callers(CALLERS, move |caller, n| {
        let run_ms = drawn(n * 1000 + caller as u64) % RUN_MS_MAX;
        Ask::new(caller, asked.clone(), run_ms)
    });
    progress(&driver, CALLS_BETWEEN).await;
    let mut kills = Vec::new();
    for round in 0..rounds {
        let leader = cluster.leader_of(&client, key.action.as_str()).await;
        if round % 2 == 1 {
            let member = cluster.schedulers.get_mut(&leader).expect("a scheduler");
            member.process().pause();
            pass(STILL).await;
        }
        kills.push((driver.elapsed(), wall_ms()));
        cluster.kill_scheduler(leader);
        progress(&driver, CALLS_BETWEEN).await;
        cluster.start_scheduler(leader);
        cluster.healed().await;
        progress(&driver, CALLS_BETWEEN).await;
    }
    let calls = driver.finish().await;

    let mut ends: Vec<Duration> = calls.iter().map(|one| one.began + one.took).collect();
    ends.sort_unstable();
    let gaps = kills.iter().map(|(kill, _)| gap(&ends, *kill));
    let states: Vec<InFlight> = kills
        .iter()
        .map(|(kill, ms)| InFlight::at(&calls, *kill, *ms))
        .collect();
    let sum = |of: fn(&InFlight) -> u64| states.iter().map(of).sum::<u64>();
    let errors: Vec<&Done> = calls
        .iter()
        .filter(|one| record(one).is_none_or(|record| record.status != ActivationStatus::Success))
        .collect();
    let starts = cluster.starts.by_id();
    let mut per_id = BTreeMap::<usize, usize>::new();
    starts
        .values()
        .for_each(|starts| *per_id.entry(starts.len()).or_default() += 1);
    println!(
        "queue leader killed ({}): {rounds} rounds, {} calls; in flight at the kills: {} waiting or delivered, {} running, \
         {} ended and not acknowledged\n  starts per id {per_id:?}, errors seen {}, gap {}",
        machine(),
        calls.len(),
        sum(|one| one.waiting),
        sum(|one| one.started),
        sum(|one| one.ended_unknown),
        errors.len(),
        Spread::of(gaps)
    );
    assert!(errors.is_empty(), "errors: {:?}", &errors[..errors.len().min(3)]);
    let twice: Vec<_> = starts
        .values()
        .filter(|starts| starts.len() != 1)
        .take(3)
        .collect();
    assert!(twice.is_empty(), "not exactly one start: {twice:?}");
    let missing = calls
        .iter()
        .filter_map(record)
        .filter(|one| !starts.contains_key(&one.id.to_string()));
    assert_eq!(missing.count(), 0, "answers without a start");
    let states_of: [fn(&InFlight) -> u64; 3] =
        [|one| one.waiting, |one| one.started, |one| one.ended_unknown];
    for of in states_of {
        assert!(sum(of) > 0, "a state was never hit: {states:?}");
    }
}

async fn progress(driver: &Driver, calls: u64) {
    let wanted = driver.ended() + calls;
    until("calls go on", LIMIT, async || {
        (driver.ended() >= wanted).then_some(())
    })
    .await;
}
