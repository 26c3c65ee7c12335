//! `whiskraft scheduler`: one member of the Raft cluster, until a signal or a fatal error.

use std::net::TcpListener;
use std::path::PathBuf;

use clap::Args;
use whiskraft_raft::{Node, NodeConfig, StartError, StopReason};
use whiskraft_scheduler::Scheduler;

use crate::arguments::whole;
use crate::config::{Config, NodeSection, Overrides};
use crate::exit::{Exit, Failure};
use crate::role::listen;
use crate::role::supervisor::Supervisor;
use crate::signals::Signals;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  Every member of a new cluster is started with the same --initial-cluster; nothing else initialises it:
  whiskraft scheduler --id 1 --initial-cluster 1=a:7400,2=b:7400,3=c:7400 --data-dir /var/lib/whiskraft
  A later member joins through the peer address of any other and is given its id:
  whiskraft scheduler --join a:7400 --data-dir /var/lib/whiskraft --peer-listen 0.0.0.0:7400 --advertise-peer d:7400
  A cluster of one, for tests:
  whiskraft scheduler --id 1 --initial-cluster 1=127.0.0.1:7400 --data-dir /tmp/whiskraft

The scheduler runs in a child process. When that is killed, its parent tells the other schedulers, which take over at once, and
ends with its exit code (128+N: killed by signal N). Nothing is started again. One process without it:
  whiskraft scheduler --set scheduler.supervise=false …";

/// Option that tells a scheduler that it is such a child.
pub(crate) const SUPERVISED: &str = "--supervised";

/// Arguments of `whiskraft scheduler`; each is also a setting of section `[node]`.
#[derive(Debug, Args)]
pub(crate) struct SchedulerArgs {
    /// Number of this scheduler in --initial-cluster
    #[arg(long, value_name = "N", value_parser = whole::<u64, 1, { u64::MAX }>)]
    id: Option<u64>,
    /// Peer addresses of all initial members, the same on each of them
    #[arg(long, value_name = "ID=HOST:PORT,…")]
    initial_cluster: Option<String>,
    /// Peer addresses of members of a running cluster to join
    #[arg(long, value_name = "HOST:PORT,…", conflicts_with_all = ["initial_cluster", "id"])]
    join: Option<String>,
    /// Follow the log without a vote until an operator says `whiskraft cluster promote`; for one that joins
    #[arg(long, requires = "join")]
    learner: bool,
    /// Directory for log, snapshots and documents; created if missing [default: whiskraft-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Listen address for other schedulers [default: 0.0.0.0 and the port in --initial-cluster, or 7400]
    #[arg(long, value_name = "HOST:PORT")]
    peer_listen: Option<String>,
    /// Listen address for controllers and invokers [default: 0.0.0.0:7401]
    #[arg(long, value_name = "HOST:PORT")]
    client_listen: Option<String>,
    /// Peer address under which the others reach this scheduler [default: the one in --initial-cluster]
    #[arg(long, value_name = "HOST:PORT")]
    advertise_peer: Option<String>,
    /// Client address announced to controllers and invokers [default: host of the peer address, port of --client-listen]
    #[arg(long, value_name = "HOST:PORT")]
    advertise_client: Option<String>,
    /// Name of the cluster; members of another name are refused [default: whiskraft]
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// Failure zone this scheduler is in
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

impl SchedulerArgs {
    /// The settings that these arguments override.
    pub(crate) fn overrides(&self) -> Overrides {
        let mut flags = Overrides::default();
        flags.set("node.id", self.id);
        flags.set("node.initial-cluster", self.initial_cluster.as_ref());
        flags.set("node.join", self.join.as_ref());
        flags.set("node.learner", self.learner.then_some(true));
        flags.set("node.data-dir", self.data_dir.as_ref());
        flags.set("node.peer-listen", self.peer_listen.as_ref());
        flags.set("node.client-listen", self.client_listen.as_ref());
        flags.set("node.advertise-peer", self.advertise_peer.as_ref());
        flags.set("node.advertise-client", self.advertise_client.as_ref());
        flags.set("node.cluster-name", self.cluster_name.as_ref());
        flags.set("node.zone", self.zone.as_ref());
        flags
    }
}

/// Serves until the first signal or until the node stops by itself.
///
/// # Errors
/// If the node refuses to start, or stops for any other reason than a signal.
pub(crate) async fn run(config: Config, is_supervised: bool) -> Result<(), Failure> {
    let supervisor = is_supervised.then(Supervisor::open).transpose()?;
    let mut signals = Signals::install_with(supervisor.clone())?;
    let mut running = tokio::select! {
        running = Running::start(config) => running?,
        // Forming a cluster may wait for other members for as long as they need.
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before the cluster had formed");
            return Ok(());
        }
    };
    let (node, incarnation) = (running.node.clone(), running.scheduler.incarnation());
    let informing = async {
        match &supervisor {
            Some(supervisor) => supervisor.keep_informed(&node, incarnation).await,
            None => std::future::pending().await,
        }
    };
    let stopped = tokio::select! {
        failure = running.failed() => Err(failure),
        name = signals.next() => {
            tracing::info!(signal = name, "shutting down");
            Ok(())
        }
        () = informing => unreachable!("it goes on while it is polled"),
    };
    drop(node);
    signals.or_force(running.shutdown()).await?;
    stopped
}

