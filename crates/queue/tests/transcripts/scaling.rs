//! Containers: asked for, failed, replaced.

use crate::rig::check;

#[test]
fn new_queue_asks_for_a_container_before_the_first_activation() {
    check(
        "tick -> reserve 1
         tick -> nothing
         submit a1 -> accepted a1
         wait 100ms -> nothing
         granted 1 c1 -> nothing
         placed c1
         credit c1 -> deliver a1 to c1",
    );
}

#[test]
fn activation_without_any_container_is_decided_upon_at_once() {
    check(
        "started-up
         submit a1 -> accepted a1
         due now
         tick -> reserve 1",
    );
}

#[test]
fn stale_ones_ask_for_one_container_each_while_the_length_of_runs_is_unknown() {
    check(
        "have c1
         running c1
         submit a1..a3 -> accepted a1..a3
         wait 100ms limit 10 running 1 -> reserve 3
         wait 100ms limit 10 running 1 -> nothing
         granted 3 -> nothing
         wait 100ms limit 10 running 1 -> reserve 3",
    );
}

#[test]
fn platform_failure_keeps_the_waiting_and_tries_again_after_growing_pauses() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick -> reserve 1
         granted 1 c1 -> nothing
         creation-failed c1 resources: no room -> nothing
         wait 99ms -> nothing
         wait 1ms -> reserve 1
         granted 1 c2 -> nothing
         creation-failed c2 resources: no room -> nothing
         wait 199ms -> nothing
         wait 1ms -> reserve 1
         granted 1 c3 -> nothing
         credit c3 -> deliver a1 to c3",
    );
}

#[test]
fn platform_failure_gives_its_reason_at_the_end_of_the_retention() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick -> reserve 1
         granted 1 c1 -> nothing
         creation-failed c1 resources: no room -> nothing
         tick -> nothing
         wait 100ms -> reserve 1
         wait 60s -> failed a1 to k1 whisk: no room",
    );
}

#[test]
fn developer_failure_fails_the_waiting_and_the_next_ones_at_once() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick -> reserve 1
         granted 1 c1 -> nothing
         creation-failed c1 image: no such image -> failed a1 to k1 developer: no such image
         wait 10s -> nothing
         submit a2 -> accepted a2, failed a2 to k1 developer: no such image
         tick -> reserve 1
         granted 1 c2 -> nothing
         credit c2 -> nothing
         submit a3 -> accepted a3, deliver a3 to c2",
    );
}

#[test]
fn developer_failure_is_forgotten_when_nobody_comes() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick -> reserve 1
         granted 1 c1 -> nothing
         creation-failed c1 image: no such image -> failed a1 to k1 developer: no such image
         received a1
         wait 60s -> nothing
         submit a2 -> accepted a2",
    );
}

#[test]
fn failure_beside_a_running_container_changes_nothing() {
    check(
        "have c1 c2
         running c1
         submit a1 -> accepted a1
         creation-failed c2 image: no such image -> nothing
         credit c1 -> deliver a1 to c1",
    );
}

#[test]
fn zero_limit_is_told_at_the_end_of_the_retention_and_ends_when_raised() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick limit 0 -> nothing
         wait 60s limit 0 -> failed a1 to k1 whisk: The namespace limit is less than or equal to 0.
         submit a2 -> accepted a2
         wait 1s limit 5 -> reserve 1",
    );
}

#[test]
fn newer_revision_ends_free_containers_now_and_busy_ones_afterwards() {
    check(
        "have c1 c2
         credit c1 -> nothing
         credit c2 -> nothing
         submit a1 -> accepted a1, deliver a1 to c2
         action r2 -> remove c1
         submit a2 -> accepted a2
         completed a1 c2 +1 -> remove c2, done a1 to k1
         removed c1
         removed c2
         tick -> reserve 1
         granted 1 c3 r2 -> nothing
         credit c3 -> deliver a2 to c3",
    );
}

/// A slot may come with a place, and the tables may tell of that before the grant is heard of.
#[test]
fn a_place_that_is_told_of_before_its_grant_counts_from_the_grant_on() {
    check(
        "started-up
         submit a1
         tick -> reserve 1
         placed c1 -> nothing
         why container-starting
         granted 1 c1+ c2 -> nothing
         delayed c2 invokers: no invoker has the tag gpu
         why container-starting
         gone i1
         why no-invoker",
    );
}

#[test]
fn a_place_that_was_told_of_and_lost_before_its_grant_is_none() {
    check(
        "started-up
         submit a1
         tick -> reserve 1
         placed c1 -> nothing
         unplaced c1 -> nothing
         granted 1 c1 c2 -> nothing
         delayed c2 invokers: no invoker has the tag gpu
         why no-invoker
         placed c1
         why container-starting",
    );
}

/// What the tables tell of a container before its grant the queue does not hear: its shard repeats it afterwards.
#[test]
fn a_container_that_was_lost_before_its_grant_is_asked_for_again() {
    check(
        "started-up
         submit a1
         tick -> reserve 1
         removed c1 -> nothing
         granted 1 c1 -> nothing
         tick -> nothing
         removed c1
         tick -> reserve 1",
    );
}

#[test]
fn slot_granted_for_an_old_revision_is_given_back() {
    check(
        "tick -> reserve 1
         action r2 -> nothing
         granted 1 c1 r1 -> remove c1",
    );
}

