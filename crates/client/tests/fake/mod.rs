//! A cluster of fake schedulers: real gRPC on loopback, every answer scripted by the test.
//!
//! The test waits for conditions on what a scheduler has seen, never for time.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers; not every test file uses all of them"
)]

mod documents;
mod letters;
mod operator;
mod services;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::Server;
use whiskraft_client::{Client, ClientBuilder, QueueKey, Settings};
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_server::ControllerServer;
use whiskraft_proto::v1::documents_server::DocumentsServer;
use whiskraft_proto::v1::operator_server::OperatorServer;
use whiskraft_proto::v1::watch_server::WatchServer;

pub use self::documents::Store;
pub use self::letters::Asked;
pub use self::operator::Operations;

pub const CLUSTER: &str = "fake-cluster";
/// The clock of a fake scheduler that stores a schedule, in milliseconds since the Unix epoch.
pub const STORED_AT_MS: u64 = 77_000;
/// Longest wait for a condition; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something a client did to a scheduler.
#[derive(Debug, Clone)]
pub enum Seen {
    Hello(v1::SubmitHello),
    Submission(v1::Submission),
    Received(Vec<u8>),
    Ensure(v1::QueueKey),
    /// One call: how many queues it asked for.
    Ensures(usize),
    Watch(v1::WatchRequest),
    /// One Submit frame: how many submissions it held.
    Frame(usize),
    PutBlob(usize),
    /// One call: how many changes of documents it held.
    Changes(usize),
    Queues(v1::QueuesRequest),
    Explain(v1::ExplainRequest),
    Drain(v1::DrainRequest),
    MoveQueue(v1::MoveQueueRequest),
    Find(v1::FindActivationRequest),
    Cancel(v1::CancelActivationRequest),
    List(v1::ListDeadLettersRequest),
    Redrive(v1::RedriveDeadLettersRequest),
    Purge(v1::PurgeDeadLettersRequest),
    Members(v1::MemberOrder),
}

/// How a scheduler treats submissions by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Says nothing; the test answers.
    Silent,
    /// Accepts and completes at once.
    Echo,
}

type Results = mpsc::Sender<Result<v1::ResultFrame, Status>>;

pub struct State {
    pub id: u64,
    pub mode: Mode,
    pub window: u32,
    pub payload_len_max: u64,
    pub cluster_id: String,
    /// Every call fails with `Unavailable`, open streams are cut.
    pub down: bool,
    pub ensure: Option<v1::queue_ensured::Outcome>,
    /// Who writes into the log, as it says; 0: it does not know.
    pub log_leader: u64,
    pub find: v1::FindActivationResponse,
    pub asked: Asked,
    pub operations: Operations,
    pub store: Store,
    pub seen: Vec<Seen>,
    results: Option<Results>,
    watches: Vec<mpsc::Sender<Result<v1::WatchFrame, Status>>>,
}

/// One fake scheduler.
#[derive(Clone)]
pub struct Fake {
    pub id: u64,
    pub address: String,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    world: World,
}

/// What all schedulers agree on: members, queues and the log of their changes.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    revision: u64,
    rows: BTreeMap<String, v1::WatchEvent>,
    log: Vec<(u64, v1::WatchEvent)>,
}

pub fn key() -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "lib/hello".parse().unwrap(),
    }
}

pub fn queue_event(leader: u64, epoch: u64) -> v1::WatchEvent {
    let queue = v1::QueueInfo {
        key: Some((&key()).into()),
        leader,
        epoch,
        revision: 1,
        removed: false,
    };
    v1::WatchEvent {
        event: Some(v1::watch_event::Event::Queue(queue)),
    }
}

pub fn member_event(scheduler: u64, client_address: &str) -> v1::WatchEvent {
    let member = v1::MemberInfo {
        scheduler,
        client_address: client_address.to_owned(),
        ..Default::default()
    };
    v1::WatchEvent {
        event: Some(v1::watch_event::Event::Member(member)),
    }
}

pub fn throttle_event(action: &str, throttled: bool) -> v1::WatchEvent {
    let throttle = v1::ThrottleInfo {
        namespace: "guest".to_owned(),
        action: action.to_owned(),
        throttled,
    };
    v1::WatchEvent {
        event: Some(v1::watch_event::Event::Throttle(throttle)),
    }
}

/// The only container that tests know, of the queue of [`key`].
pub fn container_event(state: v1::container_info::State) -> v1::WatchEvent {
    let container = v1::ContainerInfo {
        container: Some(v1::ContainerId { session: 1, seq: 1 }),
        key: Some((&key()).into()),
        revision: 1,
        invoker: 1,
        state: state.into(),
    };
    v1::WatchEvent {
        event: Some(v1::watch_event::Event::Container(container)),
    }
}

