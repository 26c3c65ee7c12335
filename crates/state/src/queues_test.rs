//! Cases of queues and their leaders.

use whiskraft_types::SchedulerId;

use super::*;
use crate::command::Command;
use crate::world::{World, document, epoch, put, queue};

#[test]
fn ensured_queue_has_a_live_leader_and_keeps_it() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let revision = world.next();
    let first = world.ensure(&key);
    assert_eq!(first.epoch, epoch(revision));
    assert_eq!(
        Some(world.leader_session(&key)),
        world.state.scheduler_session(first.leader)
    );
    let ensure = Command::EnsureQueue(EnsureQueue { key: key.clone() });
    let applied = world.apply(ensure);
    assert_eq!(
        (applied.response, applied.events),
        (Response::Leadership(first), vec![])
    );
}

#[test]
fn queue_of_an_unknown_action_is_refused() {
    let ensure = Command::EnsureQueue(EnsureQueue {
        key: queue("guest", "nothing"),
    });
    let refused = Refusal::NoAction {
        action: "guest/nothing".to_owned(),
    };
    assert_eq!(World::new().respond(ensure), Response::Refused(refused));
}

#[test]
fn without_a_live_scheduler_there_is_no_leader() {
    let mut world = World::new();
    let sessions = [1, 2, 3].map(|id| world.state.scheduler_session(SchedulerId(id)).unwrap());
    world.expire(&sessions);
    let ensure = Command::EnsureQueue(EnsureQueue {
        key: queue("guest", "hello"),
    });
    assert_eq!(world.respond(ensure), Response::Refused(Refusal::NoScheduler));
    assert_eq!(world.state.queues_len(), 0);
}

#[test]
fn leaders_are_spread_evenly() {
    let mut world = World::new();
    for n in 0..300 {
        world.ensure(&queue(&format!("n{n}"), "hello"));
    }
    for id in 1..=3 {
        let led = world
            .state
            .queues_led(world.state.scheduler_session(SchedulerId(id)).unwrap());
        assert!(
            (90..=110).contains(&led),
            "scheduler {id} leads {led} of 300 queues"
        );
    }
}

#[test]
fn orphans_get_a_leader_with_the_first_scheduler_that_comes_back() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let first = world.ensure(&key);
    let sessions = [1, 2, 3].map(|id| world.state.scheduler_session(SchedulerId(id)).unwrap());
    world.expire(&sessions);
    let orphan = world.state.queue(&key).unwrap().clone();
    assert_eq!((orphan.leader, orphan.epoch > first.epoch), (None, true));
    let session = world.open_scheduler(2, 2);
    let queue = world.state.queue(&key).unwrap();
    assert_eq!(queue.leader, Some((SchedulerId(2), session)));
    assert!(queue.epoch > orphan.epoch);
}

#[test]
fn epoch_of_a_queue_that_comes_back_is_newer_than_any_it_had() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let old = world.ensure(&key).epoch;
    assert_eq!(
        world.respond(Command::RemoveQueue {
            key: key.clone(),
            epoch: old
        }),
        Response::Done
    );
    assert!(world.ensure(&key).epoch > old);
    // The repeated removal names the old epoch.
    let refused = Refusal::StaleEpoch {
        current: world.state.queue(&key).unwrap().epoch,
    };
    assert_eq!(
        world.respond(Command::RemoveQueue { key, epoch: old }),
        Response::Refused(refused)
    );
}

#[test]
fn removal_of_a_queue_that_is_gone_names_epoch_zero() {
    let command = Command::RemoveQueue {
        key: queue("guest", "hello"),
        epoch: Epoch(5),
    };
    assert_eq!(
        World::new().respond(command),
        Response::Refused(Refusal::StaleEpoch { current: Epoch(0) })
    );
}

#[test]
fn removed_queue_frees_the_slots_that_nobody_would_settle() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let epoch = world.ensure(&key).epoch;
    let running = world.run(&key, 1);
    world.reserve(&key, 2);
    world.apply(Command::RemoveQueue {
        key: key.clone(),
        epoch,
    });
    let left: Vec<_> = world.state.containers_of(&key).map(|(id, _)| id).collect();
    assert_eq!(left, [running]);
    assert_eq!(world.state.namespace_counts(&key.namespace).slots(), 1);
}

#[test]
fn action_throttle_belongs_to_its_epoch() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let old = world.ensure(&key).epoch;
    let set = |epoch, throttled| Command::SetActionThrottle {
        key: key.clone(),
        epoch,
        throttled,
    };
    let events = world.events(set(old, true));
    assert!(events.contains(&Event::ActionThrottle(key.clone(), true)));
    assert_eq!(world.events(set(old, true)), []);
    assert!(world.state.is_action_throttled(&key));

    let events = world.expire(&[world.leader_session(&key)]);
    assert!(events.contains(&Event::ActionThrottle(key.clone(), false)));
    let current = world.state.queue(&key).unwrap().epoch;
    assert_eq!(
        world.respond(set(old, true)),
        Response::Refused(Refusal::StaleEpoch { current })
    );
    assert!(!world.state.is_action_throttled(&key));
}

#[test]
fn end_of_a_full_queue_ends_its_throttle() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let epoch = world.ensure(&key).epoch;
    world.apply(Command::SetActionThrottle {
        key: key.clone(),
        epoch,
        throttled: true,
    });
    let events = world.events(Command::RemoveQueue {
        key: key.clone(),
        epoch,
    });
    assert_eq!(
        events,
        [Event::Queue(key.clone(), None), Event::ActionThrottle(key, false)]
    );
}

#[test]
fn new_action_revision_reaches_its_queues_in_every_namespace_and_no_other() {
    let mut world = World::new();
    world.put_action("other", None);
    let (here, there, other) = (
        queue("guest", "hello"),
        queue("alice", "hello"),
        queue("guest", "other"),
    );
    for key in [&here, &there, &other] {
        world.ensure(key);
    }
    let before = world.state.clone();
    let revision = world.put_action("hello", None);
    for key in [&here, &there] {
        let (was, is) = (before.queue(key).unwrap(), world.state.queue(key).unwrap());
        assert_eq!(
            *is,
            QueueRecord {
                revision,
                ..was.clone()
            }
        );
    }
    assert_eq!(world.state.queue(&other), before.queue(&other));
}

#[test]
fn deleted_action_takes_its_queues_along() {
    let mut world = World::new();
    let keys = [queue("guest", "hello"), queue("alice", "hello")];
    for key in &keys {
        world.ensure(key);
    }
    world.apply(Command::DeleteDocument {
        key: document("hello"),
        expected: None,
    });
    assert_eq!(world.state.queues_len(), 0);
    world.apply(put("hello", None, None));
    assert_eq!(world.state.queues_len(), 0);
}
