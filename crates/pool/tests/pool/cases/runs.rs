//! Several runs of one activation, and runs that are stopped.

use super::{ack_all, changes, world};
use crate::world::{Record, id};
use whiskraft_pool::{Change, Input, Life, Output};

#[test]
fn later_run_of_an_id_with_a_result_is_started_and_its_result_takes_the_place() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let worker = world.worker(c);
    world.deliver_run(id(1), 1, c);
    world.finish(worker, true);
    world.deliver_run(id(1), 2, c);
    assert_eq!(world.starts[&id(1)], 2);
    assert_eq!(
        world.pool.unacknowledged_len(),
        0,
        "its leader has settled the first run"
    );
    world.finish(worker, true);
    let told = world.out.iter().find_map(|output| match output {
        Output::Completed(done) => Some(done.record),
        _ => None,
    });
    assert_eq!(told, Some(Record { id: id(1), run: 2 }));
    assert_eq!(world.pool.unacknowledged_len(), 1);
}

#[test]
fn later_run_of_an_id_whose_result_was_acknowledged_is_started() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let worker = world.worker(c);
    world.deliver_run(id(1), 1, c);
    world.finish(worker, true);
    world.step(Input::ResultsAcked { ids: vec![id(1)] });
    world.deliver_run(id(1), 2, c);
    assert_eq!(world.starts[&id(1)], 2);
}

#[test]
fn same_or_earlier_run_is_answered_with_the_result_and_never_started() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let worker = world.worker(c);
    world.deliver_run(id(1), 3, c);
    world.finish(worker, true);
    for run in [3, 2] {
        world.deliver_run(id(1), run, c);
        let is_answer =
            |output: &crate::world::Out| matches!(output, Output::Completed(done) if done.record.run == 3);
        assert!(world.out.iter().any(is_answer), "{:?}", world.out);
    }
    assert_eq!(world.starts[&id(1)], 1);
}

#[test]
fn later_run_is_refused_while_an_earlier_one_is_here() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let d = world.running(0, 256, 1);
    world.deliver_run(id(1), 1, c);
    world.deliver_run(id(1), 2, d);
    assert_eq!(world.refused, [id(1)]);
    assert_eq!(world.starts[&id(1)], 1);
}

#[test]
fn stopped_run_ends_with_its_container() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let worker = world.worker(c);
    world.deliver(id(1), c);
    world.stop(id(1), c);
    let to_worker: Vec<_> = world
        .out
        .iter()
        .filter(|output| matches!(output, Output::Stop { .. } | Output::Remove { .. }))
        .cloned()
        .collect();
    assert_eq!(
        to_worker,
        [Output::Stop { worker, id: id(1) }, Output::Remove { worker }]
    );
    // Said again it changes nothing.
    world.stop(id(1), c);
    assert_eq!(world.stopped, [id(1)]);
    world.settle();
    assert_eq!(world.completed, [id(1)]);
    assert_eq!(world.life(c), None);
    ack_all(&mut world);
    assert!(matches!(changes(&world, c).last(), Some(Change::Ended { .. })));
}

#[test]
fn stopped_before_its_start_it_is_refused() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let worker = world.worker(c);
    world.deliver(id(1), c);
    world.stop(id(1), c);
    world.not_started(worker, false);
    assert_eq!(world.refused, [id(1)]);
}

#[test]
fn where_others_run_nothing_is_stopped() {
    let mut world = world();
    let c = world.running(0, 256, 2);
    let worker = world.worker(c);
    world.deliver(id(1), c);
    world.finish(worker, true);
    world.deliver(id(2), c);
    world.deliver(id(3), c);
    world.stop(id(2), c);
    assert!(world.stopped.is_empty());
    assert_eq!(world.life(c), Some(Life::Ready));
}

#[test]
fn stop_of_a_stranger_or_an_earlier_leader_changes_nothing() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    world.stop(id(2), c);
    let stale = world.stopping(id(1), c);
    world.change_leader(0);
    world.arrive();
    world.step(stale);
    assert!(world.stopped.is_empty());
    world.stop(id(1), c);
    assert_eq!(world.stopped, [id(1)]);
}
