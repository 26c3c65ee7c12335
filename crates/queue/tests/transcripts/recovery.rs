//! Durable activations after a change of leader: what the journal has, what invokers say, in any order.

use crate::rig::check;

const LOST: &str = "The activation may have started on invoker 1\\, which was lost.";

#[test]
fn recovered_ones_are_held_back_until_every_invoker_has_registered() {
    check(
        "takeover recovering i1 i2 with c1 c21
         recovered a1 a2 a3         -> nothing
         why held-back
         register i1 c1 has a2 asks 1 -> nothing
         submit a9                  -> accepted a9, deliver a9 to c1
         register i2 c21 has asks 2 -> deliver a1 to c21, deliver a3 to c21
         completed a2 c1            -> journal end done a2
         journal a2 written         -> ack a2 to i1
         submit a1 durable attempt 2 -> accepted a1",
    );
}

#[test]
fn recovered_ones_have_the_place_of_their_first_acceptance() {
    check(
        "wait 100s
         takeover recovering i1 with c1
         recovered a1:1::5s a2:1::9s a3:1::7s
         submit a9                  -> accepted a9
         register i1 c1 has asks 4  -> deliver a2 to c1, deliver a3 to c1, deliver a1 to c1, deliver a9 to c1",
    );
}

#[test]
fn older_than_the_clock_can_say_they_still_come_in_order() {
    check(
        "takeover recovering i1 with c1
         recovered a1:1::50s a2:1::90s a3:1::70s
         register i1 c1 has asks 4  -> deliver a2 to c1, deliver a3 to c1, deliver a1 to c1",
    );
}

#[test]
fn nobody_expected_means_nobody_has_it() {
    check(
        "takeover recovering
         recovered a1:2             -> nothing
         why deciding
         have c1
         credit c1                  -> deliver a1 to c1 run 2
         completed a1 c1 run 2      -> journal end done a1 run 2
         journal a1 written         -> ack a1 to i1
         holds 0",
    );
}

#[test]
fn pause_before_a_run_holds_across_the_change() {
    check(
        "takeover recovering i1 with c1
         recovered a1:3:40s a2:1    -> nothing
         register i1 c1 has asks 2  -> deliver a2 to c1
         find a1 delayed
         wait 39999ms               -> silent c1
         wait 1ms                   -> deliver a1 to c1 run 3",
    );
}

#[test]
fn delay_that_ends_while_invokers_are_awaited_holds_on() {
    check(
        "takeover recovering i1 with c1
         recovered a1:1:1s          -> nothing
         wait 2s                    -> nothing
         why held-back
         register i1 c1 has a1 asks 0 -> nothing
         completed a1 c1            -> journal end done a1",
    );
}

#[test]
fn results_that_came_before_the_journal_was_read_go_into_it() {
    check(
        "takeover recovering i1 with c1
         register i1 c1 has a2 asks 0 unacked a1 a4 -> nothing
         wait 90s                   -> nothing
         recovered a1 a2            -> journal end done a1
         journal a1 written         -> ack a1 to i1
         completed a2 c1            -> journal end done a2
         wait 1s                    -> ack a4 to i1",
    );
}

#[test]
fn failed_result_that_was_kept_leads_to_the_next_run() {
    check(
        "takeover recovering i1 with c1
         action r1 runs 3 backoff 10s
         register i1 c1 has asks 1 unacked a1:1:failed -> nothing
         recovered a1               -> journal retry a1 run 2 at 10380ms
         journal a1 written         -> ack a1 to i1
         wait 12s                   -> deliver a1 to c1 run 2",
    );
}

#[test]
fn kept_result_of_an_older_run_is_only_acknowledged() {
    check(
        "takeover recovering i1 with c1
         recovered a1:2             -> nothing
         register i1 c1 has asks 1 unacked a1:1:failed -> ack a1 to i1, deliver a1 to c1 run 2",
    );
    check(
        "takeover recovering i1 with c1
         register i1 c1 has asks 1 unacked a1:1:failed -> nothing
         recovered a1:2             -> ack a1 to i1, deliver a1 to c1 run 2",
    );
}

