//! Rows of the replicated tables.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use whiskraft_types::{
    ActionLimits, ByteSize, ContainerId, Epoch, InvokerId, LogRevision, NamespaceLimits, NamespaceName,
    QueueKey, Revision, SchedulerId, SessionId,
};

use crate::command::SessionOwner;

/// SHA-256 of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobHash(pub [u8; 32]);

/// A scheduler of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// `host:port` of the listener for other schedulers.
    pub peer_address: String,
    /// `host:port` of the listener for controllers and invokers; empty until it announced itself.
    pub client_address: String,
    /// Failure zone; empty if none was given.
    pub zone: String,
    /// Version of the binary.
    pub version: String,
    /// Identity of its data directory: 16 random bytes drawn when the directory was made.
    pub incarnation: [u8; 16],
    /// Whether it takes no new queues.
    pub draining: bool,
}

/// A lease and what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Who holds it.
    pub owner: SessionOwner,
    /// Of the process that opened it.
    pub incarnation: [u8; 16],
    /// Time without keepalive after which the Raft leader proposes its end.
    pub ttl: Duration,
    /// Newest keepalive that went through the log.
    pub renewed_seq: u64,
    /// Highest container number it has used.
    pub container_seq: u64,
}

/// A queue and its leadership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The scheduler that acts for it and the session it does so under; `None` while no scheduler is live.
    pub leader: Option<(SchedulerId, SessionId)>,
    /// Generation of the leadership.
    pub epoch: Epoch,
    /// Newest revision of the action.
    pub revision: Revision,
    /// Whether its leader refuses new activations because it is full; falls back to false with the epoch.
    pub throttled: bool,
}

/// Life of a container as the cluster sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Reserved; being created or resumed. Holds a slot.
    InProgress,
    /// Pulls. Holds a slot.
    Running,
    /// Paused with its code loaded. Holds no slot.
    Warm,
    /// It has ended, and its invoker keeps results of it that nobody has confirmed. Holds no slot; tells a new leader where
    /// to ask before it runs an activation again.
    Ended,
}

impl ContainerState {
    /// Whether it takes a slot, and memory where it is: what a paused or ended one takes is free for others.
    #[must_use]
    pub const fn holds_slot(self) -> bool {
        match self {
            Self::InProgress | Self::Running => true,
            Self::Warm | Self::Ended => false,
        }
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The queue it pulls from.
    pub key: QueueKey,
    /// Revision of the action it runs.
    pub revision: Revision,
    /// Where it is and under which session; `None` until placed.
    pub invoker: Option<(InvokerId, SessionId)>,
    /// Its life.
    pub state: ContainerState,
    /// Memory it takes.
    pub memory: ByteSize,
    /// Epoch of the leader that reserved it.
    pub epoch: Epoch,
    /// Log revision of the reservation.
    pub since: LogRevision,
    /// The paused container that it continues, if it was granted a warm one.
    pub resumes: Option<ContainerId>,
}

/// What an invoker offers, fixed for its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokerProfile {
    /// Memory its containers may take together.
    pub memory: ByteSize,
    /// Resources an action can ask for.
    pub tags: Vec<String>,
    /// Namespaces it serves; empty is all.
    pub dedicated: Vec<NamespaceName>,
    /// Kinds it can start; empty is any.
    pub kinds: Vec<String>,
    /// Failure zone; empty if none was given.
    pub zone: String,
    /// Version of the binary.
    pub version: String,
}

/// A worker host with a live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokerRecord {
    /// Its session; the record goes with it.
    pub session: SessionId,
    /// What it offers.
    pub profile: InvokerProfile,
    /// Whether it may get new containers.
    pub healthy: bool,
    /// Memory of containers that start, run or are being removed, as reported.
    pub busy: ByteSize,
    /// Memory of paused containers, as reported.
    pub reclaimable: ByteSize,
}

/// A namespace with limits of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// What it may use.
    pub limits: NamespaceLimits,
}

/// What decisions need of a document; its bytes are on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Log revision of the last write.
    pub revision: Revision,
    /// Length of the body in bytes.
    pub len: u64,
    /// Blobs it needs.
    pub blobs: Vec<BlobHash>,
    /// Limits, for an action.
    pub limits: Option<ActionLimits>,
}

/// What decisions need of a blob; its bytes are on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Length of the whole blob in bytes.
    pub len: u64,
    /// Chunks not stored yet, ascending; empty when complete.
    pub missing: Vec<u32>,
    /// Documents that need it.
    pub references: u32,
    /// Log revision of the last chunk or reference.
    pub touched: LogRevision,
}
