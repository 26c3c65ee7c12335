//! Disks of schedulers fill up, stall and break while durable and blocking work goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_client::{Client, InvokeError, InvokeOptions};
use whiskraft_cluster_tests::{
    Ask, Cluster, ClusterOptions, Deadline, Driver, DurableLoad, Fate, Tally, Work, can_make_disks, judge,
    tenants, until,
};
use whiskraft_types::QueueKey;

const LIMIT: Duration = Duration::from_secs(60);
const DISK_MIB: u64 = 1024;
/// Bytes that must stay free for durable work to be taken.
const RESERVE: u64 = 256 << 20;
const QUEUES: usize = 3;
const STEP: u64 = 200;
const INVOKERS: u64 = 2;

struct Setup {
    cluster: Cluster,
    clients: Vec<Client>,
    queues: Vec<QueueKey>,
}

impl Setup {
    async fn new() -> Option<Self> {
        if !can_make_disks() {
            return None;
        }
        let options = ClusterOptions::simulated(INVOKERS, "8GiB")
            .with_disks(DISK_MIB)
            .with(&format!("raft.disk-reserve={RESERVE}"))
            .recording_starts();
        let cluster = Cluster::start(options).await;
        let clients = cluster.clients(2).await;
        let queues = tenants::put_queues(&clients[0], "f", QUEUES, 10).await;
        Some(Self {
            cluster,
            clients,
            queues,
        })
    }

    fn durable(&self, submitters: usize) -> DurableLoad {
        let work = Work::new(self.queues.clone(), submitters, u64::MAX);
        DurableLoad::start(self.clients.clone(), work)
    }

    fn blocking(&self, callers: usize) -> Driver {
        let (mut driver, queues) = (Driver::new(&self.clients[0]), self.queues.clone());
        driver.callers(callers, move |caller, n| {
            let place = usize::try_from(n).unwrap_or(0) + caller;
            Ask::new(caller, queues[place % queues.len()].clone(), 5)
        });
        driver
    }

    /// One durable submission; the answer and how long it took.
    async fn submit(&self, key: &QueueKey) -> (Result<(), InvokeError>, Duration) {
        let options = InvokeOptions {
            deadline: Duration::from_secs(10),
            ..InvokeOptions::default()
        };
        let clock = Deadline::after(Duration::MAX);
        let answer = self.clients[1]
            .submit(&key.namespace, &key.action, "{}", options)
            .await;
        (answer.map(|_| ()), clock.elapsed())
    }

    async fn check(&mut self, durable: DurableLoad, blocking: Driver) {
        let history = durable.finish().await;
        let calls = blocking.finish().await;
        let tally = Tally::of(&calls);
        self.cluster.invokers_are(INVOKERS).await;
        let judgement = judge(&self.cluster, &history, &BTreeMap::new()).await;
        println!(
            "  durable: {judgement}\n  blocking: {tally} latency {}",
            tally.latency()
        );
        judgement.assert_kept();
        tally.assert_none_lost();
        assert_eq!(
            (tally.failures(), tally.refusals()),
            (0, 0),
            "blocking work goes on: {tally}"
        );
        assert!(history.iter().filter(|one| one.fate == Fate::Accepted).count() as u64 > STEP);
    }
}

async fn goes_on(driver: &Driver, calls: u64) -> Duration {
    let wanted = driver.ended() + calls;
    until("blocking calls go on", LIMIT, async || {
        (driver.ended() >= wanted).then_some(())
    })
    .await
    .1
}

fn is_full(error: &InvokeError) -> bool {
    matches!(error, InvokeError::StorageFull { .. })
}

