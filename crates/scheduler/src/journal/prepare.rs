//! Makes commands of orders: looks ids up in this node's copies of all lanes, encodes, takes digests. Runs where it may
//! block.
//!
//! That the local copies suffice is the fence's doing: what former leaders of a queue were answered is here since its
//! recovery, and what this one was answered since it was answered.

use bytes::Bytes;
use whiskraft_queue::{Outcome, Verdict};
use whiskraft_raft::{Journal, Journaled, LaneId, Lookup, StoreError};
use whiskraft_state::journal::{Accept, Digest, End, EndKind, JournalCommand, JournalRow, Retry, RowState};
use whiskraft_types::{ActivationId, Epoch, QueueKey, Rejection};

use crate::journal::content::{decode_record, encode_record};
use crate::journal::order::{Entry, Order, Place};
use crate::message::{Content, Record};

/// What became of an order.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// To be appended.
    Write(Write),
    /// Nothing has to be.
    Settled(Answer),
    /// The journal cannot say now where it belongs.
    Later(Order),
}

/// An answer to a shard.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) id: ActivationId,
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
        let Self { key, epoch, id, .. } = self;
        Answer {
            key,
            epoch,
            id,
            verdict,
        }
    }

    /// What it runs, of an acceptance.
    pub(crate) const fn digest(&self) -> Option<Digest> {
        match &self.command {
            JournalCommand::Accept(accept) => Some(accept.digest),
            _ => None,
        }
    }
}

/// Prepares orders, in order.
pub(crate) fn prepare(journal: &Journal, orders: Vec<Order>) -> Vec<Prepared> {
    orders.into_iter().map(|order| one(journal, order)).collect()
}

fn one(journal: &Journal, order: Order) -> Prepared {
    let found = journal.find(order.id);
    match order.entry {
        Entry::Accept { .. } => accept(journal, found, order),
        Entry::Retry { .. } | Entry::End { .. } => change(found, order),
    }
}

fn accept(journal: &Journal, found: Result<Lookup, StoreError>, order: Order) -> Prepared {
    let Order {
        key,
        epoch,
        id,
        entry,
        failures,
    } = order;
    let Entry::Accept {
        payload,
        accepted,
        not_before,
        place,
    } = entry
    else {
        unreachable!("only acceptances get here");
    };
    let digest = payload.digest();
    let verdict = match found {
        Ok(Lookup::Missing) => {
            let command = JournalCommand::Accept(Accept {
                id,
                key: key.clone(),
                epoch,
                digest,
                accepted,
                not_before,
                payload: Content::encode(&payload),
            });
            return Prepared::Write(Write {
                key,
                epoch,
                id,
                lane: None,
                command,
                place: Some(place),
                failures,
            });
        }
        Ok(Lookup::Gone) => Verdict::Expired,
        Ok(Lookup::Found(Journaled { lane, row })) => known(journal, lane, &row, &key, digest),
        Err(error) => Verdict::Refused(unreadable(&error)),
    };
    Prepared::Settled(Answer {
        key,
        epoch,
        id,
        verdict,
    })
}

/// What to say to an acceptance of an id that is there.
pub(crate) fn known(
    journal: &Journal,
    lane: LaneId,
    row: &JournalRow,
    key: &QueueKey,
    digest: Digest,
) -> Verdict<Record> {
    // One that was kept for its record only was not durable, and says nothing of its payload.
    if row.key != *key || row.digest.is_some_and(|known| known != digest) {
        return Verdict::Conflict;
    }
    match row.state {
        RowState::Open { .. } => Verdict::Open {
            run: row.run,
            // The shell of the queue knows the clock; a leader that has recovered this row has been told already.
            not_before: None,
        },
        RowState::Ended { .. } => ended(journal, lane, row.id),
    }
}

/// The outcome of one that has ended.
pub(crate) fn ended(journal: &Journal, lane: LaneId, id: ActivationId) -> Verdict<Record> {
    match read_record(journal, lane, id) {
        Ok(Some(record)) => Verdict::Ended(Outcome::Record(record)),
        Ok(None) => Verdict::Expired,
        Err(reason) => Verdict::Refused(Rejection::Unavailable { reason }),
    }
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
pub(crate) fn unreadable(error: &StoreError) -> Rejection {
    Rejection::Unavailable {
        reason: error.to_string(),
    }
}

fn change(found: Result<Lookup, StoreError>, order: Order) -> Prepared {
    let lane = match found {
        Ok(Lookup::Found(Journaled { lane, .. })) => lane,
        Ok(Lookup::Missing | Lookup::Gone) | Err(_) => return Prepared::Later(order),
    };
    let Order {
        key,
        epoch,
        id,
        entry,
        failures,
    } = order;
    let command = match entry {
        Entry::Retry { run, not_before } => JournalCommand::Retry(Retry {
            id,
            key: key.clone(),
            epoch,
            run,
            not_before,
        }),
        Entry::End {
            record,
            run,
            dead_letter,
            at,
            expires,
        } => JournalCommand::End(End {
            id,
            key: key.clone(),
            epoch,
            run,
            at,
            expires,
            kind: if dead_letter {
                EndKind::DeadLetter
            } else {
                EndKind::Record
            },
            record: encode_record(&record),
        }),
        Entry::Accept { .. } => unreachable!("acceptances are prepared elsewhere"),
    };
    Prepared::Write(Write {
        key,
        epoch,
        id,
        lane: Some(lane),
        command,
        place: None,
        failures,
    })
}
