//! Invokers, streams and leaders that come and go.

use crate::rig::check;

#[test]
fn lost_invoker_ends_what_it_had_at_once() {
    check(
        "have c1 c21
         credit c1 x2 -> nothing
         credit c21 -> nothing
         submit a1 -> accepted a1, deliver a1 to c21
         submit a2 -> accepted a2, deliver a2 to c1
         submit a3 -> accepted a3, deliver a3 to c1
         started a2 c1
         gone i1 -> failed a2 to k1 whisk: The activation may have started on invoker 1\\, which was lost.,\
          failed a3 to k1 whisk: The activation may have started on invoker 1\\, which was lost.
         completed a1 c21 -> done a1 to k1",
    );
}

#[test]
fn removed_container_gives_its_invoker_time_to_tell() {
    check(
        "have c1 c2
         credit c1 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         removed c1
         wait 9s -> nothing
         completed a1 c1 -> done a1 to k1
         credit c2 -> nothing
         submit a2 -> accepted a2, deliver a2 to c2
         removed c2
         wait 10s -> failed a2 to k1 whisk: The activation may have started in container c1-2\\, which was removed.",
    );
}

#[test]
fn reopened_stream_settles_what_the_old_one_lost() {
    check(
        "have c1 c2
         credit c1 x3 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2, deliver a2 to c1
         submit a3 -> accepted a3, deliver a3 to c1
         started a3 c1
         disconnected i1
         credit c2 -> nothing
         register i1 c1 has a1 asks 0, c2 has asks 0 -> \
          failed a3 to k1 whisk: The activation may have started on invoker 1\\, which has lost it.
         credit c2 -> deliver a2 to c2
         completed a1 c1 -> done a1 to k1",
    );
}

#[test]
fn disconnected_invoker_gets_nothing_until_it_registers() {
    check(
        "have c1
         credit c1 x2 -> nothing
         disconnected i1
         submit a1 -> accepted a1
         register i1 c1 has asks 1 -> deliver a1 to c1
         submit a2 -> accepted a2",
    );
}

#[test]
fn register_on_a_stream_in_use_takes_nothing_away() {
    check(
        "have c1
         credit c1 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         register i1 c1 has asks 1 -> nothing
         submit a2 -> accepted a2
         completed a1 c1 -> done a1 to k1",
    );
}

#[test]
fn fenced_queue_takes_and_gives_nothing_and_goes_on_afterwards() {
    check(
        "have c1 c21
         credit c1 x2 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2, deliver a2 to c1
         submit a3 -> accepted a3
         fence
         submit a4 -> rejected a4 unavailable
         credit c21 -> nothing
         completed a1 c1 -> done a1 to k1
         gone i1 -> nothing
         never due
         unfence -> failed a2 to k1 whisk: The activation may have started on invoker 1\\, which was lost.,\
          deliver a3 to c21",
    );
}

#[test]
fn resubmitted_ones_wait_for_all_invokers_and_fresh_ones_do_not() {
    check(
        "takeover i1 i2 with c1 c21
         submit a1 attempt 2 -> accepted a1
         submit a2 attempt 2 -> accepted a2
         submit a3 attempt 2 -> accepted a3
         register i1 c1 has a1 asks 2 -> nothing
         submit a4 -> accepted a4, deliver a4 to c1
         register i2 c21 has asks 0 unacked a2 -> done a2 to k1, deliver a3 to c1
         completed a1 c1 -> done a1 to k1
         received a2 -> ack a2 to i2",
    );
}

#[test]
fn what_invokers_report_first_is_found_by_the_resubmission() {
    check(
        "takeover i1 with c1
         register i1 c1 has a1 asks 1 unacked a2 -> nothing
         submit a1 attempt 2 -> accepted a1
         submit a2 attempt 2 -> accepted a2, done a2 to k1
         completed a1 c1 -> done a1 to k1",
    );
}

#[test]
fn adopted_one_that_is_refused_after_all_is_found_new() {
    check(
        "takeover i1 with c1
         register i1 c1 has a1 asks 0 -> nothing
         refused a1 c1
         submit a1 attempt 2 -> accepted a1",
    );
}

#[test]
fn invoker_lost_before_it_registered_makes_resubmissions_possibly_started() {
    check(
        "takeover i1 i2 with c1 c21
         submit a1 attempt 2 -> accepted a1
         submit a2 attempt 2 -> accepted a2
         gone i2 -> nothing
         register i1 c1 has a1 asks 5 -> \
          failed a2 to k1 whisk: The activation may have started on invoker 2\\, which was lost.
         submit a3 attempt 2 -> accepted a3,\
          failed a3 to k1 whisk: The activation may have started on invoker 2\\, which was lost.
         submit a4 -> accepted a4, deliver a4 to c1",
    );
}

#[test]
fn invoker_lost_with_the_former_leader_counts_too() {
    check(
        "takeover lost i7
         submit a1 attempt 2 -> accepted a1,\
          failed a1 to k1 whisk: The activation may have started on invoker 7\\, which was lost.
         submit a2 -> accepted a2",
    );
}

#[test]
fn lost_invoker_counts_only_as_long_as_the_sdk_submits_what_it_had() {
    check(
        "takeover lost i7
         have c1
         credit c1 x2 -> nothing
         wait 659s -> nothing
         submit a1 attempt 2 -> accepted a1,\
          failed a1 to k1 whisk: The activation may have started on invoker 7\\, which was lost.
         received a1 -> nothing
         wait 1s -> nothing
         submit a2 attempt 2 -> accepted a2, deliver a2 to c1",
    );
}

#[test]
fn takeover_of_an_idle_queue_asks_for_nothing() {
    check(
        "takeover
         tick -> nothing
         submit a1 attempt 2 -> accepted a1
         tick -> reserve 1",
    );
}

#[test]
fn no_container_is_asked_for_before_invokers_registered_or_a_second_passed() {
    check(
        "takeover i1 i2
         submit a1 -> accepted a1
         wait 999ms -> nothing
         wait 1ms -> reserve 1",
    );
    check(
        "takeover i1
         submit a1 -> accepted a1
         wait 100ms -> nothing
         register i1 -> nothing
         tick -> reserve 1",
    );
}

#[test]
fn asks_of_a_new_container_are_not_counted_twice_by_a_late_register() {
    check(
        "takeover i1 with c1
         granted 0 c2
         credit c2 -> nothing
         submit a1 -> accepted a1, deliver a1 to c2
         register i1 c1 has asks 0, c2 has asks 1 -> nothing
         submit a2 -> accepted a2
         completed a1 c2 -> done a1 to k1",
    );
}

#[test]
fn adopted_one_that_its_invoker_lost_is_not_run_again() {
    check(
        "takeover i1 with c1
         register i1 c1 has a1 asks 0 -> nothing
         submit a1 attempt 2 -> accepted a1
         disconnected i1
         register i1 c1 has asks 1 -> \
          failed a1 to k1 whisk: The activation may have started on invoker 1\\, which has lost it.",
    );
}
