//! F19: the leader of a queue is killed while activations wait, are delivered, run, and have ended without anybody knowing. Its
//! supervisor tells the others, or its host is lost and nobody does.
//!
//! Every second one leads the log too. `WHISKRAFT_ROUNDS` is the number of kills (10 unless set).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whiskraft_client::ActivationRecord;
use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Done, Driver, Outcome, Spread, drawn, machine, pass, size, tenants, until,
};
use whiskraft_types::{ActivationStatus, QueueKey};

/// Life of a session without keepalive (`scheduler.session.ttl`).
const SESSION_TTL: Duration = Duration::from_millis(1200);
const INVOKERS: u64 = 8;
/// More than there are containers, so that some wait.
const CALLERS: usize = 48;
const CONTAINERS: u32 = 16;
/// Longest run: some end while nobody leads.
const RUN_MS_MAX: u64 = 600;
const CALLS_BETWEEN: u64 = 60;
/// Queues beside it, some of them led by others; their calls are short.
const BESIDE: usize = 5;
const BESIDE_RUN_MS: u64 = 20;
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

/// A leader that was killed.
struct Kill {
    /// When, by the clock of the calls.
    at: Duration,
    at_ms: u64,
    /// When, by the clock of the calls beside.
    beside: Duration,
    /// Whether it led the log too.
    led_the_log: bool,
    /// Queues beside it that others led.
    untouched: Vec<QueueKey>,
}

/// How a leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its process is killed.
    Process,
    /// Its host is lost.
    Host,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_a_queue_is_killed_with_work_in_every_state() {
    lose_leaders(End::Process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_of_the_leader_of_a_queue_is_lost_with_work_in_every_state() {
    lose_leaders(End::Host).await;
}

async fn lose_leaders(end: End) {
    let rounds = size("WHISKRAFT_ROUNDS", 10);
    let options = ClusterOptions::simulated(INVOKERS, "1GiB").recording_starts();
    let mut cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let key = tenants::put_queues(&client, "led", 1, CONTAINERS).await.remove(0);
    let others = tenants::put_queues(&client, "beside", BESIDE, 2).await;
    let (mut driver, mut beside) = (Driver::new(&client), Driver::new(&client));
    let asked = key.clone();
    driver.callers(CALLERS, move |caller, n| {
        let run_ms = drawn(n * 1000 + caller as u64) % RUN_MS_MAX;
        Ask::new(caller, asked.clone(), run_ms)
    });
    let asked = others.clone();
    beside.callers(2 * BESIDE, move |caller, _| {
        Ask::new(caller, asked[caller % BESIDE].clone(), BESIDE_RUN_MS)
    });
    progress(&driver, CALLS_BETWEEN).await;
    let mut kills = Vec::new();
    for round in 0..rounds {
        let leader = cluster.leader_of(&client, key.action.as_str()).await;
        if round % 2 == 0 {
            let order = ["cluster", "transfer-leader", &leader.to_string()];
            let answer = cluster.order(&order).await.expect("the task ends");
            assert_eq!(answer.code, Some(0), "{answer}");
        }
        let led_the_log = cluster.raft_leader().await == leader;
        let mut untouched = Vec::new();
        for other in &others {
            if cluster.leader_of(&client, other.action.as_str()).await != leader {
                untouched.push(other.clone());
            }
        }
        if round % 2 == 1 {
            let member = cluster.schedulers.get_mut(&leader).expect("a scheduler");
            member.process().pause();
            pass(STILL).await;
        }
        kills.push(Kill {
            at: driver.elapsed(),
            at_ms: wall_ms(),
            beside: beside.elapsed(),
            led_the_log,
            untouched,
        });
        match end {
            End::Process => cluster.kill_scheduler(leader),
            End::Host => cluster.lose_scheduler(leader),
        }
        progress(&driver, CALLS_BETWEEN).await;
        cluster.start_scheduler(leader);
        cluster.healed().await;
        progress(&driver, CALLS_BETWEEN).await;
    }
    let (calls, beside) = (driver.finish().await, beside.finish().await);
    report_gaps(end, &kills, &calls, &beside);
    if matches!(end, End::Process) {
        // Somebody has told the others: nobody waits for silence to prove it.
        let all = ends(calls.iter());
        let mut gaps: Vec<_> = kills.iter().map(|kill| gap(&all, kill.at)).collect();
        gaps.sort_unstable();
        let median = gaps[gaps.len() / 2];
        assert!(
            median < SESSION_TTL,
            "half of the gaps last a session's life: {median:?}"
        );
    }

    let states: Vec<InFlight> = kills
        .iter()
        .map(|kill| InFlight::at(&calls, kill.at, kill.at_ms))
        .collect();
    let sum = |of: fn(&InFlight) -> u64| states.iter().map(of).sum::<u64>();
    let errors: Vec<&Done> = calls
        .iter()
        .chain(&beside)
        .filter(|one| record(one).is_none_or(|record| record.status != ActivationStatus::Success))
        .collect();
    let starts = cluster.starts.by_id();
    let mut per_id = BTreeMap::<usize, usize>::new();
    starts
        .values()
        .for_each(|starts| *per_id.entry(starts.len()).or_default() += 1);
    println!(
        "  {} calls; in flight at the kills: {} waiting or delivered, {} running, {} ended and not acknowledged\n  \
         starts per id {per_id:?}, errors seen {}",
        calls.len(),
        sum(|one| one.waiting),
        sum(|one| one.started),
        sum(|one| one.ended_unknown),
        errors.len(),
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
        .chain(&beside)
        .filter_map(record)
        .filter(|one| !starts.contains_key(&one.id.to_string()));
    assert_eq!(missing.count(), 0, "answers without a start");
    let states_of: [fn(&InFlight) -> u64; 3] =
        [|one| one.waiting, |one| one.started, |one| one.ended_unknown];
    for of in states_of {
        assert!(sum(of) > 0, "a state was never hit: {states:?}");
    }
}

/// Sorted.
fn ends<'a>(calls: impl Iterator<Item = &'a Done>) -> Vec<Duration> {
    let mut ends: Vec<Duration> = calls.map(|one| one.began + one.took).collect();
    ends.sort_unstable();
    ends
}

fn report_gaps(end: End, kills: &[Kill], calls: &[Done], beside: &[Done]) {
    let all = ends(calls.iter());
    let of = |led_the_log: bool| {
        let kills = kills.iter().filter(|kill| kill.led_the_log == led_the_log);
        Spread::of(kills.map(|kill| gap(&all, kill.at)))
    };
    let untouched = kills.iter().flat_map(|kill| {
        let keys = kill.untouched.iter();
        keys.map(|key| gap(&ends(beside.iter().filter(|one| one.key == *key)), kill.beside))
    });
    println!(
        "queue leader killed, {end:?} ({}): {} rounds; gap {}\n  of one that led the log too: {}\n  of one that did not: {}\n  \
         of queues that others led: {}",
        machine(),
        kills.len(),
        Spread::of(kills.iter().map(|kill| gap(&all, kill.at))),
        of(true),
        of(false),
        Spread::of(untouched),
    );
}

async fn progress(driver: &Driver, calls: u64) {
    let wanted = driver.ended() + calls;
    until("calls go on", LIMIT, async || {
        (driver.ended() >= wanted).then_some(())
    })
    .await;
}
