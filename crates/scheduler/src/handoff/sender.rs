//! The giving side: what was frozen is sent to those who lead it next, then the log decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use whiskraft_proto::MESSAGE_LEN_MAX;
use whiskraft_proto::v1::{self, hand_off_client::HandOffClient};
use whiskraft_raft::ProposeError;
use whiskraft_state::{Command, Response};
use whiskraft_types::{Epoch, QueueKey, Rejection, SchedulerId, SessionId};

use crate::context::Context;
use crate::creation::CreationHandle;
use crate::handoff::wire::frames;
use crate::message::Request;
use crate::neighbours::Channels;
use crate::shard::{Exported, IMPORT_KEEP, Pick, ShardsHandle};

/// Pause before a proposal whose outcome is unknown is repeated, and between two attempts to take an import back.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the answer of a scheduler that is asked to forget an import.
const FORGET_WAIT_MAX: Duration = Duration::from_millis(500);
/// Hand-overs under way at a time; each holds one batch of queues still.
const BATCHES_MAX: usize = 4;

/// Who leads the queues of a batch next.
#[derive(Debug, Clone)]
pub(crate) enum Targets {
    /// This one.
    Only(SchedulerId),
    /// These, each with how many queues it leads: the one with the fewest gets the next.
    Fewest(Vec<(u32, SchedulerId)>),
}

/// Whether queues may be moved without what is in them, as after a death: their controllers submit it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    Never,
    /// Only those for which the next leader has no room.
    TooLarge,
    Always,
}

/// What became of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Others lead it now, in this epoch; so many activations went with it.
    Moved { epoch: Epoch, activations: usize },
    /// It goes on here.
    Stayed(Rejection),
    /// The session has ended, and the queue with it.
    Gone,
}

/// Hands queues over; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct HandOver {
    context: Context,
    shards: ShardsHandle,
    creation: CreationHandle,
    channels: Arc<Mutex<Channels>>,
    attempts: Arc<AtomicU64>,
    batches: Arc<Semaphore>,
}

/// How a proposal ended.
enum Proposed {
    /// The log has it. Whether an earlier attempt may still be under way.
    Applied { is_certain: bool },
    /// It certainly took no effect.
    Refused(String),
    /// The session has ended.
    Gone,
}

/// A queue that was sent.
struct Sent {
    key: QueueKey,
    epoch: Epoch,
    to: SchedulerId,
    activations: usize,
}

impl HandOver {
    pub(crate) fn new(context: Context, shards: ShardsHandle, creation: CreationHandle) -> Self {
        Self {
            context,
            shards,
            creation,
            channels: Arc::default(),
            attempts: Arc::default(),
            batches: Arc::new(Semaphore::new(BATCHES_MAX)),
        }
    }

    /// Moves queues of a session to others. Every one that is picked is settled when this returns, and the work runs to its end
    /// even if nobody waits for it any more: nothing is left frozen.
    pub(crate) async fn run(
        &self,
        session: SessionId,
        pick: Pick,
        targets: Targets,
        bare: Bare,
    ) -> Vec<(QueueKey, Settled)> {
        let this = self.clone();
        let moving = tokio::spawn(async move {
            let _turn = this.batches.acquire().await;
            let queues = this.freeze(session, pick).await;
            if bare == Bare::Always {
                return this.move_bare(session, queues.iter().map(Sent::bare).collect()).await;
            }
            this.hand_over(session, queues, targets, bare).await
        });
        moving.await.unwrap_or_default()
    }

    /// Freezes queues, over all shards.
    async fn freeze(&self, session: SessionId, pick: Pick) -> Vec<Exported> {
        let shards = match &pick {
            Pick::Named(key) => vec![self.shards.of(key)],
            Pick::Any { .. } | Pick::Sound { .. } => (0..self.shards.len()).collect(),
        };
        let mut left = pick;
        let mut frozen: Vec<Exported> = Vec::new();
        for shard in shards {
            if left.is_empty() {
                break;
            }
            let (answer, exported) = oneshot::channel();
            let request = Request::Freeze {
                session,
                pick: left.clone(),
                answer,
            };
            self.shards.send(shard, request).await;
            let exported = exported.await.unwrap_or_default();
            left.take(&exported);
            frozen.extend(exported);
        }
        frozen
    }

    async fn unfreeze(&self, key: &QueueKey, epoch: Epoch) {
        let request = Request::Unfreeze {
            key: key.clone(),
            epoch,
        };
        self.shards.send_to(key, request).await;
    }

