//! Cases of sessions.

use whiskraft_types::{InvokerId, QueueKey, SchedulerId};

use super::*;
use crate::command::{Command, ContainerChange};
use crate::record::ContainerState;
use crate::world::{World, open, profile, queue};

fn scheduler(id: u64) -> SessionOwner {
    SessionOwner::Scheduler(SchedulerId(id))
}

fn invoker(id: u64) -> SessionOwner {
    SessionOwner::Invoker {
        id: InvokerId(id),
        profile: profile(),
    }
}

#[test]
fn session_is_named_by_its_revision_and_found_again_by_the_same_process() {
    let mut world = World::new();
    let revision = world.next();
    let session = world.open_invoker(7, 1);
    assert_eq!(session, SessionId(revision.0));
    let applied = world.apply(open(invoker(7), 1));
    assert_eq!(
        (applied.response, applied.events),
        (Response::Session(session), vec![])
    );
}

#[test]
fn second_process_with_the_id_of_an_invoker_waits_for_the_first_to_end() {
    let mut world = World::new();
    let holder = world.invoker_session(1);
    let refused = Response::Refused(Refusal::Held {
        owner: "invoker 1".to_owned(),
        holder,
    });
    assert_eq!(world.respond(open(invoker(1), 2)), refused);
    world.expire(&[holder]);
    assert!(world.open_invoker(1, 2) > holder);
}

#[test]
fn new_process_of_a_scheduler_ends_the_old_session_and_its_leaderships() {
    let mut world = World::new();
    let keys: Vec<QueueKey> = (0..12).map(|n| queue(&format!("guest{n}"), "hello")).collect();
    for key in &keys {
        world.ensure(key);
    }
    let old = world.state.scheduler_session(SchedulerId(1)).unwrap();
    assert!(
        world.state.queues_led(old) > 0,
        "one of three schedulers leads none of twelve queues"
    );
    let revision = world.next();
    let new = world.open_scheduler(1, 2);
    assert_eq!(world.state.scheduler_session(SchedulerId(1)), Some(new));
    assert_eq!(
        (world.state.session(old), world.state.queues_of(old).count()),
        (None, 0)
    );
    for key in &keys {
        let queue = world.state.queue(key).unwrap();
        assert!(
            queue
                .leader
                .is_some_and(|(_, session)| world.state.session(session).is_some())
        );
        assert!(queue.epoch.0 <= revision.0);
    }
}

#[test]
fn end_of_one_process_of_a_scheduler_is_the_end_of_no_other() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let old = world.state.scheduler_session(SchedulerId(1)).unwrap();
    let new = world.open_scheduler(1, 2);
    let epoch = world.state.queue(&key).unwrap().epoch;
    let refused = Response::Refused(Refusal::NoSession { session: old });
    assert_eq!(world.respond(Command::CloseSession { session: old }), refused);
    assert_eq!(world.state.scheduler_session(SchedulerId(1)), Some(new));
    assert_eq!(world.state.queue(&key).unwrap().epoch, epoch);
    assert_eq!(
        world.respond(Command::CloseSession { session: new }),
        Response::Done
    );
    assert_eq!(world.state.scheduler_session(SchedulerId(1)), None);
    assert_eq!(world.state.queues_of(new).count(), 0);
}

#[test]
fn scheduler_that_is_no_member_gets_no_session() {
    assert_eq!(
        World::new().respond(open(scheduler(9), 1)),
        Response::Refused(Refusal::NotFound)
    );
}

#[test]
fn time_to_live_outside_the_bounds_is_refused() {
    for ttl in [
        Duration::ZERO,
        TTL_MIN - Duration::from_nanos(1),
        TTL_MAX + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        let open = OpenSession {
            owner: scheduler(1),
            incarnation: [9; 16],
            ttl,
        };
        let response = World::new().respond(Command::OpenSession(open));
        assert!(
            matches!(response, Response::Refused(Refusal::Invalid { .. })),
            "{ttl:?}: {response:?}"
        );
    }
    for ttl in [TTL_MIN, TTL_MAX] {
        let open = OpenSession {
            owner: scheduler(1),
            incarnation: [9; 16],
            ttl,
        };
        assert!(
            matches!(
                World::new().respond(Command::OpenSession(open)),
                Response::Session(_)
            ),
            "{ttl:?}"
        );
    }
}

