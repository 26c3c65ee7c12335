//! The start of a node, step by step, and its stop.
//!
//! Order: who are we (directory, lock, identity) → the peer service listens → the cluster forms, or knows us → log and
//! tables open → consensus runs → the tables are as new as they were. Nothing is promised to anybody before the step
//! that makes it true.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::{BasicNode, Config, SnapshotPolicy};
use whiskraft_state::MemberRecord;
use whiskraft_types::SchedulerId;

use crate::bootstrap::{self, Newcomer, REPORT_PAUSE};
use crate::config::{NodeConfig, Settings};
use crate::core::{Core, Raft};
use crate::disk::DiskSpace;
use crate::error::{StartError, StopReason};
use crate::fatal::Fatal;
use crate::identity::{self, DataDir, Identity};
use crate::membership;
use crate::network::Network;
use crate::node::{Inner, Node, Owned};
use crate::peers::Peers;
use crate::propose::Proposer;
use crate::runtime::Runtime;
use crate::server::{PeerService, Running};
use crate::sessions::{Courier, Keeper};
use crate::store::{Bodies, Engine, LogStore, Machine, Ring, SyncThread};
use crate::types::META_GROUP;
use crate::watchman;

/// A lagging follower gets log entries while there are any, so this is more than is ever kept.
const REPLICATION_LAG: u64 = 10_000_000;
/// Log entries in one deletion: each leaves a range tombstone.
const PURGE_BATCH: u64 = 1000;
/// Longest wait of a stop for another leader, and for the core to end.
const STOP_STEP_MAX: Duration = Duration::from_secs(1);
/// Directory of the engine.
const STORE_DIR: &str = "store";
/// Directory of snapshots.
const SNAPSHOTS_DIR: &str = "snapshots";

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

/// What the configuration says about who this node is.
struct Wanted {
    id: u64,
    cluster_id: String,
    cluster: BTreeMap<u64, String>,
    peer_address: String,
}

fn wanted(config: &NodeConfig) -> Result<Wanted, StartError> {
    let local = config.peer_listener.local_addr();
    let local = local.map_err(|source| StartError::Listener {
        what: "its address is not known".to_owned(),
        source,
    })?;
    let advertised = config.advertise_peer.clone();
    if config.join.is_some() {
        if !config.initial_cluster.is_empty() {
            return Err(StartError::Config(
                "both a join address and an initial cluster are given; a scheduler forms a cluster or joins one".to_owned(),
            ));
        }
        let peer_address = advertised.unwrap_or_else(|| local.to_string());
        let id = config.id.map_or(0, |id| id.0);
        return Ok(Wanted {
            id,
            cluster_id: String::new(),
            cluster: BTreeMap::new(),
            peer_address,
        });
    }
    let Some(id) = config.id else {
        return Err(StartError::Config(
            "the number of this scheduler in the initial cluster is not given".to_owned(),
        ));
    };
    if id.0 == 0 || config.initial_cluster.contains_key(&SchedulerId(0)) {
        return Err(StartError::Config(
            "0 is not a scheduler number; numbers start at 1".to_owned(),
        ));
    }
    let Some(address) = config.initial_cluster.get(&id) else {
        let members: Vec<String> = config.initial_cluster.keys().map(ToString::to_string).collect();
        return Err(StartError::Config(format!(
            "scheduler {id} is not in the initial cluster, which has the numbers {}",
            members.join(", ")
        )));
    };
    Ok(Wanted {
        id: id.0,
        cluster_id: identity::cluster_id(&config.cluster_name, &config.initial_cluster),
        cluster: config
            .initial_cluster
            .iter()
            .map(|(id, address)| (id.0, address.clone()))
            .collect(),
        peer_address: advertised.unwrap_or_else(|| address.clone()),
    })
}

/// The identity of the directory, made if it has none; refused if it is another's.
fn own_identity(config: &NodeConfig, wanted: &Wanted, data: &DataDir) -> Result<Identity, StartError> {
    let dir = config.data_dir.display();
    let Some(found) = data.identity()? else {
        let made = Identity::new(&config.cluster_name, wanted.cluster_id.clone(), wanted.id);
        let made = made.map_err(|error| data.error("no random bytes for its identity", error))?;
        data.save(&made)?;
        tracing::info!(%dir, cluster = config.cluster_name, scheduler = wanted.id, "data directory made");
        return Ok(made);
    };
    let joins = config.join.is_some();
    if found.cluster_name != config.cluster_name || (!joins && found.cluster_id != wanted.cluster_id) {
        return Err(StartError::Identity(format!(
            "data directory {dir} belongs to cluster {} ({:?}), not to cluster {} ({:?}) that is configured; use the \
             directory of this cluster, or the name and initial cluster that the directory was made with",
            found.cluster_id, found.cluster_name, wanted.cluster_id, config.cluster_name
        )));
    }
    if wanted.id != 0 && found.id != wanted.id {
        return Err(StartError::Identity(format!(
            "data directory {dir} belongs to scheduler {}, not to scheduler {} that is configured; every scheduler has a \
             directory of its own",
            found.id, wanted.id
        )));
    }
    Ok(found)
}

