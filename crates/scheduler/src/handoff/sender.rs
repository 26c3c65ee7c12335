//! The giving side: what was frozen is sent to those who lead it next, then the log decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tonic::transport::Channel;
use whiskraft_proto::MESSAGE_LEN_MAX;
use whiskraft_proto::v1::{self, hand_off_client::HandOffClient};
use whiskraft_types::{Epoch, QueueKey, Rejection, SchedulerId, SessionId};

use crate::context::Context;
use crate::creation::CreationHandle;
use crate::handoff::order::{Bare, Settled, Targets};
use crate::handoff::wire::frames;
use crate::message::Request;
use crate::neighbours::Channels;
use crate::shard::{Exported, Pick, ShardsHandle};

/// Hand-overs under way at a time; each holds one batch of queues still.
const BATCHES_MAX: usize = 4;

/// Hands queues over; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct HandOver {
    pub(super) context: Context,
    shards: ShardsHandle,
    pub(super) creation: CreationHandle,
    channels: Arc<Mutex<Channels>>,
    attempts: Arc<AtomicU64>,
    batches: Arc<Semaphore>,
}

/// A queue that was sent.
pub(super) struct Sent {
    pub(super) key: QueueKey,
    pub(super) epoch: Epoch,
    pub(super) to: SchedulerId,
    pub(super) activations: usize,
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
                return this
                    .move_bare(session, queues.iter().map(Sent::bare).collect())
                    .await;
            }
            this.hand_over(session, queues, targets, bare).await
        });
        moving.await.unwrap_or_default()
    }

    /// Freezes queues, over all shards.
    async fn freeze(&self, session: SessionId, pick: Pick) -> Vec<Exported> {
        let shards = match &pick {
            Pick::Named(key) => vec![self.shards.of(key)],
            Pick::Any { .. } | Pick::Sound { .. } | Pick::Deaf { .. } => (0..self.shards.len()).collect(),
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

    pub(super) async fn unfreeze(&self, key: &QueueKey, epoch: Epoch) {
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
        let may_go =
            |rejection: &Rejection| bare == Bare::TooLarge && matches!(rejection, Rejection::TooLarge { .. });
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
            .map_err(|status| format!("scheduler {to} did not take the queue: {}", status.message()))?;
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

    pub(super) fn channel(&self, to: SchedulerId) -> Option<Channel> {
        let address = self
            .context
            .node
            .read(|state| state.member(to).map(|member| member.client_address.clone()))?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get(&address)
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

pub(super) fn client(channel: Channel) -> HandOffClient<Channel> {
    HandOffClient::new(channel).max_encoding_message_size(MESSAGE_LEN_MAX)
}

pub(super) fn unavailable(reason: &str) -> Rejection {
    Rejection::Unavailable {
        reason: reason.to_owned(),
    }
}

fn everyone(queues: &[Sent], reason: &str) -> BTreeMap<QueueKey, Rejection> {
    let keys = queues.iter().map(|queue| queue.key.clone());
    keys.map(|key| (key, unavailable(reason))).collect()
}
