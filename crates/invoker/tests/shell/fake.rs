//! A cluster of fake schedulers. They answer sessions, keepalives and reports by themselves (unless told not to) and
//! hand everything else to the test, one message at a time.

mod service;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use whiskraft_invoker::backend::simulated::{Behaviour, SimulatedBackend};
use whiskraft_invoker::{Invoker, InvokerConfig, StartError};
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_report::Change;
use whiskraft_proto::v1::documents_server::DocumentsServer;
use whiskraft_proto::v1::invoker_server::InvokerServer;
use whiskraft_types::{ActivationId, ByteSize, InvokerId};

/// Longest wait for anything; only a failing test waits that long.
const WAIT_MAX: Duration = Duration::from_secs(20);
const CHANNEL: usize = 4096;
pub(crate) const INVOKER: u64 = 7;

/// Something the invoker said to a scheduler.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Hello(v1::InvokerHello),
    Keepalive(u64),
    Report(v1::ContainerReport),
    Memory(v1::MemoryReport),
    Leaving,
    Credit(v1::Credit),
    Started(v1::Started),
    Completed(v1::Completed),
    Refused(v1::Refused),
    Withdraw(v1::Withdraw),
    Register(v1::Register),
}

struct State {
    cluster: &'static str,
    session: u64,
    incarnation: Bytes,
    refuse: Option<v1::rejection::Kind>,
    ttl: Duration,
    keepalive: Duration,
    members: Vec<v1::SchedulerAddress>,
    blobs: BTreeMap<Vec<u8>, Bytes>,
    blob_reads: u32,
    sessions_refused: u32,
    hellos_refused: u32,
    /// The newest session with an acknowledged keepalive.
    acked: u64,
}

/// What all fake schedulers share.
pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
    pub(crate) schedulers: Vec<FakeScheduler>,
}

#[derive(Default)]
struct Node {
    control: Option<mpsc::Sender<Result<v1::ControlDown, Status>>>,
    pull: Option<mpsc::Sender<Result<v1::PullDown, Status>>>,
    /// Tasks that read the streams.
    readers: Vec<AbortHandle>,
    mute_keepalives: bool,
    mute_reports: bool,
    mute_leaving: bool,
}

/// One fake scheduler.
pub(crate) struct FakeScheduler {
    pub(crate) id: u64,
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    node: Arc<Mutex<Node>>,
    said: mpsc::Receiver<Said>,
    held: Vec<Said>,
}

#[derive(Clone)]
struct Service {
    id: u64,
    state: Arc<Mutex<State>>,
    node: Arc<Mutex<Node>>,
    said: mpsc::Sender<Said>,
}

impl Cluster {
    pub(crate) async fn start(count: u64) -> Self {
        Self::with_ttl(count, Duration::from_secs(2)).await
    }

