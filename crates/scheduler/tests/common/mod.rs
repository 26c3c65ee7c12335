//! A cluster of three schedulers in one process, with real gRPC on loopback, and peers that speak the protocol.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod controller;
pub mod invoker;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tonic::transport::Channel;
use whiskraft_proto::Message;
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::document_change::Change;
use whiskraft_proto::v1::documents_client::DocumentsClient;
use whiskraft_raft::{Node, NodeConfig, Settings, StreamEnd};
use whiskraft_scheduler::{Scheduler, SchedulerConfig};
use whiskraft_state::State;
use whiskraft_types::{ActionLimits, SchedulerId};

/// Longest wait for anything that must happen; far above every timer of the cluster.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a future that must end.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("nothing within {PATIENCE:?}: {what}"))
}

/// One scheduler process, so to speak.
pub struct Member {
    pub node: Node,
    pub address: String,
    scheduler: Option<Scheduler>,
}

/// Three of them.
pub struct Cluster {
    pub members: BTreeMap<u64, Member>,
    config: SchedulerConfig,
    homes: BTreeMap<u64, Home>,
}

/// What a member comes back to.
struct Home {
    dir: TempDir,
    peer_address: String,
    client_address: String,
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Timers that make a test of a failure short.
pub fn config() -> SchedulerConfig {
    let mut config = SchedulerConfig {
        shards: NonZeroUsize::new(2),
        ..Default::default()
    };
    config.session.ttl = Duration::from_millis(1500);
    config.session.keepalive = Duration::from_millis(200);
    config.creation.deadline = Duration::from_secs(5);
    config
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub async fn start_with(config: SchedulerConfig) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter("whiskraft=debug")
            .try_init();
        let homes: BTreeMap<u64, (Home, TcpListener, TcpListener)> = (1..=3)
            .map(|id| {
                let ((peers, peer_address), (clients, client_address)) = (listener(), listener());
                let dir = TempDir::new().unwrap();
                let home = Home {
                    dir,
                    peer_address,
                    client_address,
                };
                (id, (home, peers, clients))
            })
            .collect();
        let mut cluster = Self {
            members: BTreeMap::new(),
            config,
            homes: BTreeMap::new(),
        };
        let mut listeners = Vec::new();
        for (id, (home, peers, clients)) in homes {
            cluster.homes.insert(id, home);
            listeners.push((id, peers, clients));
        }
        cluster.open(listeners, Settings::default()).await;
        cluster
    }

