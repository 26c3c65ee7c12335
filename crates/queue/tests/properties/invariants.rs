//! What must hold after every event, one function per invariant of the specification (17.3), by its number.
//!
//! Some are asserted where they can break, with their number: 2 (a fenced leader does nothing), 3 (asks stay within the
//! limit), 6 (hand-outs keep the order) and 8 (a draining queue does nothing new). What is not the queue's alone is
//! tested elsewhere as well: one owner per epoch (2), slots in the log (3) and what a drained node leaves (8) by the
//! properties of `state`; several leaders and real invokers (1, 9) by the cluster tests.

use std::time::Duration;

use whiskraft_queue::{Outcome, QueueState};
use whiskraft_types::Rejection;

use crate::model::Stage;
use crate::world::{Answer, LIMIT, World};

/// All that must hold at any time.
pub(crate) fn check_all(world: &World) {
    invariant_1_one_start_and_true_results(world);
    invariant_1_refused_never_runs(world);
    invariant_3_slots_within_the_limit(world);
    invariant_4_throttle_follows_the_length(world);
    invariant_5_nobody_waits_beyond_retention(world);
    invariant_7_work_without_container_asks_for_one(world);
    invariant_9_stages_are_those_of_the_model(world);
    invariant_activations_and_credits_never_wait_together(world);
    invariant_what_waits_has_a_reason(world);
}

/// All that must hold once everything is healed and done.
pub(crate) fn check_healed(world: &World) {
    invariant_1_every_call_is_answered(world);
    invariant_8_and_9_nothing_is_left_behind(world);
}

/// 1: an activation starts once at most, and a record is that of its own run.
fn invariant_1_one_start_and_true_results(world: &World) {
    for (id, starts) in &world.starts {
        assert!(*starts <= 1, "{id} started {starts} times");
    }
    for (id, call) in &world.calls {
        if let Some(Answer::Ended(Outcome::Record(record))) = &call.answer {
            assert_eq!(*record, id.to_string());
            assert_eq!(
                world.starts.get(id),
                Some(&1),
                "{id} has a record and did not run"
            );
        }
    }
}

/// 1: what was refused for good, or failed as not started, never runs.
fn invariant_1_refused_never_runs(world: &World) {
    for (id, call) in &world.calls {
        let is_not_run = match &call.answer {
            Some(Answer::Refused(rejection)) => !matches!(rejection, Rejection::Invalid { .. }),
            Some(Answer::Ended(Outcome::Failure { text, .. })) => !text.contains("may have started"),
            Some(Answer::Unknown | Answer::Ended(Outcome::Record(_) | Outcome::Cancelled)) | None => false,
        };
        let starts = world.starts.get(id).copied().unwrap_or(0);
        assert!(
            !is_not_run || starts == 0,
            "{id} ran although it was answered {:?}",
            call.answer
        );
    }
}

/// 3: containers stay within the limit of the namespace; those that serve within the limit of the action.
fn invariant_3_slots_within_the_limit(world: &World) {
    let counts = world.counts();
    assert!(counts.running + counts.in_progress <= LIMIT, "{counts:?}");
    let serving = world.queue.view().running;
    assert!(
        serving <= world.instances.unwrap_or(LIMIT) as usize,
        "{serving} serve"
    );
}

/// 4: never throttled at or below the release size, always at the limit.
fn invariant_4_throttle_follows_the_length(world: &World) {
    let view = world.queue.view();
    assert_eq!(view.is_throttled, world.throttled, "the throttle that was told");
    if view.waiting <= world.settings.release_len() {
        assert!(!view.is_throttled, "throttled with {}", view.waiting);
    }
    if view.waiting >= world.settings.len_max as usize {
        assert!(view.is_throttled, "not throttled with {}", view.waiting);
    }
}

/// 5: nobody waits longer than the retention, counted from the first acceptance.
fn invariant_5_nobody_waits_beyond_retention(world: &World) {
    if let Some(oldest) = world.queue.view().oldest.filter(|_| !world.fenced) {
        let age = world.now.saturating_since(oldest);
        assert!(
            age <= world.settings.retention + world.settings.decision_interval,
            "waits {age:?}"
        );
    }
}

/// 7: work without any container, with room for one, leads to an ask within a bound.
fn invariant_7_work_without_container_asks_for_one(world: &World) {
    let bound = Duration::from_secs(2);
    if let Some(since) = world.stuck_since {
        let time = world.now.saturating_since(since);
        assert!(time <= bound, "stuck for {time:?}: {:?}", world.queue.view());
    }
}

fn invariant_activations_and_credits_never_wait_together(world: &World) {
    let view = world.queue.view();
    assert!(
        world.fenced || world.draining || view.credits == 0 || view.waiting == view.held,
        "{view:?}"
    );
}

/// Exactly if something waits there is a reason for it.
fn invariant_what_waits_has_a_reason(world: &World) {
    let view = world.queue.view();
    assert_eq!(view.waiting > 0, view.wait.is_some(), "{view:?}");
    assert!(view.wait.is_none_or(|wait| !wait.detail.is_empty()));
}

/// 9: an activation is in exactly one stage, and the model knows which.
fn invariant_9_stages_are_those_of_the_model(world: &World) {
    let view = world.queue.view();
    if world.fenced {
        // Failures wait for the end of the fence; until then the model is ahead.
        return;
    }
    let model = |stage| world.model.count(stage);
    assert_eq!(
        (view.held, view.waiting),
        (model(Stage::Held), model(Stage::Held) + model(Stage::Waiting))
    );
    assert_eq!(view.in_flight, model(Stage::InFlight), "{:?}", world.model);
}

/// 1: every call has an answer.
fn invariant_1_every_call_is_answered(world: &World) {
    for (id, call) in &world.calls {
        assert!(call.answer.is_some(), "{id} has no answer");
    }
}

/// 8 and 9: what the queue counts is what there is: nothing; and then it ends.
fn invariant_8_and_9_nothing_is_left_behind(world: &World) {
    let view = world.queue.view();
    assert!(world.removed, "the idle queue did not end: {view:?}");
    assert_eq!(view.state, QueueState::Removed);
    let left = (
        view.waiting,
        view.in_flight,
        view.running,
        view.in_progress,
        view.credits,
    );
    assert_eq!(left, (0, 0, 0, 0, 0), "{view:?}");
    assert!(
        world.invokers.values().all(|invoker| invoker.results.is_empty()),
        "a result was never acknowledged"
    );
}
