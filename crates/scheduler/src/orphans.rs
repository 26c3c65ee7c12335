//! Durable activations whose queue nobody leads: the queue was removed, or the whole cluster was. The Raft leader looks for
//! them when it takes over and from time to time, and ensures their queues; recovery does the rest.
//!
//! Where the action is gone there is no queue to ensure: those end here, under an epoch that no leadership has or will
//! have, because an epoch is the log revision that began it.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::time::{MissedTickBehavior, interval};
use whiskraft_queue::Outcome;
use whiskraft_raft::{Journal, LaneId};
use whiskraft_state::journal::{End, EndKind, JournalBatch, JournalCommand, JournalOutcome, UnixMillis};
use whiskraft_types::{ActivationStatus, Epoch, QueueKey, Rejection};

use crate::clock::unix_ms;
use crate::context::Context;
use crate::ensure::ensure_queue;
use crate::journal::{encode_record, fence};
use crate::shard::record_of;

/// Time between two looks at whether this node leads.
const LOOK: Duration = Duration::from_secs(1);
/// Looks at the journal: one when this node begins to lead, then one in so many.
const JOURNAL_EVERY: u32 = 30;
/// Queues ensured at a time.
const ENSURES_MAX: usize = 16;
/// Activations ended at a time.
const ENDS_MAX: usize = 500;

/// How one ends whose action and queue are gone.
const DELETED: &str = "The action was deleted before the activation began.";

/// The actor.
pub(crate) struct Orphans {
    context: Context,
    journal: Journal,
}

impl Orphans {
    pub(crate) fn new(context: Context) -> Self {
        let journal = context.node.journal().clone();
        Self { context, journal }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut led_for = 0;
        loop {
            ticks.tick().await;
            if !self.context.node.is_leader() || self.context.fence.view().fenced {
                led_for = 0;
                continue;
            }
            if led_for % JOURNAL_EVERY == 0 && !self.adopt().await {
                continue; // Once more at the next tick.
            }
            led_for += 1;
        }
    }

    /// Finds queues with open activations that nobody leads; false if the journal could not be read.
    async fn adopt(&self) -> bool {
        if let Err(error) = self.journal.catch_up().await {
            tracing::debug!(%error, "journal not looked through for queues without leader");
            return false;
        }
        let journal = self.journal.clone();
        let Ok(open) = tokio::task::spawn_blocking(move || journal.open_queues()).await else {
            return false; // The process stops.
        };
        let keys = match open {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "journal not readable");
                return false;
            }
        };
        let is_led = |key: &QueueKey| {
            self.context
                .node
                .read(|state| state.queue(key).is_some_and(|queue| queue.leader.is_some()))
        };
        let orphaned: Vec<QueueKey> = keys.into_iter().filter(|key| !is_led(key)).collect();
        if !orphaned.is_empty() {
            tracing::info!(
                queues = orphaned.len(),
                "durable activations without a leader of their queue"
            );
        }
        let adopted = stream::iter(orphaned).map(|key| self.adopt_one(key));
        adopted
            .buffer_unordered(ENSURES_MAX)
            .all(|done| async move { done })
            .await
    }

    async fn adopt_one(&self, key: QueueKey) -> bool {
        let ended = match ensure_queue(&self.context, &key, false).await {
            Ok(_) => return true,
            Err(Rejection::NoAction { .. }) => self.end(&key).await,
            Err(rejection) => Err(rejection.to_string()),
        };
        if let Err(reason) = &ended {
            tracing::warn!(queue = %key, reason, "durable activations still have no leader");
        }
        ended.is_ok()
    }

    /// Ends what a queue has open that cannot come back.
    async fn end(&self, key: &QueueKey) -> Result<(), String> {
        let node = &self.context.node;
        let (revision, is_there) = node.read(|state| (state.revision(), state.queue(key).is_some()));
        if is_there {
            return Ok(()); // Somebody has ensured it meanwhile.
        }
        let epoch = Epoch(revision.0);
        fence(self.journal.clone(), vec![(key.clone(), epoch)]).await;
        let mut count = 0;
        for lane in self.journal.lanes() {
            count += self.end_in(lane, key, epoch).await?;
        }
        tracing::info!(queue = %key, count, "durable activations of a deleted action ended");
        Ok(())
    }

    async fn end_in(&self, lane: LaneId, key: &QueueKey, epoch: Epoch) -> Result<usize, String> {
        let (mut count, mut after) = (0, None);
        loop {
            let rows = self.journal.open(lane, key, after, ENDS_MAX);
            let rows = rows.map_err(|error| error.to_string())?;
            let Some(last) = rows.last() else {
                return Ok(count);
            };
            after = Some(last.id);
            let (at, keep) = (UnixMillis(unix_ms()), self.context.config.journal.retention);
            let commands = rows.into_iter().map(|row| {
                let outcome = Outcome::Failure {
                    status: ActivationStatus::DeveloperError,
                    text: DELETED.to_owned(),
                };
                JournalCommand::End(End {
                    id: row.id,
                    key: key.clone(),
                    epoch,
                    run: row.run,
                    at,
                    keep,
                    kind: EndKind::Record,
                    record: encode_record(&record_of(row.id, outcome, row.run, None)),
                })
            });
            let batch = JournalBatch::of(commands.collect());
            let appended = self.journal.append(lane, batch).await;
            let (revision, outcomes) = appended.map_err(|error| error.to_string())?;
            if let Some(JournalOutcome::Stale { current }) = outcomes
                .iter()
                .find(|outcome| matches!(outcome, JournalOutcome::Stale { .. }))
            {
                return Err(format!("the queue has a leadership again, of epoch {current}"));
            }
            let written = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, JournalOutcome::Written));
            count += written.count();
            let applied = self.journal.wait_applied(lane, revision).await;
            applied.map_err(|error| error.to_string())?;
        }
    }
}
