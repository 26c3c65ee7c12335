//! Cases of queues and their leaders.

use std::collections::BTreeSet;

use whiskraft_types::SchedulerId;

use super::*;
use crate::command::Command;
use crate::event::Applied;
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
fn queues_of_a_deleted_action_stay_until_their_leaders_remove_them_and_get_no_containers() {
    let mut world = World::new();
    let keys = [queue("guest", "hello"), queue("alice", "hello")];
    for key in &keys {
        world.ensure(key);
    }
    let placed = world.run(&keys[0], 1);
    world.reserve(&keys[0], 2);
    world.apply(Command::DeleteDocument {
        key: document("hello"),
        expected: None,
    });
    let left: Vec<_> = world.state.containers_of(&keys[0]).map(|(id, _)| id).collect();
    assert_eq!(left, [placed], "nobody has to create the others");
    let deleted = world.state.revision().0;
    for key in &keys {
        assert_eq!(world.state.queue(key).unwrap().revision, Revision(deleted));
    }
    assert_eq!(world.reserve(&keys[0], 1), []);
    let ensure = Command::EnsureQueue(EnsureQueue { key: keys[0].clone() });
    assert!(matches!(
        world.respond(ensure),
        Response::Refused(Refusal::NoAction { .. })
    ));
    // Stored again before the leader has removed it: it goes on.
    world.apply(put("hello", None, None));
    assert!(world.state.queue(&keys[0]).unwrap().revision > Revision(deleted));
    assert_eq!(world.reserve(&keys[0], 1).len(), 1);
}

/// Moves all queues that a scheduler leads.
fn move_all(world: &World, session: SessionId) -> Command {
    let led = world.state.queues_of(session);
    let queues = led.map(|(key, row)| (key.clone(), row.epoch)).collect();
    Command::MoveQueues { session, queues }
}

#[test]
fn moved_queues_go_to_other_schedulers_that_take_queues() {
    let mut world = World::new();
    let keys: Vec<QueueKey> = (0..30).map(|n| queue(&format!("n{n}"), "hello")).collect();
    world.ensure_all(&keys);
    let (from, draining) = (SchedulerId(1), SchedulerId(2));
    let session = world.state.scheduler_session(from).unwrap();
    let moved: Vec<QueueKey> = world
        .state
        .queues_of(session)
        .map(|(key, _)| key.clone())
        .collect();
    assert!(!moved.is_empty());
    world.apply(Command::SetDraining {
        id: draining,
        draining: true,
    });
    let before = world.state.clone();
    let epoch = epoch(world.next());
    let command = move_all(&world, session);
    assert_eq!(world.respond(command), Response::Done);
    for key in &keys {
        let (was, is) = (before.queue(key).unwrap(), world.state.queue(key).unwrap());
        if moved.contains(key) {
            let leader = world
                .state
                .scheduler_session(SchedulerId(3))
                .map(|session| (SchedulerId(3), session));
            let revision = was.revision;
            let throttled = false;
            assert_eq!(
                *is,
                QueueRecord {
                    leader,
                    epoch,
                    revision,
                    throttled
                }
            );
        } else {
            assert_eq!(is, was);
        }
    }
    assert!(world.state.session(session).is_some());
}

#[test]
fn queues_that_have_moved_on_stay_where_they_are() {
    let mut world = World::new();
    let keys = [queue("guest", "hello"), queue("alice", "hello")];
    world.ensure_all(&keys);
    let session = world.leader_session(&keys[0]);
    let command = move_all(&world, session);
    assert_ne!(world.events(command.clone()), []);
    assert_eq!(world.events(command), []);
    // The name of another leader's queue, in its present epoch, moves nothing either.
    let queues = vec![(keys[0].clone(), world.state.queue(&keys[0]).unwrap().epoch)];
    assert_eq!(world.events(Command::MoveQueues { session, queues }), []);
}

#[test]
fn one_queue_that_has_moved_on_does_not_keep_the_others() {
    let mut world = World::new();
    let keys: Vec<QueueKey> = (0..9).map(|n| queue(&format!("n{n}"), "hello")).collect();
    world.ensure_all(&keys);
    let session = world.leader_session(&keys[0]);
    let led = world.state.queues_of(session);
    let mut queues: Vec<(QueueKey, Epoch)> = led.map(|(key, row)| (key.clone(), row.epoch)).collect();
    assert!(queues.len() > 1);
    queues[0].1 = Epoch(queues[0].1.0 - 1);
    world.apply(Command::MoveQueues { session, queues });
    assert_eq!(world.state.queues_led(session), 1);
}

fn hand_over(world: &World, key: &QueueKey, to: u64) -> Command {
    Command::HandOver {
        session: world.leader_session(key),
        queues: vec![(
            key.clone(),
            world.state.queue(key).unwrap().epoch,
            SchedulerId(to),
        )],
    }
}

#[test]
fn a_queue_is_handed_to_the_one_that_is_named_and_told_so_before_it_changes_hands() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let old = world.ensure(&key);
    let to = 1 + old.leader.0 % 3;
    world.apply(Command::SetActionThrottle {
        key: key.clone(),
        epoch: old.epoch,
        throttled: true,
    });
    let new = epoch(world.next());
    let applied = world.apply(hand_over(&world, &key, to));
    assert_eq!(applied.response, Response::HandedOver(vec![(key.clone(), new)]));
    let record = QueueRecord {
        leader: Some((
            SchedulerId(to),
            world.state.scheduler_session(SchedulerId(to)).unwrap(),
        )),
        epoch: new,
        revision: old.revision,
        throttled: false,
    };
    let from = old.epoch;
    assert_eq!(
        applied.events,
        [
            Event::HandedOver {
                key: key.clone(),
                from
            },
            Event::Queue(key.clone(), Some(record)),
            Event::ActionThrottle(key, false),
        ]
    );
}