#[test]
fn invoker_that_turns_out_to_have_an_older_run_gives_way_to_the_next() {
    check(
        "takeover recovering i1 with c1
         recovered a1:2             -> nothing
         register i1 c1 has a1 asks 1 -> nothing
         find a1 started
         completed a1 c1 failed     -> ack a1 to i1, deliver a1 to c1 run 2",
    );
}

#[test]
fn run_that_ended_before_the_journal_was_read_is_the_one_of_its_record() {
    check(
        "takeover recovering i1 with c1
         register i1 c1 has a1 asks 1 -> nothing
         completed a1 c1 run 2 failed -> nothing
         recovered a1:2             -> journal end done a1 run 2
         journal a1 written         -> ack a1 to i1",
    );
}

#[test]
fn possibly_started_with_a_lost_invoker_ends_or_runs_again_if_wished() {
    check(&format!(
        "takeover recovering i1 with c1
         recovered a1               -> nothing
         gone i1                    -> journal end failed a1 whisk: {LOST}
         journal a1 written         -> nothing"
    ));
    check(&format!(
        "takeover recovering lost i1
         recovered a1               -> journal end failed a1 whisk: {LOST}"
    ));
    check(
        "takeover recovering i1 with c1
         action r1 on-loss
         recovered a1               -> nothing
         gone i1                    -> journal retry a1 run 2 at 0ms
         have c21
         credit c21                 -> nothing
         journal a1 written         -> deliver a1 to c21 run 2",
    );
    check(&format!(
        "takeover recovering i1 with c1
         register i1 c1 has a1 asks 0 -> nothing
         gone i1                    -> nothing
         recovered a1               -> journal end failed a1 whisk: {LOST}"
    ));
}

#[test]
fn what_was_new_to_the_journal_cannot_have_begun() {
    check(
        "takeover recovering lost i1
         recovered                  -> nothing
         have c21
         credit c21                 -> nothing
         submit a1 durable attempt 2 -> journal a1
         journal a1 written         -> accepted a1, deliver a1 to c21",
    );
}

#[test]
fn recovered_ones_of_a_deleted_action_end_in_the_journal() {
    check(
        "takeover recovering
         action r2 deleted
         recovered a1 a2:1:90s      -> journal end failed a1 developer: The action was deleted before the activation began., journal end failed a2 developer: The action was deleted before the activation began.
         journal a1 written         -> nothing
         journal a2 written         -> nothing
         wait 1s                    -> remove queue",
    );
}

#[test]
fn change_of_leader_in_the_middle_of_an_acceptance_loses_and_doubles_nothing() {
    // The old leader's entry was written: the controller asks again and joins what was recovered.
    check(
        "takeover recovering
         recovered a1               -> nothing
         have c1
         credit c1                  -> deliver a1 to c1
         submit a1 durable attempt 2 -> accepted a1
         completed a1 c1            -> journal end done a1
         journal a1 written         -> ack a1 to i1, done a1 to k1",
    );
    // It was not: the activation is new.
    check(
        "takeover recovering
         recovered
         submit a1 durable attempt 2 -> journal a1
         journal a1 written         -> accepted a1",
    );
}

#[test]
fn change_of_leader_in_the_middle_of_an_end_keeps_the_first_outcome() {
    // The end was written: the invoker still keeps the record, and the journal has the last word.
    check(
        "takeover recovering i1 with c1
         recovered                  -> nothing
         register i1 c1 has asks 0 unacked a1 -> nothing
         submit a1 durable attempt 2 -> accepted a1, journal end done a1
         journal a1 ended           -> ack a1 to i1, done a1 to k1",
    );
    // It was not: the record comes from the invoker once more.
    check(
        "takeover recovering i1 with c1
         recovered a1               -> nothing
         register i1 c1 has asks 0 unacked a1 -> journal end done a1
         submit a1 durable attempt 2 -> accepted a1
         journal a1 written         -> ack a1 to i1, done a1 to k1",
    );
}

