//! Random commands: most make sense in the state at hand, some are late, repeated, or nonsense.

use std::fmt;
use std::time::Duration;

use proptest::prelude::*;
use whiskraft_state::{
    BlobChunk, BlobHash, Command, ContainerChange, ContainerUpdate, DocumentKey, EnsureQueue, InvokerProfile,
    InvokerReport, MemberRecord, OpenSession, PutDocument, QueueRecord, SessionOwner, SlotRequest, State,
};
use whiskraft_types::{
    ActionLimits, ByteSize, ContainerId, Epoch, InvokerId, LogRevision, NamespaceLimits, NamespaceName,
    QueueKey, Revision, SchedulerId, SessionId,
};

/// Numbers that a command is made of once the state is known.
#[derive(Clone, Copy)]
pub(crate) struct Draw {
    what: u8,
    a: u8,
    b: u8,
    c: u8,
    /// Above the threshold ids and numbers are taken from the edges of their types.
    wild: u8,
}

/// One line: a failure prints up to a hundred of them.
impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{},{},{},{}", self.what, self.a, self.b, self.c, self.wild)
    }
}

/// Sequences of draws.
pub(crate) fn draws(len: usize) -> impl Strategy<Value = Vec<Draw>> {
    let draw = (0..100_u8, any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    prop::collection::vec(
        draw.prop_map(|(what, a, b, c, wild)| Draw { what, a, b, c, wild }),
        len / 2..len,
    )
}

/// Commands that bring a cluster to life, so that random ones find something to do.
pub(crate) fn opening() -> Vec<Command> {
    let members = (1..=3).map(|id| Command::PutMember {
        id: SchedulerId(id),
        member: member(id as u8, false),
    });
    let schedulers = (1..=3).map(|id| open(SessionOwner::Scheduler(SchedulerId(id)), 0));
    let invokers = (1..=2).map(|id| {
        open(
            SessionOwner::Invoker {
                id: InvokerId(id),
                profile: profile(),
            },
            0,
        )
    });
    let actions = (0..2).map(|name| put_document(name, None, vec![], None));
    let limits = [Command::PutNamespace {
        name: namespace(0),
        limits: NamespaceLimits::containers(4),
    }];
    members
        .chain(schedulers)
        .chain(invokers)
        .chain(actions)
        .chain(limits)
        .collect()
}

impl Draw {
    /// Every invoker is well.
    pub(crate) const HEALTHY: Self = Self {
        what: 84,
        a: 0,
        b: 1,
        c: 0,
        wild: 0,
    };

    /// The command for a state.
    pub(crate) fn command(self, state: &State) -> Command {
        let Self { what, a, b, c, .. } = self;
        match what {
            0..2 => Command::PutMember {
                id: SchedulerId(1 + u64::from(a % 4)),
                member: member(a, b.is_multiple_of(4)),
            },
            2..3 => Command::RemoveMember {
                id: SchedulerId(1 + u64::from(a % 4)),
            },
            3..6 => Command::SetDraining {
                id: SchedulerId(1 + u64::from(a % 4)),
                draining: b.is_multiple_of(3),
            },
            6..14 => self.open_session(),
            14..17 => Command::RenewSessions {
                sessions: vec![(self.session(state), u64::from(b % 4))],
            },
            17..21 => {
                let second = Self { a: c, ..self }.session(state);
                Command::ExpireSessions {
                    sessions: vec![(self.session(state), u64::from(b % 4)), (second, 0)],
                }
            }
            21..22 => Command::CloseSession {
                session: self.session(state),
            },
            22..34 => Command::EnsureQueue(EnsureQueue { key: queue(a, b) }),
            34..35 => self.move_queues(state),
            35..36 => self.hand_over(state),
            36..39 => Command::RemoveQueue {
                key: queue(a, b),
                epoch: self.epoch(state),
            },
            39..44 => Command::SetActionThrottle {
                key: queue(a, b),
                epoch: self.epoch(state),
                throttled: c % 3 > 0,
            },
            44..54 => self.reserve(state),
            54..64 => self.reserve_places(state),
            64..84 => Command::UpdateContainers {
                updates: vec![
                    self.update(state),
                    Self {
                        a: b,
                        b: c,
                        c: a,
                        ..self
                    }
                    .update(state),
                ],
            },
            84..87 => Command::ReportInvokers {
                reports: vec![self.report(state)],
            },
            87..90 => Command::PutNamespace {
                name: namespace(a),
                limits: self.limits(),
            },
            90..91 => Command::DeleteNamespace { name: namespace(a) },
            91..94 => self.put_document(state),
            94..95 => Command::DeleteDocument {
                key: document(a),
                expected: self.expected(state),
            },
            95..99 => Command::PutBlobChunk(self.chunk()),
            _ => Command::SweepBlobs {
                before: LogRevision(state.revision().0.saturating_sub(u64::from(a % 16))),
            },
        }
    }

    /// Every queue of a session, some of them in an older epoch, and one that it may not lead.
    fn move_queues(self, state: &State) -> Command {
        let session = self.session(state);
        let led = state.queues_of(session).map(|(key, row)| (key, row.epoch.0));
        let other = queue(self.b, self.c);
        let stray = state.queue(&other).map(|row| (&other, row.epoch.0));
        let late = |nth: usize| u64::from(nth % 4 == usize::from(self.c % 4));
        let queues = led.chain(stray).enumerate();
        Command::MoveQueues {
            session,
            queues: queues
                .map(|(nth, (key, epoch))| (key.clone(), Epoch(epoch.saturating_sub(late(nth)))))
                .collect(),
        }
    }

    /// The same queues, to schedulers that may have no session, drain, or lead them already.
    fn hand_over(self, state: &State) -> Command {
        let Command::MoveQueues { session, queues } = self.move_queues(state) else {
            unreachable!("asked for a move")
        };
        let to = |nth: usize| SchedulerId(1 + (nth as u64 + u64::from(self.a)) % 5);
        Command::HandOver {
            session,
            queues: queues
                .into_iter()
                .enumerate()
                .map(|(nth, (key, epoch))| (key, epoch, to(nth)))
                .collect(),
        }
    }

    fn limits(self) -> NamespaceLimits {
        let wild = |usual, edge| if self.is_wild() { edge } else { usual };
        NamespaceLimits {
            containers: u32::from(self.b % 8),
            over_provision_percent: wild(100 + 25 * u32::from(self.c % 5), 99 + 902 * u32::from(self.c % 2)),
            invocations_per_minute: self.c.is_multiple_of(3).then_some(u32::from(self.c)),
            weight: wild(1 + u32::from(self.a), 10_001 * u32::from(self.a % 2)),
        }
    }

    fn is_wild(self) -> bool {
        self.wild > 245
    }

    /// The number, or now and then one from the edge.
    fn number(self, usual: u64) -> u64 {
        let edges = [0, 1, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        if self.is_wild() {
            edges[usize::from(self.b) % edges.len()]
        } else {
            usual
        }
    }

    fn open_session(self) -> Command {
        let owner = if self.a.is_multiple_of(2) {
            SessionOwner::Scheduler(SchedulerId(1 + u64::from(self.b % 4)))
        } else {
            SessionOwner::Invoker {
                id: InvokerId(1 + u64::from(self.b % 3)),
                profile: profile(),
            }
        };
        let ttl = if self.is_wild() {
            Duration::ZERO
        } else {
            Duration::from_secs(2)
        };
        Command::OpenSession(OpenSession {
            owner,
            incarnation: [self.c % 3; 16],
            ttl,
        })
    }

    fn session(self, state: &State) -> SessionId {
        let nth = usize::from(self.a) % (state.sessions().count() + 1);
        let found = state
            .sessions()
            .nth(nth)
            .map_or(SessionId(u64::from(self.a)), |(id, _)| id);
        SessionId(self.number(found.0))
    }

    /// The epoch of the drawn queue, or an older one.
    fn epoch(self, state: &State) -> Epoch {
        let current = state
            .queue(&queue(self.a, self.b))
            .map_or(0, |queue| queue.epoch.0);
        Epoch(self.number(current.saturating_sub(u64::from(self.c.is_multiple_of(5)))))
    }

    fn expected(self, state: &State) -> Option<Revision> {
        let current = state
            .document(&document(self.a))
            .map(|row| row.revision)
            .unwrap_or_default();
        [None, Some(current), Some(Revision(0)), Some(Revision(3))][usize::from(self.b % 4)]
    }

    fn reserve(self, state: &State) -> Command {
        let leading = |(key, row): (&QueueKey, &QueueRecord)| Some((key.clone(), row.clone(), row.leader?.1));
        let leading: Vec<(QueueKey, QueueRecord, SessionId)> = state.queues().filter_map(leading).collect();
        let Some(&(_, _, session)) = leading.get(usize::from(self.a) % leading.len().max(1)) else {
            return Command::ReserveSlots {
                session: self.session(state),
                requests: vec![],
            };
        };
        let used = state.session(session).map_or(0, |row| row.container_seq);
        let is_repeated = self.b.is_multiple_of(5);
        let mut first_seq = if is_repeated {
            used.saturating_sub(2)
        } else {
            used.saturating_add(1)
        };
        let mut requests = Vec::new();
        for (key, row, leader) in leading {
            if leader != session && !self.c.is_multiple_of(16) {
                continue;
            }
            let count = u32::from(1 + self.c % 4);
            requests.push(SlotRequest {
                key,
                epoch: if leader == session {
                    row.epoch
                } else {
                    Epoch(row.epoch.0 - 1)
                },
                first_seq: self.number(first_seq.max(1)),
                count: if self.wild > 250 { u32::MAX } else { count },
                revision: row.revision,
                memory: ByteSize::mib(128),
                instances: (self.b.is_multiple_of(3)).then_some(2),
            });
            first_seq = first_seq.saturating_add(count.into());
        }
        Command::ReserveSlots { session, requests }
    }

    /// The same with places: some, one for each or (seldom) one too many; some on invokers that are full, sick or nobody.
    fn reserve_places(self, state: &State) -> Command {
        let Command::ReserveSlots { session, requests } = self.reserve(state) else {
            unreachable!("asked for slots")
        };
        let places = |(nth, request): (usize, SlotRequest)| {
            let count = request.count.min(8) as usize;
            let len = match self.wild {
                ..80 => count,
                80..240 => (usize::from(self.wild) + nth) % (count + 1),
                _ => count + 1,
            };
            let on = |at: usize| InvokerId(1 + (at as u64 + u64::from(self.b)) % 4);
            (request, (nth..nth + len).map(on).collect())
        };
        Command::ReservePlaces {
            session,
            requests: requests.into_iter().enumerate().map(places).collect(),
        }
    }

    fn update(self, state: &State) -> ContainerUpdate {
        let nth = usize::from(self.a) % (state.containers_len() + 1);
        let unknown = ContainerId {
            session: SessionId(u64::from(self.a)),
            seq: u64::from(self.b),
        };
        let container = state.containers().nth(nth).map_or(unknown, |(id, _)| id);
        let change = match self.b % 8 {
            0..3 => ContainerChange::Placed {
                invoker: InvokerId(1 + u64::from(self.c % 4)),
            },
            3..5 => ContainerChange::Running,
            5 => ContainerChange::Warm,
            6 => match self.c {
                ..64 => ContainerChange::Unplaced {
                    invoker: InvokerId(1 + u64::from(self.c % 4)),
                },
                64..160 => ContainerChange::Ended,
                _ => ContainerChange::Warm,
            },
            _ => ContainerChange::Removed,
        };
        let on = state.container(container).and_then(|row| row.invoker);
        let reporter = match self.wild % 4 {
            0 => on.map(|(invoker, session)| (invoker, SessionId(session.0 + 1))),
            1 | 2 => on,
            _ => None,
        };
        ContainerUpdate {
            container,
            change,
            reporter,
        }
    }

    fn report(self, state: &State) -> InvokerReport {
        let invoker = InvokerId(1 + u64::from(self.a % 3));
        let current = state.invoker(invoker).map_or(SessionId(1), |row| row.session);
        InvokerReport {
            invoker,
            session: SessionId(self.number(current.0)),
            healthy: !self.b.is_multiple_of(16),
            busy: ByteSize::mib(u64::from(self.c)),
            reclaimable: ByteSize::ZERO,
        }
    }

    fn put_document(self, state: &State) -> Command {
        let blobs = if self.c.is_multiple_of(2) {
            vec![hash(self.c / 2)]
        } else {
            vec![]
        };
        let instances = (self.c.is_multiple_of(3)).then_some(u32::from(self.c % 4));
        put_document(self.a, self.expected(state), blobs, instances)
    }

    fn chunk(self) -> BlobChunk {
        let (hash, index) = (hash(self.a), u32::from(self.b % 2));
        let last = 1 + usize::from(self.c.is_multiple_of(16));
        let len = (BlobChunk::LEN + last) as u64;
        let data = if index == 0 { BlobChunk::LEN } else { last };
        BlobChunk {
            hash,
            len: self.number(len),
            index,
            data: vec![0; data],
        }
    }
}

fn member(n: u8, draining: bool) -> MemberRecord {
    MemberRecord {
        peer_address: format!("s{n}:7400"),
        client_address: String::new(),
        zone: String::new(),
        version: String::new(),
        incarnation: [n; 16],
        draining,
    }
}

fn profile() -> InvokerProfile {
    InvokerProfile {
        // Three containers: room is short often.
        memory: ByteSize::mib(384),
        tags: vec![],
        dedicated: vec![],
        kinds: vec![],
        zone: String::new(),
        version: String::new(),
    }
}

fn open(owner: SessionOwner, process: u8) -> Command {
    Command::OpenSession(OpenSession {
        owner,
        incarnation: [process; 16],
        ttl: Duration::from_secs(2),
    })
}

fn put_document(
    name: u8,
    expected: Option<Revision>,
    blobs: Vec<BlobHash>,
    instances: Option<u32>,
) -> Command {
    let limits = Some(ActionLimits {
        instances,
        ..ActionLimits::default()
    });
    Command::PutDocument(PutDocument {
        key: document(name),
        body: vec![1; 5],
        expected,
        blobs,
        limits,
    })
}

fn document(n: u8) -> DocumentKey {
    let (kind, name) = if n % 8 == 7 {
        ("rule", "r".to_owned())
    } else {
        ("action", format!("a{}", n % 3))
    };
    DocumentKey {
        kind: kind.to_owned(),
        namespace: namespace(0),
        name,
    }
}

fn namespace(n: u8) -> NamespaceName {
    format!("n{}", n % 3).parse().unwrap()
}

fn queue(a: u8, b: u8) -> QueueKey {
    QueueKey {
        namespace: namespace(a),
        action: format!("n0/a{}", b % 3).parse().unwrap(),
    }
}

fn hash(n: u8) -> BlobHash {
    BlobHash([n % 3; 32])
}
