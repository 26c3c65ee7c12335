//! Accepting, handing out, finishing.

use crate::rig::check;

#[test]
fn waiting_container_is_served_at_once() {
    check(
        "have c1
         credit c1        -> nothing
         submit a1        -> accepted a1, deliver a1 to c1
         submit a2        -> accepted a2
         started a1 c1    -> nothing
         completed a1 c1  -> done a1 to k1
         received a1      -> ack a1 to i1
         credit c1        -> deliver a2 to c1",
    );
}

#[test]
fn completion_with_credits_pulls_the_next() {
    check(
        "have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         submit a2           -> accepted a2
         completed a1 c1 +1  -> done a1 to k1, deliver a2 to c1",
    );
}

#[test]
fn order_is_that_of_arrival_and_several_asks_are_one_container() {
    check(
        "have c1
         submit a1 -> accepted a1
         submit a2 -> accepted a2
         submit a3 -> accepted a3
         credit c1 x2 -> deliver a1 to c1, deliver a2 to c1
         credit c1 x2 -> deliver a3 to c1
         submit a4 -> accepted a4, deliver a4 to c1",
    );
}

#[test]
fn warmed_containers_come_first_then_the_highest_id() {
    check(
        "have c1 c2 c3
         credit c1 warmed -> nothing
         credit c2 -> nothing
         credit c3 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2, deliver a2 to c3
         submit a3 -> accepted a3, deliver a3 to c2",
    );
}

#[test]
fn withdrawn_asks_get_nothing() {
    check(
        "have c1
         credit c1 x3 -> nothing
         withdraw c1  -> withdrawn c1
         submit a1    -> accepted a1",
    );
}

#[test]
fn unknown_container_is_ended() {
    check(
        "credit c9 -> remove c9
         submit a1 -> accepted a1",
    );
}

#[test]
fn refused_activation_goes_back_to_its_place() {
    check(
        "have c1 c2
         credit c1 x2 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2, deliver a2 to c1
         submit a3 -> accepted a3
         refused a1 c1 -> nothing
         refused a2 c1 -> nothing
         credit c2 x3 -> deliver a1 to c2, deliver a2 to c2, deliver a3 to c2",
    );
}

#[test]
fn refusal_by_a_container_that_does_not_have_it_is_ignored() {
    check(
        "have c1 c2
         credit c1 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         refused a1 c2 -> nothing
         credit c2 -> nothing
         refused a1 c1 -> deliver a1 to c2",
    );
}

#[test]
fn after_the_fifth_refusal_there_is_a_pause() {
    check(
        "have c1
         submit a1 -> accepted a1
         credit c1 -> deliver a1 to c1
         refused a1 c1 -> nothing
         credit c1 -> deliver a1 to c1
         refused a1 c1 -> nothing
         credit c1 -> deliver a1 to c1
         refused a1 c1 -> nothing
         credit c1 -> deliver a1 to c1
         refused a1 c1 -> nothing
         credit c1 -> deliver a1 to c1
         refused a1 c1 -> nothing
         credit c1 -> deliver a1 to c1
         refused a1 c1 -> nothing
         credit c1 -> nothing
         wait 99ms -> nothing
         wait 1ms -> deliver a1 to c1
         refused a1 c1 -> nothing
         credit c1 -> nothing
         wait 200ms -> deliver a1 to c1",
    );
}

#[test]
fn what_was_started_is_not_given_back() {
    check(
        "have c1
         credit c1 x2 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         started a1 c1 -> nothing
         refused a1 c1 -> failed a1 to k1 whisk: The invoker gave the activation back after its start.",
    );
}

#[test]
fn draining_queue_takes_and_gives_nothing_new_and_goes_on_if_it_stays() {
    check(
        "have c1
         credit c1 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2
         drain -> nothing
         state Draining
         submit a3 -> rejected a3 draining
         submit a3 attempt 2 -> rejected a3 draining
         submit a2 attempt 2 -> accepted a2
         completed a1 c1 +1 -> done a1 to k1
         submit a1 attempt 2 -> accepted a1, done a1 to k1
         wait 30s -> nothing
         undrain -> deliver a2 to c1
         submit a3 -> accepted a3
         state Running",
    );
}

