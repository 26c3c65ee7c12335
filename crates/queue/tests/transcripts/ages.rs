//! Time that an activation waited at earlier leaders, and invokers that never answer.

use crate::rig::check;

#[test]
fn place_and_retention_count_from_the_first_acceptance() {
    check(
        "show ages
         started-up
         wait 300s
         submit a1 -> accepted a1
         wait 10s
         submit a2 attempt 2 waited 30s -> accepted a2
         submit a3 attempt 2 waited 5s -> accepted a3
         submit a4 -> accepted a4
         have c1
         credit c1 x3 -> deliver a2 to c1 after 30000ms, deliver a1 to c1 after 10000ms, deliver a3 to c1 after 5000ms",
    );
}

#[test]
fn retention_ends_early_by_what_was_waited_elsewhere_and_not_a_moment_before() {
    check(
        "started-up
         wait 300s
         submit a1 attempt 2 waited 50s -> accepted a1
         submit a2 attempt 2 waited 90s -> accepted a2
         due now
         tick -> failed a2 to k1 whisk: Activation processing is not initiated for 60000 ms, reserve 1
         wait 9999ms -> nothing
         wait 1ms -> failed a1 to k1 whisk: Activation processing is not initiated for 60000 ms",
    );
}

#[test]
fn held_back_ones_keep_their_place_and_age_too() {
    check(
        "show ages
         wait 300s
         takeover i1 with c1
         submit a1 attempt 2 waited 5s -> accepted a1
         submit a2 attempt 2 waited 9s -> accepted a2
         submit a3 -> accepted a3
         submit a4 attempt 2 waited 59s -> accepted a4
         wait 1s -> failed a4 to k1 whisk: \
          The activation may have started before its queue moved; no invoker could tell in time.
         register i1 c1 has asks 3 -> \
          deliver a2 to c1 after 10000ms, deliver a1 to c1 after 6000ms, deliver a3 to c1 after 1000ms",
    );
}

#[test]
fn delivery_at_once_says_what_was_waited_elsewhere() {
    check(
        "show ages
         have c1
         wait 300s
         credit c1 x2
         submit a1 attempt 2 waited 7s -> accepted a1, deliver a1 to c1 after 7000ms
         submit a2 -> accepted a2, deliver a2 to c1 after 0ms",
    );
}

#[test]
fn silent_invoker_is_told_once_per_activation_and_only_while_it_says_nothing() {
    check(
        "have c1 c21
         credit c1 x2 warmed
         credit c21 warmed
         submit a1..a3 -> accepted a1, deliver a1 to c21, accepted a2, deliver a2 to c1, accepted a3, deliver a3 to c1
         started a2 c1
         wait 1999ms -> nothing
         wait 1ms -> silent c21, silent c1
         wait 60s -> nothing
         completed a1 c21 -> done a1 to k1
         completed a2 c1 -> done a2 to k1
         completed a3 c1 -> done a3 to k1",
    );
}

#[test]
fn init_is_no_silence_within_its_time_limit() {
    check(
        "have c1
         credit c1
         submit a1 -> accepted a1, deliver a1 to c1
         wait 61999ms -> nothing
         wait 1ms -> silent c1",
    );
}

#[test]
fn run_that_lasts_many_times_as_long_as_others_is_told_once() {
    check(
        "have c1 c2
         sampled 100ms
         credit c1 warmed
         submit a1 -> accepted a1, deliver a1 to c1
         wait 1s -> nothing
         started a1 c1
         wait 3199ms -> nothing
         wait 1ms -> late c1 3200ms
         wait 60s -> nothing
         completed a1 c1 -> done a1 to k1",
    );
}

#[test]
fn short_runs_have_at_least_the_time_of_silence() {
    check(
        "have c1
         sampled 1ms
         credit c1 warmed
         submit a1 -> accepted a1, deliver a1 to c1
         started a1 c1
         wait 1999ms -> nothing
         wait 1ms -> late c1 2000ms",
    );
}

#[test]
fn refused_one_that_is_delivered_again_is_watched_again() {
    check(
        "have c1
         credit c1 warmed
         submit a1 -> accepted a1, deliver a1 to c1
         wait 2s -> silent c1
         refused a1 c1 -> nothing
         credit c1 warmed -> deliver a1 to c1
         wait 2s -> silent c1",
    );
}

#[test]
fn what_no_invoker_answers_ends_and_its_container_with_it() {
    check(
        "have c1
         credit c1 x2 warmed
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2, deliver a2 to c1
         started a1 c1
         action r1 timeout 5s
         wait 129999ms -> silent c1
         wait 1ms -> silent c1, failed a1 to k1 whisk: \
          The activation may have started; its invoker 1 did not answer within 130000 ms.,\
          remove c1, failed a2 to k1 whisk: The activation may have started; its invoker 1 did not answer within 130000 ms.
         completed a1 c1 +1 -> ack a1 to i1, remove c1",
    );
}

#[test]
fn queue_whose_work_is_done_has_no_deadline_for_silence() {
    check(
        "tick
         granted 1 c1
         credit c1
         submit a1 -> accepted a1, deliver a1 to c1
         completed a1 c1 +1 -> done a1 to k1
         received a1 -> ack a1 to i1
         wait 71s -> nothing
         never due",
    );
}

#[test]
fn average_is_that_of_the_samples_whoever_reports_them() {
    check(
        "average None
         sampled 10ms
         sampled 30ms
         average Some(20.0)",
    );
}
