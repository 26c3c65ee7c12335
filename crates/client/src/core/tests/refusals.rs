//! Typed refusals: which are final, which are tried again without the caller noticing, and at what pace.

use super::*;

fn throttled(scope: ThrottleScope, retry_after: Duration) -> Rejection {
    Rejection::Throttled {
        scope,
        limit: Some(9),
        retry_after,
    }
}

#[test]
fn no_queue_and_draining_ask_at_once_and_unavailable_after_a_pause() {
    for rejection in [Rejection::NoQueue, Rejection::Draining, not_leader(0, 1)] {
        let mut bench = Bench::ready();
        bench.submit(1);
        bench.said();
        bench.rejected(1, 1, rejection);
        bench.check(&["ensure"]);
        bench.ensured(2, 2);
        bench.check(&["send 1 to s2 epoch 2 attempt 1"]);
    }
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.said();
    bench.rejected(1, 1, unavailable());
    bench.check(&[]);
    bench.pass(Duration::from_millis(40));
    bench.check(&["ensure"]);
    bench.ensured(1, 1);
    bench.check(&["send 1 to s1 epoch 1 attempt 1"]);
}

#[test]
fn a_queue_that_was_moved_away_gets_its_order_back_at_the_new_leader() {
    for refusal in [Rejection::Draining, not_leader(0, 1)] {
        let mut bench = Bench::ready();
        (1..=3).for_each(|n| bench.submit(n));
        bench.said();
        // The first to be refused finds the new leader for all; those after it were refused as well, and are told late.
        bench.rejected(1, 2, refusal.clone());
        bench.check(&["ensure"]);
        bench.submit(4);
        bench.ensured(2, 2);
        bench.check(&[
            "send 1 to s2 epoch 2 attempt 2",
            "send 2 to s2 epoch 2 attempt 1",
            "send 3 to s2 epoch 2 attempt 2",
            "send 4 to s2 epoch 2 attempt 1",
        ]);
        bench.rejected(1, 1, refusal.clone());
        bench.rejected(1, 3, refusal);
        bench.check(&[]);
        for n in 1..=4 {
            bench.completed(2, n);
            assert!(bench.settled[&n].is_ok(), "the caller noticed nothing");
        }
    }
}

#[test]
fn one_burst_of_rejections_is_one_question() {
    let mut bench = Bench::ready();
    (1..=4).for_each(|n| bench.submit(n));
    bench.said();
    (1..=4).for_each(|n| bench.rejected(1, n, unavailable()));
    bench.submit(5);
    bench.pass(Duration::from_millis(40));
    bench.check(&["ensure"]);
}

#[test]
fn final_rejections_end_it_and_free_its_place() {
    let throttled = throttled(ThrottleScope::Action, Duration::from_millis(10));
    let finals = [
        throttled,
        Rejection::TooLarge { len: 2, len_max: 1 },
        Rejection::Conflict,
        Rejection::Invalid {
            reason: "no".to_owned(),
        },
        Rejection::NoAction {
            action: "lib/hello".to_owned(),
        },
    ];
    for rejection in finals {
        let mut bench = Bench::ready();
        bench.submit(1);
        bench.rejected(1, 1, rejection.clone());
        let expected = InvokeError::Rejected {
            id: id(1),
            attempts: 1,
            may_have_run: false,
            rejection,
        };
        assert_eq!(bench.settled[&1], Err(expected));
        assert_eq!(bench.router.stats().unfinished, 0);
    }
}

#[test]
fn what_was_accepted_before_is_not_given_up_for_a_full_queue() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.accepted(1, 1, 1);
    bench.leads(2, 2);
    bench.said();
    let throttled = throttled(ThrottleScope::Action, Duration::from_millis(10));
    bench.rejected(2, 1, throttled);
    bench.pass(Duration::from_millis(40));
    bench.ensured(2, 2);
    bench.check(&[
        "throttled Action",
        "ensure for resubmission",
        "send 1 to s2 epoch 2 attempt 2",
    ]);
}

#[test]
fn the_throttle_view_hears_of_every_limit_but_the_window() {
    let retry_after = Duration::from_millis(700);
    for scope in [ThrottleScope::Rate, ThrottleScope::Namespace] {
        let mut bench = Bench::ready();
        bench.submit(1);
        bench.said();
        bench.rejected(1, 1, throttled(scope, retry_after));
        let told = bench.out.iter().any(|output| {
            matches!(output, Output::Throttled { key: k, scope: s, limit: l, retry_after: r }
                if (k, *s, *l, *r) == (&key(), scope, Some(9), retry_after))
        });
        assert!(told, "{:?}", bench.out);
        let Err(InvokeError::Rejected { rejection, .. }) = &bench.settled[&1] else {
            panic!("{:?}", bench.settled)
        };
        assert_eq!(
            *rejection,
            throttled(scope, retry_after),
            "final, with the advice"
        );
    }
}

#[test]
fn an_overrun_window_is_no_business_of_the_caller() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.said();
    let scope = ThrottleScope::Stream;
    let retry_after = Duration::from_millis(10);
    bench.rejected(1, 1, throttled(scope, retry_after));
    bench.pass(Duration::from_millis(40));
    bench.ensured(1, 1);
    bench.check(&["ensure", "send 1 to s1 epoch 1 attempt 1"]);
}

#[test]
fn a_rejection_after_acceptance_counts_as_a_possible_start() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.accepted(1, 1, 1);
    bench.said();
    bench.rejected(1, 1, not_leader(2, 2));
    bench.check(&["send 1 to s2 epoch 2 attempt 2"]);
}

#[test]
fn a_rejection_from_where_it_no_longer_is_is_ignored() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.leads(2, 2);
    bench.said();
    bench.rejected(1, 1, Rejection::Conflict);
    bench.check(&[]);
    bench.completed(2, 1);
    assert!(bench.settled[&1].is_ok());
}

#[test]
fn a_final_answer_to_the_question_ends_all_that_wait() {
    let mut bench = Bench::ready();
    bench.step(Input::Queue {
        key: key(),
        route: None,
    });
    bench.submit(1);
    bench.submit(2);
    let no_action = Rejection::NoAction {
        action: "lib/hello".to_owned(),
    };
    bench.step(Input::Ensured {
        key: key(),
        answer: EnsureAnswer::Rejected(no_action),
    });
    bench.check(&["ensure", "failed 1: Rejected", "failed 2: Rejected"]);
}

#[test]
fn questions_at_a_time_are_bounded() {
    let mut bench = Bench::new();
    bench.router.bounds.unfinished_max = 100;
    bench.router.bounds.unfinished_bytes_max = 10_000;
    let key_of = |n: u8| QueueKey {
        namespace: "guest".parse().unwrap(),
        action: format!("lib/a{n}").parse().unwrap(),
    };
    (1..=50).for_each(|n| {
        bench.submit_as(NewActivation {
            key: key_of(n),
            ..activation(n)
        })
    });
    assert_eq!(bench.said().len(), bench.router.bounds.asks_max);
    let failed = EnsureAnswer::Failed("down".to_owned());
    bench.step(Input::Ensured {
        key: key_of(1),
        answer: failed,
    });
    bench.check(&["ensure"]);
}
