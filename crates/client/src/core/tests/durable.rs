//! Durable activations: what is unknown, what is forgotten, and who joins whom.

use super::*;

fn durable(n: u8) -> NewActivation {
    NewActivation {
        blocking: false,
        durable: true,
        ..activation(n)
    }
}

fn keyed(n: u8) -> NewActivation {
    NewActivation {
        keyed: true,
        ..durable(n)
    }
}

fn storage_full() -> Rejection {
    Rejection::StorageFull {
        reason: "scheduler 2 has 3 % of its disk left".to_owned(),
    }
}

#[test]
fn the_journal_may_have_one_that_was_answered_with_unavailable() {
    let mut bench = Bench::ready();
    bench.submit_as(durable(1));
    bench.rejected(1, 1, unavailable());
    bench.said();
    bench.pass(Duration::from_secs(1));
    bench.check(&["ensure for resubmission"]);
    bench.ensured(1, 1);
    // The same attempt: what the journal does not have has not run.
    bench.check(&["send 1 to s1 epoch 1 attempt 1"]);
    bench.rejected(1, 1, unavailable());
    bench.pass(DEADLINE);
    assert!(bench.said().contains(&"overdue 1".to_owned()));
    assert!(bench.settled.is_empty(), "it is tried on: {:?}", bench.settled);
}

#[test]
fn a_deadline_says_that_acceptance_is_unknown_and_why() {
    let mut bench = Bench::ready();
    bench.submit_as(durable(1));
    bench.rejected(1, 1, unavailable());
    bench.pass(DEADLINE - Duration::from_millis(1));
    bench.out.clear();
    bench.pass(Duration::from_millis(1));
    let overdue = bench.out.iter().find_map(|output| match output {
        Output::Overdue { error, .. } => Some(error.clone()),
        _ => None,
    });
    let Some(InvokeError::NotConfirmed { attempts, cause, .. }) = overdue else {
        panic!("{overdue:?}")
    };
    assert_eq!(attempts, 1);
    assert!(cause.contains("no quorum"), "{cause}");
}

#[test]
fn one_that_nobody_can_have_is_a_definite_no() {
    let mut bench = Bench::ready();
    bench.submit_as(durable(1));
    bench.rejected(1, 1, not_leader(0, 1));
    bench.pass(DEADLINE);
    assert!(matches!(bench.settled[&1], Err(InvokeError::NotAccepted { .. })));
}

#[test]
fn a_full_disk_is_final_unless_it_may_have_been_accepted() {
    let mut bench = Bench::ready();
    bench.submit_as(durable(1));
    bench.rejected(1, 1, storage_full());
    let error = bench.settled[&1].clone().unwrap_err();
    assert!(
        matches!(error, InvokeError::StorageFull { attempts: 1, .. }),
        "{error:?}"
    );
    assert!(
        error.is_retryable() && error.to_string().contains("3 %"),
        "{error}"
    );

    bench.submit_as(durable(2));
    bench.accepted(1, 1, 2);
    bench.leads(2, 2);
    bench.rejected(2, 2, storage_full());
    bench.said();
    bench.pass(Duration::from_secs(1));
    bench.check(&["ensure for resubmission"]);
    assert!(!bench.settled.contains_key(&2));
}

#[test]
fn an_accepted_one_is_forgotten_and_its_result_only_confirmed() {
    let mut bench = Bench::ready();
    bench.submit_as(durable(1));
    bench.accepted(1, 1, 1);
    bench.said();
    bench.step(Input::Forget { id: id(1) });
    bench.check(&["forgotten 1"]);
    let stats = bench.router.stats();
    assert_eq!(
        (stats.unfinished, stats.unfinished_bytes, stats.forgotten),
        (0, 0, 1)
    );
    // Neither a change of leader nor a lost stream brings it back.
    bench.leads(2, 2);
    bench.lost(1, 1, &[]);
    bench.check(&[]);
    bench.completed(2, 1);
    bench.check(&["received 1 to s2"]);
    assert_eq!(bench.router.stats().results_late, 1);
}

#[test]
fn what_nobody_has_durably_is_not_forgotten() {
    let mut bench = Bench::ready();
    bench.submit_as(durable(1));
    bench.submit_as(NewActivation {
        durable: false,
        ..durable(2)
    });
    bench.accepted(1, 1, 2);
    bench.said();
    bench.step(Input::Forget { id: id(1) });
    bench.step(Input::Forget { id: id(2) });
    bench.step(Input::Forget { id: id(9) });
    bench.check(&[]);
    bench.leads(2, 2);
    bench.check(&["send 1 to s2 epoch 2 attempt 2", "send 2 to s2 epoch 2 attempt 2"]);
}

#[test]
fn the_same_key_joins_and_another_payload_is_a_conflict() {
    let mut bench = Bench::ready();
    bench.submit_as(keyed(1));
    let admit = |bench: &mut Bench, new| bench.router.admit(bench.now, &new);
    assert_eq!(
        admit(&mut bench, keyed(1)),
        Ok(Admission::Joined { is_accepted: false })
    );
    bench.accepted(1, 1, 1);
    assert_eq!(
        admit(&mut bench, keyed(1)),
        Ok(Admission::Joined { is_accepted: true })
    );
    let other = NewActivation {
        payload: Bytes::from_static(b"{}"),
        ..keyed(1)
    };
    assert!(matches!(
        admit(&mut bench, other),
        Err(InvokeError::Rejected {
            rejection: Rejection::Conflict,
            ..
        })
    ));
    // An id that the caller has drawn names one request only.
    assert_eq!(
        admit(&mut bench, durable(1)),
        Err(InvokeError::IdInUse { id: id(1) })
    );
    assert_eq!(bench.router.stats().submitted, 1);
}

#[test]
fn who_joins_late_has_the_whole_deadline() {
    let mut bench = Bench::ready();
    bench.submit_as(keyed(1));
    bench.pass(DEADLINE - Duration::from_secs(1));
    assert!(bench.router.admit(bench.now, &keyed(1)).is_ok());
    bench.said();
    bench.pass(DEADLINE - Duration::from_secs(1));
    bench.check(&[]);
    bench.pass(Duration::from_secs(1));
    bench.check(&["overdue 1"]);
}

#[test]
fn durability_and_start_travel_with_every_attempt() {
    let mut bench = Bench::ready();
    bench.submit_as(NewActivation {
        not_before_ms: 77,
        ..durable(1)
    });
    bench.leads(2, 2);
    bench.submit(2);
    let sent: Vec<_> = bench
        .out
        .iter()
        .filter_map(|output| match output {
            Output::Send { submission, .. } => Some((submission.durability, submission.not_before_ms)),
            _ => None,
        })
        .collect();
    let (quorum, memory) = (v1::Durability::Quorum.into(), v1::Durability::Memory.into());
    assert_eq!(sent, [(quorum, 77), (quorum, 77), (memory, 0)]);
}
