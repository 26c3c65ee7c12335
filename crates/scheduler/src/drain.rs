//! Gives the queues of this scheduler away while its member record says that it is draining.
//!
//! The follower says whether it is. Queues go in batches, those without open work first: their shards step them into
//! draining, one command moves them, and the shards of the new leaders treat them as after a failover. What certainly
//! did not move goes on here and is tried again later.
//! Invariant: a queue is moved only after it has stopped accepting and delivering.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use whiskraft_raft::ProposeError;
use whiskraft_state::{Command, Response};
use whiskraft_types::{Epoch, QueueKey, SessionId};

use crate::context::Context;
use crate::creation::CreationHandle;
use crate::message::Request;
use crate::shard::ShardsHandle;

/// Queues in one command: some 20 KiB, and a short pause for each of them.
const BATCH_MAX: usize = 256;
/// Time between two batches: keepalives and reservations get their turn in the log.
const PACE: Duration = Duration::from_millis(50);
/// Pause before a proposal whose outcome is unknown is repeated.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);
/// Pause after nobody took the queues; it doubles up to the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(8);

/// The actor.
pub(crate) struct DrainActor {
    context: Context,
    shards: ShardsHandle,
    creation: CreationHandle,
    /// Whether the member record says so.
    ordered: watch::Receiver<bool>,
}

/// What became of a batch.
enum Moved {
    /// There was something to move, and others lead it now.
    Yes,
    /// Nothing is left.
    Nothing,
    /// It stays here for now.
    No(String),
}

impl DrainActor {
    pub(crate) const fn new(
        context: Context,
        shards: ShardsHandle,
        creation: CreationHandle,
        ordered: watch::Receiver<bool>,
    ) -> Self {
        Self {
            context,
            shards,
            creation,
            ordered,
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        while self.ordered.wait_for(|ordered| *ordered).await.is_ok() {
            tracing::info!("drain begins, queues go to other schedulers");
            self.drain().await;
            tracing::info!("drain undone");
        }
        // Nobody can order a drain any more: the process stops.
        std::future::pending().await
    }

    /// Moves batch after batch until the order is taken back; a batch under way is always settled first.
    async fn drain(&mut self) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pause, mut is_empty) = (RETRY_PAUSE, false);
        loop {
            pace.tick().await;
            let wait = match self.move_batch().await {
                Moved::Yes => {
                    (pause, is_empty) = (RETRY_PAUSE, false);
                    Duration::ZERO
                }
                Moved::Nothing => {
                    if !std::mem::replace(&mut is_empty, true) {
                        tracing::info!("drained: no queue is led here");
                    }
                    RETRY_PAUSE
                }
                Moved::No(reason) => {
                    tracing::warn!(reason, "queues not moved, tries again");
                    let longer = (pause * 2).min(RETRY_PAUSE_MAX);
                    std::mem::replace(&mut pause, longer)
                }
            };
            if tokio::time::timeout(wait, self.ordered.wait_for(|ordered| !*ordered))
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    async fn move_batch(&self) -> Moved {
        let Some(session) = self.context.fence.session() else {
            return Moved::Nothing;
        };
        let (led, has_successor) = self.context.node.read(|state| {
            let others = state
                .members()
                .filter(|(id, member)| *id != self.context.node.id() && !member.draining);
            let has_successor = others
                .into_iter()
                .any(|(id, _)| state.scheduler_session(id).is_some());
            (state.queues_led(session), has_successor)
        });
        if led == 0 {
            return Moved::Nothing;
        }
        if !has_successor {
            // Nothing is interrupted for a move that cannot be.
            return Moved::No("no other scheduler takes queues".to_owned());
        }
        let queues = self.release(session).await;
        if queues.is_empty() {
            return Moved::Yes; // The shards are about to be told.
        }
        match self.propose(session, queues.clone()).await {
            Ok(()) => {
                let keys = queues.into_iter().map(|(key, _)| key).collect();
                self.creation.released(keys).await;
                Moved::Yes
            }
            Err(reason) => {
                self.keep(queues).await;
                Moved::No(reason)
            }
        }
    }

    /// Stops a batch of queues and says which.
    async fn release(&self, session: SessionId) -> Vec<(QueueKey, Epoch)> {
        let mut queues = Vec::new();
        for shard in 0..self.shards.len() {
            let (answer, released) = oneshot::channel();
            let count = BATCH_MAX - queues.len();
            let request = Request::Release {
                session,
                count,
                answer,
            };
            self.shards.send(shard, request).await;
            queues.extend(released.await.unwrap_or_default());
        }
        queues
    }

    /// Lets queues go on here.
    async fn keep(&self, queues: Vec<(QueueKey, Epoch)>) {
        for (key, epoch) in queues {
            self.shards
                .send_to(&key.clone(), Request::Keep { key, epoch })
                .await;
        }
    }

    /// Moves queues; an outcome that is not known is asked for again, since the command names the epochs.
    ///
    /// # Errors
    /// Why they certainly stay.
    async fn propose(&self, session: SessionId, queues: Vec<(QueueKey, Epoch)>) -> Result<(), String> {
        let command = Command::MoveQueues { session, queues };
        let mut is_certain = true;
        loop {
            match self.context.propose(command.clone()).await {
                Ok((_, Response::Refused(refusal))) => return Err(refusal.to_string()),
                Ok((revision, _)) => {
                    let _ = self.context.node.wait_applied(revision).await;
                    return Ok(());
                }
                Err(ProposeError::Unknown(reason)) => {
                    is_certain = false;
                    tracing::debug!(reason, "outcome of a move unknown, asks again");
                }
                Err(ProposeError::Unavailable(reason) | ProposeError::Full(reason)) if is_certain => {
                    return Err(reason);
                }
                Err(ProposeError::Unavailable(_) | ProposeError::Full(_)) => {}
            }
            if self.context.fence.session() != Some(session) {
                return Err("the session has ended".to_owned());
            }
            sleep(REPEAT_PAUSE).await;
        }
    }
}
