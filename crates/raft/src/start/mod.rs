//! The start of a node, step by step, and its stop.
//!
//! Order: who are we (directory, lock, identity) → the peer service listens → the cluster forms → log and tables open →
//! the others know us, and nothing that they remember is missing → consensus runs → the tables are as new as they were. Nothing is promised to anybody before the step
//! that makes it true.

mod claim;
mod open;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use openraft::BasicNode;
use whiskraft_state::MemberRecord;

use self::claim::Wanted;
use self::open::{Opened, Store};
pub(crate) use self::open::{SNAPSHOTS_DIR, STORE_DIR, lane_snapshots};
use crate::bootstrap::{self, Newcomer, REPORT_PAUSE};
use crate::config::NodeConfig;
use crate::core::{Core, Group};
use crate::error::{StartError, StopReason};
use crate::fatal::Fatal;
use crate::identity::{DataDir, Identity};
use crate::journal::Journal;
use crate::lanes;
use crate::membership;
use crate::node::{Inner, Node, Owned};
use crate::peers::Peers;
use crate::propose::Proposer;
use crate::runtime::Runtime;
use crate::server::{PeerService, Running};
use crate::sessions::{Courier, Keeper};
use crate::watchman;

/// Longest wait of a stop for another leader, and for the core to end.
const STOP_STEP_MAX: Duration = Duration::from_secs(1);

/// Starts a node; see [`Node::start`].
pub(crate) async fn start(config: NodeConfig) -> Result<Node, StartError> {
    config.settings.check()?;
    let wanted = Wanted::new(&config)?;
    let data = DataDir::open(&config.data_dir)?;
    let identity = claim::own_identity(&config, &wanted, &data)?;
    let failed = |error| data.error("threads for consensus", error);
    let runtime = Runtime::start("raft").map_err(failed)?;
    let lane_runtime = Runtime::start("lanes").map_err(failed)?;
    let fatal = Fatal::new();
    let peers = Peers::new(
        (runtime.handle(), lane_runtime.handle()),
        &identity,
        &config.settings,
    );
    let service = PeerService::new(peers.clone(), identity.clone());
    serve((&runtime, &lane_runtime), &service, &config, &fatal)?;

    let mut newcomer = Newcomer {
        id: identity.id,
        cluster_name: config.cluster_name.clone(),
        learner: config.learner,
        peer_address: wanted.peer_address.clone(),
        client_address: config.advertise_client.clone(),
        incarnation: identity.incarnation,
    };
    let was_formed = identity.is_formed();
    let establish = establish(&config, &wanted, identity, &data, &peers, &newcomer);
    let identity = tokio::select! {
        biased;
        reason = fatal.wait() => return Err(reason.into()),
        identity = establish => identity.inspect_err(|_| fatal.stop(StopReason::Requested))?,
    };
    peers.set_identity(identity.cluster_id.clone(), identity.id);
    service.set_identity(identity.clone());
    newcomer.id = identity.id;

    if identity.lanes != config.settings.lanes {
        let (has, set) = (identity.lanes, config.settings.lanes);
        tracing::warn!(
            has,
            set,
            "lanes were counted when the cluster formed; the setting is ignored"
        );
    }
    let store = open::open(&config, identity.lanes, data, &runtime, &peers, &fatal).await?;
    if was_formed {
        let members = members_to_ask(&config, &wanted, &store);
        let verified = bootstrap::verify(&peers, &identity, &members).await;
        verified.inspect_err(|_| fatal.stop(StopReason::Requested))?;
    }
    let opened = store.run(&config, (runtime, lane_runtime), peers, fatal).await?;
    let node = assemble(&config, &wanted, identity, newcomer, &service, opened);
    recover(&node.core).await?;
    announce(&config, &wanted, &node).await?;
    Ok(Node::new(node))
}

