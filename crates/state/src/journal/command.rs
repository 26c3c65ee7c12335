//! Commands of a lane and what they answer. On disk and on the wire between schedulers, like
//! [`Command`](crate::Command): never add a field to a variant or a struct, add a variant.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use whiskraft_types::{ActivationId, Epoch, QueueKey};

use super::{Digest, LaneMillis, UnixMillis};

/// One entry of a lane's log: whatever was ready when the proposer woke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalBatch {
    /// The lane's clock, set by its leader when it puts the batch into the log; it never goes back.
    pub now: LaneMillis,
    /// In order; each is answered by one outcome.
    pub commands: Vec<JournalCommand>,
}

impl JournalBatch {
    /// Commands as they are proposed.
    #[must_use]
    pub const fn of(commands: Vec<JournalCommand>) -> Self {
        Self {
            now: LaneMillis(0),
            commands,
        }
    }

    /// How many commands and queues it has: what it takes in memory, beside payloads, records and bare ids, goes by that.
    #[must_use]
    pub fn names(&self) -> usize {
        let names = self.commands.iter().map(|command| match command {
            JournalCommand::Fence { queues } => queues.len(),
            JournalCommand::Accept(_)
            | JournalCommand::Retry(_)
            | JournalCommand::End(_)
            | JournalCommand::Archive(_)
            | JournalCommand::Purge { .. }
            | JournalCommand::Cancel(_) => 1,
        });
        names.sum()
    }
}

/// A change of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalCommand {
    /// Takes an activation for good.
    Accept(Accept),
    /// A run has failed and another follows.
    Retry(Retry),
    /// An activation has ended.
    End(End),
    /// Keeps the record of an activation that was not durable.
    Archive(Archive),
    /// From now on commands that name an older epoch of these queues change nothing: somebody else leads them. Also a
    /// barrier: when it is applied, everything that the former leader was answered is there.
    Fence {
        /// Queues and their new epochs.
        queues: Vec<(QueueKey, Epoch)>,
    },
    /// Takes activations off the list of dead letters; their payloads go, their records stay until they expire.
    Purge {
        /// Which.
        ids: Vec<ActivationId>,
    },
    /// Notes that an activation that has not ended ends as cancelled, whatever becomes of its run.
    Cancel(Cancel),
}

/// Accepts an activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The activation.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// Epoch of the leader that accepts it.
    pub epoch: Epoch,
    /// Of what it runs.
    pub digest: Digest,
    /// When a scheduler first accepted it.
    pub accepted: UnixMillis,
    /// Time since then.
    pub waited: Duration,
    /// It must not begin before.
    pub not_before: Option<Delay>,
    /// What it runs; opaque.
    #[serde(with = "super::raw")]
    pub payload: Bytes,
}

/// A first run that is to begin later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// Time until then.
    pub time: Duration,
    /// The wall time that was asked for.
    pub due: UnixMillis,
}

/// Says that another run follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The activation.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// Epoch of its leader.
    pub epoch: Epoch,
    /// The run that follows; one at or below the row's changes nothing.
    pub run: u32,
    /// Time until it may begin.
    pub pause: Duration,
}

/// Says that an activation ends as cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The activation.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// Epoch of its leader.
    pub epoch: Epoch,
}

/// Ends an activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The activation.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// Epoch of its leader.
    pub epoch: Epoch,
    /// The run that was the last.
    pub run: u32,
    /// When it ended.
    pub at: UnixMillis,
    /// How long its record stays.
    pub keep: Duration,
    /// What it becomes.
    pub kind: EndKind,
    /// Its record; opaque.
    #[serde(with = "super::raw")]
    pub record: Bytes,
}

/// What an ended activation becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndKind {
    /// A record.
    Record,
    /// A record, a kept payload, and a place on the list of dead letters.
    DeadLetter,
}

/// Keeps the record of an activation that was accepted in memory only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// The activation.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// When it was accepted.
    pub accepted: UnixMillis,
    /// When it ended.
    pub at: UnixMillis,
    /// How long the record stays.
    pub keep: Duration,
    /// The record; opaque.
    #[serde(with = "super::raw")]
    pub record: Bytes,
}

/// What a command of the journal came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalOutcome {
    /// Done.
    Written,
    /// To `Accept`: the id is there with the same payload. To `End` and `Retry`: this was said before, or the row has
    /// moved on. To `Cancel`: it has ended. To `Archive`: the id is there.
    Known(KnownActivation),
    /// To `Accept`: the id is there with another payload or in another queue.
    Conflict,
    /// The queue has another leader.
    Stale {
        /// The newest epoch that the lane knows.
        current: Epoch,
    },
    /// To `End`, `Retry` and `Cancel`: the lane has no such activation.
    Missing,
}

/// An activation that was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownActivation {
    /// Its run.
    pub run: u32,
    /// Whether it has ended.
    pub ended: bool,
}