#[test]
fn a_hand_over_that_comes_late_or_twice_or_from_another_leader_changes_nothing() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let old = world.ensure(&key);
    let others: Vec<u64> = (1..=3).filter(|id| *id != old.leader.0).collect();
    let command = hand_over(&world, &key, others[0]);
    let stranger = Command::HandOver {
        session: world.state.scheduler_session(SchedulerId(others[1])).unwrap(),
        queues: vec![(key.clone(), old.epoch, SchedulerId(others[0]))],
    };
    let nothing =
        |applied: Applied| (applied.response, applied.events) == (Response::HandedOver(vec![]), vec![]);
    assert!(nothing(world.apply(stranger)));
    assert!(!nothing(world.apply(command.clone())));
    assert!(nothing(world.apply(command)));
    let itself = hand_over(&world, &key, others[0]);
    assert!(nothing(world.apply(itself)), "to the one that leads it");
}

#[test]
fn a_queue_stays_if_its_next_leader_takes_none_and_the_others_move() {
    let mut world = World::new();
    let keys: Vec<QueueKey> = (0..30).map(|n| queue(&format!("n{n}"), "hello")).collect();
    world.ensure_all(&keys);
    let session = world.state.scheduler_session(SchedulerId(1)).unwrap();
    let led = world.state.queues_of(session);
    let mut queues: Vec<_> = led
        .map(|(key, row)| (key.clone(), row.epoch, SchedulerId(3)))
        .collect();
    assert!(queues.len() > 3);
    let gone = world.state.scheduler_session(SchedulerId(2)).unwrap();
    (queues[0].2, queues[1].2) = (SchedulerId(2), SchedulerId(9));
    world.apply(Command::CloseSession { session: gone });
    let command = Command::HandOver {
        session,
        queues: queues.clone(),
    };
    let new = epoch(world.next());
    let moved: Vec<_> = queues[2..].iter().map(|(key, ..)| (key.clone(), new)).collect();
    assert_eq!(world.respond(command), Response::HandedOver(moved));
    for (key, at, _) in &queues[..2] {
        assert_eq!(world.state.queue(key).unwrap().epoch, *at);
    }
    world.apply(Command::SetDraining {
        id: SchedulerId(3),
        draining: true,
    });
    let command = hand_over(&world, &queues[0].0, 3);
    assert_eq!(world.respond(command), Response::HandedOver(vec![]), "it drains");
}

#[test]
fn without_another_scheduler_that_takes_queues_none_moves() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let leader = world.ensure(&key).leader;
    let others = [1, 2, 3].map(SchedulerId).into_iter().filter(|id| *id != leader);
    others.for_each(|id| drop(world.apply(Command::SetDraining { id, draining: true })));
    let command = move_all(&world, world.leader_session(&key));
    assert_eq!(world.respond(command), Response::Refused(Refusal::NoScheduler));
    assert_eq!(world.ensure(&key).leader, leader);
}

#[test]
fn move_ends_the_throttle_of_a_full_queue() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let epoch = world.ensure(&key).epoch;
    world.apply(Command::SetActionThrottle {
        key: key.clone(),
        epoch,
        throttled: true,
    });
    let command = move_all(&world, world.leader_session(&key));
    assert!(world.events(command).contains(&Event::ActionThrottle(key, false)));
}

#[test]
fn the_leaders_of_a_namespace_are_those_of_all_its_queues_whether_they_have_containers_or_not() {
    let mut world = World::new();
    let keys: Vec<_> = (0..9).map(|n| format!("a{n}")).collect();
    for name in &keys {
        world.put_action(name, None);
    }
    let keys: Vec<_> = keys.iter().map(|name| queue("guest", name)).collect();
    world.ensure_all(&keys);
    let elsewhere = queue("other", "hello");
    world.ensure(&elsewhere);
    let leader = |world: &World, key| world.state.queue(key).unwrap().leader.unwrap().0;
    let name = &keys[0].namespace;
    let all: BTreeSet<SchedulerId> = keys.iter().map(|key| leader(&world, key)).collect();
    assert_eq!(all.len(), 3, "queues are spread");
    assert_eq!(world.state.leaders_in(name, 9), all);
    assert_eq!(
        world.state.leaders_in(name, 1),
        BTreeSet::from([leader(&world, &keys[0])])
    );
    let one = BTreeSet::from([leader(&world, &elsewhere)]);
    assert_eq!(world.state.leaders_in(&elsewhere.namespace, 9), one);
}

#[test]
fn names_are_kept_once_however_many_queues_have_them() {
    let mut world = World::new();
    world.put_action("again", None);
    for n in 0..6 {
        let action = if n % 2 == 0 { "hello" } else { "again" };
        world.ensure(&queue(&format!("n{}", n / 2), action));
    }
    let texts = |state: &State| {
        let keys: Vec<QueueKey> = state.queues().map(|(key, _)| key.clone()).collect();
        let namespaces: BTreeSet<_> = keys.iter().map(|key| key.namespace.as_str().as_ptr()).collect();
        let actions: BTreeSet<_> = keys.iter().map(|key| key.action.as_str().as_ptr()).collect();
        (namespaces.len(), actions.len())
    };
    assert_eq!(texts(&world.state), (3, 2));
    let bytes = bincode::serde::encode_to_vec(&world.state, bincode::config::standard()).unwrap();
    let (read, _): (State, usize) =
        bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
    assert_eq!(texts(&read), (3, 2));
    assert_eq!(read, world.state);
}
