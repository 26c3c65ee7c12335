//! Errors at the boundary of the crate: a variant is something the caller can act on.

use std::path::PathBuf;

use whiskraft_types::{SchedulerId, SessionId};

use crate::config::SettingsError;

/// Why a node did not start. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// A setting is out of bounds.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Another process holds the data directory.
    #[error("data directory {dir} is used by another process (it holds {dir}/lock); stop that one first")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to another cluster, scheduler or format, or its identity is damaged.
    #[error("{0}")]
    Identity(String),
    /// The other members know this scheduler with another data directory.
    #[error("{0}")]
    Unknown(String),
    /// The directory cannot be read or written.
    #[error("data directory {dir}: {what}")]
    Storage {
        /// The directory.
        dir: PathBuf,
        /// What was being done.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The listener cannot be used.
    #[error("peer listener: {what}")]
    Listener {
        /// What was being done.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The log or the state machine did not come up.
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It may still take effect: look at the tables, or repeat it (commands name what they expect).
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// It certainly took no effect, and will not before there is room on the leader's disk.
    #[error("the disk of the leader is full: {0}")]
    Full(String),
    /// It certainly took no effect.
    #[error("the cluster cannot accept it now: {0}")]
    Unavailable(String),
}

/// A linearizable answer cannot be had now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// The node has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// Why a keepalive was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepaliveError {
    /// The session has ended: everything that hung on it is gone.
    #[error("session {0} has ended")]
    Expired(SessionId),
    /// No leader with a lease answered; the session may live or die.
    #[error("no leader acknowledged: {0}")]
    Unavailable(String),
}

/// Reading bytes of a document or blob failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read of {what} from the store failed: {reason}")]
pub struct StoreError {
    pub(crate) what: String,
    pub(crate) reason: String,
}

/// Why a node stopped. All but [`StopReason::Requested`] end the process with a distinct exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// [`Node::shutdown`](crate::Node::shutdown) was called.
    #[error("shut down")]
    Requested,
    /// A write or sync of durable state failed; nothing is acknowledged from that storage any more.
    #[error("storage failed: {0}")]
    Storage(String),
    /// The consensus core stopped or panicked; a restart recovers from disk.
    #[error("consensus core stopped: {0}")]
    Raft(String),
    /// Other members know this scheduler with another data directory, or not at all.
    #[error("{0}")]
    Identity(String),
    /// The scheduler was removed from the cluster.
    #[error("scheduler {0} was removed from the cluster")]
    Removed(SchedulerId),
}

impl From<StopReason> for StartError {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Identity(_) | StopReason::Removed(_) => Self::Unknown(reason.to_string()),
            StopReason::Requested | StopReason::Storage(_) | StopReason::Raft(_) => {
                Self::Raft(reason.to_string())
            }
        }
    }
}
