//! Hot path of the load: one activation, from when it is handed to the SDK to its end in the tally.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use whiskraft_client::{ActivationRecord, Client, InvokeError, InvokeOptions};
use whiskraft_types::{ActivationStatus, QueueKey};

use super::arguments::{Stamp, read_stamp};
use super::mix::Mix;
use super::plan::Plan;
use super::run_clock::RunClock;
use super::tally::{Ended, Outcome, Tallies};
use super::work::{UnderWay, Work};
use crate::clock;
use crate::load::reason;

/// What all activations of a run share.
#[derive(Debug)]
pub(super) struct Caller {
    /// SDK clients, used in turn.
    pub(super) clients: Vec<Client>,
    /// What each activation is.
    pub(super) mix: Arc<Mix>,
    /// The clock of the run.
    pub(super) clock: RunClock,
    /// Longest wait for one activation.
    pub(super) timeout: Duration,
    /// Whether durable ones are forgotten once they are accepted.
    pub(super) forget: bool,
    /// How long after its acceptance a durable one may begin.
    pub(super) delay: Duration,
    /// Where ends are counted.
    pub(super) tallies: Tallies,
    /// Ends one by one, if somebody wants to look at them.
    pub(super) ends: Option<Ends>,
    pub(super) under_way: UnderWay,
}

/// One end of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) n: u64,
    pub(super) due: Duration,
    pub(super) at: Duration,
    pub(super) is_good: bool,
}

/// Ends in their order.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<Vec<End>>);

impl Ends {
    fn add(&self, end: End) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(end);
    }

    /// Those after the first `known`.
    pub(super) fn after(&self, known: usize) -> Vec<End> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(known..).unwrap_or_default().to_vec()
    }
}

impl Work for Caller {
    fn clock(&self) -> RunClock {
        self.clock
    }

    fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    async fn carry_out(&self, n: u64, due: Duration) -> bool {
        let sent = self.clock.elapsed();
        let client = &self.clients[(n % self.clients.len() as u64) as usize];
        let queue = self.mix.queue(n);
        let ended = match self.mix.is_durable(n) {
            false => self.invoke(client, queue, n, due, sent).await,
            true => self.submit(client, queue, n, due, sent).await,
        };
        let is_good = !matches!(ended.outcome, Outcome::Failed { .. });
        if let Some(ends) = &self.ends {
            let at = ended.at;
            ends.add(End { n, due, at, is_good });
        }
        self.tallies.add(n, ended);
        is_good
    }
}

impl Caller {
    pub(super) fn new(
        clients: Vec<Client>,
        mix: Arc<Mix>,
        clock: RunClock,
        plan: &Plan,
        tallies: Tallies,
    ) -> Self {
        Self {
            clients,
            mix,
            clock,
            timeout: plan.timeout,
            forget: plan.forget,
            delay: plan.delay,
            tallies,
            ends: None,
            under_way: UnderWay::default(),
        }
    }

    async fn invoke(
        &self,
        client: &Client,
        queue: &QueueKey,
        n: u64,
        due: Duration,
        sent: Duration,
    ) -> Ended {
        let QueueKey { namespace, action } = queue;
        let arguments = self.mix.arguments(n);
        let answer = client.invoke(namespace, action, arguments, self.options()).await;
        let at = self.clock.elapsed();
        Ended {
            due,
            sent,
            accepted: None,
            at,
            is_durable: false,
            outcome: self.judge(n, due, answer),
        }
    }

    async fn submit(
        &self,
        client: &Client,
        queue: &QueueKey,
        n: u64,
        due: Duration,
        sent: Duration,
    ) -> Ended {
        let QueueKey { namespace, action } = queue;
        let arguments = self.mix.arguments(n);
        // A submission is durable unless it is told otherwise.
        let options = InvokeOptions {
            not_before: (!self.delay.is_zero()).then(|| clock::wall() + self.delay),
            ..self.options()
        };
        let answer = client.submit(namespace, action, arguments, options).await;
        let accepted = self.clock.elapsed();
        let ended = |at, accepted, outcome| Ended {
            due,
            sent,
            accepted,
            at,
            is_durable: true,
            outcome,
        };
        let mut invocation = match answer {
            Ok(_) if self.forget => return ended(accepted, Some(accepted), Outcome::Forgotten),
            Ok(invocation) => invocation,
            Err(error) => return ended(accepted, None, self.judge(n, due, Err(error))),
        };
        let answer = tokio::time::timeout(self.timeout, invocation.result()).await;
        let at = self.clock.elapsed();
        let outcome = match answer {
            Ok(answer) => self.judge(n, due, answer),
            Err(_) => Outcome::Failed {
                reason: "accepted durably, but no result within the deadline".to_owned(),
            },
        };
        ended(at, Some(accepted), outcome)
    }

    fn options(&self) -> InvokeOptions {
        InvokeOptions {
            deadline: self.timeout,
            ..InvokeOptions::default()
        }
    }

    fn judge(&self, n: u64, due: Duration, answer: Result<ActivationRecord, InvokeError>) -> Outcome {
        let record = match answer {
            Ok(record) if record.status == ActivationStatus::Success => record,
            Ok(record) => {
                return Outcome::Failed {
                    reason: format!("ended with {}", record.status.text()),
                };
            }
            Err(error) => {
                return Outcome::Failed {
                    reason: reason(&error),
                };
            }
        };
        match read_stamp(n, &record.result) {
            Stamp::Began(us) => Outcome::Done {
                queueing_us: Some(self.clock.until_stamp(due, us)),
            },
            Stamp::Missing => Outcome::Done { queueing_us: None },
            Stamp::Foreign => Outcome::Failed {
                reason: "got the result of another activation".to_owned(),
            },
        }
    }
}
