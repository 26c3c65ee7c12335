//! Commands: everything that can be proposed to group 0. This is the format on disk and on the wire between
//! schedulers; golden bytes pin it. Never add a field to a variant: add a variant.
//!
//! A command that a retry may repeat names the epoch, revision, incarnation or container it is about, so that
//! applying it a second time changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use whiskraft_types::{
    ActionLimits, ActionName, ByteSize, ContainerId, Epoch, InvokerId, LogRevision, NamespaceLimits,
    NamespaceName, QueueKey, Revision, SchedulerId, SessionId,
};

use crate::record::{BlobHash, InvokerProfile, MemberRecord};

/// One entry of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Adds a scheduler to, or changes it in, the members table.
    PutMember {
        /// The scheduler.
        id: SchedulerId,
        /// Its addresses and identity.
        member: MemberRecord,
    },
    /// Removes a scheduler that has left the Raft membership; its session, if any, ends in the same apply.
    RemoveMember {
        /// The scheduler.
        id: SchedulerId,
    },
    /// Opens a session, or finds the one that the same incarnation opened before.
    OpenSession(OpenSession),
    /// Records keepalives that arrived while an expiry of the session was on its way through the log.
    RenewSessions {
        /// Session and the sequence number of its keepalive.
        sessions: Vec<(SessionId, u64)>,
    },
    /// Ends sessions whose deadline passed on the Raft leader, with everything that hangs on them. A session with
    /// a renewal newer than the given sequence number stays.
    ExpireSessions {
        /// Session and the newest keepalive the leader had seen of it.
        sessions: Vec<(SessionId, u64)>,
    },
    /// Ends a session at its owner's wish.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// Makes sure that a queue has a leader.
    EnsureQueue(EnsureQueue),
    /// Removes an idle queue.
    RemoveQueue {
        /// The queue.
        key: QueueKey,
        /// Epoch of the leader that found it idle.
        epoch: Epoch,
    },
    /// Says that a queue is full, or no longer.
    SetActionThrottle {
        /// The queue.
        key: QueueKey,
        /// Epoch of its leader.
        epoch: Epoch,
        /// Whether new activations are refused.
        throttled: bool,
    },
    /// Reserves container slots; all reservations that waited at that moment. Order decides who gets the last slot.
    ReserveSlots {
        /// Session of the reserving scheduler.
        session: SessionId,
        /// What its queues want.
        requests: Vec<SlotRequest>,
    },
    /// What became of containers.
    UpdateContainers {
        /// In order.
        updates: Vec<ContainerUpdate>,
    },
    /// Status and memory of invokers, coalesced.
    ReportInvokers {
        /// One per invoker.
        reports: Vec<InvokerReport>,
    },
    /// Creates or changes a namespace.
    PutNamespace {
        /// Its name.
        name: NamespaceName,
        /// What it may use.
        limits: NamespaceLimits,
    },
    /// Forgets a namespace; default limits hold for it again.
    DeleteNamespace {
        /// Its name.
        name: NamespaceName,
    },
    /// Writes a document if its revision is the expected one.
    PutDocument(PutDocument),
    /// Deletes a document if its revision is the expected one.
    DeleteDocument {
        /// The document.
        key: DocumentKey,
        /// Revision it must have; `None` is any.
        expected: Option<Revision>,
    },
    /// Stores a chunk of a blob; chunks may come in any order and more than once.
    PutBlobChunk(BlobChunk),
    /// Deletes blobs that no document references and whose last chunk is older than a log revision.
    SweepBlobs {
        /// Blobs touched at or after this stay.
        before: LogRevision,
    },
    /// Stops (or allows again) new queues on a scheduler.
    SetDraining {
        /// The scheduler.
        id: SchedulerId,
        /// Whether it takes no new queues.
        draining: bool,
    },
    /// Gives queues other leaders, at the wish of the present one: it is being drained.
    MoveQueues {
        /// Session of the leader.
        session: SessionId,
        /// Its queues, each with the epoch it is led in; those that have moved on are left out.
        queues: Vec<(QueueKey, Epoch)>,
    },
    /// Gives queues to leaders that hold what is in them already, at the wish of the present one.
    HandOver {
        /// Session of the leader.
        session: SessionId,
        /// Its queues, each with the epoch it is led in and who leads it next. One that has moved on stays as it is, and
        /// so does one whose next leader has no session or takes no queues.
        queues: Vec<(QueueKey, Epoch, SchedulerId)>,
    },
    /// Reserves container slots as `ReserveSlots` does, and with each slot a place, so that the invoker can be told at once.
    ReservePlaces {
        /// Session of the reserving scheduler.
        session: SessionId,
        /// What its queues want, each with the invokers that were chosen: the first for container `first_seq`, and so on; as
        /// many as containers at most. A container whose invoker has no memory by then, or takes none, gets its slot
        /// without a place, and so does one for which none was chosen. One that continues a paused container stays where
        /// that is.
        requests: Vec<(SlotRequest, Vec<InvokerId>)>,
    },
}

