//! Bad histories, written by hand as events, are found; good ones, made by applying commands, are not complained of.

use whiskraft_types::{ByteSize, Epoch, InvokerId, NamespaceLimits, Revision, SchedulerId};

use super::*;
use crate::command::{ContainerChange, SessionOwner};
use crate::event::Response;
use crate::record::{NamespaceRecord, SessionRecord};
use crate::world::{World, namespace, open, profile, queue};

/// A history written by hand: nothing of `State` decides what is in it.
struct Forged {
    audit: Audit,
    revision: u64,
}

const SCHEDULER: SessionId = SessionId(1);
const INVOKER: SessionId = SessionId(2);

impl Forged {
    /// Session 1 of a scheduler that leads queue `a/one` in epoch 3, session 2 of an invoker; namespace `a` may have
    /// two containers.
    fn new() -> Self {
        let mut forged = Self {
            audit: Audit::default(),
            revision: 10,
        };
        forged.events(vec![
            session(SCHEDULER),
            session(INVOKER),
            led("one", 3, SCHEDULER),
            limit(2, 100),
        ]);
        assert_eq!(forged.kinds(), []);
        forged
    }

    fn events(&mut self, events: Vec<Event>) {
        self.observe(&Command::UpdateContainers { updates: Vec::new() }, events);
    }

    fn observe(&mut self, command: &Command, events: Vec<Event>) {
        self.revision += 1;
        let applied = Applied {
            response: Response::Done,
            events,
            effects: Vec::new(),
        };
        self.audit.observe(LogRevision(self.revision), command, &applied);
    }

    /// Grants containers, whatever is left.
    fn grant(&mut self, action: &str, seqs: std::ops::Range<u64>) {
        self.grant_with(action, seqs, None);
    }

    fn grant_with(&mut self, action: &str, seqs: std::ops::Range<u64>, instances: Option<u32>) {
        let request = SlotRequest {
            key: queue("a", action),
            epoch: Epoch(3),
            first_seq: seqs.start,
            count: u32::try_from(seqs.end - seqs.start).unwrap(),
            revision: Revision(1),
            memory: ByteSize::mib(256),
            instances,
        };
        let events = seqs.map(|seq| changed(seq, action, ContainerState::InProgress, None));
        let command = Command::ReserveSlots {
            session: SCHEDULER,
            requests: vec![request],
        };
        self.observe(&command, events.collect());
    }

    fn kinds(&self) -> Vec<ViolationKind> {
        self.audit
            .violations()
            .iter()
            .map(|violation| violation.kind.clone())
            .collect()
    }
}

fn session(id: SessionId) -> Event {
    let owner = if id == INVOKER {
        SessionOwner::Invoker {
            id: InvokerId(1),
            profile: profile(),
        }
    } else {
        SessionOwner::Scheduler(SchedulerId(1))
    };
    let Command::OpenSession(open) = open(owner, 1) else {
        panic!("opens no session")
    };
    let record = SessionRecord {
        owner: open.owner,
        incarnation: open.incarnation,
        ttl: open.ttl,
        renewed_seq: 0,
        container_seq: 0,
    };
    Event::Session(id, Some(record))
}

fn led(action: &str, epoch: u64, leader: SessionId) -> Event {
    let record = QueueRecord {
        leader: Some((SchedulerId(1), leader)),
        epoch: Epoch(epoch),
        revision: Revision(1),
        throttled: false,
    };
    Event::Queue(queue("a", action), Some(record))
}

fn limit(containers: u32, over_provision_percent: u32) -> Event {
    let limits = NamespaceLimits {
        over_provision_percent,
        ..NamespaceLimits::containers(containers)
    };
    Event::Namespace(namespace("a"), Some(NamespaceRecord { limits }))
}

fn id(seq: u64) -> ContainerId {
    ContainerId {
        session: SCHEDULER,
        seq,
    }
}

fn changed(seq: u64, action: &str, state: ContainerState, on: Option<SessionId>) -> Event {
    Event::Container {
        id: id(seq),
        record: ContainerRecord {
            key: queue("a", action),
            revision: Revision(1),
            invoker: on.map(|session| (InvokerId(1), session)),
            state,
            memory: ByteSize::mib(256),
            epoch: Epoch(3),
            since: LogRevision(1),
            resumes: None,
        },
        before: None,
        removed: false,
    }
}

