//! Cases of slot reservation.

use whiskraft_types::{ByteSize, Epoch, QueueKey, Revision};

use super::*;
use crate::command::{Command, ContainerChange};
use crate::world::{World, queue};

fn counts(grants: &[Grant]) -> Vec<usize> {
    grants
        .iter()
        .map(|grant| {
            if let Grant::Granted(granted) = grant {
                granted.len()
            } else {
                0
            }
        })
        .collect()
}

/// Queues that one and the same scheduler leads.
fn queues_of_one_leader(world: &mut World, namespace: &str, count: usize) -> (SessionId, Vec<QueueKey>) {
    let mut keys = Vec::new();
    for n in 0..10 * count {
        let name = format!("a{n}");
        world.put_action(&name, None);
        let key = queue(namespace, &name);
        world.ensure(&key);
        keys.push(key);
    }
    let session = world.leader_session(&keys[0]);
    keys.retain(|key| world.leader_session(key) == session);
    keys.truncate(count);
    assert_eq!(keys.len(), count);
    (session, keys)
}

#[test]
fn requests_share_what_the_namespace_leaves_in_order() {
    let mut world = World::new();
    world.limit_namespace("guest", 5);
    let (session, keys) = queues_of_one_leader(&mut world, "guest", 3);
    let mut requests: Vec<SlotRequest> = keys.iter().map(|key| world.request(key, 2)).collect();
    requests
        .iter_mut()
        .zip([1, 3, 5])
        .for_each(|(request, first_seq)| request.first_seq = first_seq);
    let grants = world.grants(session, requests);
    assert_eq!(counts(&grants), [2, 2, 1]);
    assert_eq!(world.state.namespace_counts(&keys[0].namespace).in_progress, 5);
}

#[test]
fn namespace_limit_holds_over_the_queues_of_all_schedulers() {
    let mut world = World::new();
    world.limit_namespace("guest", 7);
    let mut granted = 0;
    for n in 0..10 {
        world.put_action(&format!("a{n}"), None);
        let key = queue("guest", &format!("a{n}"));
        world.ensure(&key);
        granted += world.reserve(&key, 2).len();
    }
    assert_eq!(granted, 7);
}

#[test]
fn action_limit_binds_by_the_word_of_leader_or_document() {
    let mut world = World::new();
    world.put_action("few", Some(2));
    let key = queue("guest", "few");
    world.ensure(&key);
    // The leader has not seen the document's limit.
    assert_eq!(world.reserve(&key, 9).len(), 2);

    let key = queue("guest", "hello");
    world.ensure(&key);
    let (session, mut request) = (world.leader_session(&key), world.request(&key, 9));
    request.instances = Some(3);
    assert_eq!(counts(&world.grants(session, vec![request])), [3]);
}

#[test]
fn action_limit_above_that_of_the_namespace_is_lowered_to_it() {
    let mut world = World::new();
    world.limit_namespace("guest", 4);
    let key = queue("guest", "hello");
    world.ensure(&key);
    let (session, mut request) = (world.leader_session(&key), world.request(&key, 9));
    request.instances = Some(100);
    assert_eq!(counts(&world.grants(session, vec![request])), [4]);
}

#[test]
fn lowered_limit_takes_nothing_and_grants_nothing() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let reserved = world.reserve(&key, 5);
    world.limit_namespace("guest", 3);
    assert_eq!(world.state.queue_counts(&key).in_progress, 5);
    assert_eq!(world.reserve(&key, 1), []);
    reserved
        .iter()
        .take(3)
        .for_each(|id| drop(world.update(*id, ContainerChange::Removed)));
    assert_eq!(world.reserve(&key, 2).len(), 1);
}

