//! Runs after failed and lost ones: how many, when, and what becomes of the last.

use crate::rig::check;

const LOST: &str = "The activation may have started on invoker 1\\, which was lost.";

#[test]
fn failed_run_is_followed_by_another_after_a_pause_that_doubles() {
    check(
        "have c1
         action r1 runs 4 backoff 10s backoff-max 30s
         credit c1 x9               -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         completed a1 c1 failed     -> journal retry a1 run 2 at 10380ms
         journal a1 written         -> ack a1 to i1
         find a1 delayed
         wait 20s                   -> deliver a1 to c1 run 2
         completed a1 c1 run 2 failed -> journal retry a1 run 3 at 38420ms
         journal a1 written         -> ack a1 to i1
         wait 30s                   -> deliver a1 to c1 run 3
         completed a1 c1 run 3 failed -> journal retry a1 run 4 at 80000ms
         journal a1 written         -> ack a1 to i1
         wait 40s                   -> deliver a1 to c1 run 4
         completed a1 c1 run 4 failed -> journal end dead-letter done a1 run 4
         journal a1 written         -> ack a1 to i1, done a1 to k1 run 4",
    );
}

#[test]
fn run_that_goes_well_ends_it() {
    check(
        "have c1
         action r1 runs 3
         credit c1 x9               -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         completed a1 c1 failed
         journal a1 written         -> ack a1 to i1
         wait 2s                    -> deliver a1 to c1 run 2
         completed a1 c1 run 2      -> journal end done a1 run 2
         journal a1 written         -> ack a1 to i1, done a1 to k1 run 2",
    );
}

#[test]
fn only_durable_activations_run_again_after_a_failure() {
    check(
        "have c1
         action r1 runs 3
         credit c1                  -> nothing
         submit a1                  -> accepted a1, deliver a1 to c1
         completed a1 c1 failed     -> done a1 to k1",
    );
}

#[test]
fn without_a_policy_a_failure_is_the_end_and_no_dead_letter() {
    check(
        "have c1
         credit c1                  -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         completed a1 c1 failed     -> journal end done a1",
    );
}

#[test]
fn no_run_begins_beyond_the_age_of_the_policy() {
    check(
        "have c1
         action r1 runs 9 backoff 10s age-max 15s
         credit c1 x9               -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         completed a1 c1 failed
         journal a1 written         -> ack a1 to i1
         wait 12s                   -> deliver a1 to c1 run 2
         completed a1 c1 run 2 failed -> journal end dead-letter done a1 run 2",
    );
}

#[test]
fn record_of_an_older_run_is_only_acknowledged() {
    check(
        "have c1
         action r1 runs 3
         credit c1 x9               -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         completed a1 c1 failed
         completed a1 c1 failed     -> nothing
         journal a1 written         -> ack a1 to i1
         completed a1 c1 failed     -> ack a1 to i1
         wait 2s                    -> deliver a1 to c1 run 2
         completed a1 c1            -> ack a1 to i1
         find a1 delivered
         completed a1 c1 run 2      -> journal end done a1 run 2",
    );
}

#[test]
fn journal_that_knows_a_later_run_decides_which_follows() {
    check(
        "have c1
         action r1 runs 9
         credit c1 x9               -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         completed a1 c1 failed
         journal a1 open 5 9s       -> ack a1 to i1
         wait 9s                    -> deliver a1 to c1 run 5
         completed a1 c1 run 5 failed
         journal a1 ended           -> ack a1 to i1, done a1 to k1 run 5",
    );
}

#[test]
fn lost_run_ends_with_an_error_however_many_runs_are_left() {
    check(&format!(
        "have c1
         action r1 runs 3
         credit c1                  -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         gone i1                    -> journal end dead-letter failed a1 whisk: {LOST}"
    ));
}