    pub(crate) async fn with_ttl(count: u64, ttl: Duration) -> Self {
        let state = State {
            cluster: "test",
            session: 100,
            incarnation: Bytes::new(),
            refuse: None,
            ttl,
            keepalive: ttl / 10,
            members: Vec::new(),
            blobs: BTreeMap::new(),
            blob_reads: 0,
            sessions_refused: 0,
            hellos_refused: 0,
            acked: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let mut schedulers = Vec::new();
        for id in 1..=count {
            let scheduler = FakeScheduler::start(id, &state).await;
            let client_address = scheduler.address.clone();
            lock(&state).members.push(v1::SchedulerAddress {
                scheduler: id,
                client_address,
            });
            schedulers.push(scheduler);
        }
        Self { state, schedulers }
    }

    /// An invoker that knows the first scheduler only.
    pub(crate) async fn invoker(
        &self,
        backend: &Arc<SimulatedBackend>,
        change: impl FnOnce(&mut InvokerConfig),
    ) -> Result<Invoker, StartError> {
        let mut config = InvokerConfig {
            id: InvokerId(INVOKER),
            schedulers: vec![self.schedulers[0].address.clone()],
            ..InvokerConfig::default()
        };
        config.pool.memory = ByteSize::mib(1024);
        change(&mut config);
        Invoker::start(config, Arc::clone(backend) as Arc<_>).await
    }

    /// Ends the session as the cluster does.
    pub(crate) fn expire(&self) {
        lock(&self.state).incarnation = Bytes::new();
        for scheduler in &self.schedulers {
            let expired = Some(v1::SessionExpired {});
            scheduler.control(v1::ControlDown {
                expired,
                ..Default::default()
            });
        }
    }

    /// From now on another cluster answers at the same addresses.
    pub(crate) fn become_another(&self) {
        {
            let mut state = lock(&self.state);
            state.cluster = "another";
            state.incarnation = Bytes::new();
            state.session += 1000;
        }
        self.schedulers.iter().for_each(FakeScheduler::hang_up);
    }

    pub(crate) fn forget_member(&self, id: u64) -> v1::SchedulerAddress {
        let mut state = lock(&self.state);
        let at = state
            .members
            .iter()
            .position(|member| member.scheduler == id)
            .unwrap();
        state.members.remove(at)
    }

    pub(crate) fn add_member(&self, member: v1::SchedulerAddress) {
        lock(&self.state).members.push(member);
    }

    pub(crate) fn refuse_sessions(&self, kind: Option<v1::rejection::Kind>) {
        lock(&self.state).refuse = kind;
    }

    pub(crate) async fn sessions_refused(&self, count: u32) {
        while lock(&self.state).sessions_refused < count {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn hellos_refused(&self, count: u32) {
        while lock(&self.state).hellos_refused < count {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn session(&self) -> u64 {
        lock(&self.state).session
    }

    pub(crate) fn put_blob(&self, hash: &[u8], blob: &'static [u8]) {
        lock(&self.state)
            .blobs
            .insert(hash.to_vec(), Bytes::from_static(blob));
    }

    pub(crate) fn blob_reads(&self) -> u32 {
        lock(&self.state).blob_reads
    }

    pub(crate) fn mute_keepalives(&self, mute: bool) {
        self.schedulers
            .iter()
            .for_each(|scheduler| scheduler.mute_keepalives(mute));
    }
}

pub(crate) fn backend(behaviour: Behaviour) -> Arc<SimulatedBackend> {
    SimulatedBackend::new(behaviour, None)
}

/// One scheduler with a connected invoker.
pub(crate) async fn serving(
    behaviour: Behaviour,
    change: impl FnOnce(&mut InvokerConfig),
) -> (Cluster, Arc<SimulatedBackend>, Invoker) {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(behaviour);
    let invoker = cluster.invoker(&backend, change).await.unwrap();
    let session = cluster.session();
    cluster.schedulers[0].connected(session).await;
    (cluster, backend, invoker)
}

pub(crate) fn container(seq: u64) -> v1::ContainerId {
    v1::ContainerId { session: 50, seq }
}

pub(crate) fn key() -> v1::QueueKey {
    v1::QueueKey {
        namespace: "guest".into(),
        action: "guest/hello".into(),
    }
}

pub(crate) fn id(number: u8) -> Bytes {
    Bytes::from(vec![number; 16])
}

/// The text form of an id, as the backend sees it.
pub(crate) fn text(number: u8) -> String {
    ActivationId::from_bytes([number; 16]).to_string()
}

pub(crate) fn action() -> v1::Action {
    v1::Action {
        name: "guest/hello".into(),
        kind: "sh".into(),
        limits: Some(v1::ActionLimits {
            timeout_ms: 60_000,
            memory_bytes: 128 << 20,
            logs_bytes: 1 << 20,
            concurrency: 1,
            instances: None,
        }),
        ..Default::default()
    }
}

impl FakeScheduler {
    async fn start(id: u64, state: &Arc<Mutex<State>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = Arc::new(Mutex::new(Node::default()));
        let (sender, said) = mpsc::channel(CHANNEL);
        let service = Service {
            id,
            state: Arc::clone(state),
            node: Arc::clone(&node),
            said: sender,
        };
        let server = Server::builder()
            .add_service(InvokerServer::new(service.clone()).max_decoding_message_size(64 << 20))
            .add_service(DocumentsServer::new(service))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(server);
        Self {
            id,
            address,
            state: Arc::clone(state),
            node,
            said,
            held: Vec::new(),
        }
    }

    pub(crate) fn mute_keepalives(&self, mute: bool) {
        lock(&self.node).mute_keepalives = mute;
    }

    pub(crate) fn mute_reports(&self, mute: bool) {
        lock(&self.node).mute_reports = mute;
    }

    pub(crate) fn mute_leaving(&self, mute: bool) {
        lock(&self.node).mute_leaving = mute;
    }

    pub(crate) fn control(&self, frame: v1::ControlDown) {
        if let Some(sender) = &lock(&self.node).control {
            sender.try_send(Ok(frame)).unwrap();
        }
    }

    pub(crate) fn pull(&self, frame: v1::PullDown) {
        lock(&self.node)
            .pull
            .as_ref()
            .expect("an open pull stream")
            .try_send(Ok(frame))
            .unwrap();
    }

    /// Ends both streams, as a restart does.
    pub(crate) fn hang_up(&self) {
        let mut node = lock(&self.node);
        (node.control, node.pull) = (None, None);
        node.readers.drain(..).for_each(|reader| reader.abort());
    }

    /// The first thing said that fits; the rest stays for later.
    pub(crate) async fn hear<T>(&mut self, mut fits: impl FnMut(&Said) -> Option<T>) -> T {
        if let Some((at, found)) = self
            .held
            .iter()
            .enumerate()
            .find_map(|(at, said)| Some((at, fits(said)?)))
        {
            self.held.remove(at);
            return found;
        }
        let mut wait = std::pin::pin!(tokio::time::sleep(WAIT_MAX));
        loop {
            let said = tokio::select! {
                Some(said) = self.said.recv() => said,
                () = &mut wait => panic!("never said; instead: {:?}", self.held),
            };
            if let Some(found) = fits(&said) {
                return found;
            }
            self.held.push(said);
        }
    }

    /// Waits for both streams of a session and, unless keepalives are muted, for the first acknowledged keepalive.
    pub(crate) async fn connected(&mut self, session: u64) {
        for _ in 0..2 {
            self.hear(|said| matches!(said, Said::Hello(hello) if hello.session == session).then_some(()))
                .await;
        }
        while lock(&self.node).pull.is_none() {
            tokio::task::yield_now().await;
        }
        while !lock(&self.node).mute_keepalives && lock(&self.state).acked < session {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn create_from(&self, seq: u64, epoch: u64, action: v1::Action) {
        let create = v1::CreateContainer {
            container: Some(container(seq)),
            key: Some(key()),
            epoch,
            leader: self.id,
            revision: 3,
            action: Some(action),
            resume: None,
            deadline_ms: 20_000,
            evict_first: Vec::new(),
        };
        self.control(v1::ControlDown {
            create: vec![create],
            ..Default::default()
        });
    }

    /// A container that asks for its first activation. The acknowledged keepalive that lets the invoker create one may
    /// have gone to another scheduler and be under way still.
    pub(crate) async fn create(&mut self, seq: u64) {
        loop {
            self.create_from(seq, 1, action());
            let is_asking = self.hear(|said| match said {
                Said::Credit(credit) => (credit.container == Some(container(seq))).then_some(true),
                Said::Report(report) if report.container == Some(container(seq)) => {
                    matches!(report.change, Some(Change::Failed(_))).then_some(false)
                }
                _ => None,
            });
            if is_asking.await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn deliver(&self, number: u8, seq: u64, epoch: u64) {
        self.deliver_payload(number, seq, epoch, b"{}");
    }

    pub(crate) fn deliver_payload(&self, number: u8, seq: u64, epoch: u64, payload: &'static [u8]) {
        let deliver = v1::Deliver {
            id: id(number),
            container: Some(container(seq)),
            epoch,
            payload: Bytes::from_static(payload),
            attempt: 1,
            waited_ms: 1000,
            ..Default::default()
        };
        self.pull(v1::PullDown {
            deliver: vec![deliver],
            ..Default::default()
        });
    }

    /// A later run of an activation.
    pub(crate) fn deliver_run(&self, number: u8, run: u32, seq: u64) {
        let deliver = v1::Deliver {
            id: id(number),
            container: Some(container(seq)),
            epoch: 1,
            payload: Bytes::from_static(b"{}"),
            attempt: 1,
            run,
            ..Default::default()
        };
        self.pull(v1::PullDown {
            deliver: vec![deliver],
            ..Default::default()
        });
    }

    /// The activation was cancelled.
    pub(crate) fn stop(&self, number: u8, seq: u64) {
        let stop = v1::StopActivation {
            id: id(number),
            container: Some(container(seq)),
            epoch: 1,
        };
        self.pull(v1::PullDown {
            stops: vec![stop],
            ..Default::default()
        });
    }

    pub(crate) fn reregister(&self, epoch: u64) {
        let reregister = vec![v1::Reregister {
            key: Some(key()),
            epoch,
        }];
        self.pull(v1::PullDown {
            reregister,
            ..Default::default()
        });
    }

    pub(crate) fn ack_result(&self, number: u8) {
        self.pull(v1::PullDown {
            completed_acks: vec![id(number)],
            ..Default::default()
        });
    }

    pub(crate) async fn credit(&mut self, seq: u64) -> v1::Credit {
        self.hear(|said| match said {
            Said::Credit(credit) if credit.container == Some(container(seq)) => Some(credit.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn started(&mut self, number: u8) {
        self.hear(|said| matches!(said, Said::Started(started) if started.id == id(number)).then_some(()))
            .await;
    }

    pub(crate) async fn completed(&mut self, number: u8) -> v1::Completed {
        self.hear(|said| match said {
            Said::Completed(completed) if completed.record.as_ref().unwrap().id == id(number) => {
                Some(completed.clone())
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn refused(&mut self, number: u8) -> String {
        self.hear(|said| match said {
            Said::Refused(refused) if refused.id == id(number) => Some(refused.reason.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn register(&mut self, epoch: u64) -> v1::Register {
        self.hear(|said| match said {
            Said::Register(register) if register.epoch == epoch => Some(register.clone()),
            _ => None,
        })
        .await
    }

    async fn change<T>(&mut self, seq: u64, fits: impl Fn(&Change) -> Option<T>) -> T {
        self.hear(|said| match said {
            Said::Report(report) if report.container == Some(container(seq)) => fits(report.change.as_ref()?),
            _ => None,
        })
        .await
    }

    pub(crate) async fn running(&mut self, seq: u64) {
        self.change(seq, |change| matches!(change, Change::Running(_)).then_some(()))
            .await;
    }

    pub(crate) async fn warm(&mut self, seq: u64) {
        self.change(seq, |change| matches!(change, Change::Warm(_)).then_some(()))
            .await;
    }

    pub(crate) async fn removed(&mut self, seq: u64) {
        self.change(seq, |change| matches!(change, Change::Removed(_)).then_some(()))
            .await;
    }

    pub(crate) async fn failed(&mut self, seq: u64) -> v1::ContainerCreationFailed {
        self.change(seq, |change| match change {
            Change::Failed(failed) => Some(failed.clone()),
            _ => None,
        })
        .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
