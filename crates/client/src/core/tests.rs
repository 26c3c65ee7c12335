//! The router on its own: rules S1 to S6, S9 and S10 of the controller specification, without a network.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use whiskraft_types::{
    ActivationId, ActivationStatus, Epoch, Instant, NotLeader, QueueKey, Rejection, SchedulerId,
    ThrottleScope,
};

use super::*;
use crate::ActivationRecord;
use crate::invocation::Outcome;

const DEADLINE: Duration = Duration::from_secs(5);
const GIVEN_UP: Duration = Duration::from_secs(180);
const WINDOW: u32 = 4;
const PAYLOAD_LEN_MAX: u64 = 100;

fn id(n: u8) -> ActivationId {
    ActivationId::from_bytes([n; 16])
}

fn number(id: ActivationId) -> u8 {
    id.as_bytes()[0]
}

fn key() -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "lib/hello".parse().unwrap(),
    }
}

fn record(n: u8) -> ActivationRecord {
    ActivationRecord {
        id: id(n),
        status: ActivationStatus::Success,
        result: Bytes::from_static(b"{}"),
        logs: Vec::new(),
        start_ms: 0,
        end_ms: 1,
        init_ms: None,
        wait_ms: 0,
        timed_out: false,
        ran_on: None,
    }
}

fn activation(n: u8) -> NewActivation {
    NewActivation {
        id: id(n),
        key: key(),
        payload: Bytes::from_static(b"{\"a\":1}"),
        blocking: true,
        may_have_run: false,
        deadline: DEADLINE,
        given_up_after: GIVEN_UP,
        context: Context::default(),
    }
}

fn stream(scheduler: u64, generation: u64) -> StreamId {
    StreamId {
        scheduler: SchedulerId(scheduler),
        generation,
    }
}

fn unavailable() -> Rejection {
    Rejection::Unavailable {
        reason: "no quorum".to_owned(),
    }
}

fn not_leader(leader: u64, epoch: u64) -> Rejection {
    Rejection::NotLeader(NotLeader {
        leader: (leader != 0).then_some(SchedulerId(leader)),
        epoch: Epoch(epoch),
    })
}

/// A router with a clock, and what it wanted so far.
struct Bench {
    router: Router,
    now: Instant,
    out: Vec<Output>,
    settled: BTreeMap<u8, Outcome>,
}

impl Bench {
    fn new() -> Self {
        let bounds = Bounds {
            unfinished_max: 8,
            unfinished_bytes_max: 100,
        };
        Self {
            router: Router::new(bounds, StdRng::seed_from_u64(7)),
            now: Instant::ORIGIN,
            out: Vec::new(),
            settled: BTreeMap::new(),
        }
    }

    /// Three schedulers with open streams; scheduler 1 leads the queue in epoch 1.
    fn ready() -> Self {
        let mut bench = Self::new();
        for scheduler in 1..=3 {
            bench.member(scheduler);
            bench.opened(scheduler, 1);
        }
        bench.leads(1, 1);
        bench.said();
        bench
    }

    fn step(&mut self, input: Input) {
        self.router.step(self.now, input, &mut self.out);
        for output in &self.out {
            if let Output::Settled { id, outcome } = output {
                self.settled.entry(number(*id)).or_insert_with(|| outcome.clone());
            }
        }
        let stats = self.router.stats();
        assert_eq!(stats.unfinished, self.router.unfinished.len());
        let bytes: u64 = self
            .router
            .unfinished
            .values()
            .map(|a| a.payload.len() as u64)
            .sum();
        assert_eq!(stats.unfinished_bytes, bytes);
        assert_eq!(
            stats.submitted,
            stats.completed + stats.failed + stats.unfinished as u64
        );
    }

    fn member(&mut self, scheduler: u64) {
        let address = Some(format!("h:{scheduler}"));
        self.step(Input::Member {
            scheduler: SchedulerId(scheduler),
            address,
        });
    }

    fn opened(&mut self, scheduler: u64, generation: u64) {
        let stream = stream(scheduler, generation);
        self.step(Input::StreamOpened {
            stream,
            window: WINDOW,
            payload_len_max: PAYLOAD_LEN_MAX,
        });
    }

    fn lost(&mut self, scheduler: u64, generation: u64, unsent: &[u8]) {
        let unsent = unsent.iter().map(|n| id(*n)).collect();
        self.step(Input::StreamLost {
            stream: stream(scheduler, generation),
            unsent,
        });
    }

