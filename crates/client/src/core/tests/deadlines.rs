//! Deadlines of callers, and the moment to give up.

use super::*;

#[test]
fn the_deadline_is_a_definite_no_while_nobody_can_have_it() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.rejected(1, 1, unavailable());
    bench.pass(DEADLINE);
    let Err(InvokeError::NotAccepted { attempts, cause, .. }) = &bench.settled[&1] else {
        panic!("{:?}", bench.settled)
    };
    assert_eq!(*attempts, 1);
    assert!(cause.contains("no quorum"), "{cause}");
    bench.said();
    bench.ensured(1, 1);
    bench.check(&[]);
}

#[test]
fn the_deadline_of_a_blocking_call_cancels_nothing() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.accepted(1, 1, 1);
    bench.said();
    bench.pass(DEADLINE);
    bench.check(&["overdue 1"]);
    assert_eq!(bench.router.stats().unfinished, 1);
    bench.leads(2, 2);
    bench.check(&["send 1 to s2 epoch 2 attempt 2"]);
    bench.completed(2, 1);
    bench.check(&["settled 1", "received 1 to s2"]);
}

#[test]
fn the_deadline_of_a_submission_is_for_its_acceptance() {
    let mut bench = Bench::ready();
    bench.submit_as(NewActivation {
        blocking: false,
        ..activation(1)
    });
    bench.submit_as(NewActivation {
        blocking: false,
        ..activation(2)
    });
    bench.accepted(1, 1, 1);
    bench.said();
    bench.pass(DEADLINE);
    bench.check(&["overdue 2"]);
    bench.completed(1, 1);
    bench.completed(1, 2);
    assert!(bench.settled.values().all(Result::is_ok));
}

#[test]
fn without_any_answer_it_is_given_up_once() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.accepted(1, 1, 1);
    bench.pass(GIVEN_UP - Duration::from_millis(1));
    assert!(bench.settled.is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(
        bench.settled[&1],
        Err(InvokeError::NoResult {
            id: id(1),
            attempts: 1,
            waited: GIVEN_UP
        })
    );
    bench.said();
    bench.completed(1, 1);
    bench.check(&["received 1 to s1"]);
    assert_eq!(bench.router.stats().results_late, 1);
}

#[test]
fn closing_ends_everything() {
    let mut bench = Bench::ready();
    (1..=6).for_each(|n| bench.submit(n));
    bench.step(Input::Close);
    assert_eq!(bench.settled.len(), 6);
    assert_eq!(bench.settled[&6], Err(InvokeError::Closed { id: id(6) }));
}
