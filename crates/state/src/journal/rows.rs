//! What a lane reads and what it writes: the rows it decides by, and the changes it decides on.

use bytes::Bytes;
use whiskraft_types::{ActivationId, Epoch, NamespaceName, QueueKey};

use super::{JournalRow, LaneMillis, UnixMillis};

/// The newest epoch of a queue that a lane was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The epoch.
    pub epoch: Epoch,
    /// When it was told; see [`FENCE_KEPT`](super::FENCE_KEPT).
    pub at: LaneMillis,
}

/// The rows of a lane. Whether one that has expired is still there makes no difference to any decision.
pub trait JournalRows {
    /// Why they cannot be read.
    type Error;

    /// What is known of an activation.
    ///
    /// # Errors
    /// If it cannot be read.
    fn row(&self, id: ActivationId) -> Result<Option<JournalRow>, Self::Error>;

    /// The fence of a queue.
    ///
    /// # Errors
    /// If it cannot be read.
    fn fence(&self, key: &QueueKey) -> Result<Option<Fence>, Self::Error>;
}

/// One change of what a lane keeps. They are made in order, all or none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// Sets the row of its activation.
    PutRow(JournalRow),
    /// Sets a payload.
    PutPayload {
        /// The activation.
        id: ActivationId,
        /// The payload.
        payload: Bytes,
    },
    /// A payload stays until then.
    KeepPayload {
        /// The activation.
        id: ActivationId,
        /// When it may go.
        expires: LaneMillis,
    },
    /// Removes a payload.
    DeletePayload(ActivationId),
    /// Sets a record.
    PutRecord {
        /// The activation.
        id: ActivationId,
        /// When it may go.
        expires: LaneMillis,
        /// The record.
        record: Bytes,
    },
    /// Removes a record.
    DeleteRecord(ActivationId),
    /// Lists an activation as open.
    Open {
        /// Its queue.
        key: QueueKey,
        /// The activation.
        id: ActivationId,
    },
    /// It is not open any more.
    Close {
        /// Its queue.
        key: QueueKey,
        /// The activation.
        id: ActivationId,
    },
    /// Lists a dead letter.
    List {
        /// Its namespace.
        namespace: NamespaceName,
        /// When it ended.
        at: UnixMillis,
        /// The activation.
        id: ActivationId,
        /// When it may go.
        expires: LaneMillis,
    },
    /// It is a dead letter no more.
    Unlist {
        /// Its namespace.
        namespace: NamespaceName,
        /// When it ended.
        at: UnixMillis,
        /// The activation.
        id: ActivationId,
    },
    /// Sets the fence of a queue.
    PutFence {
        /// The queue.
        key: QueueKey,
        /// The fence.
        fence: Fence,
    },
}
