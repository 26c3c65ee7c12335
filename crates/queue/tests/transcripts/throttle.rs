//! Full queues, full namespaces, ages.

use crate::rig::check;

#[test]
fn full_queue_refuses_and_any_shrink_ends_it() {
    check(
        "settings len-max 10
         submit a1..a9 -> accepted a1..a9
         submit a10 -> accepted a10, throttle on
         submit a11 -> rejected a11 throttled action
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
         wait 900ms limit 2 running 2 -> nothing
         submit a2 -> accepted a2
         wait 100ms limit 2 running 2 -> failed a1 to k1 developer: Too many concurrent requests in flight.,\
          failed a2 to k1 developer: Too many concurrent requests in flight.
         submit a3 -> rejected a3 throttled namespace
         submit a4 attempt 2 -> rejected a4 unavailable
         room
         submit a3 -> accepted a3
         tick limit 2 running 1 -> reserve 1",
    );
}

#[test]
fn a_namespace_nobody_looked_at_for_a_while_gets_another_look() {
    check(
        "started-up
         submit a1 -> accepted a1
         tick limit 2 running 2 -> starved
         wait 1s limit 2 running 2 -> failed a1 to k1 developer: Too many concurrent requests in flight.
         wait 1s limit 2 running 2 -> nothing
         submit a2 -> accepted a2
         tick limit 2 running 1 -> reserve 1",
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