/// F07: all disks are almost full. Durable work is refused within a second with an error that says so; blocking work and
/// reads go on; with room again it is taken again, without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_refuse_durable_work_and_nothing_else() {
    const REFUSED_WITHIN: Duration = Duration::from_secs(1);
    const BACK_WITHIN: Duration = Duration::from_secs(10);

    let Some(mut setup) = Setup::new().await else {
        return;
    };
    let (durable, blocking) = (setup.durable(4), setup.blocking(4));
    durable.progress(STEP, LIMIT).await;
    goes_on(&blocking, STEP).await;
    let fill = |setup: &Setup| {
        setup
            .cluster
            .disks
            .values()
            .for_each(|disk| disk.fill(RESERVE / 2).expect("filled"))
    };
    fill(&setup);
    // A reading of the free space may be a second old, and each scheduler has one of its own.
    let mut errors = Vec::new();
    for key in &setup.queues {
        let refused = async || setup.submit(key).await.0.err();
        let (error, _) = until("durable work is refused", LIMIT, refused).await;
        assert!(is_full(&error), "{error:?}");
        errors.push(error);
    }
    let error = &errors[0];
    let mut slowest = Duration::ZERO;
    for key in &setup.queues {
        let (answer, took) = setup.submit(key).await;
        assert!(answer.as_ref().is_err_and(is_full), "{answer:?}");
        slowest = slowest.max(took);
    }
    let calls = goes_on(&blocking, STEP).await;
    let action = setup.clients[0].get_action(&setup.queues[0].action).await;
    assert!(action.is_ok(), "reads go on: {action:?}");
    setup
        .cluster
        .disks
        .values()
        .for_each(|disk| disk.unfill().expect("room again"));
    let back = durable.progress(STEP, LIMIT).await;
    println!(
        "disks full: durable work refused within {slowest:.1?} ({error}), {STEP} blocking calls took {calls:.1?}; taken again \
         {back:.1?} after there was room"
    );
    assert!(slowest < REFUSED_WITHIN, "{slowest:?}");
    assert!(back < BACK_WITHIN, "{back:?}");
    setup.check(durable, blocking).await;
}

/// F07: one disk is full, of a follower or of the leader: the others carry the durable work on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk_stops_nothing_for_good() {
    let Some(mut setup) = Setup::new().await else {
        return;
    };
    let (durable, blocking) = (setup.durable(4), setup.blocking(4));
    for id in 1..=3 {
        durable.progress(STEP, LIMIT).await;
        setup.cluster.disks[&id].fill(RESERVE / 2).expect("filled");
        goes_on(&blocking, STEP).await;
        setup.cluster.disks[&id].unfill().expect("room again");
        let back = durable.progress(STEP, LIMIT).await;
        println!("disk of scheduler {id} full: durable work {back:.1?} after there was room");
    }
    setup.check(durable, blocking).await;
}

/// F06: the disk of each scheduler in turn stalls for three seconds. Nothing acknowledged is lost, blocking work goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_disk_holds_up_little() {
    const STALL: Duration = Duration::from_secs(3);

    let Some(mut setup) = Setup::new().await else {
        return;
    };
    let (durable, blocking) = (setup.durable(8), setup.blocking(4));
    for id in 1..=3 {
        durable.progress(STEP, LIMIT).await;
        let raft_leader = setup.cluster.raft_leader().await;
        let stall = Deadline::after(STALL);
        setup
            .cluster
            .disks
            .get_mut(&id)
            .expect("its disk")
            .freeze()
            .expect("frozen");
        let calls = goes_on(&blocking, STEP).await;
        until("the stall is over", LIMIT, async || stall.is_past().then_some(())).await;
        setup
            .cluster
            .disks
            .get_mut(&id)
            .expect("its disk")
            .thaw()
            .expect("thawed");
        let back = durable.progress(STEP, LIMIT).await;
        println!(
            "disk of scheduler {id} (Raft leader {raft_leader}) stalled {STALL:?}: {STEP} blocking calls took {calls:.1?}, \
             durable work {back:.1?} after it"
        );
    }
    setup.check(durable, blocking).await;
}

/// F08: a disk fails writes and syncs. The scheduler ends at once and acknowledges nothing more from it; on the mended disk it
/// comes back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_process() {
    let Some(mut setup) = Setup::new().await else {
        return;
    };
    let (durable, blocking) = (setup.durable(8), setup.blocking(4));
    for id in 1..=3 {
        durable.progress(STEP, LIMIT).await;
        let member = setup.cluster.schedulers.get_mut(&id).expect("a scheduler");
        member.process().pause();
        setup
            .cluster
            .disks
            .get_mut(&id)
            .expect("its disk")
            .break_down()
            .expect("broken");
        member.process().resume();
        let exit = member.process().exit(LIMIT).await;
        let last = exit.output.lines().rev().take(3).collect::<Vec<_>>();
        println!("scheduler {id} ended with code {:?}: {last:?}", exit.code);
        assert_ne!(exit.code, Some(0), "it says that something is wrong");
        setup.cluster.kill_scheduler(id);
        durable.progress(STEP, LIMIT).await;
        setup
            .cluster
            .disks
            .get_mut(&id)
            .expect("its disk")
            .mend()
            .expect("mended");
        setup.cluster.start_scheduler(id);
        setup.cluster.healed().await;
    }
    setup.check(durable, blocking).await;
}
