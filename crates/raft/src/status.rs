//! What a node says about itself and its peers, for `status` and for choosing whom to talk to.

use std::collections::BTreeMap;

use whiskraft_types::{LogRevision, SchedulerId};

use crate::journal::LaneId;

/// Role in the Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Orders the log.
    Leader,
    /// Follows the leader and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows the leader and does not vote.
    Learner,
    /// Has stopped.
    Stopped,
}

/// One member as seen from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// `host:port` of its peer listener.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether a call to it succeeded within the last election timeouts; true for the node itself.
    pub reachable: bool,
    /// Last log index it is known to hold; only a leader knows.
    pub matched: Option<LogRevision>,
}

/// A lane of the journal as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// Which.
    pub lane: LaneId,
    /// This node's role in it.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// Leader of that term, if known.
    pub leader: Option<SchedulerId>,
    /// Last entry in the log.
    pub last_log: LogRevision,
    /// Last applied entry.
    pub applied: LogRevision,
    /// Last entry removed from the log.
    pub purged: LogRevision,
    /// Bytes of log applied since the lane was new on this node, about.
    pub bytes: u64,
}

/// Raft as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub id: SchedulerId,
    /// Its role.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// Leader of that term, if known.
    pub leader: Option<SchedulerId>,
    /// Last entry in the log.
    pub last_log: LogRevision,
    /// Last applied entry.
    pub applied: LogRevision,
    /// Last entry covered by the newest snapshot.
    pub snapshot: LogRevision,
    /// Last entry purged from the log.
    pub purged: LogRevision,
    /// All members, this node included.
    pub peers: BTreeMap<SchedulerId, PeerStatus>,
    /// The lanes of the journal.
    pub lanes: Vec<LaneStatus>,
}