#[test]
fn repeated_request_is_answered_from_the_table() {
    let mut world = World::new();
    world.limit_namespace("guest", 3);
    let key = queue("guest", "hello");
    world.ensure(&key);
    let (session, request) = (world.leader_session(&key), world.request(&key, 5));
    let command = Command::ReserveSlots {
        session,
        requests: vec![request],
    };
    let first = world.apply(command.clone());
    let again = world.apply(command.clone());
    assert_eq!((again.response, again.events), (first.response.clone(), vec![]));

    // Even when nothing was granted the numbers are used up: more room later is for a new request.
    let Response::Grants(grants) = first.response else {
        panic!("no grants")
    };
    let Grant::Granted(granted) = &grants[0] else {
        panic!("stale")
    };
    granted
        .iter()
        .for_each(|granted| drop(world.update(granted.container, ContainerChange::Removed)));
    assert_eq!(
        world.respond(command),
        Response::Grants(vec![Grant::Granted(vec![])])
    );
    assert_eq!(world.reserve(&key, 1), [ContainerId { session, seq: 6 }]);
}

#[test]
fn only_the_leader_in_its_epoch_reserves() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let leader = world.leader_session(&key);
    let request = world.request(&key, 1);
    let other = world
        .state
        .sessions()
        .map(|(id, _)| id)
        .find(|id| *id != leader)
        .unwrap();
    let stale = SlotRequest {
        epoch: Epoch(request.epoch.0 - 1),
        ..request.clone()
    };
    let gone = SlotRequest {
        key: queue("alice", "hello"),
        ..request.clone()
    };
    assert_eq!(world.grants(other, vec![request.clone()]), [Grant::StaleEpoch]);
    assert_eq!(
        world.grants(leader, vec![stale, gone]),
        [Grant::StaleEpoch, Grant::StaleEpoch]
    );
    world.expire(&[leader]);
    assert_eq!(world.grants(leader, vec![request]), [Grant::StaleEpoch]);
    assert_eq!(world.state.containers_len(), 0);
}

#[test]
fn paused_container_of_the_same_revision_is_granted_first() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let warm = world.run(&key, 1);
    world.update(warm, ContainerChange::Warm);
    let (session, request) = (world.leader_session(&key), world.request(&key, 2));
    let first = ContainerId {
        session,
        seq: request.first_seq,
    };
    let grants = world.grants(session, vec![request.clone()]);
    let resumed = GrantedContainer {
        container: first,
        resume: Some((warm, InvokerId(1))),
    };
    let cold = GrantedContainer {
        container: ContainerId {
            session,
            seq: first.seq + 1,
        },
        resume: None,
    };
    assert_eq!(grants, [Grant::Granted(vec![resumed, cold])]);
    assert_eq!(world.state.container(warm), None);
    assert_eq!(
        world.state.container(first).unwrap().invoker,
        Some((InvokerId(1), world.invoker_session(1)))
    );
    // The repetition says the same.
    assert_eq!(world.grants(session, vec![request]), grants);
}

#[test]
fn paused_container_of_another_revision_or_on_a_sick_invoker_stays() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let warm = world.run(&key, 1);
    world.update(warm, ContainerChange::Warm);
    world.report(1, world.invoker_session(1), false);
    let cold = world.reserve(&key, 1).remove(0);
    assert_eq!(world.state.container(cold).unwrap().resumes, None);
    world.report(1, world.invoker_session(1), true);
    world.put_action("hello", None);
    let cold = world.reserve(&key, 1).remove(0);
    assert_eq!(world.state.container(cold).unwrap().resumes, None);
    assert!(world.state.container(warm).is_some());
}

#[test]
fn paused_container_needs_a_slot_to_come_back() {
    let mut world = World::new();
    world.limit_namespace("guest", 1);
    let key = queue("guest", "hello");
    world.ensure(&key);
    let warm = world.run(&key, 1);
    world.update(warm, ContainerChange::Warm);
    world.put_action("other", None);
    let other = queue("guest", "other");
    world.ensure(&other);
    world.run(&other, 2);
    assert_eq!(world.reserve(&key, 1), []);
    assert!(world.state.container(warm).is_some());
}