    /// Stops all schedulers, without a word to anybody, and starts them again on what their disks have.
    pub async fn restart_all(&mut self, settings: Settings) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.crash(id).await;
        }
        let bind = |address: &str| TcpListener::bind(address).unwrap();
        let listeners = self.homes.iter().map(|(id, home)| {
            let (peers, clients) = (bind(&home.peer_address), bind(&home.client_address));
            (*id, peers, clients)
        });
        let listeners = listeners.collect();
        self.open(listeners, settings).await;
    }

    async fn open(&mut self, listeners: Vec<(u64, TcpListener, TcpListener)>, settings: Settings) {
        let initial: BTreeMap<_, _> = self
            .homes
            .iter()
            .map(|(id, home)| (SchedulerId(*id), home.peer_address.clone()))
            .collect();
        let mut starting = Vec::new();
        for (id, peer_listener, client_listener) in listeners {
            let home = &self.homes[&id];
            let address = home.client_address.clone();
            let node = NodeConfig {
                id: Some(SchedulerId(id)),
                initial_cluster: initial.clone(),
                join: None,
                cluster_name: "test".to_owned(),
                learner: false,
                data_dir: home.dir.path().to_owned(),
                peer_listener,
                advertise_peer: None,
                advertise_client: address.clone(),
                zone: String::new(),
                version: "test".to_owned(),
                settings: settings.clone(),
            };
            let config = self.config.clone();
            starting.push(async move {
                let node = Node::start(node).await.unwrap();
                let scheduler = Scheduler::start(config, node.clone(), client_listener).unwrap();
                let member = Member {
                    node,
                    address,
                    scheduler: Some(scheduler),
                };
                (id, member)
            });
        }
        let members = soon("cluster starts", futures::future::join_all(starting)).await;
        self.members.extend(members);
        for id in 1..=3 {
            self.until_on(id, "every scheduler has a session and an address", |state| {
                (1..=3).map(SchedulerId).all(|id| {
                    state.scheduler_session(id).is_some()
                        && state
                            .member(id)
                            .is_some_and(|member| !member.client_address.is_empty())
                })
            })
            .await;
        }
    }

    /// Waits until the tables of a scheduler fulfil a condition; follows its events, so no change is missed.
    pub async fn until_on(&self, id: u64, what: &str, condition: impl Fn(&State) -> bool) {
        let node = &self.members[&id].node;
        let wait = async {
            loop {
                let (state, mut events) = node.subscribe();
                if condition(&state) {
                    return;
                }
                loop {
                    match events.next().await {
                        Ok(_) if node.read(&condition) => return,
                        Ok(_) => {}
                        Err(StreamEnd::Lagged) => break,
                        Err(StreamEnd::Stopped) => panic!("node {id} stopped"),
                    }
                }
            }
        };
        soon(what, wait).await;
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        self.until_on(self.any(), what, condition).await;
    }

    /// A scheduler that lives.
    pub fn any(&self) -> u64 {
        *self.members.keys().next().unwrap()
    }

    /// One that lives and is not this one.
    pub fn other_than(&self, id: u64) -> u64 {
        *self.members.keys().find(|other| **other != id).unwrap()
    }

    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.members[&self.any()].node.read(read)
    }

    pub fn addresses(&self) -> Vec<(u64, String)> {
        self.members
            .iter()
            .map(|(id, member)| (*id, member.address.clone()))
            .collect()
    }

    pub async fn channel(&self, id: u64) -> Channel {
        connect(&self.members[&id].address).await
    }

    /// Ends a scheduler without a word: its session runs out.
    pub async fn crash(&mut self, id: u64) {
        let mut member = self.members.remove(&id).unwrap();
        drop(member.scheduler.take());
        member.node.shutdown().await;
    }

    /// Ends the scheduler role in order; its node goes on.
    pub async fn shutdown_role(&mut self, id: u64) {
        let scheduler = self.members.get_mut(&id).unwrap().scheduler.take().unwrap();
        soon("graceful shutdown", scheduler.shutdown()).await;
    }

    /// What one scheduler says about an activation of the namespace `guest`.
    pub async fn find(&self, at: u64, id: [u8; 16]) -> v1::FindActivationResponse {
        let mut client = ControllerClient::new(self.channel(at).await);
        let request = v1::FindActivationRequest {
            id: id.to_vec().into(),
            namespace: "guest".to_owned(),
        };
        let found = soon("an answer about an activation", client.find_activation(request)).await;
        found.unwrap().into_inner()
    }

    /// Deletes an action through one scheduler.
    pub async fn delete_action(&self, at: u64, name: &str) {
        let (namespace, rest) = name.split_once('/').unwrap();
        let delete = v1::DeleteDocument {
            key: Some(v1::DocumentKey {
                kind: "action".into(),
                namespace: namespace.into(),
                name: rest.into(),
            }),
            ..Default::default()
        };
        let mut client = DocumentsClient::new(self.channel(at).await);
        let outcome = change(&mut client, Change::Delete(delete)).await;
        let is_done = matches!(outcome, v1::document_changed::Outcome::Revision(_));
        assert!(is_done, "{outcome:?}");
    }

    pub async fn put_action(&self, name: &str, limits: ActionLimits) -> u64 {
        self.put_annotated(name, limits, &[]).await
    }

    /// An action with annotations, each a JSON text.
    pub async fn put_annotated(&self, name: &str, limits: ActionLimits, annotations: &[(&str, &str)]) -> u64 {
        let (namespace, rest) = name.split_once('/').unwrap();
        let action = v1::Action {
            name: name.to_owned(),
            kind: "sh".to_owned(),
            limits: Some((&limits).into()),
            annotations: annotations
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
            ..Default::default()
        };
        let put = v1::PutDocument {
            key: Some(v1::DocumentKey {
                kind: "action".into(),
                namespace: namespace.into(),
                name: rest.into(),
            }),
            body: Bytes::from(action.encode_to_vec()),
            ..Default::default()
        };
        let mut client = DocumentsClient::new(self.channel(self.any()).await);
        match change(&mut client, Change::Put(put)).await {
            v1::document_changed::Outcome::Revision(revision) => revision,
            other => panic!("action not stored: {other:?}"),
        }
    }

    pub async fn put_namespace(&self, name: &str, containers: u32) {
        let request = v1::PutNamespaceRequest {
            name: name.to_owned(),
            containers,
            ..Default::default()
        };
        let mut client = DocumentsClient::new(self.channel(self.any()).await);
        let outcome = client.put_namespace(request).await.unwrap().into_inner().outcome;
        assert!(
            matches!(outcome, Some(v1::put_namespace_response::Outcome::Revision(_))),
            "{outcome:?}"
        );
    }

    /// Asks one scheduler for a queue.
    pub async fn ensure(&self, at: u64, key: &v1::QueueKey) -> Result<v1::QueueLeadership, v1::Rejection> {
        self.ensure_for(at, key, false).await
    }

    /// The same for activations of which some may have begun.
    pub async fn ensure_for(
        &self,
        at: u64,
        key: &v1::QueueKey,
        resubmits: bool,
    ) -> Result<v1::QueueLeadership, v1::Rejection> {
        use v1::queue_ensured::Outcome;

        let mut client = ControllerClient::new(self.channel(at).await);
        let queue = v1::EnsureQueue {
            key: Some(key.clone()),
            resubmits,
        };
        let request = v1::EnsureQueuesRequest { queues: vec![queue] };
        let mut answer = client.ensure_queues(request).await.unwrap().into_inner();
        match answer.outcomes.remove(0).outcome.unwrap() {
            Outcome::Leadership(leadership) => Ok(leadership),
            Outcome::Rejection(rejection) => Err(rejection),
        }
    }
}

/// Makes one change of a document.
pub async fn change(client: &mut DocumentsClient<Channel>, change: Change) -> v1::document_changed::Outcome {
    changes(client, vec![change]).await.remove(0)
}

/// Makes changes of documents with one call.
pub async fn changes(
    client: &mut DocumentsClient<Channel>,
    changes: Vec<Change>,
) -> Vec<v1::document_changed::Outcome> {
    let changes = changes
        .into_iter()
        .map(|change| v1::DocumentChange { change: Some(change) });
    let request = v1::ChangeDocumentsRequest {
        changes: changes.collect(),
    };
    let changed = client.change_documents(request).await.unwrap().into_inner();
    assert_ne!(changed.log_leader, 0);
    let outcomes = changed.outcomes.into_iter();
    outcomes.map(|changed| changed.outcome.unwrap()).collect()
}

pub async fn connect(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    soon("connect", endpoint.connect()).await.unwrap()
}

pub fn key(namespace: &str, action: &str) -> v1::QueueKey {
    v1::QueueKey {
        namespace: namespace.to_owned(),
        action: action.to_owned(),
    }
}

pub fn rejection_kind(rejection: Option<v1::Rejection>) -> v1::rejection::Kind {
    rejection.unwrap().kind.unwrap()
}
