//! What applying a command gives back: the answer to its proposer, events for everybody, effects for the disk.

use serde::{Deserialize, Serialize};
use whiskraft_types::{
    ContainerId, Epoch, InvokerId, LogRevision, NamespaceName, QueueKey, Revision, SchedulerId, SessionId,
};

use crate::command::{BlobChunk, DocumentKey};
use crate::record::{
    BlobHash, ContainerRecord, ContainerState, DocumentRecord, InvokerRecord, MemberRecord, NamespaceRecord,
    QueueRecord, SessionRecord,
};

/// Everything one applied command caused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Answer to the proposer.
    pub response: Response,
    /// Changes of the tables, in order.
    pub events: Vec<Event>,
    /// Writes of document and blob bytes.
    pub effects: Vec<Effect>,
}

/// Answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done, nothing to say.
    Done,
    /// The session of `OpenSession`.
    Session(SessionId),
    /// Leadership of `EnsureQueue`.
    Leadership(Leadership),
    /// One per request of `ReserveSlots` or `ReservePlaces`, in order.
    Grants(Vec<Grant>),
    /// The document has this revision now (or was deleted at it).
    Revision(Revision),
    /// Chunks still missing of the blob; empty when complete.
    Missing(Vec<u32>),
    /// Nothing changed, and why.
    Refused(Refusal),
    /// The queues of `HandOver` that moved, in order, each with its new epoch.
    HandedOver(Vec<(QueueKey, Epoch)>),
}

/// Who leads a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The scheduler.
    pub leader: SchedulerId,
    /// Generation of the leadership.
    pub epoch: Epoch,
    /// Newest action revision.
    pub revision: Revision,
}

/// Answer to one `SlotRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grant {
    /// These; fewer than asked for (or none) when a limit binds.
    Granted(Vec<GrantedContainer>),
    /// The queue has moved on: a newer epoch leads it, or it is gone.
    StaleEpoch,
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedContainer {
    /// The new container.
    pub container: ContainerId,
    /// A paused container that it continues, and where that is.
    pub resume: Option<(ContainerId, InvokerId)>,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The session has ended, or never was.
    #[error("session {session} has ended")]
    NoSession {
        /// The session.
        session: SessionId,
    },
    /// Another live process holds this identity.
    #[error(
        "{owner} is held by session {holder} of another process; stop that one or wait until its session ends"
    )]
    Held {
        /// Who.
        owner: String,
        /// The live session.
        holder: SessionId,
    },
    /// No scheduler has a live session and takes queues.
    #[error("no live scheduler can lead the queue; start one or end a drain")]
    NoScheduler,
    /// The action of a queue does not exist.
    #[error("action {action} does not exist")]
    NoAction {
        /// Its name.
        action: String,
    },
    /// A newer epoch leads the queue.
    #[error("the queue is led in epoch {current} now")]
    StaleEpoch {
        /// That epoch; zero if the queue is gone.
        current: Epoch,
    },
    /// The document's revision is not the expected one.
    #[error("the document has revision {current} (0: it does not exist)")]
    Conflict {
        /// Its revision; zero if it does not exist.
        current: Revision,
    },
    /// A blob that the document needs is not complete.
    #[error("a blob that the document needs is not stored")]
    MissingBlob {
        /// Its hash.
        hash: BlobHash,
    },
    /// The member, document or namespace does not exist.
    #[error("not found")]
    NotFound,
    /// The command contradicts itself or the tables.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
}

/// A change of a table. `None` in place of a record means that the row is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Members table.
    Member(SchedulerId, Option<MemberRecord>),
    /// Sessions table: a session opens or ends. Renewals and container numbers are not announced.
    Session(SessionId, Option<SessionRecord>),
    /// Queues table.
    Queue(QueueKey, Option<QueueRecord>),
    /// Containers table; the record of a removed container is the last one.
    Container {
        /// The container.
        id: ContainerId,
        /// Its record, or the last one if removed.
        record: ContainerRecord,
        /// State before; `None` if it is new.
        before: Option<ContainerState>,
        /// Whether it is gone.
        removed: bool,
    },
    /// Invokers table.
    Invoker(InvokerId, Option<InvokerRecord>),
    /// A namespace reached its limit, or has room again. Derived from the counts.
    NamespaceThrottle(NamespaceName, bool),
    /// A queue became full, or has room again.
    ActionThrottle(QueueKey, bool),
    /// Namespaces table.
    Namespace(NamespaceName, Option<NamespaceRecord>),
    /// Documents table.
    Document(DocumentKey, Option<DocumentRecord>),
    /// The change of leader that follows it in the same entry is a hand-over: the former leader has stopped for good, and what
    /// it passed on is all there was. Part of no table.
    HandedOver {
        /// The queue.
        key: QueueKey,
        /// Epoch of the former leader.
        from: Epoch,
    },
}

/// A write of bytes that do not live in memory. Effects of one log index are written in one batch with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Store the body of a document.
    PutDocument {
        /// The document.
        key: DocumentKey,
        /// Its revision.
        revision: LogRevision,
        /// Its body.
        body: Vec<u8>,
    },
    /// Delete the body of a document.
    DeleteDocument {
        /// The document.
        key: DocumentKey,
    },
    /// Store a chunk of a blob.
    PutBlobChunk(BlobChunk),
    /// Delete all chunks of a blob.
    DeleteBlob {
        /// Its hash.
        hash: BlobHash,
    },
}