#[test]
fn endless_profile_is_refused() {
    let tags = InvokerProfile {
        tags: vec!["x".repeat(1000)],
        ..profile()
    };
    let many = InvokerProfile {
        kinds: vec![String::new(); PROFILE_LIST_LEN_MAX + 1],
        ..profile()
    };
    for profile in [tags, many] {
        let response = World::new().respond(open(
            SessionOwner::Invoker {
                id: InvokerId(7),
                profile,
            },
            1,
        ));
        assert!(
            matches!(response, Response::Refused(Refusal::Invalid { .. })),
            "{response:?}"
        );
    }
}

#[test]
fn renewal_that_overtakes_an_expiry_keeps_the_session() {
    let mut world = World::new();
    let session = world.invoker_session(1);
    world.apply(Command::RenewSessions {
        sessions: vec![(session, 5), (SessionId(999), 1)],
    });
    world.apply(Command::RenewSessions {
        sessions: vec![(session, 3)],
    });
    assert_eq!(
        world.events(Command::ExpireSessions {
            sessions: vec![(session, 4)]
        }),
        []
    );
    assert!(world.state.session(session).is_some());
    world.apply(Command::ExpireSessions {
        sessions: vec![(session, 5)],
    });
    assert_eq!(world.state.session(session), None);
}

#[test]
fn end_of_an_invoker_takes_its_containers_and_their_slots() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let (on_first, on_second) = (world.run(&key, 1), world.run(&key, 2));
    let unplaced = world.reserve(&key, 1).remove(0);
    let session = world.invoker_session(1);
    let record = world.state.container(on_first).unwrap().clone();
    let gone = Event::Container {
        id: on_first,
        record,
        before: Some(ContainerState::Running),
        removed: true,
    };
    let events = world.expire(&[session]);
    assert_eq!(
        events,
        [
            Event::Session(session, None),
            Event::Invoker(InvokerId(1), None),
            gone
        ]
    );
    let left: Vec<_> = world.state.containers().map(|(id, _)| id).collect();
    assert_eq!(left, {
        let mut ids = [on_second, unplaced];
        ids.sort();
        ids
    });
    assert_eq!(world.state.queue_counts(&key).slots(), 2);
}

#[test]
fn end_of_a_scheduler_leaves_the_slots_its_queue_reserved_to_the_next_leader() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let old = world.ensure(&key).epoch;
    let reserved = world.reserve(&key, 3);
    world.expire(&[world.leader_session(&key)]);
    assert!(world.state.queue(&key).unwrap().epoch > old);
    assert_eq!(world.state.queue_counts(&key).in_progress, 3);
    // Whoever leads now settles them.
    world.update(reserved[0], ContainerChange::Removed);
    assert_eq!(world.state.queue_counts(&key).in_progress, 2);
}

#[test]
fn sessions_that_end_together_inherit_nothing_from_each_other() {
    let mut world = World::new();
    let keys: Vec<QueueKey> = (0..12).map(|n| queue(&format!("guest{n}"), "hello")).collect();
    for key in &keys {
        world.ensure(key);
    }
    let ended = [1, 2].map(|id| world.state.scheduler_session(SchedulerId(id)).unwrap());
    let events = world.expire(&ended);
    for key in &keys {
        assert_eq!(
            world.state.queue(key).unwrap().leader.map(|(id, _)| id),
            Some(SchedulerId(3))
        );
        let changes = events
            .iter()
            .filter(|event| matches!(event, Event::Queue(changed, _) if changed == key));
        assert!(changes.count() <= 1, "{key} changed hands twice in one command");
    }
}

#[test]
fn closed_session_is_gone_and_cannot_be_closed_twice() {
    let mut world = World::new();
    let session = world.invoker_session(1);
    assert_eq!(world.respond(Command::CloseSession { session }), Response::Done);
    assert_eq!(world.state.invoker(InvokerId(1)), None);
    assert_eq!(
        world.respond(Command::CloseSession { session }),
        Response::Refused(Refusal::NoSession { session })
    );
}
