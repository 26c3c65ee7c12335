//! Opens the store and runs consensus on it: group 0, and the lanes of the journal beside it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;

use crate::config::{NodeConfig, Settings};
use crate::core::{Core, Group, Raft};
use crate::disk::DiskSpace;
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::held::Held;
use crate::identity::DataDir;
use crate::journal::{Journal, Lane, OpenJournal};
use crate::network::Network;
use crate::node::Owned;
use crate::peers::Peers;
use crate::runtime::Runtime;
use crate::server::Served;
use crate::store::{
    Applied, Bodies, Engine, GroupMachine, LaneMachine, LaneRows, LogStore, Machine, Retention, Ring,
    SeenStore, SyncThread,
};
use crate::types::{LogId, META_GROUP};

/// A lagging follower gets log entries while there are any, so this is more than is ever kept.
const REPLICATION_LAG: u64 = 10_000_000;
/// Log entries in one deletion: each leaves a range tombstone.
const PURGE_BATCH: u64 = 1000;
/// Directory of the engine.
pub(crate) const STORE_DIR: &str = "store";
/// Directory of snapshots.
pub(crate) const SNAPSHOTS_DIR: &str = "snapshots";

/// Directory of the snapshots of a lane.
pub(crate) fn lane_snapshots(snapshots: &Path, lane: u32) -> PathBuf {
    snapshots.join(format!("lane-{lane}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings from ours, the same for all groups.
fn common_config(settings: &Settings, cluster_id: &str) -> Config {
    let spare = settings.election_min.saturating_sub(settings.heartbeat * 2);
    Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        // Entries that arrive say the same. Never so long that a follower could miss both.
        heartbeat_min_interval: Some(millis(settings.heartbeat.min(spare) * 4 / 5)),
        election_timeout_min: millis(settings.election_min),
        election_timeout_max: millis(settings.election_max),
        install_snapshot_timeout: millis(settings.snapshot_timeout),
        replication_lag_threshold: REPLICATION_LAG,
        enable_pre_vote: Some(true),
        // A restarted leader would go on without an election, with tables that are older than what it answered.
        enable_leader_restore: Some(false),
        // Without it a leader that reaches one follower but no quorum keeps a connected majority from electing another.
        quorum_loss_probe_interval: Some(millis(settings.election_max) * 2),
        ..Config::default()
    }
}

fn checked(config: Config) -> Result<Arc<Config>, StartError> {
    let config = config.validate();
    config
        .map(Arc::new)
        .map_err(|error| StartError::Config(format!("raft settings: {error}")))
}

fn meta_config(settings: &Settings, cluster_id: &str) -> Result<Arc<Config>, StartError> {
    checked(Config {
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_logs),
        max_in_snapshot_log_to_keep: settings.logs_kept,
        purge_batch_size: PURGE_BATCH.min(settings.snapshot_logs),
        ..common_config(settings, cluster_id)
    })
}

fn lane_config(settings: &Settings, cluster_id: &str) -> Result<Arc<Config>, StartError> {
    checked(Config {
        // Entries of a lane are long and short: bytes say when it is time, see `lanes`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..common_config(settings, cluster_id)
    })
}

/// The store of a node, open; nobody works on it yet.
pub(super) struct Store {
    machine: Machine,
    lanes: Vec<(u32, LaneMachine)>,
    bodies: Bodies,
    logs: BTreeMap<u32, LogStore>,
    engine: Arc<Engine>,
    // Last, when nobody can ask it any more.
    sync: SyncThread,
}

/// A node, open.
pub(super) struct Opened {
    pub(super) core: Core,
    pub(super) journal: Journal,
    /// Group 0 and the lanes, as they are served.
    pub(super) groups: BTreeMap<u32, Served>,
    pub(super) owned: Owned,
}

/// What all groups of a node share.
struct Common {
    config: Arc<Config>,
    settings: Arc<Settings>,
    peers: Peers,
    fatal: Fatal,
    disk: DiskSpace,
    logs: BTreeMap<u32, LogStore>,
}

impl Common {
    /// Runs the consensus core of a group.
    async fn run(
        &self,
        runtime: &Runtime,
        group: u32,
        applied: watch::Sender<Applied>,
        machine: GroupMachine,
    ) -> Result<Group, StartError> {
        let log = self.logs.get(&group).cloned();
        let log = log.ok_or_else(|| StartError::Raft(format!("group {group} has no log")))?;
        let time = match &machine {
            GroupMachine::Meta(_) => None,
            GroupMachine::Lane(lane) => Some(Arc::clone(&lane.shared().time)),
        };
        let held = Held::default();
        let network = Network::new(self.peers.clone(), group, held.clone(), log.disk());
        let (id, config) = (self.peers.id(), Arc::clone(&self.config));
        let raft = runtime.spawn(async move { Raft::new(id, config, network, log, machine).await });
        let raft = raft.await.map_err(|error| StartError::Raft(error.to_string()))?;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
        Ok(Group {
            group,
            raft,
            peers: self.peers.clone(),
            applied,
            fatal: self.fatal.clone(),
            settings: Arc::clone(&self.settings),
            disk: self.disk.clone(),
            held,
            time,
        })
    }
}

/// Opens logs, tables and lanes, and tells `peers` what is there.
pub(super) async fn open(
    config: &NodeConfig,
    lanes: u32,
    data: DataDir,
    runtime: &Runtime,
    peers: &Peers,
    fatal: &Fatal,
) -> Result<Store, StartError> {
    let settings = &config.settings;
    let (engine, bodies, machine, lanes) = open_store(settings, lanes, data, runtime).await?;
    let failed = |what: &str, source: io::Error| StartError::Storage {
        dir: config.data_dir.clone(),
        what: what.to_owned(),
        source,
    };
    let sync = SyncThread::start(Arc::clone(&engine), fatal.clone(), settings.sync_delay);
    let (sync, syncs) = sync.map_err(|error| failed("no thread for syncs", error))?;
    let lasts = lanes.iter().map(|(group, lane)| (*group, lane.last()));
    let mut logs = BTreeMap::new();
    for (group, last) in std::iter::once((META_GROUP, machine.last())).chain(lasts) {
        let log = LogStore::new(Arc::clone(&engine), syncs.clone(), group);
        let unreadable = |error| failed("its log cannot be read", error);
        let purged = log.purged().map_err(unreadable)?;
        if purged > last {
            return Err(lost_snapshots(config, group, purged, last));
        }
        log.note_opened(last).map_err(unreadable)?;
        logs.insert(group, log);
    }
    let seen = SeenStore::new(Arc::clone(&engine)).load();
    let seen = seen.map_err(|error| failed("what it knows of other members cannot be read", error))?;
    let disks = logs.iter().map(|(group, log)| (*group, log.disk()));
    peers.witness().open(disks.collect(), seen);
    Ok(Store {
        machine,
        lanes,
        bodies,
        logs,
        engine,
        sync,
    })
}

impl Store {
    /// Members of the cluster, as far as the lanes know.
    pub(super) fn members(&self) -> BTreeMap<u64, String> {
        let nodes = self.lanes.iter().flat_map(|(_, lane)| lane.membership().nodes());
        nodes.map(|(id, node)| (*id, node.addr.clone())).collect()
    }

    /// Runs consensus on it.
    pub(super) async fn run(
        self,
        config: &NodeConfig,
        (runtime, lane_runtime): (Runtime, Runtime),
        peers: Peers,
        fatal: Fatal,
    ) -> Result<Opened, StartError> {
        let settings = Arc::new(config.settings.clone());
        let meta = Common {
            config: meta_config(&settings, &peers.cluster_id())?,
            disk: DiskSpace::new(&config.data_dir, settings.disk_reserve),
            settings,
            peers,
            fatal,
            logs: self.logs,
        };
        let (shared, snapshots) = (self.machine.shared(), self.machine.dir());
        let machine = GroupMachine::Meta(self.machine);
        let group = meta
            .run(&runtime, META_GROUP, shared.applied.clone(), machine)
            .await?;
        let core = Core {
            group,
            shared,
            cluster_name: config.cluster_name.as_str().into(),
            changing: Arc::default(),
            lanes: Arc::default(),
        };
        let served = Served::new(core.group.clone(), snapshots, runtime.handle());
        let mut groups = BTreeMap::from([(META_GROUP, served)]);
        let lane_settings = meta.settings.of_lanes();
        let common = Common {
            config: lane_config(&lane_settings, &meta.peers.cluster_id())?,
            settings: Arc::new(lane_settings),
            ..meta
        };
        let mut open_lanes = Vec::new();
        for (number, machine) in self.lanes {
            let (shared, snapshots) = (machine.shared(), machine.dir());
            let machine = GroupMachine::Lane(machine);
            let applied = shared.applied.clone();
            let group = common.run(&lane_runtime, number, applied, machine).await?;
            let served = Served::new(group.clone(), snapshots, lane_runtime.handle());
            groups.insert(number, served);
            open_lanes.push(Lane::new(group, shared));
        }
        let lane_groups = open_lanes.iter().map(|lane| lane.group.clone()).collect();
        // Set here and nowhere else.
        drop(core.lanes.set(lane_groups));
        let journal = Journal::new(core.clone(), open_lanes);
        let owned = Owned {
            bodies: self.bodies,
            seen: SeenStore::new(self.engine),
            _journal: OpenJournal(journal.clone()),
            lane_runtime,
            runtime,
            _sync: self.sync,
        };
        Ok(Opened {
            core,
            journal,
            groups,
            owned,
        })
    }
}

type Parts = (Arc<Engine>, Bodies, Machine, Vec<(u32, LaneMachine)>);

async fn open_store(
    settings: &Settings,
    lanes: u32,
    data: DataDir,
    runtime: &Runtime,
) -> Result<Parts, StartError> {
    let (dir, store_dir, snapshots_dir) = (
        data.path().to_owned(),
        data.join(STORE_DIR),
        data.join(SNAPSHOTS_DIR),
    );
    let ring = Ring::new(settings.watch_batches, settings.watch_bytes);
    let retention = Retention {
        margin: settings.journal_margin,
        gone: settings.journal_gone,
        ..Retention::default()
    };
    let lock = data.into_lock();
    let opening = runtime.spawn_blocking(move || {
        let engine = Arc::new(Engine::open(&store_dir, lock, &retention)?);
        let bodies = Bodies::new(Arc::clone(&engine), META_GROUP);
        let machine = Machine::open(bodies.clone(), &snapshots_dir, META_GROUP, ring)?;
        let open_lane = |group| {
            let rows = LaneRows::new(Arc::clone(&engine), group, retention.clone());
            let dir = lane_snapshots(&snapshots_dir, group);
            LaneMachine::open(rows, &dir, group).map(|lane| (group, lane))
        };
        let lanes = (1..=lanes).map(open_lane).collect::<io::Result<Vec<_>>>()?;
        Ok::<_, io::Error>((engine, bodies, machine, lanes))
    });
    let opened = opening
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
    opened.map_err(|source| {
        let advice = match source.kind() {
            ErrorKind::InvalidData => {
                "it is damaged; remove this scheduler from the cluster, empty the directory and join as a new member"
            }
            ErrorKind::StorageFull => "the disk is full; free space and start again",
            _ => "its log or tables cannot be opened",
        };
        StartError::Storage { dir, what: advice.to_owned(), source }
    })
}

/// A log that begins after the newest snapshot cannot bring the tables up to date.
fn lost_snapshots(
    config: &NodeConfig,
    group: u32,
    purged: Option<LogId>,
    snapshot: Option<LogId>,
) -> StartError {
    StartError::Identity(format!(
        "data directory {} has lost its snapshots: the log of group {group} starts after entry {}, the newest whole snapshot ends at {}; \
         remove this scheduler from the cluster, empty the directory and join as a new member",
        config.data_dir.display(),
        purged.map_or(0, |id| id.index),
        snapshot.map_or(0, |id| id.index)
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whatever_times_pass_the_check_suit_all_groups() {
        let ms = Duration::from_millis;
        for (heartbeat, election_min, election_max) in [
            (50, 150, 300),
            (50, 100, 101),
            (5, 10, 11),
            (100, 300, 400),
            (20, 150, 180),
        ] {
            let settings = Settings {
                heartbeat: ms(heartbeat),
                election_min: ms(election_min),
                election_max: ms(election_max),
                ..Settings::default()
            };
            settings.check().unwrap();
            meta_config(&settings, "a").unwrap();
            lane_config(&settings.of_lanes(), "a").unwrap();
        }
    }
}