#[test]
fn malformed_requests_are_refused_as_a_whole() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let session = world.leader_session(&key);
    let good = world.request(&key, 1);
    let bad = [
        (0, 1),
        (SLOTS_PER_REQUEST_MAX + 1, 1),
        (u32::MAX, 1),
        (1, 0),
        (2, u64::MAX - 1),
        (1, u64::MAX),
    ];
    for (count, first_seq) in bad {
        let bad = SlotRequest {
            count,
            first_seq,
            ..good.clone()
        };
        let response = world.respond(Command::ReserveSlots {
            session,
            requests: vec![good.clone(), bad],
        });
        assert!(
            matches!(response, Response::Refused(Refusal::Invalid { .. })),
            "{count} {first_seq}: {response:?}"
        );
    }
    assert_eq!(world.state.containers_len(), 0);
    assert_eq!(
        world.respond(Command::ReserveSlots {
            session,
            requests: vec![]
        }),
        Response::Grants(vec![])
    );
}

/// Where the granted containers are, by number.
fn places(world: &World, granted: &[GrantedContainer]) -> Vec<Option<u64>> {
    let on = |granted: &GrantedContainer| {
        let (invoker, session) = world.state.container(granted.container).unwrap().invoker?;
        assert_eq!(world.invoker_session(invoker.0), session);
        Some(invoker.0)
    };
    granted.iter().map(on).collect()
}

#[test]
fn a_slot_comes_with_the_place_that_was_chosen() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let granted = world.reserve_on(&key, 3, &[2, 1]);
    assert_eq!(places(&world, &granted), [Some(2), Some(1), None]);
    assert!(granted.iter().all(|granted| granted.resume.is_none()));
    assert_eq!(world.state.promised_on(InvokerId(1)), ByteSize::mib(256));
    assert_eq!(world.state.promised_on(InvokerId(2)), ByteSize::mib(256));
    // To say it again changes nothing.
    let invoker = InvokerId(2);
    let again = world.update(granted[0].container, ContainerChange::Placed { invoker });
    assert_eq!((again.response, again.events), (Response::Done, vec![]));
}

#[test]
fn memory_is_promised_once_by_whatever_asks_for_places() {
    let mut world = World::new();
    world.limit_namespace("guest", 100);
    let key = queue("guest", "hello");
    world.ensure(&key);
    // Sixteen of 256 MiB fill an invoker.
    let granted = world.reserve_on(&key, 20, &[1; 20]);
    let (with, without): (Vec<_>, Vec<_>) = places(&world, &granted).into_iter().partition(Option::is_some);
    assert_eq!((with.len(), without.len()), (16, 4));
    assert_eq!(world.state.promised_on(InvokerId(1)), ByteSize::mib(4096));
    let late = world.reserve_on(&key, 1, &[1]);
    assert_eq!(places(&world, &late), [None]);
    // It is placed like any other.
    world.update(
        late[0].container,
        ContainerChange::Placed {
            invoker: InvokerId(2),
        },
    );
    assert_eq!(places(&world, &late), [Some(2)]);
}

#[test]
fn a_place_on_an_invoker_that_is_gone_or_sick_is_not_given() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    world.report(1, world.invoker_session(1), false);
    world.expire(&[world.invoker_session(2)]);
    let granted = world.reserve_on(&key, 3, &[1, 2, 9]);
    assert_eq!(places(&world, &granted), [None, None, None]);
}

#[test]
fn a_paused_container_continues_where_it_is_whatever_was_chosen() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let warm = world.run(&key, 1);
    world.update(warm, ContainerChange::Warm);
    let granted = world.reserve_on(&key, 2, &[2, 2]);
    assert_eq!(granted[0].resume, Some((warm, InvokerId(1))));
    assert_eq!(granted[1].resume, None);
    assert_eq!(places(&world, &granted), [Some(1), Some(2)]);
    assert_eq!(world.state.promised_on(InvokerId(2)), ByteSize::mib(256));
}

#[test]
fn a_repeated_request_for_places_is_answered_from_the_table() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let (session, request) = (world.leader_session(&key), world.request(&key, 2));
    let command = Command::ReservePlaces {
        session,
        requests: vec![(request, vec![InvokerId(1), InvokerId(2)])],
    };
    let first = world.apply(command.clone());
    let again = world.apply(command);
    assert_eq!((again.response, again.events), (first.response, vec![]));
    assert_eq!(world.state.promised_on(InvokerId(1)), ByteSize::mib(256));
}

