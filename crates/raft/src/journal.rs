//! The journal, as the shells reach it: appends to a lane, and reads of what this node has of all of them.

use bytes::Bytes;
use whiskraft_state::journal::{JournalBatch, JournalOutcome, JournalRow, UnixMillis};
use whiskraft_types::{ActivationId, LogRevision, NamespaceName, QueueKey};

use crate::{ProposeError, Stopped, StoreError, Unavailable};

/// A lane: one of the Raft groups that the journal is made of, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u32);

/// A row, and the lane that has it. Whatever changes it goes to that lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journaled {
    /// Where.
    pub lane: LaneId,
    /// What is known.
    pub row: JournalRow,
}

/// What this node's copies of the lanes say about an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    Missing,
    /// It ended, and its record has expired.
    Gone,
    /// Its row.
    Found(Journaled),
}

/// The journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {}

impl Journal {
    /// All lanes, ascending.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneId> {
        todo!()
    }

    /// The lane for new acceptances: one that this node leads, so that an append needs no hop; else any with a leader.
    #[must_use]
    pub fn home(&self) -> LaneId {
        todo!()
    }

    /// Appends a batch to a lane, through its leader, and waits until it is applied there; one outcome per command.
    /// A batch with acceptances is refused while the disk is almost full.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn append(
        &self,
        lane: LaneId,
        batch: JournalBatch,
    ) -> Result<(LogRevision, Vec<JournalOutcome>), ProposeError> {
        let _ = (lane, batch);
        todo!()
    }

    /// Waits until this node has applied an entry of a lane.
    ///
    /// # Errors
    /// If the node stops first.
    pub async fn wait_applied(&self, lane: LaneId, revision: LogRevision) -> Result<(), Stopped> {
        let _ = (lane, revision);
        todo!()
    }

    /// Waits until this node has everything of every lane that was acknowledged before the call.
    ///
    /// # Errors
    /// If a lane's leader does not confirm in time.
    pub async fn catch_up(&self) -> Result<(), Unavailable> {
        todo!()
    }

    /// What this node has of an activation, in any lane.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn find(&self, id: ActivationId) -> Result<Lookup, StoreError> {
        let _ = id;
        todo!()
    }

    /// Record of an activation that has ended.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn record(&self, lane: LaneId, id: ActivationId) -> Result<Option<Bytes>, StoreError> {
        let _ = (lane, id);
        todo!()
    }

    /// Payload of an activation that has not ended, or of a dead letter.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn payload(&self, lane: LaneId, id: ActivationId) -> Result<Option<Bytes>, StoreError> {
        let _ = (lane, id);
        todo!()
    }

    /// Activations of a queue in one lane that have not ended, by id, after one of them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn open(
        &self,
        lane: LaneId,
        key: &QueueKey,
        after: Option<ActivationId>,
        limit: usize,
    ) -> Result<Vec<JournalRow>, StoreError> {
        let _ = (lane, key, after, limit);
        todo!()
    }

    /// Queues that have activations in any lane that have not ended.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn open_queues(&self) -> Result<Vec<QueueKey>, StoreError> {
        todo!()
    }

    /// Dead letters of a namespace, oldest first, after a place in that order.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn dead_letters(
        &self,
        namespace: &NamespaceName,
        after: Option<(UnixMillis, ActivationId)>,
        limit: usize,
    ) -> Result<Vec<Journaled>, StoreError> {
        let _ = (namespace, after, limit);
        todo!()
    }
}
