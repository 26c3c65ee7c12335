//! Activations in a container: asks, deliveries, refusals.

use std::time::Duration;

use super::{changes, world};
use crate::world::{Record, container, id};
use whiskraft_pool::{Change, Finished, Input, Life, Output};
use whiskraft_types::SchedulerId;

#[test]
fn container_asks_once_before_its_code_is_loaded_and_then_up_to_its_concurrency() {
    let mut world = world();
    let c = world.running(0, 256, 3);
    assert_eq!(changes(&world, c), [&Change::Running]);
    assert_eq!(world.asks(c), 1);
    world.deliver(id(1), c);
    assert!(matches!(&world.out[..], [Output::Run { init: true, .. }, ..]));
    assert_eq!(world.asks(c), 0);
    let worker = world.worker(c);
    world.step(Input::Initialised { worker });
    assert_eq!(world.asks(c), 2);
    world.deliver(id(2), c);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Run { init: false, .. }))
    );
    world.step(Input::Finished(Finished {
        worker,
        id: id(1),
        record: Record { id: id(1), run: 1 },
        len: 1,
        reusable: true,
        healthy: true,
    }));
    assert_eq!(world.asks(c), 2, "a finished run brings its ask along");
}

#[test]
fn delivery_without_ask_or_container_or_in_another_epoch_is_refused() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    world.deliver(id(2), c);
    world.containers.insert(container(99), 0);
    world.deliver(id(3), container(99));
    assert_eq!(world.refused, [id(2), id(3)]);
    let old = world.delivery(0, id(4), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.change_leader(0);
    world.arrive();
    world.step(old);
    assert_eq!(world.refused, [id(2), id(3), id(4)]);
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn repeated_id_is_never_started_again() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.deliver(id(1), b);
    assert_eq!(
        world.asks(b),
        1,
        "the ask that the repetition took is given again"
    );
    let worker = world.worker(a);
    world.finish(worker, true);
    world.deliver(id(1), b);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Completed(done) if done.record == id(1))),
        "the stored result is the answer: {:?}",
        world.out
    );
    assert_eq!(world.asks(b), 1);
    assert_eq!(world.starts[&id(1)], 1);
}

#[test]
fn unusable_container_finishes_the_others_and_goes() {
    let mut world = world();
    let c = world.running(0, 256, 2);
    let worker = world.worker(c);
    world.deliver(id(1), c);
    world.step(Input::Initialised { worker });
    world.deliver(id(2), c);
    world
        .hosts
        .get_mut(&worker)
        .unwrap()
        .runs
        .iter_mut()
        .for_each(|run| run.1 = false);
    world.finish(worker, false);
    assert_eq!(world.life(c), Some(Life::Ready), "another activation runs");
    assert_eq!(world.asks(c), 0);
    world.finish(worker, true);
    assert_eq!(world.life(c), Some(Life::Removing));
    assert_eq!(world.completed, [id(1), id(2)]);
}

#[test]
fn given_back_activation_is_refused_and_the_container_asks_again() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.not_started(worker, true);
    assert_eq!(world.refused, [id(1)]);
    assert_eq!(world.asks(c), 1);
    world.deliver(id(1), c);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Run { init: true, .. }))
    );
}

#[test]
fn run_that_lasts_is_told_as_started_where_it_runs() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    let (here, there) = (world.worker(a), world.worker(b));
    world.step(Input::Begun {
        worker: there,
        id: id(1),
    });
    assert!(world.out.is_empty(), "it does not run there");
    world.step(Input::Begun {
        worker: here,
        id: id(1),
    });
    assert!(matches!(&world.out[..], [Output::Started { container, .. }] if *container == a));
}

#[test]
fn refused_asks_are_repeated_after_a_while() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let from = world.leaders[0].id;
    world.step(Input::PullRefused { from, container: c });
    world.step(Input::PullRefused { from, container: c });
    assert!(world.out.is_empty());
    world.now = world.now + Duration::from_millis(499);
    world.step(Input::Tick);
    assert!(
        !world
            .out
            .iter()
            .any(|output| matches!(output, Output::Credit { .. }))
    );
    world.now = world.now + Duration::from_millis(1);
    world.step(Input::Tick);
    assert!(
        matches!(&world.out[..], [Output::Credit { count: 1, .. }, ..]),
        "{:?}",
        world.out
    );
}

#[test]
fn unknown_ids_change_nothing() {
    let mut world = world();
    world.running(0, 256, 1);
    let worker = whiskraft_pool::WorkerId(77);
    for input in [
        Input::Created { worker },
        Input::Gone { worker },
        Input::Paused { worker },
        Input::Finished(Finished {
            worker,
            id: id(1),
            record: Record { id: id(1), run: 1 },
            len: 1,
            reusable: true,
            healthy: true,
        }),
        Input::Remove {
            container: container(77),
            now: true,
        },
        Input::WithdrawAcked {
            from: SchedulerId(1),
            container: container(1),
        },
        Input::ResultsAcked { ids: vec![id(9)] },
        Input::ReportsAcked { seqs: vec![99] },
    ] {
        world.step(input);
        assert!(world.out.is_empty(), "{:?}", world.out);
    }
}
