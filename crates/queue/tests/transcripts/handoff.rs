//! A queue that moves: the new leader goes on where the old one stopped.

use crate::rig::check;

#[test]
fn what_waits_is_delivered_at_once_and_in_order() {
    check(
        "have c1
         submit a1..a3          -> accepted a1..a3
         credit c1              -> deliver a1 to c1
         started a1 c1
         drain
         wait 1s                -> nothing
         handoff i1 i2 with c1 c21 -> nothing
         register i2 c21 has asks 1 -> deliver a2 to c21
         submit a3 attempt 2    -> accepted a3
         register i1 c1 has a1 asks 0 -> nothing
         completed a1 c1 +1     -> done a1 to k1, deliver a3 to c1",
    );
}

#[test]
fn in_flight_ones_are_settled_by_what_their_invoker_says() {
    check(
        "have c1 c2 c3
         action r1
         submit a1..a4          -> accepted a1..a4
         credit c1              -> deliver a1 to c1
         credit c2              -> deliver a2 to c2
         credit c3              -> deliver a3 to c3
         started a2 c2
         drain
         handoff i1 with c1 c2 c3 -> nothing
         register i1 c1 has asks 1, c2 has asks 0, c3 has asks 0 unacked a3 -> done a3 to k1, failed a2 to k1 whisk: The activation may have started on invoker 1\\, which has lost it., deliver a1 to c1",
    );
}

#[test]
fn one_that_its_invoker_has_may_have_started_whatever_the_former_leader_knew() {
    check(
        "have c1
         submit a1              -> accepted a1
         credit c1              -> deliver a1 to c1
         drain
         handoff i1 with c1     -> nothing
         register i1 c1 has a1 asks 0 -> nothing
         disconnected i1
         register i1 c1 has asks 0 -> failed a1 to k1 whisk: The activation may have started on invoker 1\\, which has lost it.",
    );
}

#[test]
fn in_flight_in_a_container_that_is_gone_is_waited_for_and_ends() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         drain
         handoff                -> nothing
         find a1 delivered
         wait 10s               -> failed a1 to k1 whisk: The activation may have started in container c1-1\\, which was removed.",
    );
}

#[test]
fn delays_retries_and_marks_move_along() {
    check(
        "have c1
         action r1 runs 3 backoff 10s
         credit c1 x2           -> nothing
         submit a1 durable at 60s -> journal a1 at 60000ms
         journal a1 written     -> accepted a1
         submit a2 durable      -> journal a2
         journal a2 open 2      -> accepted a2, deliver a2 to c1 run 2
         cancel a2              -> stop a2 in c1, mark a2
         marked a2              -> answer 1 stopping
         submit a3 durable      -> journal a3
         drain
         handoff i1 with c1     -> nothing
         recovered a1:1:60s a2:2 -> nothing
         find a3 nothing
         register i1 c1 has a2 asks 1 -> stop a2 in c1
         completed a2 c1 run 2 stopped -> journal end done a2 run 2
         journal a2 written     -> ack a2 to i1, done a2 to k1 run 2
         wait 59s               -> nothing
         wait 1s                -> deliver a1 to c1",
    );
}

#[test]
fn acceptance_that_was_under_way_is_what_the_journal_says() {
    check(
        "submit a1 durable      -> journal a1
         drain
         handoff                -> nothing
         recovered a1           -> nothing
         submit a1 durable attempt 2 -> accepted a1",
    );
}

#[test]
fn outcomes_that_are_owed_or_on_their_way_to_the_journal_move_along() {
    check(
        "have c1
         credit c1 x3           -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         completed a1 c1        -> done a1 to k1
         submit a2 durable      -> journal a2
         journal a2 written     -> accepted a2, deliver a2 to c1
         completed a2 c1        -> journal end done a2
         drain
         handoff i1 with c1     -> done a1 to k1, journal end done a2
         submit a1 attempt 2    -> accepted a1, done a1 to k1
         received a1            -> ack a1 to i1
         journal a2 ended       -> ack a2 to i1, done a2 to k1",
    );
}

#[test]
fn call_keeps_its_age() {
    check(
        "started-up
         submit a1              -> accepted a1
         wait 40s
         drain
         handoff                -> nothing
         wait 19999ms           -> reserve 1
         find a1 waiting
         wait 1ms               -> failed a1 to k1 whisk: Activation processing is not initiated for 60000 ms",
    );
}

#[test]
fn end_that_a_fenced_leader_has_only_noted_is_an_end() {
    check(
        "takeover recovering lost i1
         fence
         recovered a1           -> nothing
         submit a2              -> rejected a2 unavailable
         drain
         handoff                -> journal end failed a1 whisk: The activation may have started on invoker 1\\, which was lost.",
    );
    check(
        "have c1
         credit c1              -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         fence
         gone i1                -> nothing
         drain
         handoff                -> failed a1 to k1 whisk: The activation may have started on invoker 1\\, which was lost.",
    );
    check(
        "have c1
         credit c1              -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         cancel a1              -> stop a1 in c1, answer 1 stopping
         fence
         gone i1                -> nothing
         drain
         handoff                -> cancelled a1 to k1",
    );
}

#[test]
fn failed_run_whose_end_was_under_way_is_followed_by_another_under_the_new_leader() {
    check(
        "have c1
         action r1 runs 2
         credit c1 x2           -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         completed a1 c1 failed -> journal retry a1 run 2 at 1038ms
         drain
         handoff i1 with c1     -> journal end done a1
         journal a1 open 2      -> ack a1 to i1
         find a1 waiting",
    );
}
