//! Proof of death: a process of a scheduler has ended, and whoever supervised it says so to the others (docs/design/0012).
//!
//! [`report()`] is the near end, for the supervisor; `receive` the far one, on every node. A report shortens a wait that would
//! end by itself; what may follow from it is what the end of a session and an election always may.
//! Invariant: a report ends the session of exactly the process that it names, or nothing.

mod elect;
mod receive;
mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use whiskraft_types::{LogRevision, SchedulerId};

pub(crate) use receive::receive;
pub use report::report;

/// Pause before a call or a proposal that came to nothing is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What has to be told when a process of a scheduler has ended, and to whom; written while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obituary {
    /// Identity of the cluster.
    pub cluster_id: String,
    /// The scheduler.
    pub scheduler: SchedulerId,
    /// What its process drew when it started: the incarnation of its sessions, and of nobody else's.
    pub incarnation: [u8; 16],
    /// Peer addresses of the other members.
    pub others: BTreeMap<SchedulerId, String>,
}

/// What a member says to a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndAnswer {
    /// The session of that process has ended, at this revision of the log or before.
    Ended(LogRevision),
    /// The scheduler's session is of another process; it goes on.
    OtherProcess,
    /// The scheduler has no session: that process had none, or it has ended.
    NoSession,
    /// Nothing is known; the session ends with its time.
    Unavailable(String),
}
