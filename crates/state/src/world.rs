//! Helper of the unit tests: a state that numbers its revisions, and short names for what commands need.

use std::time::Duration;

use whiskraft_types::{
    ActionLimits, ByteSize, ContainerId, Epoch, InvokerId, LogRevision, NamespaceLimits, NamespaceName,
    QueueKey, Revision, SchedulerId, SessionId,
};

use crate::*;

/// A state under test.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) state: State,
}

impl World {
    /// Three schedulers with sessions, two healthy invokers, action `guest/hello`.
    pub(crate) fn new() -> Self {
        let mut world = Self::default();
        for id in 1..=3 {
            world.apply(Command::PutMember {
                id: SchedulerId(id),
                member: member(id),
            });
            world.open_scheduler(id, 1);
        }
        for id in 1..=2 {
            let session = world.open_invoker(id, 1);
            world.report(id, session, true);
        }
        world.put_action("hello", None);
        world
    }

    /// The next revision that a command will have.
    pub(crate) fn next(&self) -> LogRevision {
        self.state.revision().next()
    }

    /// Applies at the next revision and checks what holds after every command.
    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        let before = self.state.clone();
        let applied = self.state.apply(self.next(), &command);
        assert_eq!(
            self.state.index,
            crate::index::Index::of(&self.state.tables),
            "after {command:?}"
        );
        if let Response::Refused(_) = applied.response {
            let mut tables = before.tables;
            tables.revision = self.state.tables.revision;
            assert_eq!(
                self.state.tables, tables,
                "a refused command has changed something: {command:?}"
            );
            assert!(applied.events.is_empty() && applied.effects.is_empty());
        }
        applied
    }

    pub(crate) fn respond(&mut self, command: Command) -> Response {
        self.apply(command).response
    }

    pub(crate) fn events(&mut self, command: Command) -> Vec<Event> {
        self.apply(command).events
    }

    pub(crate) fn open_scheduler(&mut self, id: u64, process: u8) -> SessionId {
        match self.respond(open(SessionOwner::Scheduler(SchedulerId(id)), process)) {
            Response::Session(session) => session,
            other => panic!("no session: {other:?}"),
        }
    }

    pub(crate) fn open_invoker(&mut self, id: u64, process: u8) -> SessionId {
        match self.respond(open(
            SessionOwner::Invoker {
                id: InvokerId(id),
                profile: profile(),
            },
            process,
        )) {
            Response::Session(session) => session,
            other => panic!("no session: {other:?}"),
        }
    }

    pub(crate) fn report(&mut self, id: u64, session: SessionId, healthy: bool) -> Vec<Event> {
        let (busy, reclaimable) = (ByteSize::mib(1), ByteSize::mib(2));
        let report = InvokerReport {
            invoker: InvokerId(id),
            session,
            healthy,
            busy,
            reclaimable,
        };
        self.events(Command::ReportInvokers {
            reports: vec![report],
        })
    }

    pub(crate) fn put_action(&mut self, name: &str, instances: Option<u32>) -> Revision {
        match self.respond(put(name, None, instances)) {
            Response::Revision(revision) => revision,
            other => panic!("not written: {other:?}"),
        }
    }

    pub(crate) fn limit_namespace(&mut self, name: &str, containers: u32) -> Vec<Event> {
        self.events(Command::PutNamespace {
            name: namespace(name),
            limits: NamespaceLimits::containers(containers),
        })
    }

    /// Limits with excess for actions without containers.
    pub(crate) fn limit_over(
        &mut self,
        name: &str,
        containers: u32,
        over_provision_percent: u32,
    ) -> Vec<Event> {
        self.events(Command::PutNamespace {
            name: namespace(name),
            limits: NamespaceLimits {
                over_provision_percent,
                ..NamespaceLimits::containers(containers)
            },
        })
    }

    pub(crate) fn ensure(&mut self, key: &QueueKey) -> Leadership {
        match self.respond(Command::EnsureQueue(EnsureQueue { key: key.clone() })) {
            Response::Leadership(leadership) => leadership,
            other => panic!("no leadership: {other:?}"),
        }
    }

    pub(crate) fn ensure_all<'a>(&mut self, keys: impl IntoIterator<Item = &'a QueueKey>) {
        for key in keys {
            self.ensure(key);
        }
    }

    pub(crate) fn leader_session(&self, key: &QueueKey) -> SessionId {
        self.state
            .queue(key)
            .and_then(|queue| queue.leader)
            .expect("the queue has a leader")
            .1
    }

    /// A request of the queue's leader for its next containers.
    pub(crate) fn request(&self, key: &QueueKey, count: u32) -> SlotRequest {
        let queue = self.state.queue(key).unwrap();
        let used = self
            .state
            .session(self.leader_session(key))
            .unwrap()
            .container_seq;
        SlotRequest {
            key: key.clone(),
            epoch: queue.epoch,
            first_seq: used + 1,
            count,
            revision: queue.revision,
            memory: ByteSize::mib(256),
            instances: None,
        }
    }

    pub(crate) fn grants(&mut self, session: SessionId, requests: Vec<SlotRequest>) -> Vec<Grant> {
        match self.respond(Command::ReserveSlots { session, requests }) {
            Response::Grants(grants) => grants,
            other => panic!("no grants: {other:?}"),
        }
    }

    /// What a queue's leader is granted of its next containers, with the invokers that it has chosen for them.
    pub(crate) fn reserve_on(&mut self, key: &QueueKey, count: u32, chosen: &[u64]) -> Vec<GrantedContainer> {
        let (session, request) = (self.leader_session(key), self.request(key, count));
        let chosen = chosen.iter().copied().map(InvokerId).collect();
        let requests = vec![(request, chosen)];
        match self.respond(Command::ReservePlaces { session, requests }) {
            Response::Grants(mut grants) => match grants.remove(0) {
                Grant::Granted(granted) => granted,
                Grant::StaleEpoch => panic!("stale epoch"),
            },
            other => panic!("no grants: {other:?}"),
        }
    }

    /// Reserves for a queue through its leader; the ids granted.
    pub(crate) fn reserve(&mut self, key: &QueueKey, count: u32) -> Vec<ContainerId> {
        let (session, request) = (self.leader_session(key), self.request(key, count));
        match self.grants(session, vec![request]).remove(0) {
            Grant::Granted(granted) => granted.into_iter().map(|granted| granted.container).collect(),
            Grant::StaleEpoch => panic!("stale epoch"),
        }
    }

    pub(crate) fn update(&mut self, container: ContainerId, change: ContainerChange) -> Applied {
        self.apply(Command::UpdateContainers {
            updates: vec![ContainerUpdate {
                container,
                change,
                reporter: None,
            }],
        })
    }

    /// Reserves one container, places it and lets it run.
    pub(crate) fn run(&mut self, key: &QueueKey, invoker: u64) -> ContainerId {
        let container = self.reserve(key, 1).remove(0);
        self.update(
            container,
            ContainerChange::Placed {
                invoker: InvokerId(invoker),
            },
        );
        self.update(container, ContainerChange::Running);
        container
    }

    pub(crate) fn invoker_session(&self, id: u64) -> SessionId {
        self.state.invoker(InvokerId(id)).unwrap().session
    }

    pub(crate) fn expire(&mut self, sessions: &[SessionId]) -> Vec<Event> {
        self.events(Command::ExpireSessions {
            sessions: sessions.iter().map(|id| (*id, 0)).collect(),
        })
    }
}

