//! The way of one activation while nothing goes wrong: leader, window, receipt, payload, budget.

use super::*;

#[test]
fn a_known_leader_is_used_at_once_and_the_result_is_receipted() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.check(&["send 1 to s1 epoch 1 attempt 1"]);
    bench.accepted(1, 1, 1);
    bench.check(&["accepted 1"]);
    bench.completed(1, 1);
    bench.check(&["settled 1", "received 1 to s1"]);
    assert!(bench.router.next_deadline().is_none(), "nothing is left behind");
}

#[test]
fn an_unknown_queue_is_asked_for_once_for_all_that_wait() {
    let mut bench = Bench::ready();
    bench.step(Input::Queue {
        key: key(),
        route: None,
    });
    bench.submit(1);
    bench.submit(2);
    bench.check(&["ensure"]);
    bench.ensured(2, 1);
    bench.check(&["send 1 to s2 epoch 1 attempt 1", "send 2 to s2 epoch 1 attempt 1"]);
}

#[test]
fn a_leader_learned_by_asking_is_connected() {
    let mut bench = Bench::new();
    bench.submit(1);
    bench.check(&["ensure"]);
    let answer = EnsureAnswer::Leadership {
        leader: SchedulerId(9),
        epoch: Epoch(1),
        address: Some("h:9".to_owned()),
    };
    bench.step(Input::Ensured { key: key(), answer });
    bench.check(&["open s9"]);
    bench.opened(9, 1);
    bench.check(&["send 1 to s9 epoch 1 attempt 1"]);
}

#[test]
fn a_result_before_its_acceptance_counts_and_the_late_acceptance_is_ignored() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.completed(1, 1);
    bench.said();
    bench.accepted(1, 1, 1);
    bench.check(&[]);
}

#[test]
fn a_second_result_is_dropped_counted_and_receipted() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.completed(1, 1);
    bench.completed(1, 1);
    bench.check(&[
        "send 1 to s1 epoch 1 attempt 1",
        "settled 1",
        "received 1 to s1",
        "received 1 to s1",
    ]);
    assert_eq!(bench.router.stats().results_late, 1);
    assert_eq!(bench.router.stats().completed, 1);
}

#[test]
fn the_window_is_respected_and_refilled_in_order() {
    let mut bench = Bench::ready();
    (1..=7).for_each(|n| bench.submit(n));
    assert_eq!(bench.said().len(), WINDOW as usize);
    bench.accepted(1, 1, 2);
    bench.check(&["accepted 2", "send 5 to s1 epoch 1 attempt 1"]);
    bench.rejected(1, 1, Rejection::Conflict);
    bench.check(&["failed 1: Rejected", "send 6 to s1 epoch 1 attempt 1"]);
    bench.completed(1, 3);
    bench.check(&["settled 3", "received 3 to s1", "send 7 to s1 epoch 1 attempt 1"]);
    bench.completed(1, 2);
    bench.check(&["settled 2", "received 2 to s1"]);
}

#[test]
fn ids_in_use_and_full_clients_are_refused() {
    let mut bench = Bench::ready();
    bench.submit(1);
    assert_eq!(
        bench.router.admit(bench.now, &activation(1)),
        Err(InvokeError::IdInUse { id: id(1) })
    );
    let large = NewActivation {
        payload: vec![b' '; 94].into(),
        ..activation(2)
    };
    assert_eq!(
        bench.router.admit(bench.now, &large),
        Err(InvokeError::Full {
            unfinished: 1,
            bytes: 7
        })
    );
    (2..=8).for_each(|n| bench.submit(n));
    assert_eq!(
        bench.router.admit(bench.now, &activation(9)),
        Err(InvokeError::Full {
            unfinished: 8,
            bytes: 56
        })
    );
    bench.completed(1, 1);
    assert_eq!(bench.router.admit(bench.now, &activation(9)), Ok(Admission::New));
}

#[test]
fn a_payload_over_the_leaders_limit_never_leaves() {
    let mut bench = Bench::ready();
    bench.step(Input::StreamLost {
        stream: stream(1, 1),
        unsent: Vec::new(),
    });
    bench.step(Input::StreamOpened {
        stream: stream(1, 2),
        window: 1,
        payload_len_max: 3,
    });
    bench.said();
    bench.submit(1);
    bench.check(&["failed 1: Rejected"]);
}

#[test]
fn an_activation_of_an_earlier_life_starts_at_attempt_two() {
    let mut bench = Bench::ready();
    bench.submit_as(NewActivation {
        may_have_run: true,
        ..activation(1)
    });
    bench.check(&["send 1 to s1 epoch 1 attempt 2"]);
}

#[test]
fn the_budget_left_to_a_blocking_caller_travels() {
    let mut bench = Bench::ready();
    bench.leads(0, 2);
    bench.submit(1);
    bench.submit_as(NewActivation {
        blocking: false,
        ..activation(2)
    });
    bench.now = bench.now + Duration::from_secs(2);
    bench.said();
    bench.leads(1, 3);
    let budgets: Vec<_> = bench
        .out
        .iter()
        .filter_map(|output| match output {
            Output::Send { submission, .. } => Some(submission.deadline_ms),
            _ => None,
        })
        .collect();
    assert_eq!(budgets, [3000, 0]);
}
