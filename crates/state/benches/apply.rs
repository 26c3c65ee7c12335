//! What a command costs in `State::apply` where there are 10,000 queues, and a batch in a turn of the journal.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use whiskraft_state::journal::{
    Accept, Digest, End, EndKind, Fence, JournalBatch, JournalCommand, JournalOutcome, JournalRow,
    JournalRows, LaneMillis, RowChange, Turn, UnixMillis,
};
use whiskraft_state::{
    Applied, Command, ContainerChange, ContainerUpdate, DocumentKey, EnsureQueue, Grant, InvokerProfile,
    InvokerReport, MemberRecord, OpenSession, PutDocument, Refusal, Response, SessionOwner, SlotRequest,
    State,
};
use whiskraft_types::{
    ActionLimits, ActivationId, ByteSize, ContainerId, Epoch, InvokerId, NamespaceLimits, QueueKey,
    SchedulerId, SessionId,
};

const QUEUES: u64 = 10_000;
const NAMESPACES: u64 = 1000;
const INVOKERS: u64 = 100;
/// Commands or activations that are ready at once on a busy cluster.
const BATCH: u64 = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    apply(&mut criterion);
    journal(&mut criterion);
    criterion.final_summary();
}

fn apply(criterion: &mut Criterion) {
    let mut cluster = Cluster::new();
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ensure a queue that is there", |bencher| {
        bencher.iter(|| cluster.ensure_next());
    });
    group.throughput(Throughput::Elements(2));
    group.bench_function("open and close an invoker's session", |bencher| {
        bencher.iter(|| cluster.open_and_close());
    });
    group.bench_function("ensure and remove a queue", |bencher| {
        bencher.iter(|| cluster.ensure_and_remove());
    });
    for batch in [1, BATCH] {
        group.throughput(Throughput::Elements(batch));
        let id = BenchmarkId::new("containers reserved, placed, running, removed", batch);
        group.bench_function(id, |bencher| bencher.iter(|| cluster.containers(batch)));
    }
    group.finish();
}

/// One turn over a batch.
fn decide(rows: &Rows, batch: &JournalBatch) -> (Vec<JournalOutcome>, Vec<RowChange>) {
    let mut turn = Turn::new(rows, LaneMillis(1));
    let Ok(outcomes) = turn.apply(batch);
    (outcomes, turn.finish().1)
}

fn journal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(BATCH));
    let rows = Rows::new();
    for queues in [1, BATCH] {
        let accepts = batch(|number| JournalCommand::Accept(accept(QUEUES + number, number % queues)));
        group.bench_function(BenchmarkId::new("64 accepts by queues", queues), |bencher| {
            bencher.iter(|| decide(&rows, &accepts));
        });
        let ends = batch(|number| JournalCommand::End(end(number * 7, number * 7 % queues)));
        let mut rows = Rows::new();
        rows.accept((0..BATCH).map(|number| accept(number * 7, number * 7 % queues)));
        group.bench_function(BenchmarkId::new("64 ends by queues", queues), |bencher| {
            bencher.iter(|| decide(&rows, &ends));
        });
    }
    group.finish();
}