#[test]
fn queue_with_nothing_to_do_asks_to_be_removed_and_refuses_meanwhile() {
    check(
        "tick -> reserve 1
         granted 1 c1
         credit c1 -> nothing
         wait 3600s -> nothing
         warm c1
         wait 599s -> nothing
         wait 1s -> remove queue
         submit a1 -> rejected a1 no-queue
         removal-failed
         submit a1 -> accepted a1",
    );
}

#[test]
fn result_that_nobody_fetches_holds_the_queue_for_the_grace_only() {
    check(
        "started-up
         have c1
         credit c1 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         completed a1 c1 -> done a1 to k1
         warm c1
         wait 60s -> ack a1 to i1
         wait 599s -> nothing
         wait 1s -> remove queue",
    );
}

#[test]
fn lowered_limit_ends_the_newest_as_they_finish() {
    check(
        "have c1 c2 c3 c4
         credit c1
         credit c2
         credit c3
         credit c4
         submit a1..a3 -> accepted a1, deliver a1 to c4, accepted a2, deliver a2 to c3, accepted a3, deliver a3 to c2
         old 0
         action r1 instances 2 -> nothing
         old 2
         submit a4 -> accepted a4, deliver a4 to c1
         completed a1 c4 +1 -> remove c4, done a1 to k1
         completed a3 c2 +1 -> done a3 to k1
         submit a5 -> accepted a5, deliver a5 to c2
         wait 5s running 4
         completed a2 c3 -> remove c3, done a2 to k1",
    );
    check(
        "have c1 c2
         credit c1
         credit c2
         action r1 instances 1 -> remove c2
         credit c2 -> remove c2
         submit a1 -> accepted a1, deliver a1 to c1",
    );
}

#[test]
fn raised_limit_gives_back_what_was_still_busy_and_is_decided_upon_at_once() {
    check(
        "action r1 concurrency 2
         have c1 c2
         credit c1 x1
         credit c2 x2
         submit a1..a2 -> accepted a1, deliver a1 to c2, accepted a2, deliver a2 to c2
         action r1 instances 1 -> nothing
         credit c2 -> nothing
         submit a3..a4 -> accepted a3, deliver a3 to c1, accepted a4
         action r1 instances 2 -> deliver a4 to c2
         completed a1 c2 +1 -> done a1 to k1",
    );
    check(
        "action r1 instances 1
         have c1
         running c1
         submit a1..a3 -> accepted a1..a3
         wait 100ms running 1 -> nothing
         action r1 instances 3
         due now
         tick running 1 -> reserve 2",
    );
}

#[test]
fn limit_of_the_action_that_is_zero_is_told_as_such() {
    check(
        "action r1 instances 0
         submit a1 -> accepted a1
         tick -> nothing
         why action-limit
         wait 60s -> failed a1 to k1 whisk: The action's limit of containers is less than or equal to 0.",
    );
}

#[test]
fn latest_reason_is_the_one_that_is_told() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick -> reserve 1
         granted 1 c1
         creation-failed c1 resources: no room -> nothing
         state Flushing
         wait 100ms -> reserve 1
         granted 1 c2
         creation-failed c2 start: the engine does not answer -> nothing
         submit a2 -> accepted a2
         wait 200ms -> reserve 1
         wait 60s -> failed a1 to k1 whisk: the engine does not answer, failed a2 to k1 whisk: the engine does not answer",
    );
}

#[test]
fn limit_beyond_the_namespaces_ends_what_a_platform_failure_kept() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick -> reserve 1
         granted 1 c1
         creation-failed c1 start: the engine does not answer -> nothing
         wait 100ms -> reserve 1
         granted 1 c2
         creation-failed c2 limit: more memory than the namespace may have -> \
          failed a1 to k1 developer: more memory than the namespace may have
         wait 30s -> nothing
         submit a2 -> accepted a2, failed a2 to k1 developer: more memory than the namespace may have",
    );
}

#[test]
fn one_failed_creation_is_enough_while_nothing_runs_and_any_success_ends_the_state() {
    check(
        "started-up
         submit a1 -> accepted a1
         granted 0 c1 c2
         creation-failed c1 fetch: no such code -> failed a1 to k1 developer: no such code
         state Flushing
         running c2
         state Running
         submit a2 -> accepted a2
         credit c2 -> deliver a2 to c2",
    );
}

#[test]
fn container_that_asks_while_creations_fail_is_served() {
    check(
        "started-up
         submit a1 -> accepted a1
         granted 0 c1 c2
         creation-failed c1 start: the engine does not answer -> nothing
         credit c2 -> deliver a1 to c2
         state Running",
    );
}

#[test]
fn newer_revision_forgets_what_failed_and_serves_what_waited_for_the_older_one() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick -> reserve 1
         granted 1 c1
         creation-failed c1 start: the engine does not answer -> nothing
         action r2 -> nothing
         due now
         tick -> reserve 1
         granted 1 c2 r2 -> nothing
         credit c2 -> deliver a1 to c2",
    );
}

#[test]
fn last_container_that_dies_while_others_wait_is_replaced() {
    check(
        "have c1
         credit c1
         submit a1..a2 -> accepted a1, deliver a1 to c1, accepted a2
         removed c1
         tick -> reserve 1",
    );
}

#[test]
fn runs_too_short_to_measure_are_no_runs_of_unknown_length() {
    check(
        "have c1
         running c1
         sampled 0ms
         submit a1..a9 -> accepted a1..a9
         wait 100ms running 1 -> reserve 1",
    );
}
