//! Proposals of queue leaders that nobody waits for on a stream: throttles and the removal of idle queues.

use std::time::Duration;

use tokio::sync::mpsc;
use whiskraft_raft::ProposeError;
use whiskraft_state::{Command, Response};
use whiskraft_types::{Epoch, QueueKey};

use crate::context::Context;
use crate::message::Request;
use crate::shard::ShardsHandle;

/// Proposals that wait: idle queues are removed in waves.
const PROPOSALS_MAX: usize = 4096;
/// Proposals in flight together: the log commits them in groups.
const BATCH_MAX: usize = 64;
/// Proposals that wait to be repeated, a throttle per queue; beyond it the oldest are dropped.
const REPEATS_MAX: usize = 4096;
/// Pause before a proposal that the log did not take is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a queue leader wants in the log. Both name their epoch, so repeating one is harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proposal {
    SetThrottle {
        key: QueueKey,
        epoch: Epoch,
        throttled: bool,
    },
    RemoveQueue {
        key: QueueKey,
        epoch: Epoch,
    },
}

impl Proposal {
    /// Whether it makes an earlier one void: a later throttle of the same queue.
    fn overtakes(&self, earlier: &Self) -> bool {
        matches!((self, earlier), (Self::SetThrottle { key, .. }, Self::SetThrottle { key: other, .. }) if key == other)
    }
}

/// The near end; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct ProposalsHandle {
    sender: mpsc::Sender<Proposal>,
}

impl ProposalsHandle {
    /// Takes a proposal; false if there is no room. Once taken, a throttle is repeated until the log has it or the
    /// epoch ends.
    pub(crate) fn push(&self, proposal: Proposal) -> bool {
        self.sender.try_send(proposal).is_ok()
    }
}

/// Proposes in order; the proposals of one batch go out together.
pub(crate) struct ProposalsActor {
    context: Context,
    shards: ShardsHandle,
    waiting: mpsc::Receiver<Proposal>,
}

impl ProposalsActor {
    pub(crate) fn channel() -> (ProposalsHandle, mpsc::Receiver<Proposal>) {
        let (sender, waiting) = mpsc::channel(PROPOSALS_MAX);
        (ProposalsHandle { sender }, waiting)
    }

    pub(crate) const fn new(
        context: Context,
        shards: ShardsHandle,
        waiting: mpsc::Receiver<Proposal>,
    ) -> Self {
        Self {
            context,
            shards,
            waiting,
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut repeats = Repeats::new(REPEATS_MAX);
        let mut pauses = tokio::time::interval(RETRY_PAUSE);
        pauses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = pauses.tick(), if !repeats.is_empty() => repeats.take(BATCH_MAX, &mut batch),
                count = self.waiting.recv_many(&mut batch, BATCH_MAX) => if count == 0 {
                    return;
                },
            }
            let proposals = newest(&mut batch);
            repeats.overtake(&proposals);
            let this = &*self;
            let proposed = proposals.into_iter().map(|proposal| this.propose(proposal));
            let left = futures::future::join_all(proposed).await.into_iter().flatten();
            if repeats.is_empty() {
                pauses.reset();
            }
            for dropped in repeats.extend(left) {
                self.fail(dropped, "too many proposals wait for the log").await;
            }
        }
    }

    /// Gives the proposal back if it is to be repeated.
    async fn propose(&self, proposal: Proposal) -> Option<Proposal> {
        let command = match &proposal {
            Proposal::SetThrottle {
                key,
                epoch,
                throttled,
            } => Command::SetActionThrottle {
                key: key.clone(),
                epoch: *epoch,
                throttled: *throttled,
            },
            Proposal::RemoveQueue { key, epoch } => Command::RemoveQueue {
                key: key.clone(),
                epoch: *epoch,
            },
        };
        match self.context.propose(command).await {
            Ok((_, Response::Refused(refusal))) => self.fail(proposal, &refusal.to_string()).await,
            Ok(_) => {}
            Err(ProposeError::Unknown(_)) => return Some(proposal),
            Err(ProposeError::Unavailable(reason) | ProposeError::Full(reason)) => match proposal {
                // The queue says it once: without it the table would show a throttle for ever.
                Proposal::SetThrottle { .. } => return Some(proposal),
                Proposal::RemoveQueue { .. } => self.fail(proposal, &reason).await,
            },
        }
        None
    }

    async fn fail(&self, proposal: Proposal, reason: &str) {
        match proposal {
            Proposal::SetThrottle { key, .. } => {
                tracing::debug!(queue = %key, reason, "throttle not proposed");
            }
            Proposal::RemoveQueue { key, epoch } => {
                tracing::debug!(queue = %key, reason, "removal of an idle queue failed");
                self.shards
                    .send_to(&key.clone(), Request::RemovalFailed { key, epoch })
                    .await;
            }
        }
    }
}

