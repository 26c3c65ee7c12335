//! F03, F04, F05: the files of one scheduler are cut, flipped or put back to an earlier state while it is down. Whatever the
//! scheduler makes of them, nothing acknowledged is lost and no damaged byte reaches anybody. What is missing and was promised
//! is found by what the others remember, and the scheduler is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use whiskraft_cluster_tests::{
    Chance, Cluster, ClusterOptions, Deadline, DurableLoad, Work, damage, judge, machine, size, tenants,
    until,
};

const LIMIT: Duration = Duration::from_secs(60);
const INVOKERS: u64 = 2;
const QUEUES: usize = 3;
const STEP: u64 = 300;
/// A start that goes wrong says so within this time.
const PROBE: Duration = Duration::from_millis(500);
const VERDICT_LIMIT: Duration = Duration::from_secs(20);
/// A start that is refused is refused within this time.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// Exit code of a start that was refused.
const REFUSED: Option<i32> = Some(3);
/// Bytes of the write-ahead log that a disk loses: more than is on its way to it at any moment.
const LOST_BYTES: u64 = 64 << 10;
/// Longest gap in the work of the two others, elections on a busy machine included.
const GAP_LIMIT: Duration = Duration::from_secs(5);
/// The scheduler whose files suffer.
const VICTIM: u64 = 2;

struct Setup {
    cluster: Cluster,
    load: DurableLoad,
    /// Time from the last start of the victim to its reaction.
    took: Duration,
}

/// What a scheduler makes of its damaged directory.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Serves,
    /// Neither serves nor ends.
    Waits,
    /// With its last words.
    Ends(Option<i32>, String),
}

impl Setup {
    async fn new() -> Self {
        let cluster = Cluster::start(ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts()).await;
        let clients = cluster.clients(2).await;
        let queues = tenants::put_queues(&clients[0], "x", QUEUES, 10).await;
        let load = DurableLoad::start(clients, Work::new(queues, 8, u64::MAX));
        load.progress(STEP, LIMIT).await;
        let took = Duration::ZERO;
        Self { cluster, load, took }
    }

    /// Kills the victim, does this to its directory, and starts it.
    async fn restart_after(&mut self, harm: impl FnOnce(&Path)) -> Reaction {
        self.cluster.kill_scheduler(VICTIM);
        let dir = self.cluster.schedulers[&VICTIM].data_dir().to_owned();
        harm(&dir);
        self.cluster.start_scheduler(VICTIM);
        let cluster = &mut self.cluster;
        let patience = Deadline::after(VERDICT_LIMIT);
        let (reaction, took) = until("the scheduler serves, ends or waits", LIMIT, async || {
            if patience.is_past() {
                return Some(Reaction::Waits);
            }
            if !cluster.schedulers.get_mut(&VICTIM)?.is_running() {
                let exit = cluster.schedulers.get_mut(&VICTIM)?.process().exit(LIMIT).await;
                let last = exit.output.lines().last().unwrap_or_default().to_owned();
                return Some(Reaction::Ends(exit.code, last));
            }
            // One that does not answer soon may have ended meanwhile.
            let status = tokio::time::timeout(PROBE, cluster.status_of(VICTIM)).await;
            (!status.ok()??.fenced).then_some(Reaction::Serves)
        })
        .await;
        self.took = took;
        if reaction != Reaction::Serves {
            self.cluster.kill_scheduler(VICTIM);
        }
        self.load.progress(STEP, LIMIT).await;
        reaction
    }

    /// As [`Setup::restart_after`], and the scheduler has to be refused for what it has lost, soon, while the others go on.
    async fn is_refused_after(&mut self, harm: impl FnOnce(&Path)) {
        let reaction = self.restart_after(harm).await;
        println!("  {reaction:?}");
        let Reaction::Ends(code, text) = reaction else {
            panic!("a scheduler that has lost what it acknowledged: {reaction:?}");
        };
        assert_eq!(code, REFUSED, "{text}");
        assert!(text.contains("scheduler 2 has lost what its disk had"), "{text}");
        assert!(text.contains("cluster replace 2 --with"), "{text}");
        assert!(self.took < REFUSAL_LIMIT, "refused after {:?}", self.took);
        let gap = self.load.progress(STEP, LIMIT).await;
        let records = self.load.newest_records(&self.cluster.endpoints()[0]).await;
        println!(
            "  refused {:.1?} after its start; {STEP} more took {gap:.1?}, {} records read ({})",
            self.took,
            records.len(),
            machine()
        );
        assert!(gap < GAP_LIMIT, "{gap:?}");
    }