pub fn namespace_event(containers: u32, removed: bool) -> v1::WatchEvent {
    let namespace = v1::NamespaceInfo {
        name: "guest".to_owned(),
        containers,
        removed,
        over_provision_percent: 150,
        invocations_per_minute: Some(600),
        weight: 200,
    };
    v1::WatchEvent {
        event: Some(v1::watch_event::Event::Namespace(namespace)),
    }
}

/// Waits until a condition on the client itself holds.
pub async fn eventually(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the condition never held");
}

pub fn record(id: &[u8]) -> v1::ActivationRecord {
    v1::ActivationRecord {
        id: id.to_vec().into(),
        status: v1::Status::Success.into(),
        result: "{\"ok\":true}".into(),
        ..Default::default()
    }
}

pub fn leadership(fake: &Fake, epoch: u64) -> v1::queue_ensured::Outcome {
    v1::queue_ensured::Outcome::Leadership(v1::QueueLeadership {
        key: Some((&key()).into()),
        leader: fake.id,
        epoch,
        revision: 1,
        client_address: fake.address.clone(),
    })
}

/// Starts `count` schedulers that know each other.
pub async fn cluster(count: u64) -> (World, Vec<Fake>) {
    let world = World::default();
    let mut fakes = Vec::new();
    for id in 1..=count {
        fakes.push(Fake::start(id, &world).await);
    }
    (world, fakes)
}

/// A builder with settings for tests: quick to give up on a question.
pub fn builder(fakes: &[Fake]) -> ClientBuilder {
    let settings = Settings {
        call_deadline: Duration::from_secs(5),
        ..Settings::default()
    };
    Client::builder()
        .endpoints(fakes.iter().map(|fake| fake.address.clone()))
        .settings(settings)
}

impl World {
    /// Changes one row, for all watches of all schedulers.
    pub async fn change(&self, fakes: &[Fake], event: v1::WatchEvent) {
        let frame = self.log(event);
        for fake in fakes {
            fake.watch_say(frame.clone()).await;
        }
    }

    /// Changes one row that no open watch is told of.
    pub fn log(&self, event: v1::WatchEvent) -> v1::WatchFrame {
        let mut tables = self.0.lock().unwrap();
        tables.revision += 1;
        let revision = tables.revision;
        tables.rows.insert(row(&event), event.clone());
        tables.log.push((revision, event.clone()));
        events_frame(revision, vec![event])
    }

    /// Removes a row as if it had never been, for watches that start over.
    pub fn forget(&self, event: &v1::WatchEvent) {
        self.0.lock().unwrap().rows.remove(&row(event));
    }

    /// What a watch that resumes after `after` gets first.
    fn start(&self, after: u64) -> Vec<v1::WatchFrame> {
        let tables = self.0.lock().unwrap();
        if after == 0 {
            let batch = v1::WatchBatch {
                revision: tables.revision,
                events: tables.rows.values().cloned().collect(),
                last: true,
            };
            return vec![v1::WatchFrame {
                frame: Some(v1::watch_frame::Frame::Snapshot(batch)),
            }];
        }
        let later = tables.log.iter().filter(|(revision, _)| *revision > after);
        later
            .map(|(revision, event)| events_frame(*revision, vec![event.clone()]))
            .collect()
    }

    pub fn revision(&self) -> u64 {
        self.0.lock().unwrap().revision
    }
}

pub fn events_frame(revision: u64, events: Vec<v1::WatchEvent>) -> v1::WatchFrame {
    let batch = v1::WatchBatch {
        revision,
        events,
        last: false,
    };
    v1::WatchFrame {
        frame: Some(v1::watch_frame::Frame::Events(batch)),
    }
}

fn row(event: &v1::WatchEvent) -> String {
    use v1::watch_event::Event;
    match event.event.as_ref().unwrap() {
        Event::Member(member) => format!("member {}", member.scheduler),
        Event::Queue(queue) => format!("queue {:?}", queue.key),
        Event::Throttle(throttle) => format!("throttle {}/{}", throttle.namespace, throttle.action),
        Event::Container(container) => format!("container {:?}", container.container),
        Event::Namespace(namespace) => format!("namespace {}", namespace.name),
        other => format!("{other:?}"),
    }
}

impl Fake {
    pub async fn start(id: u64, world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fake = Self::serve(id, world, listener, address.clone());
        world.log(member_event(id, &address));
        fake
    }