#[test]
fn held_back_durable_ones_outlast_the_retention_of_calls() {
    check(
        "takeover recovering i1 with c1
         recovered a1               -> nothing
         submit a2 attempt 2        -> accepted a2
         wait 60s                   -> failed a2 to k1 whisk: The activation may have started before its queue moved; no invoker could tell in time.
         find a1 waiting
         wait 86339s                -> nothing
         wait 1s                    -> journal end failed a1 whisk: The activation may have started before its queue moved; no invoker could tell in time.",
    );
}

#[test]
fn durable_submission_waits_until_the_journal_was_read() {
    check(
        "takeover recovering i1 with c1
         submit a1 durable attempt 2 -> rejected a1 unavailable
         register i1 c1 has a1 asks 0 -> nothing
         submit a1 durable attempt 3 -> rejected a1 unavailable
         submit a9                  -> accepted a9
         recovered a1               -> nothing
         submit a1 durable attempt 4 -> accepted a1
         submit a2 durable          -> journal a2
         completed a1 c1            -> journal end done a1",
    );
}

#[test]
fn one_in_flight_whose_acceptance_is_asked_for_is_not_run_a_second_time() {
    check(
        "takeover recovering i1 with c1 c2
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         register i1 c1 has a1 asks 0, c2 has asks 1 -> nothing
         journal a1 open 2          -> accepted a1
         find a1 started
         completed a1 c1 run 2      -> journal end done a1 run 2
         journal a1 written         -> ack a1 to i1, done a1 to k1 run 2",
    );
    // It is lost before the journal answers.
    check(
        "takeover recovering i1 with c1
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         register i1 c1 has a1 asks 0 -> nothing
         gone i1                    -> nothing
         journal a1 open 1          -> accepted a1, journal end failed a1 whisk: The activation may have started in container c1-1\\, which was removed.",
    );
    // Its caller has cancelled it meanwhile.
    check(
        "takeover recovering i1 with c1
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         cancel a1                  -> nothing
         register i1 c1 has a1 asks 0 -> nothing
         journal a1 open 1          -> accepted a1, stop a1 in c1, mark a1
         marked a1                  -> answer 1 stopping",
    );
}

#[test]
fn record_of_one_whose_acceptance_is_asked_for_is_its_end() {
    check(
        "takeover recovering i1 with c1
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         register i1 c1 has asks 1 unacked a1 -> nothing
         journal a1 open 1          -> accepted a1, journal end done a1
         journal a1 written         -> ack a1 to i1, done a1 to k1",
    );
    // Of an older run it is only acknowledged.
    check(
        "takeover recovering i1 with c1
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         register i1 c1 has asks 1 unacked a1:1:failed -> nothing
         journal a1 open 2          -> accepted a1, ack a1 to i1, deliver a1 to c1 run 2",
    );
    // The invoker has it before the journal answers.
    check(
        "takeover recovering i1 with c1 c2
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         register i1 c1 has a1 asks 0, c2 has asks 1 -> nothing
         completed a1 c1            -> nothing
         journal a1 written         -> accepted a1, journal end done a1",
    );
}

#[test]
fn what_invokers_said_stays_known_when_the_journal_takes_nothing() {
    check(
        "takeover recovering i1 with c1 c2
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         submit a2 durable attempt 2 -> journal a2
         register i1 c1 has a1 asks 0, c2 has asks 2 unacked a2 -> nothing
         journal a1 unknown         -> rejected a1 unavailable
         journal a2 unknown         -> rejected a2 unavailable
         submit a1 durable attempt 3 -> accepted a1
         submit a2 durable attempt 3 -> accepted a2, journal end done a2
         completed a1 c1            -> journal end done a1",
    );
    check(
        "takeover recovering i1 with c1
         recovered                  -> nothing
         submit a1 durable attempt 2 -> journal a1
         register i1 c1 has asks 0 unacked a1 -> nothing
         journal a1 expired         -> rejected a1 invalid, ack a1 to i1",
    );
}