/// A scheduler with its node.
pub(crate) struct Running {
    node: Node,
    scheduler: Scheduler,
}

impl Running {
    /// Binds the listeners, starts the node, and serves clients.
    ///
    /// # Errors
    /// If an address is in use or the node refuses to start.
    pub(crate) async fn start(config: Config) -> Result<Self, Failure> {
        let Config {
            node: section,
            raft: settings,
            scheduler,
            ..
        } = config;
        let addresses = section
            .addresses()
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        let peer_listener = listen(&addresses.peer_listen, "--peer-listen")?;
        let client_listener = listen(&addresses.client_listen, "--client-listen")?;
        let data_dir = section.data_dir.clone();
        let node_config = node_config(
            section,
            addresses.advertise_client.clone(),
            peer_listener,
            settings,
        );
        tracing::info!(data_dir = %data_dir.display(), peers = %addresses.peer_listen, "scheduler starting");
        let node = Node::start(node_config).await.map_err(start_failure)?;
        let started = Scheduler::start(scheduler, node.clone(), client_listener);
        let scheduler = started
            .map_err(|error| Failure::new(Exit::Refused, "the scheduler did not start").caused_by(error))?;
        tracing::info!(
            scheduler = %node.id(),
            cluster = node.cluster_id(),
            clients = %addresses.advertise_client,
            "scheduler serving"
        );
        Ok(Self { node, scheduler })
    }

    /// Waits until the node or the role has stopped by itself, and says what that means for the process.
    pub(crate) async fn failed(&mut self) -> Failure {
        tokio::select! {
            reason = self.node.stopped() => stop_failure(&reason),
            () = self.scheduler.failed() => Failure::new(Exit::Fatal, "a task of the scheduler ended unexpectedly")
                .advise("the log above says why; a restart recovers from disk"),
        }
    }

    /// Ends the streams, gives the session back, and closes the store.
    pub(crate) async fn shutdown(self) {
        self.scheduler.shutdown().await;
        self.node.shutdown().await;
    }
}

fn node_config(
    section: NodeSection,
    advertise_client: String,
    peer_listener: TcpListener,
    settings: whiskraft_raft::Settings,
) -> NodeConfig {
    NodeConfig {
        id: section.id,
        initial_cluster: section.initial_cluster,
        learner: section.learner,
        join: Some(section.join).filter(|join| !join.is_empty()),
        cluster_name: section.cluster_name,
        data_dir: section.data_dir,
        peer_listener,
        advertise_peer: section.advertise_peer,
        advertise_client,
        zone: section.zone,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings,
    }
}

fn start_failure(error: StartError) -> Failure {
    Failure::new(start_exit(&error), "the scheduler did not start").caused_by(error)
}

/// The exit code of what keeps a scheduler from its directory.
pub(crate) const fn start_exit(error: &StartError) -> Exit {
    match error {
        StartError::Config(_) | StartError::Settings(_) => Exit::Usage,
        StartError::Locked { .. }
        | StartError::Identity(_)
        | StartError::Unknown(_)
        | StartError::Listener { .. } => Exit::Refused,
        StartError::Storage { .. } | StartError::Raft(_) => Exit::Fatal,
    }
}

/// What a node that stopped by itself means for the process.
fn stop_failure(reason: &StopReason) -> Failure {
    let exit = match reason {
        StopReason::Storage(_) | StopReason::Raft(_) => Exit::Fatal,
        StopReason::Identity(_) | StopReason::Removed(_) | StopReason::Requested => Exit::Refused,
    };
    Failure::new(exit, format!("the scheduler stopped: {reason}"))
}
