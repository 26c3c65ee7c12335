//! Opens the store and runs consensus on it.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::config::{NodeConfig, Settings};
use crate::core::{Core, Raft};
use crate::disk::DiskSpace;
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::identity::DataDir;
use crate::network::Network;
use crate::node::Owned;
use crate::peers::Peers;
use crate::runtime::Runtime;
use crate::store::{Bodies, Engine, LogStore, Machine, Ring, SnapshotDir, SyncThread};
use crate::types::{LogId, META_GROUP};

/// A lagging follower gets log entries while there are any, so this is more than is ever kept.
const REPLICATION_LAG: u64 = 10_000_000;
/// Log entries in one deletion: each leaves a range tombstone.
const PURGE_BATCH: u64 = 1000;
/// Directory of the engine.
pub(crate) const STORE_DIR: &str = "store";
/// Directory of snapshots.
pub(crate) const SNAPSHOTS_DIR: &str = "snapshots";

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings from ours.
fn raft_config(settings: &Settings, cluster_id: &str) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election_min),
        election_timeout_max: millis(settings.election_max),
        install_snapshot_timeout: millis(settings.snapshot_timeout),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_logs),
        max_in_snapshot_log_to_keep: settings.logs_kept,
        replication_lag_threshold: REPLICATION_LAG,
        purge_batch_size: PURGE_BATCH.min(settings.snapshot_logs),
        enable_pre_vote: Some(true),
        // A restarted leader would go on without an election, with tables that are older than what it answered.
        enable_leader_restore: Some(false),
        // Without it a leader that reaches one follower but no quorum keeps a connected majority from electing another.
        quorum_loss_probe_interval: Some(millis(settings.election_max) * 2),
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::Config(format!("raft settings: {error}")))
}

/// The store of a node, open.
struct Store {
    engine: Arc<Engine>,
    bodies: Bodies,
    machine: Machine,
}

/// Opens log and tables and runs consensus on them.
pub(super) async fn open(
    config: &NodeConfig,
    data: DataDir,
    runtime: Runtime,
    peers: Peers,
    fatal: Fatal,
) -> Result<(Core, Owned, SnapshotDir), StartError> {
    let settings = Arc::new(config.settings.clone());
    let raft_config = Arc::new(raft_config(&settings, &peers.cluster_id())?);
    let Store {
        engine,
        bodies,
        machine,
    } = open_store(&settings, data, &runtime).await?;
    let failed = |what: &str, source: io::Error| StartError::Storage {
        dir: config.data_dir.clone(),
        what: what.to_owned(),
        source,
    };
    let sync = SyncThread::start(Arc::clone(&engine), fatal.clone(), settings.sync_delay);
    let (sync, syncs) = sync.map_err(|error| failed("no thread for syncs", error))?;
    let log = LogStore::new(engine, syncs, META_GROUP);
    let purged = log
        .purged()
        .map_err(|error| failed("its log cannot be read", error))?;
    if purged > machine.last() {
        return Err(lost_snapshots(config, purged, machine.last()));
    }
    let (shared, snapshots) = (machine.shared(), machine.dir());
    let (id, network) = (peers.id(), Network::new(peers.clone()));
    let raft = runtime.spawn(async move { Raft::new(id, raft_config, network, log, machine).await });
    let raft = raft.await.map_err(|error| StartError::Raft(error.to_string()))?;
    let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
    let disk = DiskSpace::new(&config.data_dir, settings.disk_reserve);
    let core = Core {
        raft,
        peers,
        shared,
        fatal,
        settings,
        disk,
        cluster_name: config.cluster_name.as_str().into(),
        changing: Arc::default(),
    };
    Ok((
        core,
        Owned {
            bodies,
            runtime,
            _sync: sync,
        },
        snapshots,
    ))
}

async fn open_store(settings: &Settings, data: DataDir, runtime: &Runtime) -> Result<Store, StartError> {
    let (dir, store_dir, snapshots_dir) = (
        data.path().to_owned(),
        data.join(STORE_DIR),
        data.join(SNAPSHOTS_DIR),
    );
    let ring = Ring::new(settings.watch_batches, settings.watch_bytes);
    let lock = data.into_lock();
    let opening = runtime.spawn_blocking(move || {
        let engine = Arc::new(Engine::open(&store_dir, lock)?);
        let bodies = Bodies::new(Arc::clone(&engine), META_GROUP);
        let machine = Machine::open(bodies.clone(), &snapshots_dir, META_GROUP, ring)?;
        Ok::<_, io::Error>(Store {
            engine,
            bodies,
            machine,
        })
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
fn lost_snapshots(config: &NodeConfig, purged: Option<LogId>, snapshot: Option<LogId>) -> StartError {
    StartError::Identity(format!(
        "data directory {} has lost its snapshots: the log starts after entry {}, the newest whole snapshot ends at {}; \
         remove this scheduler from the cluster, empty the directory and join as a new member",
        config.data_dir.display(),
        purged.map_or(0, |id| id.index),
        snapshot.map_or(0, |id| id.index)
    ))
}
