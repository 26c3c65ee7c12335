//! Cancelling, in every state.

use crate::rig::check;

#[test]
fn nothing_known_nothing_cancelled() {
    check(
        "cancel a1 7            -> answer 7 unknown
         submit a1              -> accepted a1",
    );
}

#[test]
fn waiting_one_never_starts() {
    check(
        "have c1
         submit a1..a2          -> accepted a1..a2
         cancel a1              -> cancelled a1 to k1, answer 1 before-start
         cancel a1 2            -> answer 2 ended
         credit c1 x2           -> deliver a2 to c1
         submit a1 attempt 2    -> accepted a1, cancelled a1 to k1",
    );
}

#[test]
fn durable_one_is_answered_when_the_journal_has_its_end() {
    check(
        "have c1
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1
         cancel a1 1            -> journal end cancelled a1
         cancel a1 2            -> nothing
         credit c1              -> nothing
         journal a1 recorded    -> done a1 to k1, answer 1 before-start, answer 2 before-start
         cancel a1 3            -> answer 3 ended",
    );
}

#[test]
fn delayed_one_never_starts() {
    check(
        "started-up
         submit a1 durable at 60s -> journal a1 at 60000ms
         journal a1 written     -> accepted a1
         cancel a1              -> journal end cancelled a1
         journal a1 written     -> cancelled a1 to k1, answer 1 before-start
         wait 90s               -> nothing",
    );
}

#[test]
fn acceptance_under_way_ends_with_its_verdict() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         cancel a1 1            -> nothing
         cancel a1 2            -> nothing
         journal a1 written     -> accepted a1, journal end cancelled a1
         journal a1 written     -> cancelled a1 to k1, answer 1 before-start, answer 2 before-start
         submit a2 durable      -> journal a2
         cancel a2              -> nothing
         journal a2 refused     -> rejected a2 draining, answer 1 unknown
         submit a3 durable      -> journal a3
         cancel a3              -> nothing
         journal a3 unknown     -> rejected a3 unavailable, answer 1 unavailable
         submit a4 durable      -> journal a4
         cancel a4              -> nothing
         journal a4 ended       -> accepted a4, done a4 to k1, answer 1 ended",
    );
}

#[test]
fn held_one_ends_when_its_fate_is_known() {
    check(
        "takeover i1 with c1
         submit a1 attempt 2    -> accepted a1
         submit a2 attempt 2    -> accepted a2
         cancel a1              -> answer 1 stopping
         cancel a2              -> answer 1 stopping
         cancel a2              -> answer 1 stopping
         register i1 c1 has a1 asks 1 -> stop a1 in c1, cancelled a2 to k1
         completed a1 c1 stopped -> done a1 to k1",
    );
}

#[test]
fn one_in_a_container_is_stopped_and_ends_as_cancelled() {
    for started in ["", "started a1 c1"] {
        check(&format!(
            "have c1
             credit c1              -> nothing
             submit a1              -> accepted a1, deliver a1 to c1
             {started}
             cancel a1              -> stop a1 in c1, answer 1 stopping
             find a1 {}
             cancel a1 2            -> stop a1 in c1, answer 2 stopping
             completed a1 c1 stopped -> done a1 to k1
             cancel a1 3            -> answer 3 ended
             received a1            -> ack a1 to i1",
            if started.is_empty() {
                "delivered"
            } else {
                "started"
            }
        ));
    }
}

#[test]
fn record_that_was_under_way_gives_way_to_what_the_caller_was_told() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         cancel a1              -> stop a1 in c1, answer 1 stopping
         completed a1 c1        -> cancelled a1 to k1
         received a1            -> ack a1 to i1",
    );
}

#[test]
fn refused_after_the_stop_is_not_given_out_again() {
    check(
        "have c1 c2
         credit c1              -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         cancel a1              -> stop a1 in c1, answer 1 stopping
         credit c2              -> nothing
         refused a1 c1          -> cancelled a1 to k1",
    );
}

#[test]
fn cancelled_delivery_that_got_lost_is_not_given_out_again() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         cancel a1              -> stop a1 in c1, answer 1 stopping
         disconnected i1
         register i1 c1 has asks 1 -> cancelled a1 to k1",
    );
}

#[test]
fn stop_is_said_again_on_a_new_stream() {
    check(
        "have c1
         credit c1              -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         cancel a1              -> stop a1 in c1, answer 1 stopping
         disconnected i1
         register i1 c1 has a1 asks 0 -> stop a1 in c1",
    );
}

#[test]
fn lost_after_the_stop_it_ends_as_cancelled_and_not_again() {
    check(
        "have c1
         action r1 on-loss runs 5
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         cancel a1              -> stop a1 in c1, mark a1
         gone i1                -> journal end cancelled a1
         marked a1              -> answer 1 stopping
         journal a1 recorded    -> done a1 to k1",
    );
}

#[test]
fn durable_one_in_a_container_is_answered_when_the_journal_knows_of_the_wish_or_has_the_end() {
    let begin = "have c1
         credit c1              -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         cancel a1 1            -> stop a1 in c1, mark a1
         cancel a1 2            -> stop a1 in c1";
    for end in [
        "marked a1              -> answer 1 stopping, answer 2 stopping
         cancel a1 3            -> stop a1 in c1, answer 3 stopping
         completed a1 c1        -> journal end cancelled a1
         cancel a1 4            -> nothing
         journal a1 recorded    -> ack a1 to i1, done a1 to k1, answer 4 stopping",
        "gone i1                -> journal end cancelled a1
         journal a1 recorded    -> done a1 to k1, answer 1 stopping, answer 2 stopping
         marked a1 ended        -> nothing",
        "fence
         marked a1              -> answer 1 stopping, answer 2 stopping",
        "marked a1 missing      -> answer 1 unavailable, answer 2 unavailable
         cancel a1 3            -> stop a1 in c1, mark a1
         marked a1              -> answer 3 stopping",
        "refused a1 c1          -> journal end cancelled a1
         journal a1 recorded    -> done a1 to k1, answer 1 stopping, answer 2 stopping",
    ] {
        check(&format!("{begin}\n{end}"));
    }
}

