//! Clusters of real nodes in one process, on loopback ports and temporary directories.

#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared by test binaries that use parts of it"
)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use whiskraft_raft::{Node, NodeConfig, Role, Settings, StartError};
use whiskraft_state::{Command, DocumentKey, OpenSession, PutDocument, Response, SessionOwner};
use whiskraft_types::{LogRevision, NamespaceLimits, NamespaceName, SchedulerId, SessionId};

/// No condition of these tests takes longer on a machine that does anything at all.
pub const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// Waits until a condition holds; fails the test with its name otherwise.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// Schedulers 1 to n, some of them running.
pub struct Cluster {
    root: TempDir,
    pub name: String,
    pub addresses: BTreeMap<SchedulerId, SocketAddr>,
    listeners: BTreeMap<SchedulerId, TcpListener>,
    pub nodes: BTreeMap<SchedulerId, Node>,
    pub settings: Settings,
}

impl Cluster {
    pub fn new(size: u64, settings: Settings) -> Self {
        let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: BTreeMap<_, _> = (1..=size).map(|id| (SchedulerId(id), bind(id))).collect();
        let addresses = listeners
            .iter()
            .map(|(id, listener)| (*id, listener.local_addr().unwrap()))
            .collect();
        let root = tempfile::tempdir().unwrap();
        Self {
            root,
            name: "test".to_owned(),
            addresses,
            listeners,
            nodes: BTreeMap::new(),
            settings,
        }
    }

    pub async fn running(size: u64, settings: Settings) -> Self {
        let mut cluster = Self::new(size, settings);
        let ids: Vec<u64> = (1..=size).collect();
        cluster.start_all(&ids).await;
        cluster
    }

    pub fn dir(&self, id: u64) -> PathBuf {
        self.root.path().join(format!("node-{id}"))
    }

    pub fn initial(&self) -> BTreeMap<SchedulerId, String> {
        self.addresses
            .iter()
            .map(|(id, address)| (*id, address.to_string()))
            .collect()
    }

    pub fn config(&mut self, id: u64) -> NodeConfig {
        let scheduler = SchedulerId(id);
        let listener = self.listeners.remove(&scheduler);
        let listener = listener.unwrap_or_else(|| TcpListener::bind(self.addresses[&scheduler]).unwrap());
        NodeConfig {
            id: Some(scheduler),
            initial_cluster: self.initial(),
            join: None,
            cluster_name: self.name.clone(),
            learner: false,
            data_dir: self.dir(id),
            peer_listener: listener,
            advertise_peer: None,
            advertise_client: format!("client-{id}:7401"),
            zone: String::new(),
            version: "test".to_owned(),
            settings: self.settings.clone(),
        }
    }

    /// Configuration of a scheduler that joins through the given one.
    pub fn joining(&self, through: u64, dir: &str) -> NodeConfig {
        NodeConfig {
            id: None,
            initial_cluster: BTreeMap::new(),
            join: Some(vec![self.addresses[&SchedulerId(through)].to_string()]),
            cluster_name: self.name.clone(),
            learner: false,
            data_dir: self.root.path().join(dir),
            peer_listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            advertise_peer: None,
            advertise_client: "joined:7401".to_owned(),
            zone: String::new(),
            version: "test".to_owned(),
            settings: self.settings.clone(),
        }
    }

    pub async fn try_start(&mut self, id: u64) -> Result<(), StartError> {
        let config = self.config(id);
        let node = tokio::time::timeout(PATIENCE, Node::start(config))
            .await
            .expect("start takes for ever")?;
        self.nodes.insert(SchedulerId(id), node);
        Ok(())
    }

    pub async fn start(&mut self, id: u64) {
        self.try_start(id).await.unwrap();
    }

    pub async fn start_all(&mut self, ids: &[u64]) {
        let starts: Vec<_> = ids
            .iter()
            .map(|id| tokio::spawn(Node::start(self.config(*id))))
            .collect();
        for (id, start) in ids.iter().zip(starts) {
            let node = tokio::time::timeout(PATIENCE, start)
                .await
                .expect("start takes for ever")
                .unwrap();
            self.nodes.insert(SchedulerId(*id), node.unwrap());
        }
    }

    pub async fn stop(&mut self, id: u64) {
        self.nodes.remove(&SchedulerId(id)).unwrap().shutdown().await;
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&SchedulerId(id)]
    }

    /// The leader that a majority of the running nodes agrees on.
    pub async fn leader(&self) -> u64 {
        eventually("a leader", async || {
            let leads = |node: &&Node| node.status().role == Role::Leader;
            let leader = self
                .nodes
                .values()
                .filter(leads)
                .max_by_key(|node| node.status().term)?;
            let term = leader.status().term;
            let follows =
                |node: &&Node| node.status().term == term && node.status().leader == Some(leader.id());
            (self.nodes.values().filter(follows).count() * 2 > self.addresses.len()).then_some(leader.id().0)
        })
        .await
    }

    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.nodes.keys().map(|id| id.0).find(|id| *id != leader).unwrap()
    }
}

/// Proposes until the outcome is known; the commands of these tests may be repeated.
pub async fn propose(node: &Node, command: Command) -> (LogRevision, Response) {
    eventually("a proposal is accepted", async || {
        node.propose(command.clone()).await.ok()
    })
    .await
}

pub fn namespace(name: &str) -> NamespaceName {
    name.parse().unwrap()
}

pub fn put_namespace(name: &str, containers: u32) -> Command {
    Command::PutNamespace {
        name: namespace(name),
        limits: NamespaceLimits::containers(containers),
    }
}

pub fn limit(node: &Node, name: &str) -> u32 {
    node.read(|state| state.namespace_limits(&namespace(name)).containers)
}

pub fn document_key(name: &str) -> DocumentKey {
    DocumentKey {
        kind: "note".to_owned(),
        namespace: namespace("guest"),
        name: name.to_owned(),
    }
}

pub fn put_document(name: &str, body: &[u8]) -> Command {
    Command::PutDocument(PutDocument {
        key: document_key(name),
        body: body.to_vec(),
        expected: None,
        blobs: Vec::new(),
        limits: None,
    })
}

pub async fn open_session(node: &Node, incarnation: u8, ttl: Duration) -> SessionId {
    let open = OpenSession {
        owner: SessionOwner::Scheduler(node.id()),
        incarnation: [incarnation; 16],
        ttl,
    };
    match propose(node, Command::OpenSession(open)).await {
        (_, Response::Session(session)) => session,
        other => panic!("no session: {other:?}"),
    }
}

/// Copies a directory as it is at this moment, like a backup would.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
