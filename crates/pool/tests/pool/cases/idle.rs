//! Idle containers: withdrawn, paused, resumed, removed.

use std::time::Duration;

use super::{GRACE, KEEP, ack_all, changes, warm, world};
use crate::world::id;
use whiskraft_pool::{Change, Input, Life, Output};
use whiskraft_types::ByteSize;

#[test]
fn idle_container_withdraws_then_pauses_then_goes() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.step(Input::ResultsAcked { ids: vec![id(1)] });
    ack_all(&mut world);
    world.pass(GRACE - Duration::from_millis(1), false);
    assert!(world.down.is_empty());
    world.pass(Duration::from_millis(1), false);
    assert_eq!(world.down.len(), 1, "the asks are withdrawn");
    assert_eq!(
        world.life(c),
        Some(Life::Ready),
        "nothing is paused before the ack"
    );
    world.arrive();
    assert_eq!(world.life(c), Some(Life::Pausing));
    world.paused(worker);
    assert_eq!(world.life(c), Some(Life::Paused));
    assert_eq!(changes(&world, c), [&Change::Running, &Change::Warm]);
    assert_eq!(world.pool.memory_use().reclaimable, ByteSize::mib(256));
    ack_all(&mut world);
    world.pass(KEEP, false);
    assert_eq!(world.life(c), Some(Life::Removing));
    assert!(
        matches!(changes(&world, c)[..], [.., Change::Removed { .. }]),
        "told before it goes"
    );
    assert_eq!(
        world.pool.memory_real(),
        ByteSize::mib(256),
        "counted until nothing is left"
    );
    world.settle();
    assert_eq!(world.pool.memory_real(), ByteSize::ZERO);
}

#[test]
fn withdraw_that_nobody_answers_ends_the_container() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.pass(GRACE, false);
    world.down.clear();
    world.pass(GRACE - Duration::from_millis(1), false);
    assert_eq!(world.life(c), Some(Life::Ready));
    world.pass(Duration::from_millis(1), false);
    assert_eq!(world.life(c), Some(Life::Removing));
}

#[test]
fn delivery_that_crosses_the_withdraw_runs_and_the_container_asks_again() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    let crossing = world.delivery(0, id(2), c);
    world.pass(GRACE, false);
    world.down.push_front((world.leaders[0].id, crossing));
    world.arrive();
    assert_eq!(world.starts[&id(2)], 1);
    assert_eq!(world.life(c), Some(Life::Ready));
    world.finish(worker, true);
    assert_eq!(world.asks(c), 1);
}

#[test]
fn container_that_never_got_code_is_removed_when_idle() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.pass(GRACE, false);
    world.arrive();
    assert_eq!(world.life(c), Some(Life::Removing));
}

#[test]
fn granted_warm_container_is_resumed_under_its_new_id() {
    let mut world = world();
    let old = warm(&mut world, 256);
    let new = world.create(0, 256, 1, Some(old));
    assert_eq!((world.life(old), world.life(new)), (None, Some(Life::Resuming)));
    world.settle();
    assert_eq!(world.life(new), Some(Life::Ready));
    assert_eq!(changes(&world, new), [&Change::Running]);
    assert_eq!(world.asks(new), 1);
    world.deliver(id(1), new);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Run { init: false, .. }))
    );
}

#[test]
fn failed_resume_is_served_with_a_new_container() {
    let mut world = world();
    let old = warm(&mut world, crate::world::TOTAL_MIB);
    let new = world.create(0, crate::world::TOTAL_MIB, 1, Some(old));
    let worker = world.worker(new);
    let host = world.hosts[&worker].clone();
    world.fail_one(worker, &host);
    world.settle();
    assert_eq!(world.life(new), Some(Life::Fresh));
    assert_ne!(world.worker(new), worker);
    assert_eq!(changes(&world, new), [&Change::Running]);
}

#[test]
fn idle_death_is_noticed_and_told_when_nothing_is_left() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    ack_all(&mut world);
    let worker = world.worker(c);
    world.step(Input::Died {
        worker,
        reason: "killed".to_owned(),
    });
    assert_eq!(world.asks(c), 0, "the asks are withdrawn at once");
    world.settle();
    assert_eq!(
        *changes(&world, c)[1],
        Change::Removed {
            reason: "killed".to_owned()
        }
    );
}