    async fn hand_over(
        &self,
        session: SessionId,
        queues: Vec<Exported>,
        mut targets: Targets,
        bare: Bare,
    ) -> Vec<(QueueKey, Settled)> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let mut by_target: BTreeMap<SchedulerId, Vec<Exported>> = BTreeMap::new();
        for queue in queues {
            by_target.entry(targets.next()).or_default().push(queue);
        }
        let sending = by_target
            .into_iter()
            .map(|(to, queues)| self.send(session, attempt, to, queues));
        let (mut sent, mut refused) = (Vec::new(), Vec::new());
        for (of_target, others) in futures::future::join_all(sending).await {
            sent.extend(of_target);
            refused.extend(others);
        }
        let mut settled = Vec::new();
        if !sent.is_empty() {
            settled.extend(self.change_leaders(session, attempt, sent).await);
        }
        let may_go = |rejection: &Rejection| {
            bare == Bare::TooLarge && matches!(rejection, Rejection::TooLarge { .. })
        };
        let (too_large, refused): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|(_, rejection)| may_go(rejection));
        for (queue, rejection) in refused {
            self.unfreeze(&queue.key, queue.epoch).await;
            settled.push((queue.key, Settled::Stayed(rejection)));
        }
        if !too_large.is_empty() {
            let queues = too_large.into_iter().map(|(queue, _)| queue).collect();
            settled.extend(self.move_bare(session, queues).await);
        }
        settled
    }

    /// Sends queues to one scheduler; gives those that it keeps, and why it does not keep the others.
    async fn send(
        &self,
        session: SessionId,
        attempt: u64,
        to: SchedulerId,
        queues: Vec<Exported>,
    ) -> (Vec<Sent>, Vec<(Sent, Rejection)>) {
        let all: Vec<Sent> = queues.iter().map(|queue| Sent::to(to, queue)).collect();
        let answer = timeout(
            self.context.config.handoff.deadline,
            self.stream(session, attempt, to, queues),
        );
        let mut refused = match answer.await {
            Ok(Ok(refused)) => refused,
            Ok(Err(reason)) => everyone(&all, &reason),
            Err(_) => everyone(&all, &format!("scheduler {to} did not take the queue in time")),
        };
        let (mut sent, mut left) = (Vec::new(), Vec::new());
        for queue in all {
            match refused.remove(&queue.key) {
                None => sent.push(queue),
                Some(rejection) => left.push((queue, rejection)),
            }
        }
        (sent, left)
    }

    /// Those of the queues that the other one does not keep.
    async fn stream(
        &self,
        session: SessionId,
        attempt: u64,
        to: SchedulerId,
        queues: Vec<Exported>,
    ) -> Result<BTreeMap<QueueKey, Rejection>, String> {
        let channel = self
            .channel(to)
            .ok_or_else(|| format!("scheduler {to} has no address yet"))?;
        let mut missing: BTreeSet<QueueKey> = queues.iter().map(|queue| queue.key.clone()).collect();
        let hello = v1::ImportFrame {
            cluster_id: self.context.node.cluster_id().to_owned(),
            session: session.0,
            attempt,
            queues: Vec::new(),
        };
        let queues = queues
            .into_iter()
            .map(|queue| (queue.key, queue.epoch, queue.activations));
        let frames = frames(hello, queues.collect());
        let answer = client(channel)
            .import(futures::stream::iter(frames))
            .await
            .map_err(|status| {
                format!(
                    "scheduler {to} did not take the queue: {}",
                    status.message()
                )
            })?;
        let mut refused = BTreeMap::new();
        for queue in answer.into_inner().queues {
            let Some(key) = queue.key.and_then(|key| QueueKey::try_from(key).ok()) else {
                continue;
            };
            missing.remove(&key);
            if let Some(rejection) = queue.rejection {
                let rejection = Rejection::try_from(rejection).map_err(|error| error.to_string())?;
                refused.insert(key, rejection);
            }
        }
        let reason = format!("scheduler {to} said nothing about the queue");
        refused.extend(missing.into_iter().map(|key| (key, unavailable(&reason))));
        Ok(refused)
    }

    fn channel(&self, to: SchedulerId) -> Option<Channel> {
        let address = self
            .context
            .node
            .read(|state| state.member(to).map(|member| member.client_address.clone()))?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get(&address)
    }

    /// Asks the log, and settles by what the tables say then.
    async fn change_leaders(
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
    async fn move_bare(&self, session: SessionId, queues: Vec<Sent>) -> Vec<(QueueKey, Settled)> {
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
            Proposed::Gone => return queues.into_iter().map(|queue| (queue.key, Settled::Gone)).collect(),
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

impl Sent {
    fn to(to: SchedulerId, queue: &Exported) -> Self {
        Self {
            key: queue.key.clone(),
            epoch: queue.epoch,
            to,
            activations: queue.activations.len(),
        }
    }

    /// To whomever, and nothing with it.
    fn bare(queue: &Exported) -> Self {
        Self {
            activations: 0,
            ..Self::to(SchedulerId(0), queue)
        }
    }
}

impl Targets {
    /// Who leads the next queue. With nobody to choose from a scheduler that there is not, which takes nothing.
    fn next(&mut self) -> SchedulerId {
        match self {
            Self::Only(to) => *to,
            Self::Fewest(others) => others.iter_mut().min().map_or(SchedulerId(0), |(led, id)| {
                *led = led.saturating_add(1);
                *id
            }),
        }
    }
}

impl Pick {
    /// Whether nothing more is wanted.
    fn is_empty(&self) -> bool {
        match self {
            Self::Named(_) => false,
            Self::Any { count, activations } | Self::Sound { count, activations } => {
                *count == 0 || *activations == 0
            }
        }
    }

    /// So much of it is there.
    fn take(&mut self, exported: &[Exported]) {
        match self {
            Self::Named(_) => {}
            Self::Any { count, activations } | Self::Sound { count, activations } => {
                let sum: usize = exported.iter().map(|queue| queue.activations.len()).sum();
                *count = count.saturating_sub(exported.len());
                *activations = activations.saturating_sub(sum);
            }
        }
    }
}

fn client(channel: Channel) -> HandOffClient<Channel> {
    HandOffClient::new(channel).max_encoding_message_size(MESSAGE_LEN_MAX)
}

fn unavailable(reason: &str) -> Rejection {
    Rejection::Unavailable {
        reason: reason.to_owned(),
    }
}

fn everyone(queues: &[Sent], reason: &str) -> BTreeMap<QueueKey, Rejection> {
    let keys = queues.iter().map(|queue| queue.key.clone());
    keys.map(|key| (key, unavailable(reason))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_go_round_by_how_many_each_leads() {
        let mut targets = Targets::Fewest(vec![(3, SchedulerId(2)), (1, SchedulerId(3))]);
        let given: Vec<u64> = (0..5).map(|_| targets.next().0).collect();
        assert_eq!(given, [3, 3, 2, 3, 2]);
    }
}