    fn leads(&mut self, leader: u64, epoch: u64) {
        let route = Route {
            leader: (leader != 0).then_some(SchedulerId(leader)),
            epoch: Epoch(epoch),
        };
        self.step(Input::Queue {
            key: key(),
            route: Some(route),
        });
    }

    fn submit(&mut self, n: u8) {
        self.submit_as(activation(n));
    }

    fn submit_as(&mut self, new: NewActivation) {
        assert_eq!(self.router.admit(&new), Ok(()));
        self.step(Input::Submit(new));
    }

    fn accepted(&mut self, scheduler: u64, generation: u64, n: u8) {
        self.step(Input::Accepted {
            stream: stream(scheduler, generation),
            id: id(n),
        });
    }

    fn rejected(&mut self, scheduler: u64, n: u8, rejection: Rejection) {
        self.step(Input::Rejected {
            stream: stream(scheduler, 1),
            id: id(n),
            rejection,
        });
    }

    fn completed(&mut self, scheduler: u64, n: u8) {
        self.step(Input::Completed {
            stream: stream(scheduler, 1),
            record: record(n),
        });
    }

    fn ensured(&mut self, leader: u64, epoch: u64) {
        let answer = EnsureAnswer::Leadership {
            leader: SchedulerId(leader),
            epoch: Epoch(epoch),
            address: None,
        };
        self.step(Input::Ensured { key: key(), answer });
    }

    /// Moves the clock and fires what is due on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.router.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Input::Tick);
        }
        self.now = end;
    }

    /// What was wanted since the last call, in short form.
    fn said(&mut self) -> Vec<String> {
        let short = |output| match output {
            Output::Open { scheduler, .. } => format!("open s{scheduler}"),
            Output::Shut { scheduler } => format!("shut s{scheduler}"),
            Output::Send {
                stream,
                id,
                submission,
            } => format!(
                "send {} to s{} epoch {} attempt {}",
                number(id),
                stream.scheduler,
                submission.epoch,
                submission.attempt
            ),
            Output::Received { stream, id } => format!("received {} to s{}", number(id), stream.scheduler),
            Output::Ensure { .. } => "ensure".to_owned(),
            Output::Accepted { id } => format!("accepted {}", number(id)),
            Output::Overdue { id, .. } => format!("overdue {}", number(id)),
            Output::Settled { id, outcome } => match outcome {
                Ok(_) => format!("settled {}", number(id)),
                Err(error) => format!("failed {}: {}", number(id), variant(&error)),
            },
        };
        self.out.drain(..).map(short).collect()
    }

    fn check(&mut self, expected: &[&str]) {
        assert_eq!(self.said(), expected);
    }
}

fn variant(error: &InvokeError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

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
    let throttled = Rejection::Throttled {
        scope: ThrottleScope::Action,
        retry_after: Duration::from_millis(10),
    };
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
    let throttled = Rejection::Throttled {
        scope: ThrottleScope::Action,
        retry_after: Duration::from_millis(10),
    };
    bench.rejected(2, 1, throttled);
    bench.pass(Duration::from_millis(40));
    bench.ensured(2, 2);
    bench.check(&["ensure", "send 1 to s2 epoch 2 attempt 2"]);
}