#[test]
fn lost_run_is_repeated_at_once_for_those_who_asked_and_not_for_ever() {
    check(
        "have c1
         action r1 on-loss
         credit c1                  -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         gone i1                    -> journal retry a1 run 2 at 0ms
         have c21
         credit c21                 -> nothing
         journal a1 written         -> deliver a1 to c21 run 2
         started a1 c21
         gone i2                    -> journal retry a1 run 3 at 0ms
         journal a1 written         -> nothing
         have c1
         credit c1                  -> deliver a1 to c1 run 3
         completed a1 c1 run 3 failed -> journal end done a1 run 3",
    );
    check(&format!(
        "action r1 on-loss
         submit a1 durable          -> journal a1
         journal a1 open 4          -> accepted a1
         have c1
         credit c1                  -> deliver a1 to c1 run 4
         gone i1                    -> journal end failed a1 run 4 whisk: {LOST}"
    ));
}

#[test]
fn lost_run_of_a_blocking_call_is_repeated_from_memory_at_its_old_place() {
    check(&format!(
        "have c1
         action r1 on-loss
         submit a1..a2              -> accepted a1..a2
         credit c1                  -> deliver a1 to c1
         started a1 c1
         gone i1                    -> nothing
         have c2 c3 c4
         credit c2                  -> deliver a1 to c2 run 2
         gone i1                    -> nothing
         have c5
         credit c5                  -> deliver a1 to c5 run 3
         gone i1                    -> nothing
         have c6
         credit c6                  -> deliver a1 to c6 run 4
         gone i1                    -> failed a1 to k1 run 4 whisk: {LOST}"
    ));
}

#[test]
fn lost_run_is_not_repeated_where_it_was_lost() {
    check(
        "have c1
         action r1 on-loss concurrency 4
         credit c1 x4               -> nothing
         submit a1                  -> accepted a1, deliver a1 to c1
         gone i1                    -> nothing
         have c21
         credit c21                 -> deliver a1 to c21 run 2",
    );
}

#[test]
fn other_ways_to_lose_a_run_count_the_same() {
    check(
        "started-up
         have c1
         action r1 on-loss
         credit c1                  -> nothing
         submit a1                  -> accepted a1, deliver a1 to c1
         started a1 c1
         disconnected i1            -> nothing
         register i1 c1 has asks 1  -> deliver a1 to c1 run 2
         started a1 c1
         removed c1                 -> nothing
         wait 10s
         find a1 waiting
         have c2
         credit c2                  -> deliver a1 to c2 run 3",
    );
}

#[test]
fn fenced_leader_says_nothing_of_another_run_before_it_may_act() {
    check(
        "have c1
         action r1 on-loss
         credit c1                  -> nothing
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c1
         fence
         gone i1                    -> nothing
         unfence                    -> journal retry a1 run 2 at 0ms",
    );
}

#[test]
fn action_that_cannot_be_started_uses_runs_up() {
    check(
        "started-up
         action r1 runs 2 backoff 1s
         submit a1 durable          -> journal a1
         journal a1 written         -> accepted a1
         wait 1ms                   -> reserve 1
         granted 1 c1
         creation-failed c1 image: no such image -> journal retry a1 run 2 at 1039ms
         journal a1 written         -> nothing
         wait 2s                    -> journal end dead-letter failed a1 run 2 developer: no such image, reserve 1",
    );
}

#[test]
fn deleted_action_runs_nothing_again() {
    check(
        "have c1
         action r1 runs 3 backoff 10s
         credit c1 x2               -> nothing
         submit a1 durable          -> journal a1
         submit a2 durable          -> journal a2
         journal a1 written         -> accepted a1, deliver a1 to c1
         journal a2 written         -> accepted a2, deliver a2 to c1
         completed a1 c1 failed
         journal a1 written         -> ack a1 to i1
         action r2 deleted          -> journal end failed a1 run 2 developer: The action was deleted before the activation began.
         completed a2 c1 failed     -> remove c1, journal end done a2",
    );
}