fn serve(
    (runtime, lane_runtime): (&Runtime, &Runtime),
    service: &PeerService,
    config: &NodeConfig,
    fatal: &Fatal,
) -> Result<(), StartError> {
    let listener = config.peer_listener.try_clone();
    let listener = listener.map_err(|source| StartError::Listener {
        what: "it cannot be used".to_owned(),
        source,
    })?;
    let (service, fatal, lanes) = (service.clone(), fatal.clone(), lane_runtime.handle());
    runtime.spawn(async move {
        if let Err(error) = service.serve(listener, lanes, fatal.clone()).await {
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
        return Ok(identity);
    }
    match &config.join {
        Some(members) => {
            let (cluster_id, id, lanes) = bootstrap::join(peers, newcomer, members).await?;
            identity.cluster_id = cluster_id;
            identity.id = id;
            identity.lanes = lanes;
            identity.members = BTreeMap::from([(id, identity.incarnation)]);
            identity.asks_vote = !config.learner;
        }
        None => {
            let formed = bootstrap::form(peers, &identity, &wanted.cluster).await?;
            (identity.members, identity.lanes) = (formed.members, formed.lanes);
        }
    }
    data.save(&identity)?;
    tracing::info!(
        cluster = identity.cluster_id,
        scheduler = identity.id,
        "cluster formed"
    );
    Ok(identity)
}

/// Everybody who may know this directory: the initial members, who came later, and whoever it joined through.
fn members_to_ask(config: &NodeConfig, wanted: &Wanted, store: &Store) -> Vec<(u64, String)> {
    let mut members = store.members();
    members.extend(wanted.cluster.clone());
    let join = config.join.iter().flatten();
    let strangers = join.filter(|address| !members.values().any(|known| known == *address));
    let strangers: Vec<_> = strangers.map(|address| (0, address.clone())).collect();
    members.into_iter().chain(strangers).collect()
}

/// Puts the actors around the core.
fn assemble(
    config: &NodeConfig,
    wanted: &Wanted,
    identity: Identity,
    newcomer: Newcomer,
    service: &PeerService,
    opened: Opened,
) -> Inner {
    let Opened {
        core,
        journal,
        groups,
        owned,
    } = opened;
    let runtime = &owned.runtime;
    let (keeper, keeper_handle) = Keeper::new(core.clone());
    let (courier, courier_handle) = Courier::new(core.clone(), keeper_handle.clone());
    runtime.spawn(keeper.run());
    runtime.spawn(courier.run());
    let group_list: Vec<Group> = groups.values().map(|served| served.group.clone()).collect();
    service.open(Running {
        core: core.clone(),
        keeper: keeper_handle,
        groups,
    });

    lanes::start(&owned.lane_runtime, &journal);
    let proposer = Proposer::new(core.group.clone());
    let (cluster_id, incarnation) = (identity.cluster_id.clone(), identity.incarnation);
    for group in &group_list {
        runtime.spawn(watchman::watch_core(group.clone()));
    }
    runtime.spawn(watchman::settle_membership(core.clone()));
    runtime.spawn(watchman::keep_seen(core.clone(), owned.seen.clone()));
    runtime.spawn(watchman::ask_around(
        core.clone(),
        journal.clone(),
        identity.clone(),
    ));
    if identity.asks_vote {
        let voting = watchman::become_voter(core.clone(), newcomer, identity, config.data_dir.clone());
        runtime.spawn(voting);
    } else if config.join.is_none() {
        for group in group_list {
            runtime.spawn(initialize(group, wanted.cluster.clone()));
        }
    }
    Inner {
        core,
        cluster_id,
        incarnation,
        proposer,
        courier: courier_handle,
        journal,
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
async fn initialize(group: Group, cluster: BTreeMap<u64, String>) {
    let members: BTreeMap<u64, BasicNode> = cluster
        .into_iter()
        .map(|(id, addr)| (id, BasicNode { addr }))
        .collect();
    // Refused when the log is not empty, which is every start but the first.
    if let Err(error) = group.raft.initialize(members).await {
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
pub(crate) async fn stop(core: &Core, journal: &Journal, owned: Owned) {
    let groups: Vec<&Group> = std::iter::once(&core.group).chain(journal.groups()).collect();
    futures::future::join_all(groups.iter().map(|group| leave(group))).await;
    core.fatal.stop(StopReason::Requested);
    core.shared.ring.close();
    watchman::keep_once(core, &owned.seen);
    let ends = groups.iter().map(|group| group.raft.shutdown());
    if tokio::time::timeout(STOP_STEP_MAX, futures::future::join_all(ends))
        .await
        .is_err()
    {
        tracing::warn!("consensus core did not end in time");
    }
    if tokio::task::spawn_blocking(move || drop(owned)).await.is_err() {
        tracing::error!("store was not closed in order");
    }
}

/// Hands a group over, if this node leads it.
async fn leave(group: &Group) {
    if group.lease().is_none() {
        return;
    }
    membership::hand_over(group).await;
    let id = group.id();
    let another = |metrics: &openraft::RaftMetrics<crate::types::Types>| {
        metrics.current_leader.is_some_and(|leader| leader != id)
    };
    let waiting = group.raft.wait(Some(STOP_STEP_MAX));
    drop(waiting.metrics(another, "another leads").await);
}