#[test]
fn retention_ends_while_draining_too() {
    check(
        "started-up
         submit a1 -> accepted a1
         drain
         wait 59999ms -> nothing
         wait 1ms -> failed a1 to k1 whisk: Activation processing is not initiated for 60000 ms",
    );
}

#[test]
fn idle_queue_that_drains_is_not_removed_meanwhile() {
    check(
        "started-up
         drain
         wait 3600s -> nothing
         undrain
         wait 1ms -> remove queue
         state Removed",
    );
}

#[test]
fn deleted_action_lets_what_runs_finish_and_nothing_begin() {
    check(
        "have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         submit a2           -> accepted a2
         action r2 deleted   -> failed a2 to k1 developer: The action was deleted before the activation began.
         submit a3           -> rejected a3 no-queue
         completed a1 c1 +1  -> remove c1, done a1 to k1
         removed c1
         received a1         -> ack a1 to i1
         received a2
         wait 99ms           -> nothing
         wait 1ms            -> remove queue
         removal-failed
         wait 99ms           -> nothing
         wait 1ms            -> remove queue",
    );
}

#[test]
fn delivery_given_back_after_its_action_was_deleted_ends() {
    check(
        "have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         action r2 deleted   -> nothing
         refused a1 c1       -> remove c1, failed a1 to k1 developer: The action was deleted before the activation began.",
    );
}

#[test]
fn action_stored_again_before_its_queue_has_gone_serves_on() {
    check(
        "have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         action r2 deleted   -> nothing
         action r3           -> nothing
         submit a2           -> accepted a2
         completed a1 c1 +1  -> remove c1, done a1 to k1
         removed c1
         tick                -> reserve 1",
    );
}

#[test]
fn queue_of_a_deleted_action_still_adopts_what_runs_before_it_goes() {
    check(
        "takeover i1 with c1
         action r2 deleted   -> remove c1
         submit a1 attempt 2 -> accepted a1
         submit a2 attempt 2 -> accepted a2
         submit a3           -> rejected a3 no-queue
         register i1 c1 has a1 asks 0 -> failed a2 to k1 developer: The action was deleted before the activation began.
         submit a4 attempt 2 -> rejected a4 no-queue
         completed a1 c1     -> remove c1, done a1 to k1",
    );
}

#[test]
fn an_end_without_a_record_keeps_its_time() {
    check(
        "have c1
         credit c1        -> nothing
         wait 2s          -> nothing
         submit a1        -> accepted a1, deliver a1 to c1
         submit a2        -> accepted a2
         wait 5s          -> reserve 1
         gone i1          -> failed a1 to k1 whisk: The activation may have started on invoker 1\\, which was lost.
         times a1 2s 7s
         action r2 deleted -> failed a2 to k1 developer: The action was deleted before the activation began.
         wait 3s          -> nothing
         times a2 7s 7s
         times a1 2s 7s",
    );
}

#[test]
fn results_that_an_invoker_keeps_are_waited_for_however_long_its_container_has_ended() {
    check(
        "started-up
         have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         started a1 c1
         ended c1
         wait 60s            -> nothing
         completed a1 c1     -> done a1 to k1",
    );
    check(
        "started-up
         have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         started a1 c1
         ended c1
         wait 20s            -> nothing
         removed c1
         wait 9999ms         -> nothing
         wait 1ms            -> failed a1 to k1 whisk: The activation may have started in container c1-1\\, which was removed.",
    );
}

#[test]
fn queue_of_a_deleted_action_stays_while_outcomes_can_be_asked_for() {
    check(
        "have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         completed a1 c1     -> done a1 to k1
         action r2 deleted   -> remove c1
         removed c1
         wait 60s            -> ack a1 to i1
         wait 1s             -> nothing
         submit a1           -> accepted a1, done a1 to k1",
    );
}