#[test]
fn a_slot_beyond_the_namespace_limit_is_found() {
    let mut forged = Forged::new();
    forged.grant("one", 1..3);
    assert_eq!((forged.kinds(), forged.audit.granted()), (vec![], 2));
    forged.grant("one", 3..4);
    let violation = &forged.audit.violations()[0];
    assert_eq!(
        violation.to_string(),
        "revision 13: namespace a has 3 slots, 2 are allowed"
    );
}

#[test]
fn a_lowered_limit_takes_nothing_away_but_grants_nothing() {
    let mut forged = Forged::new();
    forged.grant("one", 1..3);
    forged.events(vec![limit(1, 100)]);
    forged.events(vec![changed(1, "one", ContainerState::Running, Some(INVOKER))]);
    assert_eq!(forged.kinds(), [], "what was granted before the change stays");
    forged.events(vec![changed(1, "one", ContainerState::Warm, Some(INVOKER))]);
    forged.grant("one", 3..4);
    let expected = ViolationKind::NamespaceOver {
        namespace: namespace("a"),
        slots: 2,
        limit: 1,
    };
    assert_eq!(forged.kinds(), [expected]);
}

#[test]
fn only_the_first_container_of_an_action_may_be_one_of_the_excess() {
    let mut forged = Forged::new();
    forged.events(vec![limit(2, 150), led("two", 3, SCHEDULER)]);
    forged.grant("one", 1..3);
    forged.grant("two", 3..4);
    assert_eq!(forged.kinds(), []);
    forged.grant("two", 4..5);
    assert!(matches!(
        forged.kinds()[..],
        [ViolationKind::NamespaceOver {
            slots: 4,
            limit: 2,
            ..
        }]
    ));
}

#[test]
fn memory_promised_twice_is_found() {
    let mut forged = Forged::new();
    forged.events(vec![limit(100, 100)]);
    let most = profile().memory.as_bytes() / ByteSize::mib(256).as_bytes();
    for seq in 1..=most {
        forged.grant("one", seq..seq + 1);
        forged.events(vec![changed(seq, "one", ContainerState::Running, Some(INVOKER))]);
    }
    forged.events(vec![changed(1, "one", ContainerState::Warm, Some(INVOKER))]);
    forged.grant("one", most + 1..most + 3);
    forged.events(vec![changed(
        most + 1,
        "one",
        ContainerState::InProgress,
        Some(INVOKER),
    )]);
    assert_eq!(forged.kinds(), [], "a paused one leaves its memory to others");
    forged.events(vec![changed(
        most + 2,
        "one",
        ContainerState::InProgress,
        Some(INVOKER),
    )]);
    let expected = ViolationKind::InvokerOver {
        session: INVOKER,
        promised: profile().memory.saturating_add(ByteSize::mib(256)),
        memory: profile().memory,
    };
    assert_eq!(forged.kinds(), [expected]);
}

#[test]
fn a_slot_beyond_the_actions_limit_is_found() {
    let mut forged = Forged::new();
    forged.grant_with("one", 1..2, Some(1));
    forged.grant_with("one", 2..3, Some(1));
    let key = queue("a", "one");
    assert_eq!(
        forged.kinds(),
        [ViolationKind::ActionOver {
            key,
            slots: 2,
            limit: 1
        }]
    );
}

#[test]
fn a_slot_without_a_grant_is_found() {
    let mut forged = Forged::new();
    forged.grant("one", 1..2);
    forged.events(vec![changed(1, "one", ContainerState::Warm, Some(INVOKER))]);
    forged.events(vec![changed(1, "one", ContainerState::Running, Some(INVOKER))]);
    forged.events(vec![changed(7, "one", ContainerState::InProgress, None)]);
    assert_eq!(
        forged.kinds(),
        [
            ViolationKind::NotGranted { container: id(1) },
            ViolationKind::NotGranted { container: id(7) },
        ]
    );
}

#[test]
fn a_grant_to_a_former_leader_is_found() {
    let mut forged = Forged::new();
    forged.events(vec![session(SessionId(9)), led("one", 11, SessionId(9))]);
    forged.grant("one", 1..2);
    let expected = ViolationKind::StaleGrant {
        container: id(1),
        epoch: Epoch(3),
    };
    assert_eq!(forged.kinds(), [expected]);
}

#[test]
fn a_number_used_twice_is_found() {
    let mut forged = Forged::new();
    forged.grant("one", 1..2);
    let Event::Container { id: gone, record, .. } = changed(1, "one", ContainerState::InProgress, None)
    else {
        panic!("no container")
    };
    forged.events(vec![Event::Container {
        id: gone,
        record,
        before: Some(ContainerState::InProgress),
        removed: true,
    }]);
    forged.grant("one", 1..2);
    assert_eq!(
        forged.kinds(),
        [ViolationKind::ContainerReused { container: id(1) }]
    );
}

