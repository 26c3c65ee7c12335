//! Durable activations: the journal before every answer.

use std::time::Duration;

use whiskraft_queue::QueueSettings;

use crate::rig::{check, check_with};

#[test]
fn durable_activation_is_accepted_and_ends_when_the_journal_says_so() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         find a1 journaling
         journal a1 written     -> accepted a1, deliver a1 to c1
         started a1 c1          -> nothing
         completed a1 c1 +1     -> journal end done a1
         find a1 ending
         submit a2              -> accepted a2, deliver a2 to c1
         journal a1 written     -> ack a1 to i1, done a1 to k1
         holds 1",
    );
}

#[test]
fn everybody_who_submits_meanwhile_is_answered_by_the_verdict() {
    check(
        "submit a1 durable                       -> journal a1
         submit a1 durable attempt 2             -> nothing
         submit a1 durable from k2               -> nothing
         submit a1 durable from k3 payload other -> rejected a1 conflict
         journal a1 written                      -> accepted a1, accepted a1
         submit a1 durable attempt 3             -> accepted a1
         submit a1                               -> accepted a1",
    );
}

#[test]
fn every_verdict_on_an_acceptance_has_its_answer() {
    check(
        "started-up
         have c1
         credit c1 x9               -> nothing
         submit a1 durable          -> journal a1
         journal a1 refused         -> rejected a1 draining
         submit a1 durable          -> journal a1
         journal a1 unknown         -> rejected a1 unavailable
         submit a1 durable          -> journal a1
         journal a1 open 1          -> accepted a1, deliver a1 to c1
         submit a2 durable          -> journal a2
         journal a2 conflict        -> rejected a2 conflict
         submit a3 durable          -> journal a3
         journal a3 expired         -> rejected a3 invalid
         submit a4 durable from k2  -> journal a4
         journal a4 ended           -> accepted a4, done a4 to k2
         submit a5 durable          -> journal a5
         journal a5 open 3          -> accepted a5, deliver a5 to c1 run 3
         journal a5 written         -> nothing
         journal a9 written         -> nothing
         holds 2",
    );
}

#[test]
fn who_asks_after_the_end_is_answered_by_the_journal() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         completed a1 c1        -> journal end done a1
         submit a1 durable from k2 -> accepted a1
         journal a1 written     -> ack a1 to i1, done a1 to k1, done a1 to k2
         received a1            -> nothing
         completed a1 c1        -> ack a1 to i1
         submit a1 durable attempt 2 -> journal a1
         completed a1 c1        -> nothing
         journal a1 ended       -> accepted a1, ack a1 to i1, done a1 to k1
         holds 0",
    );
}

#[test]
fn first_terminal_record_counts_even_if_another_leader_wrote_it() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         gone i1                -> journal end failed a1 whisk: The activation may have started on invoker 1\\, which was lost.
         completed a1 c1        -> ack a1 to i1
         journal a1 ended       -> done a1 to k1",
    );
}

#[test]
fn end_without_a_record_is_told_with_the_record_that_was_written() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         gone i1
         journal a1 recorded    -> done a1 to k1
         submit a2 durable      -> journal a2
         journal a2 written     -> accepted a2
         action r2 deleted      -> journal end failed a2 developer: The action was deleted before the activation began.
         journal a2 refused     -> failed a2 to k1 developer: The action was deleted before the activation began.",
    );
}

#[test]
fn acceptances_under_way_count_as_waiting_for_the_limit() {
    check(
        "settings len-max 2
         submit a1 durable      -> journal a1
         submit a2 durable      -> journal a2, throttle on
         submit a3              -> rejected a3 throttled action 2
         submit a3 durable      -> rejected a3 throttled action 2
         journal a1 refused     -> rejected a1 draining, throttle off
         journal a2 written     -> accepted a2
         submit a3              -> accepted a3, throttle on",
    );
}

#[test]
fn fenced_queue_answers_nothing_and_keeps_what_the_journal_says() {
    check(
        "started-up
         have c1
         credit c1 x2           -> nothing
         submit a1 durable      -> journal a1
         submit a2 durable      -> journal a2
         journal a1 written     -> accepted a1, deliver a1 to c1
         fence
         completed a1 c1        -> journal end done a1
         journal a1 written     -> nothing
         journal a2 written     -> nothing
         submit a3 durable      -> rejected a3 unavailable
         wait 10s               -> nothing
         unfence                -> ack a1 to i1, done a1 to k1, accepted a2, deliver a2 to c1",
    );
}