    async fn check(self) {
        let Self {
            mut cluster, load, ..
        } = self;
        let history = load.finish().await;
        for id in [1, 3] {
            assert!(
                cluster.schedulers.get_mut(&id).expect("a scheduler").is_running(),
                "scheduler {id}, whose disk is fine, ended:\n{}",
                cluster.logs()
            );
        }
        cluster.invokers_are(INVOKERS).await;
        let judgement = judge(&cluster, &history, &BTreeMap::new()).await;
        println!("  {judgement}");
        judgement.assert_kept();
    }
}

/// The newest file of RocksDB's write-ahead log, which has everything that was synced last.
fn write_ahead_log(dir: &Path) -> std::path::PathBuf {
    let mut logs = damage::files(dir, ".log").expect("the data directory");
    logs.retain(|path| {
        path.file_stem()
            .is_some_and(|stem| stem.to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
    });
    logs.sort();
    logs.pop().expect("a write-ahead log")
}

/// F03: the last record of the write-ahead log was being written: only some of its first bytes are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_record_is_cut_off() {
    let mut setup = Setup::new().await;
    // Within the header of a record, at its end, and in its middle.
    for bytes in [1, 6, 7, 12] {
        let reaction = setup
            .restart_after(|dir| damage::tear(&write_ahead_log(dir), bytes).expect("torn"))
            .await;
        println!("a record torn after {bytes} bytes: {reaction:?}");
        assert_eq!(reaction, Reaction::Serves);
    }
    setup.check().await;
}

/// F04: one bit of the write-ahead log flips, far from its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_found() {
    let mut chance = Chance::seeded(size("WHISKRAFT_SEED", 1));
    let mut setup = Setup::new().await;
    let reaction = setup
        .restart_after(|dir| {
            let log = write_ahead_log(dir);
            let len = std::fs::metadata(&log).expect("its length").len();
            damage::flip_bit(&log, chance.below(len / 2)).expect("flipped");
        })
        .await;
    println!(
        "a bit of the write-ahead log flipped ({}): {reaction:?}",
        machine()
    );
    assert!(
        matches!(&reaction, Reaction::Ends(code, text) if *code != Some(0) && text.to_lowercase().contains("corrupt")),
        "{reaction:?}"
    );
    setup.check().await;
}

/// F05: the directory is put back to what it was some time ago. Its scheduler is refused; the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_yesterday_is_refused() {
    let mut setup = Setup::new().await;
    let copy = setup.cluster.dir().join("yesterday");
    let kept = setup
        .restart_after(|dir| damage::copy_dir(dir, &copy).expect("copied"))
        .await;
    assert_eq!(kept, Reaction::Serves, "a copy does no harm");
    setup.load.progress(2 * STEP, LIMIT).await;
    println!("directory put back:");
    setup
        .is_refused_after(|dir| {
            std::fs::remove_dir_all(dir).expect("removed");
            damage::copy_dir(&copy, dir).expect("put back");
        })
        .await;
    setup.check().await;
}

/// F03, F05: a disk has lost writes that it had confirmed. Its scheduler is refused, the lanes that it led are led by others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lied_is_refused() {
    let mut setup = Setup::new().await;
    setup.load.progress(2 * STEP, LIMIT).await;
    println!("{LOST_BYTES} bytes of the write-ahead log lost:");
    setup
        .is_refused_after(|dir| damage::cut_tail(&write_ahead_log(dir), LOST_BYTES).expect("cut"))
        .await;
    setup.check().await;
}
