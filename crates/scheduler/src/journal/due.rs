//! What the journal actor does again after a while: entries that were not written, acceptances that are held for too
//! long, and those of which nobody knows whether they are written.

use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use whiskraft_raft::{Journaled, LaneId, Lookup};
use whiskraft_types::{Epoch, Instant, QueueKey, Rejection};

use crate::journal::actor::JournalActor;
use crate::journal::order::Order;
use crate::journal::prepare::Write;
use crate::journal::recovery::{end_damaged, opened, pass_on};
use crate::journal::work::Done;

/// Longest time that an acceptance waits for the recovery of its queue.
const HOLD_MAX: Duration = Duration::from_secs(2);
/// Pause before an entry that must not get lost is written again; it doubles up to the longest.
const REPEAT_PAUSE: Duration = Duration::from_millis(20);
const REPEAT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time after which such a one is on its way no more: no proposal lives that long. Then it is in the lane or will never be,
/// which this node knows once it has caught up.
const UNSURE_FOR: Duration = Duration::from_secs(60);
/// Time between two looks for them.
pub(super) const UNSURE_PAUSE: Duration = Duration::from_millis(250);

/// An acceptance whose append has no answer.
#[derive(Debug)]
pub(super) struct Unsure {
    pub(super) key: QueueKey,
    pub(super) epoch: Epoch,
    pub(super) lane: LaneId,
    pub(super) since: Instant,
}

/// What is due again.
#[derive(Debug)]
pub(super) enum Repeat {
    Order(Order),
    Write(LaneId, Write),
}

impl JournalActor {
    pub(super) fn repeat(&mut self, failures: u32, repeat: Repeat) {
        let pause = REPEAT_PAUSE * 2_u32.saturating_pow(failures.min(10));
        let at = self.context.clock.now() + pause.min(REPEAT_PAUSE_MAX);
        self.repeats_seq += 1;
        self.repeats.insert((at, self.repeats_seq), repeat);
    }

    pub(super) async fn on_due(&mut self) {
        let now = self.context.clock.now();
        while let Some(entry) = self.repeats.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Repeat::Order(mut order) if self.is_led(&order.key, order.epoch) => {
                    order.failures += 1;
                    self.orders.push_back(order);
                }
                Repeat::Write(lane, mut write) if self.is_led(&write.key, write.epoch) => {
                    write.failures += 1;
                    self.lanes.push(lane, write);
                }
                Repeat::Order(_) | Repeat::Write(..) => {} // Over.
            }
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.end_holds(now).await;
            self.look_for_unsure(now).await;
        }
        if self.archive_at.is_some_and(|at| at <= now) {
            self.archive_at = None;
            self.archive();
        }
    }

    /// Refuses acceptances that have waited too long for the recovery of their queue.
    async fn end_holds(&mut self, now: Instant) {
        let mut refused = Vec::new();
        let mut is_any_left = false;
        for leadership in self.leaderships.values_mut() {
            if let Some(held) = &mut leadership.held {
                let is_over = |since: Instant| now.saturating_since(since) >= HOLD_MAX;
                let keep = held.iter().take_while(|(since, _)| is_over(*since)).count();
                refused.extend(held.drain(..keep).map(|(_, order)| order));
                is_any_left |= !held.is_empty();
            }
        }
        if is_any_left {
            self.look_at = Some(now + UNSURE_PAUSE);
        }
        for order in refused {
            let reason = format!(
                "what queue {} has in the journal is not known here yet; try again",
                order.key
            );
            self.refuse(order, Rejection::Unavailable { reason }).await;
        }
    }

    /// Catches up with all lanes, and then looks once more for what the journal does not have.
    pub(super) fn catch_up(&mut self, order: Order) {
        let journal = self.journal.clone();
        let work = async move {
            let caught_up = journal.catch_up().await;
            Done::CaughtUp(Box::new(order), caught_up.is_ok())
        };
        self.work.push(work.boxed());
    }

    /// Catches up with all lanes, so that what is still not there never will be.
    fn make_sure(&mut self, now: Instant) {
        self.running.is_making_sure = true;
        let journal = self.journal.clone();
        let work = async move {
            let caught_up = journal.catch_up().await;
            Done::Sure(caught_up.is_ok().then_some(now))
        };
        self.work.push(work.boxed());
    }

    /// Forgets the acceptances that were on their way no more at a moment since which this node has caught up.
    pub(super) fn forget_unsure(&mut self, caught_up: Option<Instant>) {
        self.running.is_making_sure = false;
        let Some(moment) = caught_up else { return };
        let journal = &self.journal;
        self.unsure.retain(|id, unsure| {
            let is_over = moment.saturating_since(unsure.since) >= UNSURE_FOR;
            !is_over || !matches!(journal.find(*id), Ok(Lookup::Missing))
        });
    }

    /// Passes one activation to its queue that turned out to be accepted.
    async fn recover_one(&mut self, journaled: Journaled, payload: Option<Bytes>, epoch: Epoch) {
        if !journaled.row.is_open() {
            return;
        }
        let led = (journaled.row.key.clone(), epoch);
        match opened(journaled, payload) {
            Ok(opened) => pass_on(&self.context, &self.shards, led, vec![opened], false).await,
            Err(damaged) => {
                let ended = end_damaged(self.context.clone(), led, vec![damaged]);
                self.work.push(ended.map(|()| Done::Ended).boxed());
            }
        }
    }

    /// Looks for acceptances whose callers heard that nobody knows: one that is written belongs to its queue, now and not
    /// only when its next leader reads it.
    async fn look_for_unsure(&mut self, now: Instant) {
        let mut found = Vec::new();
        let mut is_any_old = false;
        let (journal, leaderships) = (&self.journal, &self.leaderships);
        self.unsure.retain(|id, unsure| {
            let leadership = leaderships.get(&unsure.key);
            if leadership.is_none_or(|leadership| leadership.epoch != unsure.epoch) {
                return false; // The next leader finds it.
            }
            match journal.find(*id) {
                Ok(Lookup::Found(journaled)) => match journal.payload(journaled.lane, *id) {
                    Ok(payload) => {
                        found.push((journaled, payload, unsure.epoch));
                        false
                    }
                    Err(_) => true,
                },
                Ok(Lookup::Gone) => false,
                Ok(Lookup::Missing) | Err(_) => {
                    is_any_old |= now.saturating_since(unsure.since) >= UNSURE_FOR;
                    true
                }
            }
        });
        if is_any_old && !self.running.is_making_sure {
            self.make_sure(now);
        }
        for (journaled, payload, epoch) in found {
            self.recover_one(journaled, payload, epoch).await;
        }
        if !self.unsure.is_empty() {
            self.look_at = Some(now + UNSURE_PAUSE);
        }
    }
}