#[test]
fn delayed_activation_waits_for_its_time_and_for_no_retention() {
    check(
        "started-up
         have c1
         credit c1              -> nothing
         submit a1 at 5s        -> rejected a1 invalid
         submit a1 durable at 3600s -> journal a1 at 3600000ms
         journal a1 written     -> accepted a1
         find a1 delayed
         why none
         submit a2              -> accepted a2, deliver a2 to c1
         completed a2 c1 +1     -> done a2 to k1
         received a2            -> ack a2 to i1
         wait 3599s             -> nothing
         state Running
         wait 1s                -> deliver a1 to c1",
    );
}

#[test]
fn delay_that_ended_before_the_journal_had_it_is_none() {
    check(
        "have c1
         credit c1              -> nothing
         wait 10s
         submit a1 durable at 5s -> journal a1 at 5000ms
         journal a1 written     -> accepted a1, deliver a1 to c1",
    );
}

#[test]
fn queue_with_delayed_activations_stays() {
    check(
        "started-up
         submit a1 durable at 7200s -> journal a1 at 7200000ms
         journal a1 written     -> accepted a1
         wait 7199s             -> nothing
         wait 1s                -> reserve 1",
    );
}

#[test]
fn delayed_ones_have_a_limit_of_their_own() {
    let settings = QueueSettings {
        delayed_max: 1,
        ..QueueSettings::default()
    };
    check_with(
        settings,
        "submit a1 durable at 60s   -> journal a1 at 60000ms
         journal a1 written         -> accepted a1
         submit a2 durable at 60s   -> rejected a2 throttled action 1
         submit a2 durable          -> journal a2",
    );
}

#[test]
fn durable_ones_wait_longer_than_blocking_calls() {
    let settings = QueueSettings {
        retention_durable: Duration::from_secs(200),
        archive: false,
        ..QueueSettings::default()
    };
    check_with(
        settings,
        "started-up
         submit a1                  -> accepted a1
         submit a2 durable at 100s  -> journal a2 at 100000ms
         submit a3 durable          -> journal a3
         journal a2 written         -> accepted a2
         journal a3 written         -> accepted a3
         wait 60s
         find a1 done
         wait 139999ms              -> nothing
         wait 1ms                   -> journal end failed a3 whisk: Activation processing is not initiated for 200000 ms
         wait 99999ms               -> nothing
         wait 1ms                   -> journal end failed a2 whisk: Activation processing is not initiated for 200000 ms",
    );
}

#[test]
fn durable_ones_wait_for_room_in_a_full_namespace() {
    check(
        "started-up
         submit a1                  -> accepted a1
         submit a2 durable          -> journal a2
         submit a3 durable by a9    -> journal a3
         journal a2 written         -> accepted a2
         journal a3 written         -> accepted a3
         wait 2s limit 2 running 2
         find a1 done
         find a2 waiting
         find a3 ending
         room
         wait 1s limit 2 running 1  -> reserve 1",
    );
}

#[test]
fn so_many_ends_under_way_that_nothing_new_begins() {
    check(
        "settings results-max 1
         have c1
         credit c1 x3           -> nothing
         submit a1 durable      -> journal a1
         submit a2 durable      -> journal a2
         journal a1 written     -> accepted a1, deliver a1 to c1
         completed a1 c1        -> journal end done a1
         journal a2 written     -> accepted a2
         submit a3 durable      -> rejected a3 throttled results 1
         journal a1 written     -> ack a1 to i1, done a1 to k1, deliver a2 to c1",
    );
}

#[test]
fn same_id_is_not_made_durable_afterwards() {
    check(
        "submit a1                  -> accepted a1
         submit a1 durable from k2  -> rejected a1 invalid
         submit a1 from k2          -> accepted a1",
    );
}

#[test]
fn records_of_others_are_given_out_to_be_kept() {
    check_with(
        QueueSettings::default(),
        "have c1
         credit c1 x9           -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         completed a1 c1        -> done a1 to k1, archive done a1
         submit a2 durable      -> journal a2
         journal a2 written     -> accepted a2, deliver a2 to c1
         completed a2 c1        -> journal end done a2
         journal a2 written     -> ack a2 to i1, done a2 to k1
         submit a3              -> accepted a3, deliver a3 to c1
         gone i1                -> failed a3 to k1 whisk: The activation may have started on invoker 1\\, which was lost., archive failed a3 whisk: The activation may have started on invoker 1\\, which was lost.",
    );
}

#[test]
fn what_has_ended_runs_again_for_no_journal_that_is_behind() {
    check(
        "have c1
         credit c1 x9           -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         completed a1 c1        -> journal end done a1
         journal a1 written     -> ack a1 to i1, done a1 to k1
         submit a1 durable attempt 2 -> journal a1
         journal a1 open 1      -> rejected a1 unavailable
         holds 0
         submit a1 durable attempt 3 -> journal a1
         journal a1 ended       -> accepted a1, done a1 to k1",
    );
}
