//! One submitter: an activation after the other, each until its fate is known.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use whiskraft_client::{Client, InvokeError, InvokeOptions};
use whiskraft_types::Rejection;

use super::{Fate, GIVE_UP, Operation, Shared};
use crate::wait::Deadline;

/// Longest wait for one acknowledgement; then the activation is submitted again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Pause after an answer that says nothing.
const PAUSE: Duration = Duration::from_millis(50);

/// What one attempt says.
enum Answer {
    Accepted,
    /// It did not happen, and another attempt may be made after this time.
    NotNow(Duration, String),
    /// It did not happen and will not.
    Never(String),
    Unknown(String),
}

/// A submitter.
pub(super) struct Submitter {
    shared: Arc<Shared>,
    clock: Deadline,
    stop: watch::Receiver<bool>,
}

impl Submitter {
    pub(super) fn new(shared: Arc<Shared>, clock: Deadline, stop: watch::Receiver<bool>) -> Self {
        Self { shared, clock, stop }
    }

    /// Works until told to stop, or until there is no work left.
    pub(super) async fn run(self) -> Vec<Operation> {
        let mut all = Vec::new();
        while !*self.stop.borrow() {
            let n = self.shared.next.fetch_add(1, Ordering::Relaxed);
            if n >= self.shared.work.most {
                break;
            }
            let operation = self.activation(n).await;
            if operation.fate == Fate::Accepted {
                self.shared.accepted(&operation);
            }
            all.push(operation);
        }
        all
    }

    async fn activation(&self, n: u64) -> Operation {
        let Shared { work, clients, .. } = &*self.shared;
        let place = usize::try_from(n).expect("fewer activations than addresses");
        let mut operation = Operation {
            id: Client::draw_id(),
            key: work.queues[place % work.queues.len()].clone(),
            n,
            began: self.clock.elapsed(),
            took: Duration::ZERO,
            tries: 0,
            twice: work.twice_every > 0 && n.is_multiple_of(work.twice_every),
            fate: Fate::Unknown(String::new()),
        };
        let arguments = work.arguments(n).to_string();
        let limit = Deadline::after(GIVE_UP);
        let mut unknown = None;
        let fate = loop {
            // Another client for each attempt: the last one may still be at it.
            let first = &clients[(place + operation.tries as usize) % clients.len()];
            let second = &clients[(place + operation.tries as usize + 1) % clients.len()];
            let retries = operation.tries > 0;
            operation.tries += 1;
            let answer = if operation.twice && !retries {
                let (one, two) = tokio::join!(
                    attempt(first, &operation, &arguments, retries),
                    attempt(second, &operation, &arguments, true)
                );
                one.or(two)
            } else {
                attempt(first, &operation, &arguments, retries).await
            };
            let pause = match answer {
                Answer::Accepted => break Fate::Accepted,
                // What refuses now says nothing about an attempt without an answer.
                Answer::Never(why) => break unknown.map_or(Fate::Refused(why), Fate::Unknown),
                Answer::NotNow(pause, why) if limit.is_past() => {
                    let _ = pause;
                    break unknown.map_or(Fate::Refused(why), Fate::Unknown);
                }
                Answer::NotNow(pause, _) => pause,
                Answer::Unknown(why) if limit.is_past() => break Fate::Unknown(why),
                Answer::Unknown(why) => {
                    unknown = Some(why);
                    PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        };
        operation.took = self.clock.elapsed().saturating_sub(operation.began);
        operation.fate = fate;
        operation
    }
}

impl Answer {
    /// What two attempts say together: what is certain counts.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Accepted, _) | (_, Self::Accepted) => Self::Accepted,
            (Self::Unknown(why), _) | (_, Self::Unknown(why)) => Self::Unknown(why),
            (Self::NotNow(pause, why), _) | (_, Self::NotNow(pause, why)) => Self::NotNow(pause, why),
            (Self::Never(why), Self::Never(_)) => Self::Never(why),
        }
    }
}

/// One attempt at what was submitted before.
pub(super) async fn again(client: &Client, operation: &Operation, arguments: &str) -> Fate {
    match attempt(client, operation, arguments, true).await {
        Answer::Accepted => Fate::Accepted,
        Answer::Never(why) => Fate::Refused(why),
        Answer::NotNow(_, why) | Answer::Unknown(why) => Fate::Unknown(why),
    }
}

async fn attempt(client: &Client, operation: &Operation, arguments: &str, may_have_run: bool) -> Answer {
    let options = InvokeOptions {
        id: Some(operation.id),
        deadline: ANSWER_LIMIT,
        may_have_run,
        ..InvokeOptions::default()
    };
    let submitted = client
        .submit(
            &operation.key.namespace,
            &operation.key.action,
            arguments,
            options,
        )
        .await;
    match submitted {
        // The handle is dropped: what is acknowledged needs nobody any more.
        Ok(_) => Answer::Accepted,
        Err(error) => understood(&error, may_have_run),
    }
}

fn understood(error: &InvokeError, may_have_run: bool) -> Answer {
    let text = chain(error);
    match error {
        InvokeError::Full { .. } => Answer::NotNow(PAUSE, text),
        InvokeError::Rejected {
            may_have_run: false,
            rejection,
            ..
        } if !may_have_run => match rejection {
            Rejection::Throttled { retry_after, .. } => Answer::NotNow((*retry_after).max(PAUSE), text),
            Rejection::StorageFull { .. } => Answer::NotNow(PAUSE, text),
            _ => Answer::Never(text),
        },
        InvokeError::NotAccepted { .. } | InvokeError::StorageFull { .. } if !may_have_run => {
            Answer::NotNow(PAUSE, text)
        }
        InvokeError::Rejected {
            rejection: Rejection::Conflict,
            ..
        } => Answer::Never(text),
        _ => Answer::Unknown(text),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