/// Proposals to be repeated, oldest first: at most one throttle per queue, its newest.
#[derive(Debug)]
struct Repeats {
    proposals: Vec<Proposal>,
    len_max: usize,
}

impl Repeats {
    const fn new(len_max: usize) -> Self {
        Self {
            proposals: Vec::new(),
            len_max,
        }
    }

    const fn is_empty(&self) -> bool {
        self.proposals.is_empty()
    }

    /// Moves the oldest into a batch.
    fn take(&mut self, count: usize, batch: &mut Vec<Proposal>) {
        batch.extend(self.proposals.drain(..count.min(self.proposals.len())));
    }

    /// Forgets what newer proposals overtake.
    fn overtake(&mut self, newer: &[Proposal]) {
        self.proposals
            .retain(|earlier| !newer.iter().any(|later| later.overtakes(earlier)));
    }

    /// Takes what the log did not take; gives what there is no room for, oldest first.
    fn extend(&mut self, left: impl Iterator<Item = Proposal>) -> Vec<Proposal> {
        self.proposals.extend(left);
        let excess = self.proposals.len().saturating_sub(self.len_max);
        self.proposals.drain(..excess).collect()
    }
}

/// The batch without throttles that a later one of the same queue overtakes.
fn newest(batch: &mut Vec<Proposal>) -> Vec<Proposal> {
    let mut kept: Vec<Proposal> = Vec::with_capacity(batch.len());
    for proposal in batch.drain(..) {
        kept.retain(|earlier| !proposal.overtakes(earlier));
        kept.push(proposal);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(action: u64, throttled: bool) -> Proposal {
        Proposal::SetThrottle {
            key: QueueKey {
                namespace: "guest".parse().unwrap(),
                action: format!("guest/a{action}").parse().unwrap(),
            },
            epoch: Epoch(7),
            throttled,
        }
    }

    fn taken(repeats: &mut Repeats, count: usize) -> Vec<Proposal> {
        let mut batch = Vec::new();
        repeats.take(count, &mut batch);
        batch
    }

    #[test]
    fn a_throttle_that_the_log_did_not_take_is_repeated_with_its_newest_value() {
        let mut repeats = Repeats::new(9);
        let left = [throttle(1, true), throttle(2, false)];
        assert_eq!(repeats.extend(left.into_iter()), []);
        let mut batch = vec![throttle(1, true), throttle(1, false)];
        let proposals = newest(&mut batch);
        assert_eq!(proposals, [throttle(1, false)]);
        repeats.overtake(&proposals);
        assert_eq!(repeats.extend(proposals.into_iter()), []);
        assert_eq!(taken(&mut repeats, 1), [throttle(2, false)]);
        assert_eq!(taken(&mut repeats, 9), [throttle(1, false)]);
        assert!(repeats.is_empty());
    }

    #[test]
    fn repeats_are_bounded_and_the_oldest_gives_way() {
        let mut repeats = Repeats::new(2);
        let left = (1..=3).map(|action| throttle(action, false));
        assert_eq!(repeats.extend(left), [throttle(1, false)]);
        assert_eq!(taken(&mut repeats, 9), [throttle(2, false), throttle(3, false)]);
    }
}