/// A state under load.
struct Cluster {
    state: State,
    keys: Vec<QueueKey>,
    next: usize,
    used: BTreeMap<SessionId, u64>,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            state: State::default(),
            keys: (0..QUEUES).map(key).collect(),
            next: 0,
            used: BTreeMap::new(),
        };
        for id in 1..=3 {
            cluster.tell(Command::PutMember {
                id: SchedulerId(id),
                member: member(id),
            });
            cluster.open(SessionOwner::Scheduler(SchedulerId(id)));
        }
        for number in 1..=INVOKERS {
            let session = cluster.open(invoker(number));
            let report = InvokerReport {
                invoker: InvokerId(number),
                session,
                healthy: true,
                busy: ByteSize::ZERO,
                reclaimable: ByteSize::ZERO,
            };
            cluster.tell(Command::ReportInvokers {
                reports: vec![report],
            });
        }
        for number in 0..NAMESPACES {
            cluster.tell(Command::PutNamespace {
                name: key(number).namespace,
                limits: NamespaceLimits::containers(1000),
            });
        }
        for key in cluster.keys.clone() {
            cluster.put_action(&key);
            cluster.ensure(&key);
        }
        // A queue has two containers.
        for _ in 0..2 * QUEUES {
            cluster.next += 1;
            let containers = cluster.reserve(1);
            cluster.change_all(&containers, |at| ContainerChange::Placed { invoker: at });
            cluster.change_all(&containers, |_| ContainerChange::Running);
        }
        // What is measured next.
        cluster.put_action(&key(QUEUES));
        cluster
    }

    fn tell(&mut self, command: Command) -> Response {
        let revision = self.state.revision().next();
        let Applied { response, .. } = self.state.apply(revision, &command);
        if let Response::Refused(refusal) = &response {
            refused(&command, refusal);
        }
        response
    }

    fn open(&mut self, owner: SessionOwner) -> SessionId {
        let open = OpenSession {
            owner,
            incarnation: [1; 16],
            ttl: Duration::from_secs(2),
        };
        match self.tell(Command::OpenSession(open)) {
            Response::Session(session) => session,
            other => panic!("no session: {other:?}"),
        }
    }

    fn open_and_close(&mut self) {
        let session = self.open(invoker(INVOKERS + 1));
        self.tell(Command::CloseSession { session });
    }

    fn put_action(&mut self, key: &QueueKey) {
        self.tell(Command::PutDocument(PutDocument {
            key: DocumentKey::action(&key.action).expect("an action has a namespace"),
            body: b"{}".to_vec(),
            expected: None,
            blobs: Vec::new(),
            limits: Some(ActionLimits::default()),
        }));
    }

    fn ensure(&mut self, key: &QueueKey) -> Epoch {
        match self.tell(Command::EnsureQueue(EnsureQueue { key: key.clone() })) {
            Response::Leadership(leadership) => leadership.epoch,
            other => panic!("no leadership: {other:?}"),
        }
    }

    fn ensure_next(&mut self) {
        self.next += 1;
        let key = self.keys[self.next % self.keys.len()].clone();
        self.ensure(&key);
    }

    fn ensure_and_remove(&mut self) {
        let key = key(QUEUES);
        let epoch = self.ensure(&key);
        self.tell(Command::RemoveQueue { key, epoch });
    }

    /// The short lives of some containers, each of another queue of one leader.
    fn containers(&mut self, batch: u64) {
        self.next += 1;
        let containers = self.reserve(batch);
        self.change_all(&containers, |at| ContainerChange::Placed { invoker: at });
        self.change_all(&containers, |_| ContainerChange::Running);
        self.change_all(&containers, |_| ContainerChange::Removed);
    }

    fn reserve(&mut self, batch: u64) -> Vec<ContainerId> {
        let mut requests = Vec::new();
        let mut leader = None;
        let mut at = self.next;
        while requests.len() < batch as usize {
            let key = &self.keys[at % self.keys.len()];
            let queue = self.state.queue(key).expect("every queue was ensured");
            let (_, session) = queue.leader.expect("three schedulers live");
            at += 1;
            if *leader.get_or_insert(session) != session {
                continue;
            }
            let used = self.used.entry(session).or_default();
            *used += 1;
            requests.push(SlotRequest {
                key: key.clone(),
                epoch: queue.epoch,
                first_seq: *used,
                count: 1,
                revision: queue.revision,
                memory: ByteSize::mib(1),
                instances: None,
            });
        }
        let session = leader.expect("there is a request");
        let Response::Grants(grants) = self.tell(Command::ReserveSlots { session, requests }) else {
            panic!("no grants");
        };
        let granted = grants.into_iter().flat_map(|grant| match grant {
            Grant::Granted(granted) => granted,
            Grant::StaleEpoch => panic!("the epoch was read before"),
        });
        granted.map(|granted| granted.container).collect()
    }

    fn change_all(&mut self, containers: &[ContainerId], change: impl Fn(InvokerId) -> ContainerChange) {
        let update = |container: &ContainerId| ContainerUpdate {
            container: *container,
            change: change(InvokerId(container.seq % INVOKERS + 1)),
            reporter: None,
        };
        let updates = containers.iter().map(update).collect();
        self.tell(Command::UpdateContainers { updates });
    }
}