#[test]
fn wish_that_a_former_leader_was_told_holds_wherever_its_activation_is() {
    // In the container of an invoker that says so, before or after the journal has been read.
    check(
        "takeover recovering i1 with c1
         action r1 runs 3
         recovered a1::::cancelled -> nothing
         register i1 c1 has a1 asks 0 -> stop a1 in c1
         cancel a1              -> stop a1 in c1, answer 1 stopping
         completed a1 c1 failed -> journal end cancelled a1
         journal a1 recorded    -> ack a1 to i1",
    );
    check(
        "takeover recovering i1 with c1
         action r1 runs 3
         register i1 c1 has a1 asks 0
         cancel a1              -> answer 1 unavailable
         recovered a1::::cancelled -> stop a1 in c1
         completed a1 c1        -> journal end cancelled a1",
    );
    // With a record that nobody has confirmed.
    check(
        "takeover recovering i1 with c1
         register i1 c1 has asks 0 unacked a1 -> nothing
         recovered a1::::cancelled -> journal end cancelled a1",
    );
    // Nowhere: it does not begin again.
    check(
        "takeover recovering i1 with c1
         recovered a1::::cancelled -> nothing
         register i1 c1 has asks 1 -> journal end cancelled a1",
    );
    check(
        "takeover recovering
         have c1
         credit c1              -> nothing
         recovered a1:2:60s::cancelled -> journal end cancelled a1 run 2",
    );
    // Lost with its invoker: no other run follows.
    check(
        "takeover recovering i1 with c1
         action r1 on-loss runs 3
         recovered a1::::cancelled -> nothing
         gone i1                -> journal end cancelled a1",
    );
}

#[test]
fn durable_one_that_is_held_back_is_answered_when_the_journal_knows_of_the_wish() {
    check(
        "takeover recovering i1 with c1
         recovered a1 a2        -> nothing
         cancel a1              -> mark a1
         cancel a2 2            -> mark a2
         marked a1              -> answer 1 stopping
         cancel a1 3            -> answer 3 stopping
         register i1 c1 has asks 0 -> journal end cancelled a1, journal end cancelled a2
         journal a2 written     -> answer 2 before-start",
    );
}

#[test]
fn where_others_run_too_it_ends_at_once_and_its_record_is_only_acknowledged() {
    check(
        "have c1
         action r1 concurrency 2
         credit c1 x2           -> nothing
         submit a1              -> accepted a1, deliver a1 to c1
         submit a2 durable      -> journal a2
         journal a2 written     -> accepted a2, deliver a2 to c1
         cancel a1              -> stop a1 in c1, cancelled a1 to k1, answer 1 stopping
         cancel a2              -> stop a2 in c1, journal end cancelled a2
         completed a1 c1        -> ack a1 to i1
         completed a2 c1        -> ack a2 to i1
         journal a2 written     -> cancelled a2 to k1, answer 1 stopping
         completed a2 c1        -> ack a2 to i1",
    );
}

#[test]
fn end_under_way_has_ended_and_a_retry_under_way_is_the_last() {
    check(
        "have c1
         action r1 runs 3
         credit c1 x9           -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         completed a1 c1        -> journal end done a1
         cancel a1              -> answer 1 ended
         journal a1 written     -> ack a1 to i1, done a1 to k1
         submit a2 durable      -> journal a2
         journal a2 written     -> accepted a2, deliver a2 to c1
         completed a2 c1 failed
         cancel a2              -> nothing
         journal a2 written     -> ack a2 to i1, journal end cancelled a2 run 2
         journal a2 written     -> cancelled a2 to k1 run 2, answer 1 stopping",
    );
}

#[test]
fn one_between_two_runs_may_have_begun() {
    check(
        "have c1
         action r1 runs 3 backoff 10s
         credit c1 x9           -> nothing
         submit a1 durable      -> journal a1
         journal a1 written     -> accepted a1, deliver a1 to c1
         completed a1 c1 failed
         journal a1 written     -> ack a1 to i1
         cancel a1              -> journal end cancelled a1 run 2
         journal a1 written     -> cancelled a1 to k1 run 2, answer 1 stopping
         wait 20s               -> nothing",
    );
}

#[test]
fn record_of_a_stopped_run_ends_it_under_a_leader_that_knows_of_no_wish() {
    check(
        "takeover recovering i1 with c1
         action r1 runs 3
         recovered a1           -> nothing
         register i1 c1 has asks 0 unacked a1:1:stopped -> journal end done a1",
    );
}

#[test]
fn queue_that_may_not_act_says_so() {
    check(
        "started-up
         submit a1              -> accepted a1
         fence
         cancel a1              -> answer 1 unavailable
         cancel a2              -> answer 1 unknown
         unfence
         drain
         cancel a1              -> answer 1 unavailable
         undrain
         cancel a1              -> cancelled a1 to k1, answer 1 before-start",
    );
}

#[test]
fn too_many_who_wait_for_the_same_answer_ask_again() {
    let asks: String = (1..=16)
        .map(|ask| format!("cancel a1 {ask} -> nothing\n"))
        .collect();
    check(&format!(
        "submit a1 durable      -> journal a1
         {asks}
         cancel a1 17           -> answer 17 unavailable"
    ));
}
