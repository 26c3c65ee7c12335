//! Room for new containers: eviction, deadlines, health.

use std::time::Duration;

use super::{ack_all, changes, warm, world};
use crate::world::{World, container};
use whiskraft_pool::{Change, Input, Life, Output};
use whiskraft_types::CreationError;

#[test]
fn longest_unused_warm_container_is_evicted_and_its_memory_waited_for() {
    let mut world = world();
    let (oldest, newer) = (warm(&mut world, 512), warm(&mut world, 512));
    ack_all(&mut world);
    let c = world.create(1, 512, 1, None);
    assert_eq!(world.life(oldest), Some(Life::Removing));
    assert_eq!(world.life(newer), Some(Life::Paused));
    assert_eq!(
        world.life(c),
        Some(Life::Waiting),
        "not created before the memory is free"
    );
    let worker = world.worker(oldest);
    world.gone(worker);
    assert_eq!(world.life(c), Some(Life::Creating));
}

#[test]
fn leader_chooses_who_goes_first_and_nobody_goes_for_nothing() {
    let mut world = world();
    let (oldest, newer, newest) = (
        warm(&mut world, 256),
        warm(&mut world, 256),
        warm(&mut world, 256),
    );
    let running = world.running(0, 128, 1);
    ack_all(&mut world);
    world.evict_first = vec![newest];
    let fits = world.create(1, 128, 1, None);
    assert_eq!(world.life(fits), Some(Life::Creating));
    assert_eq!(world.life(newest), Some(Life::Paused), "there was room");
    // Ids that are not here or not paused are passed over.
    world.evict_first = vec![container(99), running, newest, newer];
    world.create(1, 256, 1, None);
    let lives = [oldest, newer, newest, running].map(|c| world.life(c));
    assert_eq!(
        lives,
        [
            Some(Life::Paused),
            Some(Life::Paused),
            Some(Life::Removing),
            Some(Life::Fresh)
        ]
    );
}

#[test]
fn usual_order_follows_when_the_leaders_choice_is_not_enough() {
    let mut world = world();
    let (oldest, newer, newest) = (
        warm(&mut world, 256),
        warm(&mut world, 256),
        warm(&mut world, 512),
    );
    ack_all(&mut world);
    world.evict_first = vec![newer];
    world.create(1, 512, 1, None);
    assert_eq!(world.life(newer), Some(Life::Removing));
    assert_eq!(world.life(oldest), Some(Life::Removing));
    assert_eq!(world.life(newest), Some(Life::Paused));
}

#[test]
fn no_room_is_said_at_once_together_with_the_memory() {
    let mut world = world();
    world.running(0, 768, 1);
    let c = world.create(1, 512, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::ResourceNotEnough,
            ..
        }]
    ));
    assert!(world.out.iter().any(|output| matches!(output, Output::Memory(_))));
}

#[test]
fn creation_past_its_deadline_fails_and_leaves_nothing() {
    let mut world = world();
    let c = world.create(0, 256, 1, None);
    world.pass(Duration::from_secs(20), false);
    assert!(
        changes(&world, c).is_empty(),
        "the slot is taken until nothing is left"
    );
    world.settle();
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::Timeout,
            ..
        }]
    ));
    assert!(world.pool.is_empty());
}

#[test]
fn failed_creations_make_the_invoker_unhealthy_for_a_while() {
    let mut world = world();
    for _ in 0..3 {
        let c = world.create(0, 256, 1, None);
        let worker = world.worker(c);
        let host = world.hosts[&worker].clone();
        world.fail_one(worker, &host);
    }
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Memory(memory) if !memory.healthy))
    );
    world.pass(Duration::from_secs(30), false);
    assert!(world.pool.memory_use().healthy);
}

#[test]
fn memory_amounts_are_reported_at_intervals() {
    let mut world = world();
    let told = |world: &World| world.out.iter().any(|output| matches!(output, Output::Memory(_)));
    world.create(0, 256, 1, None);
    assert!(!told(&world), "within a second of the first report");
    world.now = world.pool.next_deadline().unwrap();
    world.step(Input::Tick);
    assert!(told(&world));
}
