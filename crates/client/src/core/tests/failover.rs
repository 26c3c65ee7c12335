//! Lost streams, dead leaders, queues that move: what is sent again, where, and in which order.

use super::*;

#[test]
fn a_lost_stream_resubmits_everything_with_the_next_attempt() {
    let mut bench = Bench::ready();
    (1..=6).for_each(|n| bench.submit(n));
    bench.accepted(1, 1, 1);
    bench.said();
    // 4 and 5 were in the outbox still, 6 in the backlog.
    bench.lost(1, 1, &[4, 5]);
    bench.check(&[]);
    bench.opened(1, 2);
    bench.check(&[
        "send 1 to s1 epoch 1 attempt 2",
        "send 2 to s1 epoch 1 attempt 2",
        "send 3 to s1 epoch 1 attempt 2",
        "send 4 to s1 epoch 1 attempt 1",
    ]);
    assert_eq!(bench.router.stats().resubmitted, 3);
    bench.accepted(1, 2, 1);
    bench.check(&["send 5 to s1 epoch 1 attempt 1"]);
    bench.accepted(1, 2, 2);
    bench.check(&["accepted 2", "send 6 to s1 epoch 1 attempt 1"]);
}

#[test]
fn a_new_leader_gets_everything_unfinished_with_the_next_attempt() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.submit(2);
    bench.accepted(1, 1, 1);
    bench.completed(1, 2);
    bench.said();
    bench.leads(3, 2);
    bench.check(&["send 1 to s3 epoch 2 attempt 2"]);
    bench.leads(1, 1);
    bench.check(&[]);
    bench.completed(3, 1);
    assert!(bench.settled[&1].is_ok());
}

#[test]
fn a_result_of_the_old_leader_still_counts_and_stops_the_new_attempt() {
    let mut bench = Bench::ready();
    (1..=6).for_each(|n| bench.submit(n));
    bench.leads(3, 2);
    bench.said();
    bench.completed(1, 6);
    bench.check(&["settled 6", "received 6 to s1"]);
    (1..=5).for_each(|n| bench.accepted(3, 1, n));
    assert!(
        bench.said().iter().all(|line| !line.starts_with("send 6")),
        "never sent after it ended"
    );
}

#[test]
fn while_the_dead_leader_is_still_named_questions_are_paced_and_the_watch_wins() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.lost(1, 1, &[]);
    bench.said();
    let mut asked = 0;
    let until = bench.now + Duration::from_secs(2);
    while bench.now < until {
        bench.pass(Duration::from_millis(5));
        if !bench.said().is_empty() {
            asked += 1;
            bench.ensured(1, 1);
        }
    }
    assert!((10..=40).contains(&asked), "asked {asked} times in two seconds");
    bench.leads(2, 2);
    bench.check(&["send 1 to s2 epoch 2 attempt 2"]);
}

#[test]
fn not_leader_with_a_newer_epoch_is_followed_at_once() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.said();
    bench.rejected(1, 1, not_leader(2, 5));
    bench.check(&["send 1 to s2 epoch 5 attempt 1"]);
    assert_eq!(bench.router.stats().retried, 1);
}

#[test]
fn two_schedulers_that_name_each_other_do_not_spin() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.rejected(1, 1, not_leader(2, 2));
    bench.rejected(2, 1, not_leader(1, 1));
    bench.check(&["send 1 to s1 epoch 1 attempt 1", "send 1 to s2 epoch 2 attempt 1"]);
    bench.pass(Duration::from_millis(60));
    bench.check(&["ensure"]);
    bench.ensured(3, 1);
    bench.check(&["send 1 to s3 epoch 1 attempt 1"]);
}

#[test]
fn a_cached_epoch_that_is_wrong_does_not_stick() {
    let mut bench = Bench::ready();
    bench.leads(1, 9);
    bench.submit(1);
    bench.rejected(1, 1, Rejection::NoQueue);
    bench.check(&["send 1 to s1 epoch 9 attempt 1", "ensure"]);
    bench.ensured(2, 1);
    bench.check(&["send 1 to s2 epoch 1 attempt 1"]);
}

#[test]
fn a_snapshot_replaces_members_and_queues() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.said();
    let members = [
        (SchedulerId(2), "h:2".to_owned()),
        (SchedulerId(4), "h:4".to_owned()),
    ];
    let queues = [(
        key(),
        Route {
            leader: Some(SchedulerId(2)),
            epoch: Epoch(2),
        },
    )];
    bench.step(Input::Snapshot {
        members: members.into(),
        queues: queues.into(),
    });
    bench.check(&["shut s1", "shut s3", "open s4", "send 1 to s2 epoch 2 attempt 2"]);
    bench.accepted(2, 1, 1);
    bench.said();
    bench.step(Input::Snapshot {
        members: [(SchedulerId(2), "h:2".to_owned())].into(),
        queues: BTreeMap::new(),
    });
    bench.submit(2);
    bench.check(&["shut s4", "ensure"]);
}

#[test]
fn a_member_that_moved_gets_a_new_stream_and_its_activations_back() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.said();
    bench.step(Input::Member {
        scheduler: SchedulerId(1),
        address: Some("elsewhere:1".to_owned()),
    });
    bench.check(&["shut s1", "open s1"]);
    bench.opened(1, 2);
    bench.check(&["send 1 to s1 epoch 1 attempt 2"]);
}

/// `waited_ms` of everything sent since the last call, by activation.
fn waited(bench: &mut Bench) -> BTreeMap<u8, u64> {
    let sent = bench.out.drain(..).filter_map(|output| match output {
        Output::Send { id, submission, .. } => Some((number(id), submission.waited_ms)),
        _ => None,
    });
    sent.collect()
}

#[test]
fn retention_counts_from_the_first_acceptance_over_all_leaders() {
    let mut bench = Bench::ready();
    let patient = |n| NewActivation {
        deadline: GIVEN_UP,
        ..activation(n)
    };
    bench.submit_as(patient(1));
    bench.submit_as(patient(2));
    assert_eq!(waited(&mut bench), BTreeMap::from([(1, 0), (2, 0)]));
    bench.pass(Duration::from_secs(2));
    bench.accepted(1, 1, 1);
    bench.pass(Duration::from_secs(3));
    bench.leads(2, 2);
    assert_eq!(
        waited(&mut bench),
        BTreeMap::from([(1, 3000), (2, 0)]),
        "nobody has accepted the second"
    );
    // The acceptance by a later leader changes nothing for the one accepted before.
    bench.accepted(2, 1, 1);
    bench.accepted(2, 1, 2);
    bench.pass(Duration::from_millis(500));
    bench.leads(3, 3);
    assert_eq!(waited(&mut bench), BTreeMap::from([(1, 3500), (2, 500)]));
}
