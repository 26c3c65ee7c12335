//! Full queues, full namespaces, ages.

use crate::rig::check;

#[test]
fn full_queue_refuses_and_any_shrink_ends_it() {
    check(
        "settings len-max 10
         submit a1..a9 -> accepted a1..a9
         submit a10 -> accepted a10, throttle on
         submit a11 -> rejected a11 throttled action 10
         submit a1 attempt 2 -> accepted a1
         submit a12 attempt 2 -> rejected a12 unavailable
         have c1
         credit c1 -> deliver a1 to c1, throttle off
         submit a11 -> accepted a11, throttle on",
    );
}

#[test]
fn expiry_ends_throttling_too() {
    check(
        "settings len-max 2
         submit a1 -> accepted a1
         submit a2 -> accepted a2, throttle on
         tick -> reserve 1
         wait 60s -> reserve 1, failed a1 to k1 whisk: Activation processing is not initiated for 60000 ms,\
          failed a2 to k1 whisk: Activation processing is not initiated for 60000 ms, throttle off
         submit a3 -> accepted a3",
    );
}

#[test]
fn throttled_queue_goes_on_scaling() {
    check(
        "settings len-max 4
         have c1
         running c1
         submit a1..a3 -> accepted a1..a3
         submit a4 -> accepted a4, throttle on
         wait 100ms limit 10 running 1 -> reserve 4",
    );
}

#[test]
fn full_namespace_leaves_a_moment_then_fails_and_refuses() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick limit 2 running 2 -> starved
         state NamespaceThrottled
         wait 700ms limit 2 running 2 -> nothing
         submit a2 -> accepted a2
         wait 100ms limit 2 running 2 -> failed a1 to k1 developer: Too many concurrent requests in flight.,\
          failed a2 to k1 developer: Too many concurrent requests in flight.
         submit a3 -> rejected a3 throttled namespace 2
         submit a4 attempt 2 -> rejected a4 unavailable
         room
         submit a3 -> accepted a3
         wait 100ms limit 2 running 1 -> reserve 1",
    );
}

#[test]
fn a_namespace_nobody_looked_at_for_a_while_gets_another_look() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick limit 2 running 2 -> starved
         wait 800ms limit 2 running 2 -> failed a1 to k1 developer: Too many concurrent requests in flight.
         wait 1s limit 2 running 2 -> nothing
         submit a2 -> accepted a2
         wait 100ms limit 2 running 1 -> reserve 1",
    );
}

#[test]
fn an_update_in_a_full_namespace_leaves_no_queue_without_hope() {
    check(
        "have c1
         running c1
         credit c1
         submit a1..a2 -> accepted a1, deliver a1 to c1, accepted a2
         action r2 -> nothing
         tick limit 1 running 1 -> nothing
         wait 900ms limit 1 running 1 -> nothing
         completed a1 c1 -> remove c1, done a1 to k1
         removed c1
         wait 100ms limit 1 -> reserve 1",
    );
}

#[test]
fn a_container_that_has_ended_and_keeps_its_slot_is_no_hope() {
    check(
        "have c1
         running c1
         credit c1
         submit a1..a2 -> accepted a1, deliver a1 to c1, accepted a2
         action r2 -> nothing
         completed a1 c1 -> remove c1, done a1 to k1
         tick limit 1 running 1 -> starved
         wait 800ms limit 1 running 1 -> failed a2 to k1 developer: Too many concurrent requests in flight.",
    );
}

#[test]
fn starvation_counts_from_the_last_time_that_there_was_room() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick limit 2 running 2 -> starved
         wait 600ms limit 2 running 2 -> nothing
         room
         full
         wait 700ms limit 2 running 2 -> starved
         wait 200ms limit 2 running 2 -> failed a1 to k1 developer: Too many concurrent requests in flight.",
    );
}

#[test]
fn longest_waiting_asks_first_when_a_full_namespace_has_room() {
    let asks_after = |waited: &str, at: &str, before: &str| {
        check(&format!(
            "started-up
             wait 60s
             full
             submit a1 waited {waited} -> accepted a1
             room
             wait {before} limit 2 running 1 -> nothing
             wait {at} limit 2 running 1 -> reserve 1"
        ));
    };
    asks_after("0ms", "1ms", "99ms");
    asks_after("500ms", "1ms", "49ms");
    asks_after("750ms", "1ms", "24ms");
    check(
        "started-up
         wait 60s
         full
         submit a1 waited 1s
         room
         tick limit 2 running 1 -> reserve 1",
    );
}

#[test]
fn queue_with_containers_leaves_the_room_to_others_first() {
    check(
        "have c1
         running c1
         wait 60s
         full
         submit a1..a2 waited 10s
         tick limit 2 running 2
         room
         wait 99ms limit 3 running 2 -> nothing
         wait 1ms limit 3 running 2 -> reserve 1",
    );
}

#[test]
fn queue_without_containers_may_use_the_excess_of_its_namespace() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick limit 2 over 3 running 2 -> reserve 1
         granted 1 c1
         wait 100ms limit 2 over 3 running 2 starting 1 -> nothing",
    );
    check(
        "started-up
         submit a1 -> accepted a1
         tick limit 2 over 3 running 3 -> starved",
    );
}

#[test]
fn blackbox_actions_may_wait_longer() {
    check(
        "action r1 blackbox
         submit a1 -> accepted a1
         tick -> reserve 1
         wait 299s -> nothing
         wait 1s -> failed a1 to k1 whisk: Activation processing is not initiated for 300000 ms",
    );
}