    /// Serves on a listener that the test made, under an address that it announces.
    pub fn serve(id: u64, world: &World, listener: TcpListener, address: String) -> Self {
        let state = State {
            id,
            mode: Mode::Silent,
            window: 64,
            payload_len_max: 1 << 20,
            cluster_id: CLUSTER.to_owned(),
            down: false,
            ensure: None,
            log_leader: 0,
            find: v1::FindActivationResponse {
                state: v1::find_activation_response::State::Unknown.into(),
                ..Default::default()
            },
            asked: Asked::default(),
            operations: Operations::default(),
            store: Store::default(),
            seen: Vec::new(),
            results: None,
            watches: Vec::new(),
        };
        let fake = Self {
            id,
            address,
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::channel(0).0),
            world: world.clone(),
        };
        let router = Server::builder()
            .add_service(ControllerServer::new(fake.clone()))
            .add_service(WatchServer::new(fake.clone()))
            .add_service(DocumentsServer::new(fake.clone()))
            .add_service(OperatorServer::new(fake.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    /// Reads or changes the script.
    pub fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap())
    }

    fn see(&self, seen: Seen) {
        self.with(|state| state.seen.push(seen));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until the script's state satisfies a condition.
    pub async fn until<T>(&self, what: &str, mut find: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = self.with(|state| find(state)) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!(
                "scheduler {} never saw {what}; saw {:?}",
                self.id,
                self.with(|s| s.seen.clone())
            ),
        }
    }

    /// Waits for so many submissions and returns all seen so far.
    pub async fn submissions(&self, count: usize) -> Vec<v1::Submission> {
        self.until(&format!("{count} submissions"), |state| {
            let seen = submissions(state);
            (seen.len() >= count).then_some(seen)
        })
        .await
    }

    pub fn submissions_now(&self) -> Vec<v1::Submission> {
        self.with(|state| submissions(state))
    }

    pub async fn received(&self, count: usize) -> Vec<Vec<u8>> {
        self.until(&format!("{count} receipts"), |state| {
            let seen: Vec<_> = state
                .seen
                .iter()
                .filter_map(|seen| match seen {
                    Seen::Received(id) => Some(id.clone()),
                    _ => None,
                })
                .collect();
            (seen.len() >= count).then_some(seen)
        })
        .await
    }

    pub fn ensures(&self) -> usize {
        self.with(|state| {
            state
                .seen
                .iter()
                .filter(|seen| matches!(seen, Seen::Ensure(_)))
                .count()
        })
    }

    /// Waits until a client has a Submit stream here.
    pub async fn connected(&self) {
        self.until("a hello", |state| {
            state
                .seen
                .iter()
                .any(|seen| matches!(seen, Seen::Hello(_)))
                .then_some(())
        })
        .await;
    }

    /// Sends a frame on the open Submit stream.
    pub async fn say(&self, frame: v1::ResultFrame) {
        let results = self
            .with(|state| state.results.clone())
            .expect("no Submit stream is open");
        results.send(Ok(frame)).await.expect("the Submit stream is gone");
    }

    pub async fn accept(&self, id: &[u8]) {
        self.say(v1::ResultFrame {
            accepted: vec![id.to_vec().into()],
            ..Default::default()
        })
        .await;
    }

    pub async fn reject(&self, id: &[u8], kind: v1::rejection::Kind) {
        let rejected = v1::RejectedSubmission {
            id: id.to_vec().into(),
            rejection: Some(v1::Rejection { kind: Some(kind) }),
        };
        self.say(v1::ResultFrame {
            rejected: vec![rejected],
            ..Default::default()
        })
        .await;
    }

    pub async fn complete(&self, id: &[u8]) {
        let completed = v1::CompletedActivation {
            record: Some(record(id)),
            epoch: 1,
        };
        self.say(v1::ResultFrame {
            completed: vec![completed],
            ..Default::default()
        })
        .await;
    }

    /// Cuts the Submit stream; a client may open another one.
    pub async fn cut(&self) {
        let results = self
            .with(|state| state.results.take())
            .expect("no Submit stream is open");
        let _ = results.send(Err(Status::unavailable("cut by the test"))).await;
    }

    /// Sends a frame on every open watch.
    pub async fn watch_say(&self, frame: v1::WatchFrame) {
        for watch in self.with(|state| state.watches.clone()) {
            let _ = watch.send(Ok(frame.clone())).await;
        }
    }

    /// Cuts every watch.
    pub async fn cut_watches(&self) {
        for watch in self.with(|state| std::mem::take(&mut state.watches)) {
            let _ = watch.send(Err(Status::unavailable("cut by the test"))).await;
        }
    }

    /// Dead for all who ask: streams are cut, calls fail.
    pub async fn die(&self) {
        self.with(|state| state.down = true);
        self.cut_watches().await;
        if self.with(|state| state.results.is_some()) {
            self.cut().await;
        }
    }
}

fn submissions(state: &State) -> Vec<v1::Submission> {
    let submission = |seen: &Seen| match seen {
        Seen::Submission(submission) => Some(submission.clone()),
        _ => None,
    };
    state.seen.iter().filter_map(submission).collect()
}
