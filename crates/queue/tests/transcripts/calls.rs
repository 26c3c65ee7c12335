//! Activations that call others of the same queue, or of others, and keep their containers meanwhile.

use crate::rig::check;

#[test]
fn calls_that_wait_for_their_own_callers_are_refused_in_time() {
    check(
        "have c1 c2
         credit c1
         credit c2
         submit a1..a2
         started a1 c2
         started a2 c1
         wait 1s limit 2 running 2
         submit a3 by a1 -> accepted a3
         submit a4 by a2 -> accepted a4
         wait 100ms limit 2 running 2 -> starved
         why namespace-limit
         wait 749ms limit 2 running 2 -> nothing
         wait 1ms limit 2 running 2 -> failed a3 to k1 developer: Too many concurrent requests in flight.,\
          failed a4 to k1 developer: Too many concurrent requests in flight.
         submit a5 -> accepted a5
         completed a1 c2 +1 -> done a1 to k1, deliver a5 to c2",
    );
}

#[test]
fn deep_recursion_is_refused_at_its_deepest_level_only() {
    check(
        "have c1 c2
         credit c1
         credit c2
         submit a1
         submit a2 by a1 -> accepted a2, deliver a2 to c1
         submit a3 by a2 -> accepted a3
         wait 900ms limit 2 running 2 -> starved, failed a3 to k1 developer: Too many concurrent requests in flight.
         completed a2 c1 +1 -> done a2 to k1
         completed a1 c2 +1 -> done a1 to k1",
    );
}

#[test]
fn calls_wait_while_one_container_works_for_itself() {
    check(
        "have c1 c2
         credit c1
         credit c2
         submit a1..a2
         submit a3 by a1 -> accepted a3
         wait 59s limit 2 running 2
         completed a2 c1 +1 -> done a2 to k1, deliver a3 to c1",
    );
}

#[test]
fn what_nobody_called_goes_on_waiting() {
    check(
        "have c1
         credit c1
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2
         submit a3 by a1 -> accepted a3
         wait 900ms limit 1 running 1 -> starved, failed a3 to k1 developer: Too many concurrent requests in flight.
         wait 900ms limit 1 running 1 -> nothing
         completed a1 c1 +1 -> done a1 to k1, deliver a2 to c1",
    );
}

#[test]
fn limit_of_the_action_makes_a_knot_too() {
    check(
        "action r1 instances 1
         have c1
         credit c1
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 by a1 -> accepted a2
         wait 900ms limit 9 running 1 -> starved, failed a2 to k1 developer: Too many concurrent requests in flight.",
    );
}

#[test]
fn namespace_with_room_is_no_knot() {
    check(
        "have c1
         credit c1
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 by a1 -> accepted a2
         wait 100ms limit 2 running 1 -> reserve 1
         wait 900ms limit 2 running 2 -> nothing
         granted 1 c2
         credit c2 -> deliver a2 to c2",
    );
}

#[test]
fn calls_over_other_queues_are_judged_by_all() {
    check(
        "have c1
         credit c1
         submit a1 -> accepted a1, deliver a1 to c1
         tick limit 2 running 2 -> nothing
         submit a3 by a2 -> accepted a3
         wait 100ms limit 2 running 2 -> entangled
         unknotted -> nothing
         wait 100ms limit 2 running 2 -> entangled
         knotted -> nothing
         due now
         tick limit 2 running 2 -> entangled, starved
         knotted -> nothing
         wait 100ms limit 2 running 2 -> entangled
         unknotted
         wait 100ms limit 2 running 2 -> entangled
         knotted
         tick limit 2 running 2 -> entangled, starved",
    );
}

#[test]
fn progress_begins_the_wait_anew() {
    check(
        "have c1
         credit c1
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 by a1
         submit a3 by a1
         wait 700ms limit 1 running 1 -> starved
         completed a1 c1 +1 -> done a1 to k1, deliver a2 to c1
         wait 700ms limit 1 running 1
         completed a2 c1 +1 -> done a2 to k1, deliver a3 to c1",
    );
}
