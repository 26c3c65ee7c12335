//! One id, one run, one outcome.

use crate::rig::check;

#[test]
fn resubmission_of_a_known_id_is_not_a_second_run() {
    check(
        "have c1
         credit c1 x9 -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         submit a1 attempt 2 -> accepted a1
         completed a1 c1     -> done a1 to k1
         submit a1 attempt 3 -> accepted a1, done a1 to k1",
    );
}

#[test]
fn another_payload_under_the_same_id_is_a_conflict() {
    check(
        "submit a1 payload x           -> accepted a1
         submit a1 attempt 2 payload y -> rejected a1 conflict
         submit a1 attempt 2 payload x -> accepted a1",
    );
}

#[test]
fn every_controller_that_asked_is_answered_and_the_last_one_frees() {
    check(
        "have c1
         credit c1           -> nothing
         submit a1           -> accepted a1, deliver a1 to c1
         submit a1 from k2   -> accepted a1
         completed a1 c1     -> done a1 to k1, done a1 to k2
         received a1 from k2 -> nothing
         received a1 from k3 -> nothing
         received a1         -> ack a1 to i1",
    );
}

#[test]
fn received_id_is_remembered_and_forgotten_after_the_window() {
    check(
        "have c1
         credit c1 x2 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         completed a1 c1 -> done a1 to k1
         received a1 -> ack a1 to i1
         submit a1 attempt 2 -> rejected a1 invalid
         completed a1 c1 -> ack a1 to i1
         wait 59s
         submit a1 attempt 2 -> rejected a1 invalid
         wait 12s
         submit a1 attempt 2 -> accepted a1, deliver a1 to c1",
    );
}

#[test]
fn result_is_kept_for_its_controller_and_the_invoker_released_after_the_grace() {
    check(
        "have c1
         credit c1 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         completed a1 c1 -> done a1 to k1
         completed a1 c1 -> nothing
         wait 59s -> nothing
         wait 2s -> ack a1 to i1
         completed a1 c1 -> ack a1 to i1
         submit a1 attempt 2 -> accepted a1, done a1 to k1
         received a1 -> nothing",
    );
}

#[test]
fn too_many_owed_results_stop_new_work_and_none_is_dropped() {
    check(
        "settings results-max 2
         have c1
         credit c1 x4 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         submit a2 -> accepted a2, deliver a2 to c1
         submit a3 -> accepted a3, deliver a3 to c1
         completed a1 c1 -> done a1 to k1
         completed a2 c1 -> done a2 to k1
         completed a3 c1 -> done a3 to k1
         submit a4 -> rejected a4 throttled results 2
         submit a4 attempt 2 -> rejected a4 unavailable
         submit a1 attempt 2 -> accepted a1, done a1 to k1
         received a1 -> ack a1 to i1
         submit a4 -> rejected a4 throttled results 2
         received a2 -> ack a2 to i1
         submit a4 -> accepted a4, deliver a4 to c1",
    );
}

#[test]
fn what_waits_goes_on_waiting_until_results_are_received_or_their_grace_is_over() {
    check(
        "settings results-max 1
         have c1
         credit c1 -> nothing
         submit a1..a3 -> accepted a1, deliver a1 to c1, accepted a2, accepted a3
         completed a1 c1 +1 -> done a1 to k1
         wait 10s -> nothing
         received a1 -> ack a1 to i1, deliver a2 to c1
         completed a2 c1 +1 -> done a2 to k1",
    );
    check(
        "settings results-max 1
         have c1
         credit c1 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         completed a1 c1 -> done a1 to k1
         wait 61s -> ack a1 to i1
         credit c1
         submit a2 -> accepted a2, deliver a2 to c1",
    );
}

#[test]
fn result_dropped_past_its_grace_leaves_its_id_as_long_as_it_may_be_submitted_again() {
    check(
        "settings results-max 1
         settings unconfirmed-max 1
         have c1
         credit c1 x9 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         completed a1 c1 -> done a1 to k1
         wait 61s -> ack a1 to i1
         submit a2 -> accepted a2, deliver a2 to c1
         completed a2 c1 -> done a2 to k1
         received a2 -> ack a2 to i1
         submit a3 -> rejected a3 throttled results 1
         wait 598s -> nothing
         submit a1 attempt 2 -> rejected a1 invalid
         wait 2s -> nothing
         submit a3 -> accepted a3, deliver a3 to c1",
    );
}

#[test]
fn only_ids_that_every_controller_has_confirmed_are_forgotten_for_their_number() {
    check(
        "settings results-max 1
         settings dedup-max 1
         have c1
         credit c1 x9 -> nothing
         submit a1 -> accepted a1, deliver a1 to c1
         completed a1 c1 -> done a1 to k1
         wait 61s -> ack a1 to i1
         submit a2 -> accepted a2, deliver a2 to c1
         completed a2 c1 -> done a2 to k1
         received a2 -> ack a2 to i1
         submit a3 -> accepted a3, deliver a3 to c1
         completed a3 c1 -> done a3 to k1
         received a3 -> ack a3 to i1
         submit a1 attempt 2 -> rejected a1 invalid
         submit a3 attempt 2 -> rejected a3 invalid
         submit a2 -> accepted a2, deliver a2 to c1",
    );
}