fn refused(command: &Command, refusal: &Refusal) -> ! {
    panic!("{command:?} was refused: {refusal:?}")
}

fn key(number: u64) -> QueueKey {
    let namespace = format!("namespace-{}", number % NAMESPACES);
    QueueKey {
        action: format!("{namespace}/action-{number}").parse().expect("a name"),
        namespace: namespace.parse().expect("a name"),
    }
}

fn member(id: u64) -> MemberRecord {
    MemberRecord {
        peer_address: format!("s{id}:9001"),
        client_address: format!("s{id}:9000"),
        zone: String::new(),
        version: "0.1.0".to_owned(),
        incarnation: [id as u8; 16],
        draining: false,
    }
}

fn invoker(number: u64) -> SessionOwner {
    SessionOwner::Invoker {
        id: InvokerId(number),
        profile: InvokerProfile {
            memory: ByteSize::mib(64 * 1024),
            tags: Vec::new(),
            dedicated: Vec::new(),
            kinds: Vec::new(),
            zone: format!("zone-{}", number % 3),
            version: "0.1.0".to_owned(),
        },
    }
}

/// The rows of a lane, in memory.
#[derive(Default)]
struct Rows {
    rows: BTreeMap<ActivationId, JournalRow>,
    fences: BTreeMap<QueueKey, Fence>,
}

impl Rows {
    /// Ten thousand open ones of as many queues.
    fn new() -> Self {
        let mut rows = Self::default();
        rows.accept((0..QUEUES).map(|number| accept(number, number)));
        rows
    }

    fn accept(&mut self, accepts: impl Iterator<Item = Accept>) {
        let accepts: Vec<_> = accepts.collect();
        accepts.iter().for_each(|accept| {
            self.rows.remove(&accept.id);
        });
        let commands = accepts.into_iter().map(JournalCommand::Accept).collect();
        let mut turn = Turn::new(self, LaneMillis(1));
        let Ok(_) = turn.apply(&JournalBatch::of(commands));
        let (_, changes) = turn.finish();
        for change in changes {
            match change {
                RowChange::PutRow(row) => {
                    self.rows.insert(row.id, row);
                }
                RowChange::PutFence { key, fence } => {
                    self.fences.insert(key, fence);
                }
                _ => {}
            }
        }
    }
}

impl JournalRows for Rows {
    type Error = Infallible;

    fn row(&self, id: ActivationId) -> Result<Option<JournalRow>, Infallible> {
        Ok(self.rows.get(&id).cloned())
    }

    fn fence(&self, key: &QueueKey) -> Result<Option<Fence>, Infallible> {
        Ok(self.fences.get(key).copied())
    }
}

fn batch(command: impl Fn(u64) -> JournalCommand) -> JournalBatch {
    JournalBatch {
        now: LaneMillis(2),
        commands: (0..BATCH).map(command).collect(),
    }
}

fn activation(number: u64) -> ActivationId {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&spread);
    ActivationId::from_bytes(bytes)
}

fn accept(number: u64, queue: u64) -> Accept {
    Accept {
        id: activation(number),
        key: key(queue),
        epoch: Epoch(1),
        digest: Digest([1; 16]),
        accepted: UnixMillis(1),
        waited: Duration::ZERO,
        not_before: None,
        payload: vec![1; 200].into(),
    }
}

fn end(number: u64, queue: u64) -> End {
    End {
        id: activation(number),
        key: key(queue),
        epoch: Epoch(1),
        run: 1,
        at: UnixMillis(2),
        keep: Duration::from_secs(3600),
        kind: EndKind::Record,
        record: vec![2; 200].into(),
    }
}