#[test]
fn more_places_than_containers_are_refused_as_a_whole() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let (session, request) = (world.leader_session(&key), world.request(&key, 1));
    let next = SlotRequest {
        first_seq: 2,
        ..request.clone()
    };
    let on = InvokerId(1);
    let response = world.respond(Command::ReservePlaces {
        session,
        requests: vec![(request, vec![on]), (next, vec![on, on])],
    });
    assert!(
        matches!(response, Response::Refused(Refusal::Invalid { .. })),
        "{response:?}"
    );
    assert_eq!(world.state.containers_len(), 0);
}

#[test]
fn container_record_says_who_reserved_it_and_when() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let epoch = world.ensure(&key).epoch;
    let mut request = world.request(&key, 1);
    (request.memory, request.revision) = (ByteSize::mib(512), Revision(3));
    let since = world.next();
    world.grants(world.leader_session(&key), vec![request]);
    let (_, row) = world.state.containers_of(&key).next().unwrap();
    let wanted = ContainerRecord {
        key: key.clone(),
        revision: Revision(3),
        invoker: None,
        state: ContainerState::InProgress,
        memory: ByteSize::mib(512),
        epoch,
        since,
        resumes: None,
    };
    assert_eq!(*row, wanted);
}

/// A namespace with two queues, the first of which uses the whole limit.
fn world_in_excess(percent: u32) -> (World, QueueKey, QueueKey) {
    let mut world = World::new();
    world.limit_over("guest", 2, percent);
    world.put_action("other", None);
    let (full, empty) = (queue("guest", "hello"), queue("guest", "other"));
    world.ensure_all([&full, &empty]);
    assert_eq!(world.reserve(&full, 9).len(), 2);
    (world, full, empty)
}

#[test]
fn excess_grants_exactly_one_to_an_action_without_containers() {
    let (mut world, full, empty) = world_in_excess(200);
    assert_eq!(world.reserve(&full, 1), []);
    let first = world.reserve(&empty, 5);
    assert_eq!(first.len(), 1);
    assert_eq!(world.reserve(&empty, 1), []);
    // Paused it holds no slot: the action has none again.
    let invoker = InvokerId(1);
    world.update(first[0], ContainerChange::Placed { invoker });
    world.update(first[0], ContainerChange::Warm);
    assert_eq!(world.reserve(&empty, 5).len(), 1);
}

#[test]
fn excess_ends_at_its_share_rounded_up() {
    let (mut world, _, empty) = world_in_excess(101);
    world.put_action("third", None);
    let third = queue("guest", "third");
    world.ensure(&third);
    assert_eq!(world.reserve(&empty, 1).len(), 1);
    assert_eq!(world.reserve(&third, 1), []);
}

#[test]
fn without_over_provision_a_full_namespace_grants_nothing() {
    let (mut world, _, empty) = world_in_excess(100);
    assert_eq!(world.reserve(&empty, 1), []);
}

#[test]
fn excess_is_not_for_an_action_that_may_have_no_container() {
    let (mut world, _, empty) = world_in_excess(200);
    world.put_action("other", Some(0));
    assert_eq!(world.reserve(&empty, 1), []);
}

#[test]
fn counted_memory_is_that_of_the_containers_with_slots() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    let memory = |world: &World| {
        let (queue, namespace) = (
            world.state.queue_counts(&key),
            world.state.namespace_counts(&key.namespace),
        );
        assert_eq!(queue.memory, namespace.memory);
        queue.memory
    };
    let (running, reserved) = (world.run(&key, 1), world.reserve(&key, 1).remove(0));
    assert_eq!(memory(&world), ByteSize::mib(512));
    world.update(running, ContainerChange::Warm);
    assert_eq!(memory(&world), ByteSize::mib(256));
    // Resumed it counts again.
    let resumed = world.reserve(&key, 1).remove(0);
    assert_eq!(memory(&world), ByteSize::mib(512));
    world.update(resumed, ContainerChange::Removed);
    world.update(reserved, ContainerChange::Removed);
    assert_eq!(memory(&world), ByteSize::ZERO);
}
