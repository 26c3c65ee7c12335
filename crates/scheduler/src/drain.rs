//! Gives the queues of this scheduler away: while its member record says that it is draining, and before the process ends.
//!
//! The follower says whether the record does. Queues go in batches, those without open work first, each handed over to one of
//! the others with what is in it. What certainly did not move goes on here and is tried again later.
//! Invariant: a queue is moved only after it has stopped accepting and delivering.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use whiskraft_types::SchedulerId;

use crate::context::Context;
use crate::handoff::{Bare, HandOver, Settled, Targets};
use crate::shard::Pick;

/// Queues in one batch: some 20 KiB of the log, and a short pause for each of them.
const BATCH_MAX: usize = 256;
/// Activations in one batch, the last queue left out of account: its queues stand still until all of them are sent.
const ACTIVATIONS_MAX: usize = 4096;
/// Time between two batches: keepalives and reservations get their turn in the log.
const PACE: Duration = Duration::from_millis(50);
/// Pause after nobody took the queues; it doubles up to the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(8);
/// Batches in a row that nobody took, after which queues are moved without what is in them: controllers submit it again.
const FAILURES_MAX: u32 = 3;

/// The actor.
pub(crate) struct DrainActor {
    context: Context,
    hand_over: HandOver,
    /// Whether the member record says so.
    ordered: watch::Receiver<bool>,
}

/// What became of a batch.
enum Moved {
    /// There was something to move, and others lead it now.
    Yes,
    /// Nothing is left.
    Nothing,
    /// Nobody else takes queues.
    NoSuccessor,
    /// It stays here for now.
    No(String),
}

impl DrainActor {
    pub(crate) const fn new(context: Context, hand_over: HandOver, ordered: watch::Receiver<bool>) -> Self {
        Self {
            context,
            hand_over,
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
        let mut pace = pace();
        let (mut pause, mut failures, mut is_empty) = (RETRY_PAUSE, 0, false);
        loop {
            pace.tick().await;
            let bare = if failures < FAILURES_MAX {
                Bare::TooLarge
            } else {
                Bare::Always
            };
            let wait = match move_batch(&self.context, &self.hand_over, bare).await {
                Moved::Yes => {
                    (pause, failures, is_empty) = (RETRY_PAUSE, 0, false);
                    Duration::ZERO
                }
                Moved::Nothing => {
                    if !std::mem::replace(&mut is_empty, true) {
                        tracing::info!("drained: no queue is led here");
                    }
                    RETRY_PAUSE
                }
                Moved::NoSuccessor => {
                    tracing::warn!("no other scheduler takes queues, tries again");
                    longer(&mut pause)
                }
                Moved::No(reason) => {
                    failures += 1;
                    tracing::warn!(reason, "queues not moved, tries again");
                    longer(&mut pause)
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
}

/// Gives all queues away because the process ends; returns when none is left, or nobody takes them.
pub(crate) async fn leave(context: &Context, hand_over: &HandOver) {
    let mut pace = pace();
    let mut failures = 0;
    loop {
        pace.tick().await;
        match move_batch(context, hand_over, Bare::TooLarge).await {
            Moved::Yes => failures = 0,
            Moved::Nothing | Moved::NoSuccessor => return,
            Moved::No(reason) => {
                failures += 1;
                tracing::warn!(reason, "queues not handed over");
                if failures >= FAILURES_MAX {
                    return; // They move with the end of the session.
                }
            }
        }
    }
}

fn pace() -> tokio::time::Interval {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn longer(pause: &mut Duration) -> Duration {
    let next = (*pause * 2).min(RETRY_PAUSE_MAX);
    std::mem::replace(pause, next)
}

async fn move_batch(context: &Context, hand_over: &HandOver, bare: Bare) -> Moved {
    let Some(session) = context.fence.session() else {
        return Moved::Nothing;
    };
    let led = context.node.read(|state| state.queues_led(session));
    if led == 0 {
        return Moved::Nothing;
    }
    let successors = successors(context);
    if successors.is_empty() {
        // Nothing is interrupted for a move that cannot be.
        return Moved::NoSuccessor;
    }
    let pick = Pick::Any {
        count: BATCH_MAX,
        activations: ACTIVATIONS_MAX,
    };
    let moving = hand_over.run(session, pick, Targets::Fewest(successors), bare);
    for (key, settled) in moving.await {
        if let Settled::Stayed(rejection) = settled {
            return Moved::No(format!("{key}: {rejection}"));
        }
    }
    // Without a batch the shards are about to be told, or somebody else moves what is left.
    Moved::Yes
}

/// The others that take queues, each with how many it leads.
pub(crate) fn successors(context: &Context) -> Vec<(u32, SchedulerId)> {
    let node = &context.node;
    node.read(|state| {
        let others = state.members();
        let willing = others.filter(|(id, member)| *id != node.id() && !member.draining);
        willing
            .filter_map(|(id, _)| Some((state.queues_led(state.scheduler_session(id)?), id)))
            .filter(|(_, id)| node.reachable(*id))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut pause = RETRY_PAUSE;
        let pauses: Vec<Duration> = (0..7).map(|_| longer(&mut pause)).collect();
        assert_eq!(pauses[..2], [RETRY_PAUSE, RETRY_PAUSE * 2]);
        assert_eq!(pauses[6], RETRY_PAUSE_MAX);
    }
}