pub(crate) fn member(id: u64) -> MemberRecord {
    MemberRecord {
        peer_address: format!("10.0.0.{id}:7400"),
        client_address: format!("10.0.0.{id}:7401"),
        zone: String::new(),
        version: "0.1.0".to_owned(),
        incarnation: [id as u8; 16],
        draining: false,
    }
}

pub(crate) fn profile() -> InvokerProfile {
    InvokerProfile {
        memory: ByteSize::mib(4096),
        tags: Vec::new(),
        dedicated: Vec::new(),
        kinds: Vec::new(),
        zone: String::new(),
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn open(owner: SessionOwner, process: u8) -> Command {
    Command::OpenSession(OpenSession {
        owner,
        incarnation: [process; 16],
        ttl: Duration::from_secs(2),
    })
}

pub(crate) fn document(name: &str) -> DocumentKey {
    DocumentKey {
        kind: DocumentKey::ACTION.to_owned(),
        namespace: namespace("guest"),
        name: name.to_owned(),
    }
}

pub(crate) fn put(name: &str, expected: Option<u64>, instances: Option<u32>) -> Command {
    Command::PutDocument(PutDocument {
        key: document(name),
        body: b"{}".to_vec(),
        expected: expected.map(Revision),
        blobs: Vec::new(),
        limits: Some(ActionLimits {
            instances,
            ..ActionLimits::default()
        }),
    })
}

pub(crate) fn namespace(name: &str) -> NamespaceName {
    name.parse().unwrap()
}

/// The queue of `guest/<action>` in a namespace.
pub(crate) fn queue(namespace: &str, action: &str) -> QueueKey {
    QueueKey {
        namespace: namespace.parse().unwrap(),
        action: format!("guest/{action}").parse().unwrap(),
    }
}

pub(crate) fn epoch(revision: LogRevision) -> Epoch {
    Epoch(revision.0)
}