/// Starts a node; see [`Node::start`].
pub(crate) async fn start(config: NodeConfig) -> Result<Node, StartError> {
    config.settings.check()?;
    let wanted = wanted(&config)?;
    let data = DataDir::open(&config.data_dir)?;
    let identity = own_identity(&config, &wanted, &data)?;
    let runtime = Runtime::start().map_err(|error| data.error("threads for consensus", error))?;
    let fatal = Fatal::new();
    let peers = Peers::new(
        runtime.handle(),
        identity.cluster_id.clone(),
        identity.id,
        &config.settings,
    );
    let service = PeerService::new(peers.clone(), identity.clone());
    serve(&runtime, &service, &config, &fatal)?;

    let newcomer = Newcomer {
        peer_address: wanted.peer_address.clone(),
        client_address: config.advertise_client.clone(),
        incarnation: identity.incarnation,
    };
    let establish = establish(&config, &wanted, identity, &data, &peers, &newcomer);
    let identity = tokio::select! {
        biased;
        reason = fatal.wait() => return Err(reason.into()),
        identity = establish => identity.inspect_err(|_| fatal.stop(StopReason::Requested))?,
    };
    peers.set_identity(identity.cluster_id.clone(), identity.id);
    service.set_identity(identity.clone());

    let (core, owned, machine) = open(&config, data, runtime, peers, fatal).await?;
    let node = assemble(
        &config, &wanted, identity, newcomer, &service, core, owned, machine,
    );
    recover(&node.core).await?;
    announce(&config, &wanted, &node).await?;
    Ok(Node::new(node))
}

fn serve(
    runtime: &Runtime,
    service: &PeerService,
    config: &NodeConfig,
    fatal: &Fatal,
) -> Result<(), StartError> {
    let listener = config.peer_listener.try_clone();
    let listener = listener.map_err(|source| StartError::Listener {
        what: "it cannot be used".to_owned(),
        source,
    })?;
    let (service, fatal) = (service.clone(), fatal.clone());
    runtime.spawn(async move {
        if let Err(error) = service.serve(listener, fatal.clone()).await {
            fatal.stop(StopReason::Raft(format!("peer listener failed: {error}")));
        }
    });
    Ok(())
}

/// Makes sure that this directory is a member's.
async fn establish(
    config: &NodeConfig,
    wanted: &Wanted,
    mut identity: Identity,
    data: &DataDir,
    peers: &Peers,
    newcomer: &Newcomer,
) -> Result<Identity, StartError> {
    if identity.is_formed() {
        bootstrap::verify(peers, &identity, &wanted.cluster).await?;
        return Ok(identity);
    }
    match &config.join {
        Some(members) => {
            let (cluster_id, id) = bootstrap::join(peers, newcomer, members).await?;
            identity.cluster_id = cluster_id;
            identity.id = id;
            identity.members = BTreeMap::from([(id, identity.incarnation)]);
        }
        None => identity.members = bootstrap::form(peers, &identity, &wanted.cluster).await?,
    }
    data.save(&identity)?;
    tracing::info!(
        cluster = identity.cluster_id,
        scheduler = identity.id,
        "cluster formed"
    );
    Ok(identity)
}