#[test]
fn an_overrun_window_is_no_business_of_the_caller() {
    let mut bench = Bench::ready();
    bench.submit(1);
    bench.said();
    let scope = ThrottleScope::Stream;
    let retry_after = Duration::from_millis(10);
    bench.rejected(1, 1, Rejection::Throttled { scope, retry_after });
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
fn ids_in_use_and_full_clients_are_refused() {
    let mut bench = Bench::ready();
    bench.submit(1);
    assert_eq!(
        bench.router.admit(&activation(1)),
        Err(InvokeError::IdInUse { id: id(1) })
    );
    let large = NewActivation {
        payload: vec![b' '; 94].into(),
        ..activation(2)
    };
    assert_eq!(
        bench.router.admit(&large),
        Err(InvokeError::Full {
            unfinished: 1,
            bytes: 7
        })
    );
    (2..=8).for_each(|n| bench.submit(n));
    assert_eq!(
        bench.router.admit(&activation(9)),
        Err(InvokeError::Full {
            unfinished: 8,
            bytes: 56
        })
    );
    bench.completed(1, 1);
    assert_eq!(bench.router.admit(&activation(9)), Ok(()));
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

#[test]
fn closing_ends_everything() {
    let mut bench = Bench::ready();
    (1..=6).for_each(|n| bench.submit(n));
    bench.step(Input::Close);
    assert_eq!(bench.settled.len(), 6);
    assert_eq!(bench.settled[&6], Err(InvokeError::Closed { id: id(6) }));
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
    assert_eq!(bench.said().len(), ASKS_MAX);
    let failed = EnsureAnswer::Failed("down".to_owned());
    bench.step(Input::Ensured {
        key: key_of(1),
        answer: failed,
    });
    bench.check(&["ensure"]);
}

/// Random events against the promises that hold for every history.
#[test]
fn no_history_settles_twice_or_sends_what_ended() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bench = Bench::ready();
        let mut generations = [0, 1, 1, 1];
        let mut submitted = 0_u8;
        let mut ended = BTreeMap::new();
        let mut attempts: BTreeMap<u8, u32> = BTreeMap::new();
        for _ in 0..200 {
            random_event(&mut bench, &mut rng, &mut generations, &mut submitted);
            for output in std::mem::take(&mut bench.out) {
                match output {
                    Output::Settled { id, .. } => {
                        assert_eq!(ended.insert(number(id), ()), None, "seed {seed}: settled twice");
                    }
                    Output::Send {
                        id,
                        stream,
                        submission,
                    } => {
                        assert!(
                            !ended.contains_key(&number(id)),
                            "seed {seed}: sent after its end"
                        );
                        assert_eq!(
                            stream.generation,
                            generations[usize::try_from(stream.scheduler.0).unwrap()]
                        );
                        let before = attempts.insert(number(id), submission.attempt);
                        assert!(
                            before.unwrap_or(1) <= submission.attempt,
                            "seed {seed}: attempt fell"
                        );
                    }
                    _ => {}
                }
            }
        }
        heal_and_finish(&mut bench, &generations);
        assert_eq!(
            bench.settled.len(),
            usize::from(submitted),
            "seed {seed}: something hangs"
        );
    }
}

fn random_event(bench: &mut Bench, rng: &mut StdRng, generations: &mut [u64; 4], submitted: &mut u8) {
    let scheduler = rng.random_range(1..=3_u64);
    let generation = generations[usize::try_from(scheduler).unwrap()];
    let at = stream(scheduler, generation);
    let n = rng.random_range(1..=(*submitted).max(1));
    match rng.random_range(0..12) {
        0..=2 if *submitted < 60 && bench.router.admit(&activation(*submitted + 1)).is_ok() => {
            *submitted += 1;
            bench.submit(*submitted);
        }
        3 => bench.accepted(scheduler, generation, n),
        4 => bench.step(Input::Completed {
            stream: at,
            record: record(n),
        }),
        5 => bench.step(Input::Rejected {
            stream: at,
            id: id(n),
            rejection: unavailable(),
        }),
        6 => {
            let rejection = not_leader(rng.random_range(0..=3), rng.random_range(1..=20));
            bench.step(Input::Rejected {
                stream: at,
                id: id(n),
                rejection,
            });
        }
        7 => {
            let unsent = if rng.random() { vec![id(n)] } else { Vec::new() };
            bench.step(Input::StreamLost { stream: at, unsent });
            generations[usize::try_from(scheduler).unwrap()] += 1;
        }
        8 => bench.opened(scheduler, generation),
        9 => bench.leads(rng.random_range(0..=3), rng.random_range(1..=20)),
        10 => bench.ensured(rng.random_range(1..=3), rng.random_range(1..=20)),
        _ => bench.pass(Duration::from_millis(rng.random_range(1..2000))),
    }
}

/// All streams open, a newest leader: everything has to come to its end through it.
fn heal_and_finish(bench: &mut Bench, generations: &[u64; 4]) {
    for scheduler in 1..=3_u64 {
        bench.lost(scheduler, generations[usize::try_from(scheduler).unwrap()], &[]);
        bench.opened(scheduler, 1000);
    }
    bench.leads(2, 1000);
    for _ in 0..100 {
        let sent: Vec<_> = std::mem::take(&mut bench.out)
            .into_iter()
            .filter_map(|output| match output {
                Output::Send { stream, id, .. } => Some((stream, id)),
                _ => None,
            })
            .collect();
        for (stream, id) in sent {
            bench.step(Input::Accepted { stream, id });
            bench.step(Input::Completed {
                stream,
                record: record(number(id)),
            });
        }
    }
}
