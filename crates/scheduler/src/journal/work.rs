//! The work of the journal actor: what runs beside its loop, as much at a time as may be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::FutureExt;
use whiskraft_raft::{LaneId, Lookup};
use whiskraft_state::journal::JournalBatch;
use whiskraft_types::{Instant, QueueKey};

use crate::journal::actor::JournalActor;
use crate::journal::append::{Appended, Behind, Settled, append, catch_up};
use crate::journal::archive::Archived;
use crate::journal::order::Order;
use crate::journal::prepare::Prepared;
use crate::journal::recovery::{FENCE_MAX, Led, READ_MAX, fence, read};

/// Orders prepared in one piece, and pieces at a time: look-ups and digests have two threads at most.
const PREPARE_MAX: usize = 1000;
const PREPARES_MAX: usize = 2;
/// Fences, and reads of recovered queues, under way at a time.
const FENCES_MAX: usize = 2;
const READS_MAX: usize = 4;
/// Pause between batches of records that were not durable: they have all the time.
const ARCHIVE_PAUSE: Duration = Duration::from_millis(50);

/// Work that is under way, by kind.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) prepares: usize,
    pub(super) fences: usize,
    pub(super) reads: usize,
    pub(super) archives: usize,
    pub(super) is_making_sure: bool,
}

/// Work that has ended.
pub(super) enum Done {
    Prepared(Vec<Prepared>),
    Appended(Appended),
    /// This node's copy of a lane shows what was written there.
    Settled(LaneId, Vec<Settled>),
    Fenced(Vec<Led>),
    Read(Vec<Led>),
    Archived,
    /// One whose payload cannot be read has ended.
    Ended,
    /// This node has caught up for one that the journal did not have, or could not.
    CaughtUp(Box<Order>, bool),
    /// This node has everything that was in the lanes at a moment, or could not catch up.
    Sure(Option<Instant>),
}

impl JournalActor {
    /// Starts all work that may begin.
    pub(super) async fn start(&mut self) {
        self.prepare_at_once().await;
        while self.running.prepares < PREPARES_MAX && !self.unread.is_empty() {
            let count = self.unread.len().min(PREPARE_MAX);
            let orders: Vec<Order> = self.unread.drain(..count).collect();
            let reader = self.reader.clone();
            let prepared = tokio::task::spawn_blocking(move || reader.prepare(orders));
            self.running.prepares += 1;
            // It fails only when the process stops.
            let done = prepared.map(|prepared| Done::Prepared(prepared.unwrap_or_default()));
            self.work.push(done.boxed());
        }
        let leaderships = &self.leaderships;
        let is_led = |key: &QueueKey, epoch| leaderships.get(key).is_some_and(|led| led.epoch == epoch);
        let now = self.context.clock.now();
        while let Some(batch) = self.lanes.next(now, |write| is_led(&write.key, write.epoch)) {
            let appended = append(self.context.clone(), self.reader.clone(), batch);
            self.work.push(appended.map(Done::Appended).boxed());
        }
        while self.running.fences < FENCES_MAX && !self.fresh.is_empty() {
            let count = self.fresh.len().min(FENCE_MAX);
            let queues = self.fresh.drain(..count).collect();
            self.running.fences += 1;
            let done = fence(self.journal.clone(), queues).map(Done::Fenced);
            self.work.push(done.boxed());
        }
        while self.running.reads < READS_MAX && !self.fenced.is_empty() {
            let count = self.fenced.len().min(READ_MAX);
            let queues = self.fenced.drain(..count).collect();
            self.running.reads += 1;
            let read = read(
                self.context.clone(),
                self.shards.clone(),
                self.journal.clone(),
                queues,
            );
            self.work.push(read.map(Done::Read).boxed());
        }
        if self.archive_at.is_none() && self.running.archives == 0 && self.shared.has_archives() {
            self.archive_at = Some(self.context.clock.now() + ARCHIVE_PAUSE);
        }
    }

    async fn prepare_at_once(&mut self) {
        while !self.orders.is_empty() {
            let count = self.orders.len().min(PREPARE_MAX);
            let orders = self.orders.drain(..count);
            let prepared = orders.map(|order| self.reader.prepare_at_once(order)).collect();
            self.on_prepared(prepared).await;
            if !self.orders.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Goes on with what was written once this node's own copy shows it.
    pub(super) fn wait_for_copy(&mut self, lane: LaneId, behind: Behind) {
        let settled = catch_up(self.context.clone(), self.reader.clone(), lane, behind);
        self.work
            .push(settled.map(move |settled| Done::Settled(lane, settled)).boxed());
    }

    /// Whether nothing of a queue is left to be read, be it led here or not.
    fn is_read(&self, key: &QueueKey) -> bool {
        self.leaderships
            .get(key)
            .is_none_or(|leadership| leadership.held.is_none())
    }

    pub(super) fn archive(&mut self) {
        let journal = self.journal.clone();
        let (archives, unread): (Vec<Archived>, Vec<Archived>) = self
            .shared
            .take_archives()
            .into_iter()
            .partition(|archived| self.is_read(&archived.key));
        // What the journal has of their queues is not known yet: one of these may be durable.
        let metrics = Arc::clone(&self.context.metrics);
        metrics
            .journal
            .unarchived
            .fetch_add(unread.len() as u64, Ordering::Relaxed);
        self.running.archives += 1;
        let appended = async move {
            let reader = journal.clone();
            let commands = tokio::task::spawn_blocking(move || {
                // An activation has one record, in whichever lane it is.
                let is_new =
                    |archived: &Archived| matches!(reader.find(archived.record.id), Ok(Lookup::Missing));
                let new = archives.into_iter().filter(is_new);
                new.map(Archived::into_command).collect::<Vec<_>>()
            });
            let Ok(commands) = commands.await else {
                return Done::Archived; // The process stops.
            };
            if commands.is_empty() {
                return Done::Archived;
            }
            let count = commands.len() as u64;
            let batch = JournalBatch::of(commands);
            let counter = match journal.append(journal.home(), batch).await {
                Ok(_) => &metrics.journal.archived,
                Err(error) => {
                    tracing::debug!(count, %error, "records of activations that were not durable not kept");
                    &metrics.journal.unarchived
                }
            };
            counter.fetch_add(count, Ordering::Relaxed);
            Done::Archived
        };
        self.work.push(appended.boxed());
    }
}