/// Opens log and tables and runs consensus on them.
async fn open(
    config: &NodeConfig,
    data: DataDir,
    runtime: Runtime,
    peers: Peers,
    fatal: Fatal,
) -> Result<(Core, Owned, crate::store::SnapshotDir), StartError> {
    let settings = Arc::new(config.settings.clone());
    let dir = config.data_dir.clone();
    let failed = |what: &str, source: io::Error| StartError::Storage {
        dir: dir.clone(),
        what: what.to_owned(),
        source,
    };
    let (store_dir, snapshots_dir) = (data.join(STORE_DIR), data.join(SNAPSHOTS_DIR));
    let ring = Ring::new(settings.watch_batches, settings.watch_bytes);
    let lock = data.into_lock();
    let opening = runtime.spawn_blocking(move || {
        let engine = Arc::new(Engine::open(&store_dir, lock)?);
        let bodies = Bodies::new(Arc::clone(&engine), META_GROUP);
        let machine = Machine::open(bodies.clone(), &snapshots_dir, META_GROUP, ring)?;
        Ok::<_, io::Error>((engine, bodies, machine))
    });
    let opened = opening
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
    let (engine, bodies, machine) =
        opened.map_err(|error| failed("its log or tables cannot be opened", error))?;
    let sync = SyncThread::start(Arc::clone(&engine), fatal.clone(), settings.sync_delay);
    let (sync, syncs) = sync.map_err(|error| failed("no thread for syncs", error))?;
    let log = LogStore::new(engine, syncs, META_GROUP);
    let purged = log
        .purged()
        .map_err(|error| failed("its log cannot be read", error))?;
    if purged > machine.last() {
        return Err(StartError::Identity(format!(
            "data directory {} has lost its snapshots: the log starts after entry {}, the newest whole snapshot ends at {}; \
             remove this scheduler from the cluster, empty the directory and join as a new member",
            dir.display(),
            purged.map_or(0, |id| id.index),
            machine.last().map_or(0, |id| id.index)
        )));
    }
    let (shared, snapshots) = (machine.shared(), machine.dir());
    let raft_config = Arc::new(raft_config(&settings, &peers.cluster_id())?);
    let network = Network::new(peers.clone());
    let id = peers.id();
    let raft = runtime
        .spawn(async move { Raft::new(id, raft_config, network, log, machine).await })
        .await;
    let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
    let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
    let disk = DiskSpace::new(&config.data_dir, settings.disk_reserve);
    let core = Core {
        raft,
        peers,
        shared,
        fatal,
        settings,
        disk,
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

/// Puts the actors around the core.
#[expect(
    clippy::too_many_arguments,
    reason = "the pieces of a node meet here and nowhere else"
)]
fn assemble(
    config: &NodeConfig,
    wanted: &Wanted,
    identity: Identity,
    newcomer: Newcomer,
    service: &PeerService,
    core: Core,
    owned: Owned,
    snapshots: crate::store::SnapshotDir,
) -> Inner {
    let runtime = &owned.runtime;
    let (keeper, keeper_handle) = Keeper::new(core.clone());
    let (courier, courier_handle) = Courier::new(core.clone(), keeper_handle.clone());
    runtime.spawn(keeper.run());
    runtime.spawn(courier.run());
    service.open(Running {
        core: core.clone(),
        keeper: keeper_handle,
        snapshots,
    });

    let proposer = Proposer::new(core.clone());
    let (cluster_id, incarnation) = (identity.cluster_id.clone(), identity.incarnation);
    runtime.spawn(watchman::watch_core(core.clone()));
    runtime.spawn(watchman::ask_around(core.clone(), identity));
    if config.join.is_some() {
        runtime.spawn(watchman::become_voter(core.clone(), newcomer));
    } else {
        runtime.spawn(initialize(core.clone(), wanted.cluster.clone()));
    }
    Inner {
        core,
        cluster_id,
        incarnation,
        proposer,
        courier: courier_handle,
        owned: Mutex::new(Some(owned)),
    }
}

/// Puts this scheduler into the members table; without its row it could open no session.
async fn announce(config: &NodeConfig, wanted: &Wanted, node: &Inner) -> Result<(), StartError> {
    let member = MemberRecord {
        peer_address: wanted.peer_address.clone(),
        client_address: config.advertise_client.clone(),
        zone: config.zone.clone(),
        version: config.version.clone(),
        incarnation: node.incarnation,
        draining: false,
    };
    tokio::select! {
        biased;
        reason = node.core.fatal.wait() => Err(reason.into()),
        () = watchman::announce(&node.core, &node.proposer, member) => Ok(()),
    }
}

/// Gives a fresh log its first membership; every initial member does it, with the same one.
async fn initialize(core: Core, cluster: BTreeMap<u64, String>) {
    let members: BTreeMap<u64, BasicNode> = cluster
        .into_iter()
        .map(|(id, addr)| (id, BasicNode { addr }))
        .collect();
    // Refused when the log is not empty, which is every start but the first.
    if let Err(error) = core.raft.initialize(members).await {
        tracing::debug!(%error, "log is not new");
    }
}

/// Waits until the tables are as new as they were when the process last stopped.
async fn recover(core: &Core) -> Result<(), StartError> {
    loop {
        let waiting = core.raft.wait_for_recovery(Some(REPORT_PAUSE));
        tokio::select! {
            biased;
            reason = core.fatal.wait() => return Err(reason.into()),
            recovered = waiting => match recovered {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let leader = core.leader();
                    tracing::info!(?leader, %error, "waiting for a quorum of the cluster");
                }
            },
        }
    }
}

/// Stops a node in order.
pub(crate) async fn stop(core: &Core, owned: Owned) {
    if core.lease().is_some() {
        membership::hand_over(core).await;
        let id = core.id();
        let another = |metrics: &openraft::RaftMetrics<crate::types::Types>| {
            metrics.current_leader.is_some_and(|leader| leader != id)
        };
        drop(
            core.raft
                .wait(Some(STOP_STEP_MAX))
                .metrics(another, "another leads")
                .await,
        );
    }
    core.fatal.stop(StopReason::Requested);
    core.shared.ring.close();
    if tokio::time::timeout(STOP_STEP_MAX, core.raft.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("consensus core did not end in time");
    }
    if tokio::task::spawn_blocking(move || drop(owned)).await.is_err() {
        tracing::error!("store was not closed in order");
    }
}
