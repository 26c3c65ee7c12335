//! Cases of container updates.

use whiskraft_types::SessionId;

use super::*;
use crate::command::Command;
use crate::world::{World, queue};

const PLACED: ContainerChange = ContainerChange::Placed {
    invoker: InvokerId(1),
};

const UNPLACED: ContainerChange = ContainerChange::Unplaced {
    invoker: InvokerId(1),
};

/// A container in a state, and what holds after one more change: its state and whether it is an event.
#[test]
fn every_change_in_every_state() {
    use ContainerChange::{Ended, Removed, Running, Warm};
    use ContainerState as Is;
    let table: [(&[ContainerChange], ContainerChange, Option<ContainerState>, bool); 36] = [
        (&[], PLACED, Some(Is::InProgress), true),
        (&[], Running, Some(Is::InProgress), false),
        (&[], Warm, Some(Is::InProgress), false),
        (&[], Removed, None, true),
        (&[], UNPLACED, Some(Is::InProgress), false),
        (&[PLACED], PLACED, Some(Is::InProgress), false),
        (&[PLACED], Running, Some(Is::Running), true),
        (&[PLACED], Warm, Some(Is::Warm), true),
        (&[PLACED], Removed, None, true),
        (&[PLACED], UNPLACED, Some(Is::InProgress), true),
        (&[PLACED, UNPLACED], PLACED, Some(Is::InProgress), true),
        (&[PLACED, UNPLACED], Running, Some(Is::InProgress), false),
        (&[PLACED, UNPLACED], Warm, Some(Is::InProgress), false),
        (&[PLACED, UNPLACED], Removed, None, true),
        (&[PLACED, UNPLACED], UNPLACED, Some(Is::InProgress), false),
        (&[PLACED, Running], PLACED, Some(Is::Running), false),
        (&[PLACED, Running], Running, Some(Is::Running), false),
        (&[PLACED, Running], Warm, Some(Is::Warm), true),
        (&[PLACED, Running], Removed, None, true),
        (&[PLACED, Running], UNPLACED, Some(Is::Running), false),
        (&[PLACED, Running, Warm], PLACED, Some(Is::Warm), false),
        (&[PLACED, Running, Warm], Running, Some(Is::Warm), false),
        (&[PLACED, Running, Warm], Warm, Some(Is::Warm), false),
        (&[PLACED, Running, Warm], Removed, None, true),
        (&[PLACED, Running, Warm], UNPLACED, Some(Is::Warm), false),
        (&[], Ended, None, true),
        (&[PLACED], Ended, Some(Is::Ended), true),
        (&[PLACED, UNPLACED], Ended, None, true),
        (&[PLACED, Running], Ended, Some(Is::Ended), true),
        (&[PLACED, Running, Warm], Ended, Some(Is::Ended), true),
        (&[PLACED, Running, Ended], PLACED, Some(Is::Ended), false),
        (&[PLACED, Running, Ended], Running, Some(Is::Ended), false),
        (&[PLACED, Running, Ended], Warm, Some(Is::Ended), false),
        (&[PLACED, Running, Ended], Ended, Some(Is::Ended), false),
        (&[PLACED, Running, Ended], UNPLACED, Some(Is::Ended), false),
        (&[PLACED, Running, Ended], Removed, None, true),
    ];
    for (past, change, is, is_event) in table {
        let mut world = World::new();
        let key = queue("guest", "hello");
        world.ensure(&key);
        let id = world.reserve(&key, 1).remove(0);
        past.iter()
            .for_each(|change| drop(world.update(id, change.clone())));
        let applied = world.update(id, change.clone());
        let state = world.state.container(id).map(|row| row.state);
        assert_eq!(
            (state, !applied.events.is_empty()),
            (is, is_event),
            "{past:?}, then {change:?}"
        );
    }
}

#[test]
fn placement_names_the_live_session_of_the_invoker() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let ids = world.reserve(&key, 2);
    world.update(ids[0], PLACED);
    assert_eq!(
        world.state.container(ids[0]).unwrap().invoker,
        Some((InvokerId(1), world.invoker_session(1)))
    );
    // The creation failed there and goes to another one.
    world.update(
        ids[0],
        ContainerChange::Placed {
            invoker: InvokerId(2),
        },
    );
    assert_eq!(world.state.containers_on(InvokerId(1)).count(), 0);
    assert_eq!(world.state.containers_on(InvokerId(2)).count(), 1);
    let response = world
        .update(
            ids[1],
            ContainerChange::Placed {
                invoker: InvokerId(9),
            },
        )
        .response;
    assert!(
        matches!(response, Response::Refused(Refusal::Invalid { .. })),
        "{response:?}"
    );
}

#[test]
fn one_that_came_back_holds_its_slot_and_no_memory() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let id = world.reserve(&key, 1).remove(0);
    world.update(id, PLACED);
    let memory = world.state.container(id).unwrap().memory;
    assert_eq!(world.state.promised_on(InvokerId(1)), memory);
    let back = |n| ContainerChange::Unplaced {
        invoker: InvokerId(n),
    };
    assert!(world.update(id, back(2)).events.is_empty(), "it is not there");
    assert_eq!(world.update(id, back(1)).events.len(), 1);
    assert_eq!(world.state.container(id).unwrap().invoker, None);
    assert_eq!(world.state.promised_on(InvokerId(1)), ByteSize::ZERO);
    assert_eq!(world.state.queue_counts(&key).slots(), 1);
    world.update(id, PLACED);
    world.update(id, ContainerChange::Running);
    assert!(
        world.update(id, back(1)).events.is_empty(),
        "it was created after all"
    );
}