/// Who holds a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionOwner {
    /// A scheduler process. A newer incarnation of the same member ends the older session in the same apply.
    Scheduler(SchedulerId),
    /// An invoker process; refused while another incarnation's session lives.
    Invoker {
        /// Its id.
        id: InvokerId,
        /// What it offers.
        profile: InvokerProfile,
    },
}

/// Opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Who.
    pub owner: SessionOwner,
    /// Drawn at process start; a repeated open finds the first one's session.
    pub incarnation: [u8; 16],
    /// Time without keepalive after which it ends.
    pub ttl: Duration,
}

/// Ensures a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsureQueue {
    /// The queue. Its action document must exist.
    pub key: QueueKey,
}

/// One queue's wish for containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRequest {
    /// The queue.
    pub key: QueueKey,
    /// Epoch of its leader.
    pub epoch: Epoch,
    /// Number of the first container; the request takes `first_seq .. first_seq + count`. A session never uses a
    /// number twice; a request at or below its highest number is a repetition and is answered from the table.
    pub first_seq: u64,
    /// Containers wanted, at least 1.
    pub count: u32,
    /// Revision of the action they run.
    pub revision: Revision,
    /// Memory of each.
    pub memory: ByteSize,
    /// The action's own limit, if it has one.
    pub instances: Option<u32>,
}

/// A change of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUpdate {
    /// The container.
    pub container: ContainerId,
    /// What happened.
    pub change: ContainerChange,
    /// The invoker that says so and its session; the change is ignored unless the container is there. `None` is the
    /// word of a scheduler.
    pub reporter: Option<(InvokerId, SessionId)>,
}

/// What happened to a container. Changes of a container that is gone are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerChange {
    /// The queue leader is about to send its creation to an invoker. Refused if that invoker has no session; without effect
    /// if it has less memory than all that is promised there and this container need.
    Placed {
        /// Where.
        invoker: InvokerId,
    },
    /// It pulls.
    Running,
    /// It is paused with its code loaded and gives its slot back.
    Warm,
    /// It is gone, or was never created: the slot is free again.
    Removed,
    /// Its creation came back from an invoker and will be tried again: it keeps its slot and holds no memory. Ignored if
    /// it is somewhere else.
    Unplaced {
        /// Where it was not created.
        invoker: InvokerId,
    },
    /// It is gone and its slot free, but its invoker keeps results of it that nobody has confirmed: it is remembered until
    /// it is removed.
    Ended,
}

/// Status of an invoker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokerReport {
    /// The invoker.
    pub invoker: InvokerId,
    /// Its session; a report of an older one is ignored.
    pub session: SessionId,
    /// Whether it may get new containers.
    pub healthy: bool,
    /// Memory of containers that start, run or are being removed.
    pub busy: ByteSize,
    /// Memory of paused containers.
    pub reclaimable: ByteSize,
}

/// Names a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DocumentKey {
    /// Kind of entity, `action` for example.
    pub kind: String,
    /// Namespace that owns it.
    pub namespace: NamespaceName,
    /// `[package/]name`.
    pub name: String,
}

impl DocumentKey {
    /// Kind of action documents.
    pub const ACTION: &'static str = "action";

    /// The document of an action.
    #[must_use]
    pub fn action(name: &ActionName) -> Option<Self> {
        let (namespace, rest) = name.as_str().split_once('/')?;
        Some(Self {
            kind: Self::ACTION.to_owned(),
            namespace: namespace.parse().ok()?,
            name: rest.to_owned(),
        })
    }
}

/// Writes a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutDocument {
    /// The document.
    pub key: DocumentKey,
    /// Its content; the state machine does not look inside.
    #[serde(with = "crate::octets")]
    pub body: Vec<u8>,
    /// `None`: whatever is there. `Some(0)`: must not exist. Else its revision.
    pub expected: Option<Revision>,
    /// Blobs it needs; all must be complete.
    pub blobs: Vec<BlobHash>,
    /// For an action: its limits, so that decisions need not parse the body.
    pub limits: Option<ActionLimits>,
}

/// Part of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobChunk {
    /// SHA-256 of the whole blob.
    pub hash: BlobHash,
    /// Length of the whole blob in bytes.
    pub len: u64,
    /// Number of this chunk; all but the last are [`BlobChunk::LEN`] bytes.
    pub index: u32,
    /// Its bytes.
    #[serde(with = "crate::octets")]
    pub data: Vec<u8>,
}

impl BlobChunk {
    /// Length of every chunk but the last: small enough that a keepalive never waits long behind one.
    pub const LEN: usize = 256 * 1024;
}
