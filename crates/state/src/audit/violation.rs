//! Broken promises, as the auditor reports them.

use std::fmt;

use whiskraft_types::{ByteSize, ContainerId, Epoch, LogRevision, NamespaceName, QueueKey, SessionId};

/// A promise that was broken, and where in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Revision of the entry that broke it.
    pub revision: LogRevision,
    /// Which.
    pub kind: ViolationKind,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}: {}", self.revision, self.kind)
    }
}

/// What was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViolationKind {
    /// A namespace took a slot beyond its limit.
    #[error("namespace {namespace} has {slots} slots, {limit} are allowed")]
    NamespaceOver {
        /// The namespace.
        namespace: NamespaceName,
        /// Its slots with the one just taken.
        slots: u32,
        /// The limit in force.
        limit: u32,
    },
    /// An action took a slot beyond its own limit.
    #[error("queue {key} has {slots} slots, its action allows {limit}")]
    ActionOver {
        /// The queue.
        key: QueueKey,
        /// Its slots with the one just taken.
        slots: u32,
        /// The limit in force.
        limit: u32,
    },
    /// Containers were promised more memory of an invoker than it has.
    #[error("invoker of session {session} has {promised} promised, it offers {memory}")]
    InvokerOver {
        /// The invoker's session.
        session: SessionId,
        /// Memory of its containers in progress and running, with the one just placed.
        promised: ByteSize,
        /// What it offers.
        memory: ByteSize,
    },
    /// A slot was taken by something that is no grant.
    #[error("container {container} took a slot that was not granted")]
    NotGranted {
        /// The container.
        container: ContainerId,
    },
    /// A grant to somebody who did not lead the queue.
    #[error("container {container} was granted in epoch {epoch} to one who does not lead the queue")]
    StaleGrant {
        /// The container.
        container: ContainerId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A grant under a session that has ended.
    #[error("container {container} was granted to session {session}, which has ended")]
    GrantedToNobody {
        /// The container.
        container: ContainerId,
        /// The session.
        session: SessionId,
    },
    /// A container's number was used before.
    #[error("container {container} has a number that was used before")]
    ContainerReused {
        /// The container.
        container: ContainerId,
    },
    /// A session's number was used before.
    #[error("session {session} has a number that is not new")]
    SessionReused {
        /// The session.
        session: SessionId,
    },
    /// A queue's epoch became smaller.
    #[error("the epoch of queue {key} fell from {from} to {to}")]
    EpochFell {
        /// The queue.
        key: QueueKey,
        /// Before.
        from: Epoch,
        /// After.
        to: Epoch,
    },
    /// A queue got another leader in the same epoch.
    #[error("queue {key} got another leader in the same epoch {epoch}")]
    EpochKept {
        /// The queue.
        key: QueueKey,
        /// The epoch.
        epoch: Epoch,
    },
    /// A queue is led under a session that has ended.
    #[error("queue {key} is led under session {session}, which has ended")]
    LeaderWithoutSession {
        /// The queue.
        key: QueueKey,
        /// The session.
        session: SessionId,
    },
    /// A container was placed under a session that has ended.
    #[error("container {container} was placed under session {session}, which has ended")]
    PlacedNowhere {
        /// The container.
        container: ContainerId,
        /// The session.
        session: SessionId,
    },
    /// The session of a container's invoker ended without it.
    #[error("container {container} outlived session {session} of its invoker")]
    OutlivedSession {
        /// The container.
        container: ContainerId,
        /// The session.
        session: SessionId,
    },
    /// A queue was removed and left a container that is nowhere.
    #[error("container {container} is on no invoker and outlived queue {key}")]
    OutlivedQueue {
        /// The container.
        container: ContainerId,
        /// The queue.
        key: QueueKey,
    },
    /// The events do not add up to the tables.
    #[error("container {container} is not the same in the tables as its events made it")]
    TablesDiffer {
        /// The container.
        container: ContainerId,
    },
}
