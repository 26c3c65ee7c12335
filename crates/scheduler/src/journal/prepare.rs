//! Makes commands of orders: looks ids up in this node's copies of all lanes, encodes, takes digests. What the disk may have to be
//! read for runs where it may block.
//!
//! That the local copies suffice is the fence's doing: what former leaders of a queue were answered is here since its
//! recovery, and what this one was answered since it was answered.

use bytes::Bytes;
use whiskraft_queue::{Outcome, Verdict};
use whiskraft_raft::{Journal, Journaled, LaneId, Lookup, StoreError};
use whiskraft_state::journal::{
    Accept, Cancel, Digest, End, EndKind, JournalCommand, JournalRow, Retry, RowState, UnixMillis,
};
use whiskraft_types::{ActivationId, Epoch, Instant, QueueKey, Rejection};

use crate::clock::{Clock, unix_ms};
use crate::journal::content::{decode_record, encode_record};
use crate::journal::order::{Entry, Order, Place};
use crate::message::{Content, Record};
use crate::metrics::EntryKind;

/// Bytes of a payload or record that are digested and encoded beside other work of a thread.
const AT_ONCE_LEN_MAX: usize = 16 << 10;

/// What became of an order.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// To be appended.
    Write(Write),
    /// Nothing has to be.
    Settled(Answer),
    /// The journal does not have what it is about; this node's copy may be behind.
    Missing(Order),
    /// The journal cannot be read now.
    Later(Order),
    /// To be prepared where that may block.
    Unread(Order),
}

/// An answer to a shard.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) id: ActivationId,
    /// Of the entry that it answers.
    pub(crate) kind: EntryKind,
    pub(crate) verdict: Verdict<Record>,
}

/// A command on its way to a lane.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) id: ActivationId,
    /// Where its row is; `None` of an acceptance that may go anywhere.
    pub(crate) lane: Option<LaneId>,
    pub(crate) command: JournalCommand,
    /// Of an acceptance.
    pub(crate) place: Option<Place>,
    /// Of an end that the queue knew no record of: the one that is written.
    pub(crate) made_up: Option<Record>,
    /// How often it could not be written.
    pub(crate) failures: u32,
}

impl Write {
    /// Bytes in the lane's log, about.
    pub(crate) const fn len(&self) -> usize {
        128 + match &self.command {
            JournalCommand::Accept(accept) => accept.payload.len(),
            JournalCommand::End(end) => end.record.len(),
            _ => 0,
        }
    }

    pub(crate) fn answer(self, verdict: Verdict<Record>) -> Answer {
        let kind = self.kind();
        let Self { key, epoch, id, .. } = self;
        Answer {
            key,
            epoch,
            id,
            kind,
            verdict,
        }
    }

    /// Whether it takes a new activation.
    pub(crate) const fn is_acceptance(&self) -> bool {
        matches!(self.command, JournalCommand::Accept(_))
    }

    /// What it does.
    pub(crate) const fn kind(&self) -> EntryKind {
        match &self.command {
            JournalCommand::Accept(_) => EntryKind::Accept,
            JournalCommand::Retry(_) => EntryKind::Retry,
            JournalCommand::Cancel(_) => EntryKind::Cancel,
            _ => EntryKind::End,
        }
    }
}

/// Reads the journal of this node, in the time of this process.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) journal: Journal,
    pub(crate) clock: Clock,
}

impl Reader {
    /// Prepares orders, in order.
    pub(crate) fn prepare(&self, orders: Vec<Order>) -> Vec<Prepared> {
        let one = |order: Order| self.one(self.journal.find(order.id), order);
        orders.into_iter().map(one).collect()
    }

    /// Prepares an order, unless it is long or the disk may have to be read for it.
    pub(crate) fn prepare_at_once(&self, order: Order) -> Prepared {
        if order.entry.len() > AT_ONCE_LEN_MAX {
            return Prepared::Unread(order);
        }
        match self.journal.find_in_memory(order.id) {
            // An acceptance of one that has ended is answered with its record.
            Ok(Some(Lookup::Found(found)))
                if !found.row.is_open() && matches!(order.entry, Entry::Accept { .. }) =>
            {
                Prepared::Unread(order)
            }
            Ok(Some(found)) => self.one(Ok(found), order),
            Ok(None) | Err(_) => Prepared::Unread(order),
        }
    }

