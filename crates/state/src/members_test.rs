//! Cases of the members table.

use super::*;
use crate::command::Command;
use crate::world::{World, member, queue};

#[test]
fn repeated_put_of_a_member_is_no_event() {
    let mut world = World::new();
    let put = Command::PutMember {
        id: SchedulerId(1),
        member: member(1),
    };
    assert_eq!(world.events(put), []);
    let moved = MemberRecord {
        client_address: "10.9.9.9:1".to_owned(),
        ..member(1)
    };
    let put = Command::PutMember {
        id: SchedulerId(1),
        member: moved.clone(),
    };
    assert_eq!(world.events(put), [Event::Member(SchedulerId(1), Some(moved))]);
}

#[test]
fn member_with_an_endless_address_is_refused() {
    let member = MemberRecord {
        peer_address: "x".repeat(TEXT_LEN_MAX + 1),
        ..member(9)
    };
    let response = World::new().respond(Command::PutMember {
        id: SchedulerId(9),
        member,
    });
    assert!(
        matches!(response, Response::Refused(Refusal::Invalid { .. })),
        "{response:?}"
    );
}

#[test]
fn removal_of_a_member_ends_its_session_and_moves_its_queues() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let leader = world.ensure(&key).leader;
    let session = world.leader_session(&key);
    let events = world.events(Command::RemoveMember { id: leader });
    assert_eq!(events.first(), Some(&Event::Member(leader, None)));
    assert_eq!(
        (world.state.member(leader), world.state.session(session)),
        (None, None)
    );
    assert_ne!(world.leader_session(&key), session);
    assert_eq!(
        world.respond(Command::RemoveMember { id: leader }),
        Response::Refused(Refusal::NotFound)
    );
}

#[test]
fn draining_member_gets_no_queue_and_keeps_those_it_has() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let leader = world.ensure(&key).leader;
    world.apply(Command::SetDraining {
        id: leader,
        draining: true,
    });
    assert_eq!(world.ensure(&key).leader, leader);
    for n in 0..20 {
        assert_ne!(world.ensure(&queue(&format!("guest{n}"), "hello")).leader, leader);
    }
}

#[test]
fn draining_members_lead_on_while_nobody_else_lives() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let leader = world.ensure(&key).leader;
    let others = [1, 2, 3].map(SchedulerId).into_iter().filter(|id| *id != leader);
    others.for_each(|id| drop(world.apply(Command::SetDraining { id, draining: true })));
    world.expire(&[world.leader_session(&key)]);
    let heir = world.state.queue(&key).unwrap().leader.unwrap().0;
    assert_ne!(heir, leader);
    let new = queue("guest2", "hello");
    assert_ne!(world.ensure(&new).leader, leader);

    // One of them stays after all: the other one can give its queues away again.
    let stays = [1, 2, 3]
        .map(SchedulerId)
        .into_iter()
        .find(|id| ![leader, heir].contains(id));
    let stays = stays.unwrap();
    world.apply(Command::SetDraining {
        id: stays,
        draining: false,
    });
    let session = world.leader_session(&key);
    let queues = world.state.queues_of(session);
    let queues = queues.map(|(key, row)| (key.clone(), row.epoch)).collect();
    assert_eq!(
        world.respond(Command::MoveQueues { session, queues }),
        Response::Done
    );
    assert_eq!(world.ensure(&key).leader, stays);
}

#[test]
fn draining_of_an_unknown_member_is_refused() {
    let response = World::new().respond(Command::SetDraining {
        id: SchedulerId(9),
        draining: true,
    });
    assert_eq!(response, Response::Refused(Refusal::NotFound));
}
