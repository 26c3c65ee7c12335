//! Results that are kept until they are acknowledged, and what waits for them.

use super::{ack_all, changes, result_of_warm, warm, world};
use crate::world::{World, id};
use whiskraft_pool::{Change, Input, Life, Output, PoolSettings};
use whiskraft_types::ByteSize;

#[test]
fn result_is_kept_until_acknowledged_and_restated_when_the_stream_opens() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.step(Input::PullOpened {
        scheduler: world.leaders[0].id,
    });
    assert!(matches!(&world.out[..], [Output::Register(told)] if told.unacknowledged == [id(1)]));
    world.step(Input::ResultsAcked { ids: vec![id(1)] });
    assert_eq!(world.pool.unacknowledged_len(), 0);
    world.step(Input::PullOpened {
        scheduler: world.leaders[0].id,
    });
    assert!(matches!(&world.out[..], [Output::Register(told)] if told.unacknowledged.is_empty()));
}

#[test]
fn full_results_stop_the_asking_until_some_are_acknowledged() {
    for settings in [
        PoolSettings {
            results_len_max: 2,
            ..PoolSettings::default()
        },
        PoolSettings {
            results_bytes_max: ByteSize::bytes(200),
            ..PoolSettings::default()
        },
    ] {
        let mut world = World::new(PoolSettings {
            memory: ByteSize::mib(crate::world::TOTAL_MIB),
            ..settings
        });
        let c = world.running(0, 256, 1);
        let worker = world.worker(c);
        for number in 1..=2 {
            world.deliver(id(number), c);
            world.finish(worker, true);
        }
        assert_eq!(world.asks(c), 0);
        world.step(Input::ResultsAcked { ids: vec![id(1)] });
        assert_eq!(world.asks(c), 1);
    }
}

#[test]
fn removal_is_told_when_the_last_result_is_acknowledged() {
    let mut world = world();
    let c = world.running(0, 256, 2);
    let worker = world.worker(c);
    for number in 1..=2 {
        world.deliver(id(number), c);
        world.finish(worker, true);
    }
    ack_all(&mut world);
    world.step(Input::Remove {
        container: c,
        now: true,
    });
    world.settle();
    assert_eq!(world.life(c), None);
    let is_told = |world: &World| matches!(changes(world, c)[..], [.., Change::Removed { .. }]);
    assert!(
        !is_told(&world),
        "a new leader must still ask here for the results"
    );
    ack_all(&mut world);
    assert!(
        matches!(changes(&world, c)[..], [.., Change::Ended { .. }]),
        "its slot is free at once"
    );
    world.step(Input::ResultsAcked { ids: vec![id(1)] });
    assert!(!is_told(&world), "one result is left");
    world.step(Input::ResultsAcked { ids: vec![id(2)] });
    assert!(is_told(&world));
}

#[test]
fn end_of_a_resumed_container_is_told_when_the_results_of_its_old_id_are_acknowledged() {
    let mut world = world();
    let old = warm(&mut world, 256);
    let new = world.create(0, 256, 1, Some(old));
    world.settle();
    ack_all(&mut world);
    world.step(Input::Remove {
        container: new,
        now: false,
    });
    world.settle();
    assert_eq!(world.life(new), None);
    let is_told = |world: &World| matches!(changes(world, new)[..], [.., Change::Removed { .. }]);
    // That it runs, then that it has ended.
    ack_all(&mut world);
    ack_all(&mut world);
    assert!(!is_told(&world));
    world.step(Input::ResultsAcked {
        ids: vec![result_of_warm(old)],
    });
    assert!(is_told(&world));
}

#[test]
fn failure_of_a_resumed_container_is_held_back_like_a_removal() {
    let mut world = world();
    let old = warm(&mut world, 256);
    let new = world.create(0, 256, 1, Some(old));
    let worker = world.worker(new);
    let host = world.hosts[&worker].clone();
    world.fail_one(worker, &host);
    world.gone(worker);
    let worker = world.worker(new);
    assert_eq!(world.life(new), Some(Life::Creating));
    let host = world.hosts[&worker].clone();
    world.fail_one(worker, &host);
    assert_eq!(world.life(new), None);
    assert!(changes(&world, new).is_empty());
    world.step(Input::ResultsAcked {
        ids: vec![result_of_warm(old)],
    });
    assert!(matches!(changes(&world, new)[..], [Change::Failed { .. }]));
}

#[test]
fn results_of_an_evicted_container_hold_the_end_of_the_one_that_was_to_resume_it() {
    let mut world = world();
    let old = warm(&mut world, 256);
    world.step(Input::Remove {
        container: old,
        now: true,
    });
    world.settle();
    let new = world.create(0, 256, 1, Some(old));
    world.settle();
    assert_eq!(world.life(new), Some(Life::Fresh));
    world.step(Input::Remove {
        container: new,
        now: true,
    });
    world.settle();
    let is_told = |world: &World| matches!(changes(world, new)[..], [.., Change::Removed { .. }]);
    // That it runs, then that it has ended.
    ack_all(&mut world);
    ack_all(&mut world);
    assert!(!is_told(&world));
    world.step(Input::ResultsAcked {
        ids: vec![result_of_warm(old)],
    });
    assert!(is_told(&world));
}
