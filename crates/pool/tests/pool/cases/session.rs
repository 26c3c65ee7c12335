//! The session: fencing, its end, the shutdown.

use super::{changes, warm, world};
use crate::world::{TTL, id};
use whiskraft_pool::{Change, Input, Life};
use whiskraft_types::CreationError;

#[test]
fn fenced_invoker_starts_nothing_and_keeps_results_for_later() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.pass(TTL, true);
    assert!(world.pool.is_fenced(world.now));
    world.deliver(id(2), b);
    assert_eq!(world.refused, [id(2)]);
    let worker = world.worker(a);
    world.finish(worker, true);
    assert!(world.completed.is_empty());
    assert_eq!(world.pool.unacknowledged_len(), 1);
    let c = world.create(0, 256, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::Whisk,
            ..
        }]
    ));
    world.renew();
    assert_eq!(world.completed, [id(1)]);
    assert_eq!((world.asks(a), world.asks(b)), (1, 1), "both ask again");
}

#[test]
fn ended_session_takes_everything_with_it() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.deliver(id(2), b);
    let worker = world.worker(b);
    world.finish(worker, true);
    world.reports.clear();
    world.step(Input::SessionExpired);
    assert_eq!(world.pool.unacknowledged_len(), 0);
    assert_eq!(world.emptied, 0);
    world.settle();
    assert_eq!(world.emptied, 1);
    assert_eq!(
        world.completed,
        [id(2)],
        "what was killed by it has no result to send"
    );
    assert!(world.reports.is_empty());
    world.open_session();
    let c = world.running(0, 256, 1);
    assert_eq!(world.asks(c), 1);
}

#[test]
fn shutdown_refuses_new_work_and_lets_running_work_finish() {
    let mut world = world();
    let warm = warm(&mut world, 128);
    let (busy, idle) = (world.running(0, 128, 1), world.running(0, 128, 1));
    world.deliver(id(1), busy);
    let late = world.delivery(0, id(2), idle);
    world.step(Input::Drain);
    assert_eq!(
        (world.life(warm), world.life(idle)),
        (Some(Life::Removing), Some(Life::Removing))
    );
    assert_eq!(world.life(busy), Some(Life::Initialising));
    assert!(!world.pool.memory_use().healthy);
    world.step(late);
    let c = world.create(0, 128, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::ShuttingDown,
            ..
        }]
    ));
    assert_eq!(world.refused, [id(2)]);
    world.settle();
    assert_eq!((world.completed.last(), world.emptied), (Some(&id(1)), 1));
}

#[test]
fn end_of_the_shutdown_grace_removes_what_still_runs() {
    let mut world = world();
    let busy = world.running(0, 128, 1);
    world.deliver(id(1), busy);
    world.step(Input::Drain);
    world.step(Input::DrainEnded);
    assert_eq!(world.life(busy), Some(Life::Removing));
    world.settle();
    assert_eq!((&world.completed[..], world.emptied), (&[id(1)][..], 1));
}
