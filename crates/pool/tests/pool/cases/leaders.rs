//! Leaders that come and go, and what is said to them again.

use super::{GRACE, ack_all, changes, world};
use crate::world::{World, id, key};
use whiskraft_pool::{Change, Input, Life, Output};
use whiskraft_types::{CreationError, Epoch, SchedulerId};

#[test]
fn new_leader_hears_what_is_in_flight_and_what_is_unacknowledged() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.deliver(id(2), b);
    let worker = world.worker(b);
    world.finish(worker, true);
    world.change_leader(0);
    world.arrive();
    let Some(Output::Register(registration)) = world.out.first() else {
        panic!("{:?}", world.out)
    };
    assert_eq!(
        (registration.to, registration.epoch),
        (world.leaders[0].id, Epoch(2))
    );
    assert_eq!(registration.unacknowledged, [id(2)]);
    let told: Vec<_> = registration
        .containers
        .iter()
        .map(|told| (told.container, told.in_flight.clone(), told.credits, told.warmed))
        .collect();
    assert_eq!(told, [(a, vec![id(1)], 0, false), (b, vec![], 1, true)]);
    let worker = world.worker(a);
    world.finish(worker, true);
    assert!(
        matches!(&world.out[..], [Output::Completed(done), ..] if done.epoch == Epoch(2)),
        "{:?}",
        world.out
    );
}

#[test]
fn leader_without_anything_here_gets_an_empty_registration() {
    let mut world = world();
    world.step(Input::Reregister {
        from: SchedulerId(3),
        key: key(1),
        epoch: Epoch(5),
    });
    assert!(
        matches!(&world.out[0], Output::Register(told) if told.containers.is_empty() && told.unacknowledged.is_empty())
    );
    world.step(Input::Reregister {
        from: SchedulerId(2),
        key: key(1),
        epoch: Epoch(4),
    });
    assert!(world.out.is_empty(), "an older leadership is no news");
}

#[test]
fn creation_of_an_earlier_leader_fails() {
    let mut world = world();
    world.step(Input::Reregister {
        from: SchedulerId(3),
        key: key(0),
        epoch: Epoch(5),
    });
    let c = world.create(0, 256, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::Unknown,
            ..
        }]
    ));
}

#[test]
fn reports_are_repeated_until_acknowledged() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.step(Input::RepeatReports);
    assert!(matches!(&world.out[..], [Output::Report(report)] if report.container == c));
    ack_all(&mut world);
    world.step(Input::RepeatReports);
    assert!(world.out.is_empty());
}

#[test]
fn repeated_creation_changes_nothing() {
    let mut world = world();
    let c = world.create(0, 256, 1, None);
    world.next_container = c.seq;
    world.create(0, 256, 1, None);
    assert!(world.out.is_empty(), "{:?}", world.out);
    assert_eq!(world.pool.containers().count(), 1);
}

#[test]
fn repeated_registration_tells_how_things_stand_and_changes_nothing() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let again = |world: &World| Input::Reregister {
        from: world.leaders[0].id,
        key: key(0),
        epoch: world.leaders[0].epoch,
    };
    let credits = |world: &World| match &world.out[0] {
        Output::Register(registration) => registration.containers[0].credits,
        other => panic!("{other:?}"),
    };
    world.change_leader(0);
    world.arrive();
    let crossing = world.delivery(0, id(1), c);
    let input = again(&world);
    world.step(input);
    assert_eq!(credits(&world), 1);
    world.step(crossing);
    assert_eq!(world.starts[&id(1)], 1);
    let input = again(&world);
    world.step(input);
    assert_eq!(credits(&world), 0, "the ask was answered by the delivery");
    let worker = world.worker(c);
    world.finish(worker, true);
    world.pass(GRACE, false);
    let input = again(&world);
    world.step(input);
    assert_eq!(credits(&world), 0, "the asks are being withdrawn");
    assert_eq!(
        world.out.len(),
        1,
        "the withdraw is not repeated: {:?}",
        world.out
    );
}

#[test]
fn containers_of_a_queue_that_is_gone_go_too() {
    let mut world = world();
    let (c, other) = (world.running(0, 256, 1), world.running(1, 256, 1));
    world.step(Input::QueueGone {
        from: SchedulerId(9),
        key: key(0),
    });
    assert_eq!(world.life(c), Some(Life::Fresh), "only its leader may say so");
    world.step(Input::QueueGone {
        from: world.leaders[0].id,
        key: key(0),
    });
    assert_eq!(
        (world.life(c), world.life(other)),
        (Some(Life::Removing), Some(Life::Fresh))
    );
}
