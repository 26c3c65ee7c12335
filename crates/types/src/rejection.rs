//! A typed no, with the advice that tells the SDK what to do next.

use std::time::Duration;

use crate::{Epoch, SchedulerId};

/// The limit that a rejected activation ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThrottleScope {
    /// The namespace has no room for another container and this action has none.
    Namespace,
    /// The action's queue is full.
    Action,
    /// The stream has more unanswered submissions than its window.
    Stream,
    /// The namespace has used its invocations per minute.
    Rate,
}

/// Who leads the queue, as far as the refusing scheduler knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotLeader {
    /// Leader now; `None` while nobody leads.
    pub leader: Option<SchedulerId>,
    /// Epoch of that leadership.
    pub epoch: Epoch,
}

/// Why a scheduler refused a submission, a pull or a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another scheduler leads the queue: go there.
    #[error("not the leader of this queue (epoch {})", .0.epoch)]
    NotLeader(NotLeader),
    /// Nobody has ensured this queue: call `EnsureQueue`.
    #[error("the queue does not exist")]
    NoQueue,
    /// Over a limit: final for this activation; try a new one after `retry_after`.
    #[error("too many concurrent requests in flight ({scope:?})")]
    Throttled {
        /// Which limit.
        scope: ThrottleScope,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The payload is over the limit: final.
    #[error("request larger than allowed: [{len}] > {len_max} bytes")]
    TooLarge {
        /// Bytes sent.
        len: u64,
        /// Bytes allowed.
        len_max: u64,
    },
    /// This scheduler is being drained: ask `EnsureQueue` again.
    #[error("the scheduler is draining")]
    Draining,
    /// Same id, other content: final.
    #[error("this activation id was used with another payload")]
    Conflict,
    /// Fenced, without quorum or overloaded: try again after a pause.
    #[error("the scheduler is not available: {reason}")]
    Unavailable {
        /// What it lacks.
        reason: String,
    },
    /// The request can never succeed: final.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The disk of the Raft leader has no room for documents or code: final until somebody makes room.
    #[error("the cluster cannot store it: {reason}")]
    StorageFull {
        /// Which disk, and how much is left.
        reason: String,
    },
    /// The action does not exist: final.
    #[error("action {action} does not exist")]
    NoAction {
        /// Its name.
        action: String,
    },
}

impl Rejection {
    /// Whether the SDK may try the same id again by itself.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader(_) | Self::NoQueue | Self::Draining | Self::Unavailable { .. }
        )
    }
}