#[test]
fn one_that_comes_back_after_its_queue_has_gone_ends() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let epoch = world.ensure(&key).epoch;
    let id = world.reserve(&key, 1).remove(0);
    world.update(id, PLACED);
    world.apply(Command::RemoveQueue {
        key: key.clone(),
        epoch,
    });
    assert!(world.state.queue(&key).is_none() && world.state.container(id).is_some());
    let elsewhere = ContainerChange::Unplaced {
        invoker: InvokerId(2),
    };
    assert!(world.update(id, elsewhere).events.is_empty());
    assert_eq!(world.update(id, UNPLACED).events.len(), 1);
    assert_eq!(world.state.container(id), None);
}

#[test]
fn of_two_that_choose_the_last_place_one_gets_it() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let offered = world.state.invoker(InvokerId(1)).unwrap().profile.memory;
    let first = world.reserve(&key, 1).remove(0);
    let each = world.state.container(first).unwrap().memory;
    let places = offered.as_bytes() / each.as_bytes();
    let mut ids = vec![first];
    ids.extend(world.reserve(&key, u32::try_from(places).unwrap()));
    for id in &ids {
        world.update(*id, PLACED);
    }
    let last = *ids.last().unwrap();
    assert_eq!(world.state.containers_on(InvokerId(1)).count() as u64, places);
    assert_eq!(world.state.container(last).unwrap().invoker, None);
    // A paused one leaves its place to others, and gets it back only while there is room.
    world.update(first, ContainerChange::Running);
    world.update(first, ContainerChange::Warm);
    assert_eq!(world.update(last, PLACED).events.len(), 1);
    let cold = world.reserve(&key, 1).remove(0);
    assert_eq!(world.state.container(cold).unwrap().resumes, None);
    world.update(last, ContainerChange::Removed);
    let resumed = world.reserve(&key, 1).remove(0);
    assert_eq!(world.state.container(resumed).unwrap().resumes, Some(first));
}

#[test]
fn resumed_container_that_moves_starts_cold() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let warm = world.run(&key, 1);
    world.update(warm, ContainerChange::Warm);
    let id = world.reserve(&key, 1).remove(0);
    world.update(id, PLACED);
    assert_eq!(world.state.container(id).unwrap().resumes, Some(warm));
    world.update(
        id,
        ContainerChange::Placed {
            invoker: InvokerId(2),
        },
    );
    assert_eq!(world.state.container(id).unwrap().resumes, None);
}

#[test]
fn update_that_cannot_be_applied_does_not_keep_the_others_from_it() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let ids = world.reserve(&key, 2);
    let gone = ContainerId {
        session: SessionId(999),
        seq: 1,
    };
    let nowhere = ContainerChange::Placed {
        invoker: InvokerId(9),
    };
    let update = |container, change| ContainerUpdate {
        container,
        change,
        reporter: None,
    };
    let updates = vec![
        update(ids[0], nowhere),
        update(gone, ContainerChange::Removed),
        update(ids[1], PLACED),
        update(ids[1], ContainerChange::Running),
    ];
    assert_eq!(
        world.respond(Command::UpdateContainers { updates }),
        Response::Done
    );
    let states = ids.iter().map(|id| world.state.container(*id).unwrap().state);
    assert!(states.eq([ContainerState::InProgress, ContainerState::Running]));
}

#[test]
fn paused_container_gives_its_slot_back() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let id = world.run(&key, 1);
    assert_eq!(world.state.queue_counts(&key).slots(), 1);
    world.update(id, ContainerChange::Warm);
    let counts = world.state.queue_counts(&key);
    assert_eq!((counts.slots(), counts.warm), (0, 1));
}

#[test]
fn ended_container_gives_slot_and_memory_back_and_is_remembered() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let id = world.run(&key, 1);
    assert_ne!(world.state.promised_on(InvokerId(1)), ByteSize::ZERO);
    world.update(id, ContainerChange::Ended);
    assert_eq!(world.state.queue_counts(&key), crate::Counts::default());
    assert_eq!(world.state.promised_on(InvokerId(1)), ByteSize::ZERO);
    assert_eq!(world.state.containers_on(InvokerId(1)).count(), 1);
    let next = world.reserve(&key, 1).remove(0);
    assert_eq!(
        world.state.container(next).unwrap().resumes,
        None,
        "it is no more"
    );
}

#[test]
fn report_of_an_invoker_that_does_not_have_the_container_changes_nothing() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let id = world.reserve(&key, 1).remove(0);
    world.update(id, PLACED);
    let first = world.state.container(id).unwrap().invoker.unwrap();
    let second = ContainerChange::Placed {
        invoker: InvokerId(2),
    };
    world.update(id, second);
    let there = world.state.container(id).unwrap().invoker.unwrap();
    assert_ne!(first, there);
    let earlier_life = (there.0, SessionId(there.1.0 + 1000));
    for stranger in [first, earlier_life] {
        for change in [
            ContainerChange::Running,
            ContainerChange::Warm,
            ContainerChange::Removed,
        ] {
            let before = world.state.container(id).cloned();
            world.apply(Command::UpdateContainers {
                updates: vec![ContainerUpdate {
                    container: id,
                    change,
                    reporter: Some(stranger),
                }],
            });
            assert_eq!(world.state.container(id).cloned(), before);
        }
    }
    world.apply(Command::UpdateContainers {
        updates: vec![ContainerUpdate {
            container: id,
            change: ContainerChange::Removed,
            reporter: Some(there),
        }],
    });
    assert_eq!(world.state.container(id), None);
}
