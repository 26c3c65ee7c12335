//! Who takes part in consensus: what an operator may order, and why an order comes to nothing.

use crate::SchedulerId;

/// An operator's order about who votes and who leads the log. Repeated, it changes nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberOrder {
    /// A learner becomes a voter, once it has caught up.
    Promote(SchedulerId),
    /// A voter becomes a learner.
    Demote {
        /// Which.
        id: SchedulerId,
        /// Also if the voters that are left and answer are no majority.
        force: bool,
    },
    /// A member leaves for good; it may be dead.
    Remove {
        /// Which.
        id: SchedulerId,
        /// Also if the voters that are left and answer are no majority.
        force: bool,
    },
    /// Another voter leads: this one, or the one that has most of the log.
    TransferLeader(Option<SchedulerId>),
}

/// Why a change of the membership was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The scheduler is not in the cluster, or not any more.
    #[error("scheduler {0} is not a member of the cluster")]
    NotMember(SchedulerId),
    /// Nobody would be left to vote.
    #[error("scheduler {0} is the last voter; the cluster would be gone with it")]
    LastVoter(SchedulerId),
    /// The cluster could decide nothing after it.
    #[error(
        "of the {voters} voters that would be left only {answering} answer, which is no majority: the cluster would \
         decide nothing any more; start the others or add voters first"
    )]
    NoQuorum {
        /// Voters after the change.
        voters: u64,
        /// Those of them that answer the leader.
        answering: u64,
    },
    /// The scheduler is too far behind for what it shall become; it comes nearer by itself.
    #[error(
        "scheduler {id} is {entries} log entries behind, too many for what it shall become; try again when it has caught up"
    )]
    Lags {
        /// The scheduler.
        id: SchedulerId,
        /// Entries that it lacks.
        entries: u64,
    },
    /// A learner cannot lead.
    #[error("scheduler {0} is a learner and cannot lead; promote it first")]
    NotVoter(SchedulerId),
    /// The scheduler does not answer the leader.
    #[error("scheduler {0} does not answer; start it or correct its network first")]
    Silent(SchedulerId),
    /// Another change is not complete yet: try again.
    #[error("another change of the membership is under way, try again: {0}")]
    InProgress(String),
    /// Refused: repeating it makes no difference.
    #[error("{0}")]
    Refused(String),
    /// No leader, or no quorum confirmed it in time: try again. It may have been done.
    #[error("{0}")]
    Unavailable(String),
}

impl MembershipError {
    /// Whether the same order may be carried out a moment later, without anybody doing anything.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Lags { .. } | Self::InProgress(_) | Self::Unavailable(_)
        )
    }
}
