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
/// Pause before a proposal without outcome is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What a queue leader wants in the log. Both name their epoch, so repeating one is harmless.
#[derive(Debug, Clone)]
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

/// The near end; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct ProposalsHandle {
    sender: mpsc::Sender<Proposal>,
}

impl ProposalsHandle {
    /// Takes a proposal; false if there is no room. A lost throttle is only a lost warning: the queue itself refuses.
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
        while self.waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let this = &*self;
            futures::future::join_all(
                newest(&mut batch)
                    .into_iter()
                    .map(|proposal| this.propose(proposal)),
            )
            .await;
        }
    }

    async fn propose(&self, proposal: Proposal) {
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
        let refused = loop {
            match self.context.node.propose(command.clone()).await {
                Ok((_, Response::Refused(refusal))) => break Some(refusal.to_string()),
                Ok(_) => break None,
                Err(ProposeError::Unavailable(reason) | ProposeError::Full(reason)) => break Some(reason),
                Err(ProposeError::Unknown(_)) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        };
        let Some(reason) = refused else { return };
        match proposal {
            Proposal::SetThrottle { key, .. } => {
                tracing::debug!(queue = %key, reason, "throttle not proposed")
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

/// The batch without throttles that a later one of the same queue overtakes.
fn newest(batch: &mut Vec<Proposal>) -> Vec<Proposal> {
    let mut kept: Vec<Proposal> = Vec::with_capacity(batch.len());
    for proposal in batch.drain(..) {
        if let Proposal::SetThrottle { key, .. } = &proposal {
            kept.retain(
                |earlier| !matches!(earlier, Proposal::SetThrottle { key: other, .. } if other == key),
            );
        }
        kept.push(proposal);
    }
    kept
}