#[test]
fn epochs_that_fall_or_stay_are_found() {
    let mut forged = Forged::new();
    forged.events(vec![session(SessionId(9)), led("one", 3, SessionId(9))]);
    forged.events(vec![
        Event::Queue(queue("a", "one"), None),
        led("one", 2, SCHEDULER),
    ]);
    let key = queue("a", "one");
    assert_eq!(
        forged.kinds(),
        [
            ViolationKind::EpochKept {
                key: key.clone(),
                epoch: Epoch(3)
            },
            ViolationKind::EpochFell {
                key,
                from: Epoch(3),
                to: Epoch(2)
            },
        ]
    );
}

#[test]
fn a_container_that_outlives_its_session_is_found() {
    let mut forged = Forged::new();
    forged.grant("one", 1..2);
    forged.events(vec![changed(1, "one", ContainerState::Running, Some(INVOKER))]);
    forged.events(vec![Event::Session(INVOKER, None)]);
    forged.events(vec![changed(1, "one", ContainerState::Warm, Some(INVOKER))]);
    let (container, session) = (id(1), INVOKER);
    assert_eq!(
        forged.kinds(),
        [
            ViolationKind::OutlivedSession { container, session },
            ViolationKind::PlacedNowhere { container, session },
        ]
    );
}

#[test]
fn an_unplaced_container_of_a_removed_queue_is_found() {
    let mut forged = Forged::new();
    forged.grant("one", 1..2);
    forged.events(vec![Event::Queue(queue("a", "one"), None)]);
    assert!(matches!(
        forged.kinds()[..],
        [ViolationKind::OutlivedQueue { .. }]
    ));
}

#[test]
fn tables_that_are_not_what_the_events_made_are_found() {
    let mut forged = Forged::new();
    forged.grant("one", 1..2);
    forged.audit.finish(&State::default());
    assert_eq!(forged.kinds(), [ViolationKind::TablesDiffer { container: id(1) }]);
}

#[test]
fn details_are_bounded_and_the_count_is_not() {
    let mut forged = Forged::new();
    let events = (1..2000).map(|seq| changed(seq, "one", ContainerState::InProgress, None));
    forged.events(events.collect());
    assert_eq!(forged.audit.violations().len(), VIOLATIONS_MAX);
    assert!(forged.audit.violated() > 2000);
}

/// What the state does at its limits, with sessions that end and leaders that change.
#[test]
fn a_good_history_has_no_violation() {
    let mut world = World::new();
    let mut audit = Audit::from(&world.state);
    let key = queue("a", "hello");
    let mut apply = |world: &mut World, command: Command| {
        let revision = world.next();
        let applied = world.apply(command.clone());
        audit.observe(revision, &command, &applied);
        audit.finish(&world.state);
        assert_eq!(audit.violations(), [], "after {command:?}");
        applied.response
    };
    let limits = NamespaceLimits::containers(2);
    apply(
        &mut world,
        Command::PutNamespace {
            name: namespace("a"),
            limits,
        },
    );
    apply(
        &mut world,
        Command::EnsureQueue(crate::EnsureQueue { key: key.clone() }),
    );
    for round in 0..2 {
        let (session, request) = (world.leader_session(&key), world.request(&key, 5));
        let first = request.first_seq;
        let requests = vec![request];
        apply(&mut world, Command::ReserveSlots { session, requests });
        let container = ContainerId { session, seq: first };
        for change in [
            ContainerChange::Placed {
                invoker: InvokerId(1 + round),
            },
            ContainerChange::Running,
            ContainerChange::Warm,
        ] {
            let update = crate::ContainerUpdate {
                container,
                change,
                reporter: None,
            };
            apply(
                &mut world,
                Command::UpdateContainers {
                    updates: vec![update],
                },
            );
        }
        let sessions = vec![
            (world.leader_session(&key), 0),
            (world.invoker_session(1 + round), 0),
        ];
        if round == 0 {
            apply(&mut world, Command::ExpireSessions { sessions });
        }
    }
    let epoch = world.state.queue(&key).unwrap().epoch;
    apply(&mut world, Command::RemoveQueue { key, epoch });
    assert!(audit.granted() >= 3, "{}", audit.granted());
}