    fn one(&self, found: Result<Lookup, StoreError>, order: Order) -> Prepared {
        let Order {
            key,
            epoch,
            id,
            entry,
            failures,
            is_caught_up,
        } = order;
        let mut write = Write {
            command: JournalCommand::Purge { ids: Vec::new() },
            key,
            epoch,
            id,
            lane: None,
            place: None,
            made_up: None,
            failures,
        };
        match entry {
            Entry::Accept {
                payload,
                accepted,
                waited,
                not_before,
                place,
            } => {
                let digest = payload.digest();
                if let Some(verdict) = self.known(found, &write.key, digest) {
                    let kind = EntryKind::Accept;
                    let answer = write.answer(verdict);
                    return Prepared::Settled(Answer { kind, ..answer });
                }
                write.command = JournalCommand::Accept(Accept {
                    id,
                    key: write.key.clone(),
                    epoch,
                    digest,
                    accepted,
                    waited,
                    not_before,
                    payload: Content::encode(&payload),
                });
                write.place = Some(place);
                Prepared::Write(write)
            }
            Entry::Retry { .. } | Entry::End { .. } | Entry::Cancel => {
                change(found, write, entry, is_caught_up)
            }
        }
    }

    /// What to say to an acceptance of an id that is there; `None` if it is not.
    pub(crate) fn known(
        &self,
        found: Result<Lookup, StoreError>,
        key: &QueueKey,
        digest: Digest,
    ) -> Option<Verdict<Record>> {
        match found {
            Ok(Lookup::Missing) => None,
            Ok(Lookup::Gone) => Some(Verdict::Expired),
            // One that was kept for its record only was not durable, and says nothing of its payload.
            Ok(Lookup::Found(Journaled { row, .. }))
                if row.key != *key || row.digest.is_some_and(|known| known != digest) =>
            {
                Some(Verdict::Conflict)
            }
            Ok(Lookup::Found(journaled)) => Some(self.verdict(&journaled)),
            Err(error) => Some(Verdict::Refused(unreadable(&error))),
        }
    }

    /// How far the journal has one.
    pub(crate) fn verdict(&self, Journaled { lane, row }: &Journaled) -> Verdict<Record> {
        match row.state {
            RowState::Open { .. } => Verdict::Open {
                run: row.run,
                not_before: not_before(&self.journal, *lane, row, self.clock.now()),
            },
            RowState::Ended { .. } => match read_record(&self.journal, *lane, row.id) {
                Ok(Some(record)) => Verdict::Ended(Outcome::Record(record)),
                Ok(None) => Verdict::Expired,
                Err(reason) => Verdict::Refused(Rejection::Unavailable { reason }),
            },
        }
    }
}

/// When the next run of an open activation may begin, on the clock of this process; a moment that has come is none.
pub(crate) fn not_before(journal: &Journal, lane: LaneId, row: &JournalRow, now: Instant) -> Option<Instant> {
    let due_in = row.due_in(journal.clock(lane), UnixMillis(unix_ms()));
    (!due_in.is_zero()).then(|| now + due_in)
}

/// A record that the journal has.
///
/// # Errors
/// Says which record cannot be read, and why.
pub(crate) fn read_record(
    journal: &Journal,
    lane: LaneId,
    id: ActivationId,
) -> Result<Option<Record>, String> {
    let bytes: Option<Bytes> = journal.record(lane, id).map_err(|error| error.to_string())?;
    let record = bytes.map(decode_record).transpose();
    record.map_err(|error| format!("the record of activation {id} in the journal: {error}"))
}

/// The refusal while the store cannot be read.
fn unreadable(error: &StoreError) -> Rejection {
    Rejection::Unavailable {
        reason: error.to_string(),
    }
}

/// A command about one that is there.
fn change(found: Result<Lookup, StoreError>, mut write: Write, entry: Entry, is_caught_up: bool) -> Prepared {
    let lane = match found {
        Ok(Lookup::Found(Journaled { lane, .. })) => lane,
        missing_or_error => {
            let order = Order {
                key: write.key,
                epoch: write.epoch,
                id: write.id,
                entry,
                failures: write.failures,
                is_caught_up,
            };
            return match missing_or_error {
                Err(error) => {
                    tracing::error!(activation = %order.id, error = &error as &dyn std::error::Error, "journal not readable");
                    Prepared::Later(order)
                }
                Ok(_) => Prepared::Missing(order),
            };
        }
    };
    let (id, key, epoch) = (write.id, write.key.clone(), write.epoch);
    write.lane = Some(lane);
    write.command = match entry {
        Entry::Retry { run, pause } => JournalCommand::Retry(Retry {
            id,
            key,
            epoch,
            run,
            pause,
        }),
        Entry::Cancel => JournalCommand::Cancel(Cancel { id, key, epoch }),
        Entry::End {
            record,
            is_made_up,
            run,
            dead_letter,
            at,
            keep,
        } => {
            let bytes = encode_record(&record);
            write.made_up = is_made_up.then_some(record);
            JournalCommand::End(End {
                id,
                key,
                epoch,
                run,
                at,
                keep,
                kind: if dead_letter {
                    EndKind::DeadLetter
                } else {
                    EndKind::Record
                },
                record: bytes,
            })
        }
        Entry::Accept { .. } => unreachable!("an acceptance is prepared by its own rules"),
    };
    Prepared::Write(write)
}
