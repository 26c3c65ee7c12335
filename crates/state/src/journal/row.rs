//! A row of the journal.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use whiskraft_types::{ActivationId, QueueKey};

use super::LaneMillis;

/// How much too early an activation may begin that was to begin at a wall time, because the wall clock of a later leader of
/// its queue is ahead. So much of the time in which no scheduler ran is made up for, too.
pub const WALL_TRUST: Duration = Duration::from_secs(60);

/// Milliseconds since the Unix epoch, by the wall clock of whoever proposed: for people, and for what was asked for in wall
/// time. Nothing expires by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// First 16 bytes of the SHA-256 of what an activation runs: tells another payload under the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 16]);

/// What the journal knows of an activation; payload and record are stored apart from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRow {
    /// Its id.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// Of its payload; `None` if only its record was archived.
    pub digest: Option<Digest>,
    /// When a scheduler first accepted it.
    pub accepted: UnixMillis,
    /// The same by the lane's clock.
    pub since: LaneMillis,
    /// Run that is under way or next, from 1; of one that has ended the last one.
    pub run: u32,
    /// Whether its caller was told that it ends as cancelled.
    pub cancelled: bool,
    /// How far it is.
    pub state: RowState,
}

impl JournalRow {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, RowState::Open { .. })
    }

    /// Whether it is on the list of dead letters.
    #[must_use]
    pub fn is_dead_letter(&self) -> bool {
        matches!(
            self.state,
            RowState::Ended {
                dead_letter: true,
                ..
            }
        )
    }

    /// When it ended; `None` while it is open.
    #[must_use]
    pub fn ended_at(&self) -> Option<UnixMillis> {
        match self.state {
            RowState::Open { .. } => None,
            RowState::Ended { at, .. } => Some(at),
        }
    }

    /// When the row may go; `None` while it is open.
    #[must_use]
    pub fn expires(&self) -> Option<LaneMillis> {
        match self.state {
            RowState::Open { .. } => None,
            RowState::Ended { expires, .. } => Some(expires),
        }
    }

    /// Whether it counts as absent by a lane's clock.
    #[must_use]
    pub fn is_expired(&self, clock: LaneMillis) -> bool {
        self.expires().is_some_and(|expires| expires <= clock)
    }

    /// Time since a scheduler first accepted it.
    #[must_use]
    pub const fn waited(&self, clock: LaneMillis) -> Duration {
        clock.since(self.since)
    }

    /// Time since its next run might begin, by the lane's clock; none if it may not yet.
    #[must_use]
    pub fn ready(&self, clock: LaneMillis) -> Duration {
        match self.state {
            RowState::Open {
                not_before: Some(at), ..
            } => clock.since(at),
            _ => self.waited(clock),
        }
    }

    /// Time until its next run may begin; none if it may. The lane's clock decides. Where the run was asked for at a wall
    /// time, that may come earlier by at most [`WALL_TRUST`].
    #[must_use]
    pub fn due_in(&self, clock: LaneMillis, wall: UnixMillis) -> Duration {
        let RowState::Open { not_before, due } = self.state else {
            return Duration::ZERO;
        };
        let left = not_before.map_or(Duration::ZERO, |at| at.since(clock));
        match due {
            None => left,
            Some(due) => {
                let by_wall = Duration::from_millis(due.0.saturating_sub(wall.0));
                by_wall.clamp(left.saturating_sub(WALL_TRUST), left)
            }
        }
    }
}

/// How far an activation is, as the journal knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowState {
    /// Accepted, not ended.
    Open {
        /// Its next run must not begin before.
        not_before: Option<LaneMillis>,
        /// The wall time that its caller has asked for, if it is the first run that must not begin before.
        due: Option<UnixMillis>,
    },
    /// Ended; the record is there until it expires.
    Ended {
        /// When.
        at: UnixMillis,
        /// When the row may go.
        expires: LaneMillis,
        /// Whether it is listed as a dead letter; its payload is kept then.
        dead_letter: bool,
    },
}
