//! Deliveries of what is or was here: which answer they get, and that they spoil nothing.

use std::time::Duration;

use super::world;
use crate::world::{Out, Record, World, id};
use whiskraft_pool::{Input, Output};
use whiskraft_types::{ActivationId, ContainerId};

/// A container whose first run has ended, and another one; the result is not acknowledged.
fn with_result() -> (World, ContainerId, ContainerId) {
    let mut world = world();
    let (c, d) = (world.running(0, 256, 1), world.running(0, 256, 1));
    let worker = world.worker(c);
    world.deliver_run(id(1), 1, c);
    world.finish(worker, true);
    (world, c, d)
}

fn refusals(world: &World) -> Vec<(ActivationId, ContainerId)> {
    let refusals = world.out.iter().filter_map(|output| match output {
        Output::Refused { id, container, .. } => Some((*id, *container)),
        _ => None,
    });
    refusals.collect()
}

fn is_result_of(run: u32) -> impl Fn(&Out) -> bool {
    move |output| matches!(output, Output::Completed(done) if done.record == Record { id: id(1), run })
}

#[test]
fn later_run_of_a_former_leader_leaves_the_result_to_the_present_one() {
    let (mut world, c, d) = with_result();
    let late = world.delivery_of(0, (id(1), 2), d);
    world.change_leader(0);
    world.arrive();
    world.step(late);
    assert_eq!(refusals(&world), [(id(1), d)]);
    assert_eq!(world.pool.unacknowledged_len(), 1);
    world.deliver_run(id(1), 1, c);
    assert!(world.out.iter().any(is_result_of(1)), "{:?}", world.out);
    assert_eq!(world.starts[&id(1)], 1);
}

#[test]
fn later_run_that_is_refused_leaves_the_result() {
    let (mut world, _, d) = with_result();
    let leader = world.leaders[0].id;
    let withdrawn = Input::PullRefused {
        from: leader,
        container: d,
    };
    world.step(withdrawn);
    world.deliver_run(id(1), 2, d);
    assert_eq!(refusals(&world), [(id(1), d)], "it has no open ask");
    assert_eq!(world.pool.unacknowledged_len(), 1);
}

#[test]
fn result_that_is_held_back_outlives_a_later_run_that_is_refused() {
    let mut world = world();
    let (c, d) = (world.running(0, 256, 1), world.running(0, 256, 1));
    let worker = world.worker(c);
    world.deliver_run(id(1), 1, c);
    world.pass(Duration::from_secs(5), true);
    world.finish(worker, true);
    world.deliver_run(id(1), 2, d);
    assert_eq!(refusals(&world), [(id(1), d)], "fenced");
    world.renew();
    assert!(world.out.iter().any(is_result_of(1)), "{:?}", world.out);
}

#[test]
fn run_that_comes_back_is_refused_where_it_was_delivered_last() {
    let mut world = world();
    let (c, d) = (world.running(0, 256, 2), world.running(0, 256, 1));
    let worker = world.worker(c);
    world.deliver_run(id(1), 2, c);
    for run in [2, 1] {
        world.deliver_run(id(1), run, d);
        assert_eq!(refusals(&world), [], "what runs will be the answer");
        assert_eq!(world.asks(d), 1, "it asks again");
    }
    world.not_started(worker, true);
    // A second one would be taken for the answer to what is delivered next.
    assert_eq!(refusals(&world), [(id(1), d)]);
    world.invariant_every_delivery_is_answered();
}

#[test]
fn run_that_comes_back_is_refused_where_it_is_when_another_leader_was_told_so() {
    let mut world = world();
    let (c, d) = (world.running(0, 256, 2), world.running(0, 256, 1));
    let worker = world.worker(c);
    world.deliver(id(1), c);
    world.deliver(id(1), d);
    world.change_leader(0);
    world.arrive();
    world.not_started(worker, true);
    assert_eq!(refusals(&world), [(id(1), c)]);
    world.invariant_every_delivery_is_answered();
}

#[test]
fn repeated_delivery_while_fenced_is_answered_later() {
    let (mut world, _, d) = with_result();
    world.pass(Duration::from_secs(5), true);
    world.deliver_run(id(1), 1, d);
    assert!(world.out.is_empty(), "{:?}", world.out);
    world.renew();
    assert!(world.out.iter().any(is_result_of(1)), "{:?}", world.out);
    world.invariant_every_delivery_is_answered();
}

#[test]
fn repeated_delivery_to_a_container_that_is_gone_is_answered() {
    let (mut world, _, d) = with_result();
    let worker = world.worker(d);
    let crossing = world.delivery_of(0, (id(1), 1), d);
    world.step(Input::Remove {
        container: d,
        now: true,
    });
    world.gone(worker);
    world.step(crossing);
    assert!(world.out.iter().any(is_result_of(1)), "{:?}", world.out);
}

#[test]
fn what_a_former_session_has_left_is_no_answer() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let worker = world.worker(c);
    world.deliver(id(1), c);
    world.step(Input::SessionExpired);
    world.open_session();
    let d = world.running(0, 256, 1);
    world.deliver(id(1), d);
    assert_eq!(refusals(&world), [(id(1), d)], "it has not ended there");
    assert_eq!(world.starts[&id(1)], 1);
    world.gone(worker);
    assert!(world.completed.is_empty());
}

#[test]
fn container_asks_again_after_a_refusal_because_of_an_earlier_run() {
    let mut world = world();
    let (c, d) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver_run(id(1), 1, c);
    world.deliver_run(id(1), 2, d);
    assert_eq!((refusals(&world), world.asks(d)), (vec![(id(1), d)], 0));
    world.pass(Duration::from_millis(500), false);
    assert_eq!(world.asks(d), 1);
}
