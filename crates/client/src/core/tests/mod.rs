//! The router on its own: rules S1 to S6, S9 and S10 of the controller specification, without a network.

mod deadlines;
mod durable;
mod failover;
mod history;
mod path;
mod refusals;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use whiskraft_proto::v1;
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
        run: 1,
        cancelled: false,
    }
}

fn activation(n: u8) -> NewActivation {
    NewActivation {
        id: id(n),
        key: key(),
        payload: Bytes::from_static(b"{\"a\":1}"),
        blocking: true,
        may_have_run: false,
        durable: false,
        keyed: false,
        not_before_ms: 0,
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
            asks_max: 32,
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
            stats.completed + stats.failed + stats.forgotten + stats.unfinished as u64
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
        assert_eq!(self.router.admit(self.now, &new), Ok(Admission::New));
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
            Output::Throttled { scope, .. } => format!("throttled {scope:?}"),
            Output::Ensure { resubmits: false, .. } => "ensure".to_owned(),
            Output::Ensure { resubmits: true, .. } => "ensure for resubmission".to_owned(),
            Output::Accepted { id } => format!("accepted {}", number(id)),
            Output::Overdue { id, .. } => format!("overdue {}", number(id)),
            Output::Forgotten { id } => format!("forgotten {}", number(id)),
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
