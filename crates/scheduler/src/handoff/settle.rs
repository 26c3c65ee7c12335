//! The log's part of a hand-over: the change of leader is proposed, and every queue is settled by what the tables say then.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use whiskraft_proto::v1;
use whiskraft_raft::ProposeError;
use whiskraft_state::{Command, Response};
use whiskraft_types::{Epoch, QueueKey, SchedulerId, SessionId};

use super::order::Settled;
use super::sender::{HandOver, Sent, client, unavailable};
use crate::shard::IMPORT_KEEP;

/// Pause before a proposal whose outcome is unknown is repeated, and between two attempts to take an import back.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the answer of a scheduler that is asked to forget an import.
const FORGET_WAIT_MAX: Duration = Duration::from_millis(500);

/// How a proposal ended.
enum Proposed {
    /// The log has it. Whether an earlier attempt may still be under way.
    Applied { is_certain: bool },
    /// It certainly took no effect.
    Refused(String),
    /// The session has ended.
    Gone,
}

impl HandOver {
    /// Asks the log, and settles by what the tables say then.
    pub(super) async fn change_leaders(
        &self,
        session: SessionId,
        attempt: u64,
        sent: Vec<Sent>,
    ) -> Vec<(QueueKey, Settled)> {
        let queues = sent
            .iter()
            .map(|queue| (queue.key.clone(), queue.epoch, queue.to))
            .collect();
        let proposed = self.propose(session, Command::HandOver { session, queues }).await;
        let (is_certain, reason) = match proposed {
            Proposed::Applied { is_certain } => {
                (is_certain, "its next leader takes no queues now".to_owned())
            }
            Proposed::Refused(reason) => (true, reason),
            Proposed::Gone => return sent.into_iter().map(|queue| (queue.key, Settled::Gone)).collect(),
        };
        let stays = |queue: &&Sent| self.epoch_after(session, queue).is_none();
        let left: Vec<&Sent> = sent.iter().filter(stays).collect();
        self.take_back(session, attempt, &left, is_certain).await;
        // A change that came late may have been applied while imports were taken back.
        self.settle(session, sent, &reason).await
    }

    /// The epoch of a queue, zero if it is gone; `None` if it is still led by this session in the one it had.
    fn epoch_after(&self, session: SessionId, queue: &Sent) -> Option<Epoch> {
        let row = self.context.node.read(|state| {
            let row = state.queue(&queue.key)?;
            Some((row.leader.map(|(_, session)| session), row.epoch))
        });
        match row {
            Some((Some(leader), epoch)) if (leader, epoch) == (session, queue.epoch) => None,
            Some((_, epoch)) => Some(epoch),
            None => Some(Epoch::default()),
        }
    }

    /// Moves queues without what is in them, wherever the log wants them.
    pub(super) async fn move_bare(&self, session: SessionId, queues: Vec<Sent>) -> Vec<(QueueKey, Settled)> {
        if queues.is_empty() {
            return Vec::new();
        }
        let named = queues.iter().map(|queue| (queue.key.clone(), queue.epoch));
        let command = Command::MoveQueues {
            session,
            queues: named.collect(),
        };
        let reason = match self.propose(session, command).await {
            Proposed::Applied { .. } => "it could not be moved".to_owned(),
            Proposed::Refused(reason) => reason,
            Proposed::Gone => {
                return queues
                    .into_iter()
                    .map(|queue| (queue.key, Settled::Gone))
                    .collect();
            }
        };
        self.settle(session, queues, &reason).await
    }

    /// Queues that the tables have under this session in the same epoch go on here; all others have moved.
    async fn settle(&self, session: SessionId, queues: Vec<Sent>, reason: &str) -> Vec<(QueueKey, Settled)> {
        let (mut settled, mut moved) = (Vec::new(), Vec::new());
        for queue in queues {
            let Some(epoch) = self.epoch_after(session, &queue) else {
                self.unfreeze(&queue.key, queue.epoch).await;
                settled.push((queue.key, Settled::Stayed(unavailable(reason))));
                continue;
            };
            let activations = queue.activations;
            moved.push(queue.key.clone());
            settled.push((queue.key, Settled::Moved { epoch, activations }));
        }
        if !moved.is_empty() {
            self.creation.released(moved).await;
        }
        settled
    }

    /// Proposes; an outcome that is not known is asked for again, since the command names the epochs.
    async fn propose(&self, session: SessionId, command: Command) -> Proposed {
        let mut is_certain = true;
        loop {
            match self.context.propose(command.clone()).await {
                Ok((_, Response::Refused(refusal))) if is_certain => {
                    return Proposed::Refused(refusal.to_string());
                }
                Ok((revision, _)) => {
                    let _ = self.context.node.wait_applied(revision).await;
                    return Proposed::Applied { is_certain };
                }
                Err(ProposeError::Unknown(reason)) => {
                    is_certain = false;
                    tracing::debug!(reason, "outcome of a change of leader unknown, asks again");
                }
                Err(ProposeError::Unavailable(reason) | ProposeError::Full(reason)) if is_certain => {
                    return Proposed::Refused(reason);
                }
                Err(ProposeError::Unavailable(_) | ProposeError::Full(_)) => {}
            }
            if self.context.fence.session() != Some(session) {
                return Proposed::Gone;
            }
            sleep(REPEAT_PAUSE).await;
        }
    }

    /// Makes sure that nobody uses what was sent of queues that go on here. If a proposal for them may still be under way this
    /// waits until those who were sent it have forgotten it; else it is a matter of their memory only.
    async fn take_back(&self, session: SessionId, attempt: u64, queues: &[&Sent], is_certain: bool) {
        let mut by_target: BTreeMap<SchedulerId, Vec<&QueueKey>> = BTreeMap::new();
        for queue in queues {
            by_target.entry(queue.to).or_default().push(&queue.key);
        }
        let taking = by_target.into_iter().map(|(to, keys)| async move {
            let request = v1::ForgetImportRequest {
                session: session.0,
                attempt,
                keys: keys.into_iter().map(Into::into).collect(),
            };
            let until = self.context.clock.now() + IMPORT_KEEP;
            while !self.forget(to, request.clone()).await
                && !is_certain
                && self.context.clock.now() < until
                && self.context.fence.session() == Some(session)
            {
                sleep(REPEAT_PAUSE).await;
            }
        });
        futures::future::join_all(taking).await;
    }

    async fn forget(&self, to: SchedulerId, request: v1::ForgetImportRequest) -> bool {
        let Some(channel) = self.channel(to) else {
            return false;
        };
        let mut client = client(channel);
        matches!(
            timeout(FORGET_WAIT_MAX, client.forget_import(request)).await,
            Ok(Ok(_))
        )
    }
}
