//! The durable promise: what was acknowledged has exactly one record, whatever dies and however the power goes.
//!
//! `WHISKRAFT_DURABLE` is the number of activations (10,000 unless set), `WHISKRAFT_DURABLE_ROUNDS` that of faults,
//! `WHISKRAFT_SEED` chooses them.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_client::Client;
use whiskraft_cluster_tests::{
    Chance, Cluster, ClusterOptions, DurableLoad, Evidence, Fate, Operation, Spread, Work, can_make_disks,
    judge, machine, resubmit, size, tenants,
};
use whiskraft_types::ActivationId;

const INVOKERS: u64 = 4;
const CLIENTS: usize = 4;
const SUBMITTERS: usize = 64;
const QUEUES: usize = 6;
const DISK_MIB: u64 = 2048;
/// Work that must be acknowledged before a fault counts as survived.
const AFTER_FAULT: u64 = 200;
/// Longest wait for that, far above the bar, so that only a hang fails.
const BACK_LIMIT: Duration = Duration::from_secs(60);
/// Least share of the activations that a fault must overlap, in percent.
const OVERLAP_PERCENT: usize = 5;

/// A fault, from its beginning to the first work after it.
#[derive(Debug)]
struct Window {
    what: String,
    from: Duration,
    to: Duration,
    back: Duration,
}

impl Window {
    fn overlaps(&self, operation: &Operation) -> bool {
        operation.began < self.to && operation.began + operation.took > self.from
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL of one.
    Kill,
    /// SIGKILL of two: no majority is left.
    KillMajority,
    /// Power of one.
    Cut,
    /// Power of all in one instant.
    CutAll,
    /// Power of one after the other, each before the last one is back.
    CutInTurn,
}

impl Fault {
    /// Every third takes the power of all; the rest is chance.
    fn of_round(round: u64, chance: &mut Chance) -> Self {
        if round % 3 == 2 {
            return Self::CutAll;
        }
        match chance.below(5) {
            0 | 1 => Self::Kill,
            2 => Self::KillMajority,
            3 => Self::Cut,
            _ => Self::CutInTurn,
        }
    }

    async fn strike(self, cluster: &mut Cluster, load: &DurableLoad, chance: &mut Chance) -> String {
        let victim = chance.below(3) + 1;
        let other = victim % 3 + 1;
        match self {
            Self::Kill => {
                cluster.kill_scheduler(victim);
                // The other two serve without it.
                load.progress(AFTER_FAULT, BACK_LIMIT).await;
                cluster.start_scheduler(victim);
            }
            Self::KillMajority => {
                [victim, other].iter().for_each(|id| cluster.kill_scheduler(*id));
                [victim, other].iter().for_each(|id| cluster.start_scheduler(*id));
            }
            Self::Cut => {
                cluster.cut_power(&[victim]);
                load.progress(AFTER_FAULT, BACK_LIMIT).await;
                cluster.start_scheduler(victim);
            }
            Self::CutAll => cluster.cut_power_of_all(),
            Self::CutInTurn => {
                for id in 1..=3 {
                    cluster.cut_power(&[id]);
                    cluster.start_scheduler(id);
                }
            }
        }
        format!("{self:?} of {victim}")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_work_survives_kills_and_power_cuts() {
    let (total, rounds) = (
        size("WHISKRAFT_DURABLE", 10_000),
        size("WHISKRAFT_DURABLE_ROUNDS", 9),
    );
    let mut chance = Chance::seeded(size("WHISKRAFT_SEED", 1));
    if !can_make_disks() {
        return;
    }
    let options = ClusterOptions::simulated(INVOKERS, "8GiB")
        .with_disks(DISK_MIB)
        .recording_starts();
    let mut cluster = Cluster::start(options).await;
    let clients = cluster.clients(CLIENTS).await;
    // Several, so that each scheduler leads some.
    let queues = tenants::put_queues(&clients[0], "d", QUEUES, 20).await;
    let work = Work::new(queues, SUBMITTERS, total.saturating_mul(4));
    let load = DurableLoad::start(clients.clone(), work.clone());

    let (mut windows, mut early) = (Vec::new(), BTreeMap::<ActivationId, Evidence>::new());
    let step = (total / (rounds + 1)).max(AFTER_FAULT);
    load.progress(step, BACK_LIMIT).await;
    for round in 0..rounds {
        let fault = Fault::of_round(round, &mut chance);
        let from = load.elapsed();
        let what = fault.strike(&mut cluster, &load, &mut chance).await;
        let started = load.elapsed();
        load.progress(AFTER_FAULT, BACK_LIMIT).await;
        let to = load.elapsed();
        windows.push(Window {
            what,
            from,
            to,
            back: to - started,
        });
        cluster.healed().await;
        early.extend(load.newest_records(&cluster.endpoints()[0]).await);
        let done = load.accepted();
        let due = step * (round + 2);
        load.progress(due.saturating_sub(done), BACK_LIMIT).await;
    }
    let seconds = load.elapsed().as_secs_f64();
    let history = load.finish().await;
    cluster.invokers_are(INVOKERS).await;
    let judgement = judge(&cluster, &history, &early).await;

    let overlapping = history
        .iter()
        .filter(|one| windows.iter().any(|window| window.overlaps(one)));
    let overlapping = overlapping.count();
    let accepted = history.iter().filter(|one| one.fate == Fate::Accepted);
    println!(
        "durable ({}): {total} wanted, {rounds} faults, {:.0}/s over {seconds:.0} s, {overlapping} of {} during a fault",
        machine(),
        judgement.accepted as f64 / seconds,
        history.len()
    );
    for Window { what, from, back, .. } in &windows {
        println!("  at {from:.1?} {what}: work goes on {back:.1?} after the last start");
    }
    println!("  back: {}", Spread::of(windows.iter().map(|window| window.back)));
    println!("  acknowledgement: {}", Spread::of(accepted.map(|one| one.took)));
    println!("  {judgement}; records read during the faults: {}", early.len());
    judgement.assert_kept();
    assert!(judgement.accepted as u64 >= total, "too few to judge");
    assert!(
        overlapping * 100 >= history.len() * OVERLAP_PERCENT,
        "the faults missed the work"
    );
    known_ids_stay_known(&clients[0], &work, &history, &cluster).await;
}

/// F22: an id that ended long ago is known with its arguments, and refused with others.
async fn known_ids_stay_known(client: &Client, work: &Work, history: &[Operation], cluster: &Cluster) {
    const ASKED: usize = 200;

    let before = cluster.starts.all().len();
    let accepted = history.iter().filter(|one| one.fate == Fate::Accepted);
    for operation in accepted.step_by((history.len() / ASKED).max(1)) {
        let same = resubmit(client, work, operation, false).await;
        assert_eq!(same, Fate::Accepted, "{} again", operation.id);
        let other = resubmit(client, work, operation, true).await;
        assert!(
            matches!(&other, Fate::Refused(why) if why.contains("payload")),
            "{} with other arguments: {other:?}",
            operation.id
        );
    }
    assert_eq!(
        cluster.starts.all().len(),
        before,
        "what is known does not run again"
    );
}