#[test]
fn one_in_flight_twice_does_not_begin_anew_while_the_other_may_run() {
    // The older run turns up first.
    check(
        "takeover recovering i1 i2 with c1 c21
         recovered a1:2             -> nothing
         register i1 c1 has a1 asks 1 -> nothing
         register i2 c21 has a1 asks 1 -> nothing
         completed a1 c1 failed     -> ack a1 to i1
         find a1 started
         completed a1 c21 run 2     -> journal end done a1 run 2",
    );
    check(
        "takeover recovering i1 i2 with c1 c21
         recovered a1:2             -> nothing
         register i1 c1 has a1 asks 1 -> nothing
         register i2 c21 has a1 asks 0 -> nothing
         refused a1 c1              -> nothing
         refused a1 c21             -> deliver a1 to c1 run 2",
    );
    check(
        "takeover recovering i1 i2 with c1 c21
         recovered a1:2             -> nothing
         register i1 c1 has a1 asks 1 -> nothing
         register i2 c21 has a1 asks 0 -> nothing
         refused a1 c21             -> nothing
         refused a1 c1              -> deliver a1 to c1 run 2",
    );
}

#[test]
fn one_in_flight_twice_is_lost_with_the_last_that_had_it() {
    check(
        "takeover recovering i1 i2 with c1 c21
         action r1 on-loss
         recovered a1:2             -> nothing
         register i1 c1 has a1 asks 0 -> nothing
         register i2 c21 has a1 asks 1 -> nothing
         gone i1                    -> nothing
         find a1 started
         completed a1 c21 run 2     -> journal end done a1 run 2",
    );
    // The one that went may have had the run under way.
    for (first, second) in [
        ("gone i1", "refused a1 c21"),
        ("gone i2", "refused a1 c1"),
        ("gone i1", "completed a1 c21 failed"),
    ] {
        check(&format!(
            "takeover recovering i1 i2 with c1 c21
             recovered a1:2             -> nothing
             register i1 c1 has a1 asks 1 -> nothing
             register i2 c21 has a1 asks 1 -> nothing
             {first}                    -> nothing
             {second}
             find a1 ending"
        ));
    }
}

#[test]
fn what_came_before_the_journal_was_read_may_be_of_an_older_run() {
    let rest = "recovered a1:2             -> ack a1 to i1
         find a1 started
         submit a2 attempt 2        -> accepted a2, deliver a2 to c1
         completed a1 c21 run 2     -> journal end done a1 run 2";
    for before in [
        "register i1 c1 has asks 1 unacked a1:1:failed
         register i2 c21 has a1 asks 0",
        "register i2 c21 has a1 asks 0
         register i1 c1 has asks 1 unacked a1:1:failed",
        "register i1 c1 has a1 asks 0
         register i2 c21 has a1 asks 0
         completed a1 c1 failed +1",
        "register i1 c1 has a1 asks 0
         register i2 c21 has a1 asks 0
         completed a1 c1 failed +1
         submit a1 durable attempt 2 -> rejected a1 unavailable",
    ] {
        check(&format!(
            "takeover recovering i1 i2 with c1 c21\n{before}\n{rest}"
        ));
    }
    // The later run ends before the journal was read, too.
    check(
        "takeover recovering i1 i2 with c1 c21
         register i1 c1 has asks 1 unacked a1:1:failed -> nothing
         register i2 c21 has asks 1 unacked a1:2 -> ack a1 to i1
         recovered a1:2             -> journal end done a1 run 2
         journal a1 written         -> ack a1 to i2",
    );
}

/// Everything of former leaders has been read: what the journal has open and this queue does not know is of this leadership.
#[test]
fn acceptance_without_an_answer_was_sent_to_nobody_that_is_lost() {
    check(
        "takeover recovering lost i7
         recovered a1                -> journal end failed a1 whisk: The activation may have started on invoker 7\\, which was lost.
         submit a2 durable           -> journal a2
         journal a2 unknown          -> rejected a2 unavailable
         submit a2 durable attempt 2 -> journal a2
         journal a2 open 1           -> accepted a2
         find a2 waiting",
    );
}

/// Its time came while nobody led the queue: that it was accepted long before is no reason to end it.
#[test]
fn a_delay_that_ended_long_after_the_acceptance_is_no_age() {
    check(
        "wait 100000s
         takeover recovering i1 with c1
         recovered a1:1::90000s::5s a2:1::90000s -> nothing
         register i1 c1 has asks 0   -> nothing
         tick -> journal end failed a2 whisk: Activation processing is not initiated for 86400000 ms
         find a1 waiting",
    );
}
