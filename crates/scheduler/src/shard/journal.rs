//! Between the queues of a shard and the journal: what they want written, what came of it, and what earlier leaderships
//! left open.

use std::sync::atomic::Ordering;
use std::time::Duration;

use whiskraft_queue::{CancelAnswer, ControllerId, Input, JournalEntry, Outcome, Recovered, Verdict};
use whiskraft_state::journal::{Delay, UnixMillis};
use whiskraft_types::{ActivationId, Epoch, Instant, QueueKey, Rejection};

use crate::clock::unix_ms;
use crate::failpoint::failpoint;
use crate::journal::{Answer, Archived, Entry, Message, Order};
use crate::message::{Payload, Record, Submission};
use crate::metrics::EntryKind;
use crate::shard::actor::Shard;
use crate::shard::local::Slot;
use crate::shard::outputs::{millis, record_of};

impl Shard {
    /// Hands an entry to the journal.
    pub(crate) fn journal(&mut self, slot: Slot, id: ActivationId, entry: JournalEntry<Payload, Record>) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        if matches!(entry, JournalEntry::End { .. }) {
            failpoint!("end-before-journaled");
        }
        let unix = unix_ms();
        let ago = |waited: Duration| UnixMillis(unix.saturating_sub(millis(waited)));
        let delay = |at: Instant| {
            let time = at.saturating_since(self.now);
            // Rounded up: nothing is said to begin before its time.
            let ahead = u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
            let due = UnixMillis(unix.saturating_add(ahead));
            Delay { time, due }
        };
        let entry = match entry {
            JournalEntry::Accept {
                payload,
                waited,
                not_before,
            } => match self.parts.journal.place(payload.len()) {
                Ok(place) => Entry::Accept {
                    payload,
                    accepted: ago(waited),
                    waited,
                    not_before: not_before.map(delay),
                    place,
                },
                Err(rejection) => {
                    let verdict = Verdict::Refused(rejection);
                    return self.followups.push((slot, Input::Journaled { id, verdict }));
                }
            },
            JournalEntry::Retry { run, not_before } => Entry::Retry {
                run,
                pause: not_before.saturating_since(self.now),
            },
            JournalEntry::End {
                outcome,
                run,
                dead_letter,
            } => Entry::End {
                is_made_up: !matches!(outcome, Outcome::Record(_)),
                record: record_of(id, outcome, run, self.ending(local, id)),
                run,
                dead_letter,
                at: UnixMillis(unix),
                keep: self.parts.context.config.journal.retention,
            },
        };
        self.order(slot, id, entry);
    }

    /// Has the journal note that an activation ends as cancelled.
    pub(crate) fn mark(&mut self, slot: Slot, id: ActivationId) {
        self.order(slot, id, Entry::Cancel);
    }

    fn order(&mut self, slot: Slot, id: ActivationId, entry: Entry) {
        if let Some(local) = self.queues.get(slot) {
            self.journaled.push(Message::Order(Order {
                key: local.key().clone(),
                epoch: local.epoch(),
                id,
                entry,
                failures: 0,
                is_caught_up: false,
            }));
        }
    }

    /// Hands the record of an activation that was not durable over, to be kept if there is room.
    pub(crate) fn archive(&mut self, slot: Slot, id: ActivationId, outcome: Outcome<Record>, run: u32) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        let unix = unix_ms();
        let is_made_up = !matches!(outcome, Outcome::Record(_));
        let end = is_made_up.then(|| self.ending(local, id)).flatten();
        let record = record_of(id, outcome, run, end);
        let archived = Archived {
            key: local.key().clone(),
            accepted: UnixMillis(record.start_ms.saturating_sub(record.wait_ms)),
            at: UnixMillis(unix),
            keep: self.parts.context.config.journal.retention,
            record,
        };
        self.archived.push(archived);
    }

    /// Hands over what this turn has for the journal.
    pub(crate) fn flush_journal(&mut self) {
        self.parts.journal.send(&mut self.journaled);
        let dropped = self.parts.journal.archive(&mut self.archived);
        if dropped > 0 {
            let counter = &self.parts.context.metrics.journal.unarchived;
            counter.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// Passes on what the journal says.
    pub(crate) fn on_journaled(&mut self, answers: Vec<Answer>) {
        for Answer {
            key,
            epoch,
            id,
            kind,
            verdict,
        } in answers
        {
            if let Some(slot) = self.in_epoch(&key, epoch) {
                let input = match kind {
                    EntryKind::Cancel => Input::Marked {
                        id,
                        answer: marked(&verdict),
                    },
                    EntryKind::Accept | EntryKind::Retry | EntryKind::End => Input::Journaled { id, verdict },
                };
                self.step(slot, input);
            }
        }
    }

    /// Whether an activation that the queue does not know may be one that the journal has: what earlier leaderships left
    /// open is still being read. What an invoker says of it meanwhile would find it as a new one.
    pub(crate) fn is_unread(&self, slot: Slot, id: ActivationId) -> bool {
        self.queues
            .get(slot)
            .is_some_and(|local| local.recovering.is_some() && local.queue.find(id).is_none())
    }

    /// Keeps a durable submission until its queue has been read from the journal.
    pub(crate) fn await_recovery(&mut self, controller: ControllerId, submission: Submission) {
        const FULL: &str = "too many activations wait for what their queues have in the journal";
        if self.parking {
            return self.park(controller, submission, FULL);
        }
        let reason = format!(
            "what queue {} has in the journal is not known here yet; try again",
            submission.key
        );
        self.reject(controller, submission, Rejection::Unavailable { reason });
    }

    /// Takes in what earlier leaderships left open; the queue gets all of it at once, because what it hears of between two
    /// parts it could not tell from what is not there.
    pub(crate) fn on_recovered(
        &mut self,
        key: &QueueKey,
        epoch: Epoch,
        recovered: Vec<Recovered<Payload>>,
        is_last: bool,
    ) {
        let Some(slot) = self.in_epoch(key, epoch) else {
            return;
        };
        let recovering = self
            .queues
            .get_mut(slot)
            .and_then(|local| local.recovering.take());
        let recovered = match recovering {
            Some(mut recovering) => {
                recovering.add(self.now, recovered);
                if !is_last {
                    if let Some(local) = self.queues.get_mut(slot) {
                        local.recovering = Some(recovering);
                    }
                    return;
                }
                recovering.into_rows()
            }
            // One that was found later.
            None => recovered,
        };
        let count = recovered.len();
        if count > 0 {
            tracing::info!(queue = %key, %epoch, count, "durable activations recovered");
            let counter = &self.parts.context.metrics.journal.recovered;
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.step(slot, Input::Recovered(recovered));
        let parked = self.parked.take(key);
        self.replay(parked);
    }
}

/// What those hear who want an activation to end, by what the journal says to their wish.
const fn marked(verdict: &Verdict<Record>) -> CancelAnswer {
    match verdict {
        Verdict::Written => CancelAnswer::Stopping,
        Verdict::Ended(_) | Verdict::Expired => CancelAnswer::Ended,
        Verdict::Recorded(_)
        | Verdict::Open { .. }
        | Verdict::Conflict
        | Verdict::Refused(_)
        | Verdict::Unknown => CancelAnswer::Unavailable,
    }
}
