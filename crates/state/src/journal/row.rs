//! A row of the journal.

use std::fmt;

use serde::{Deserialize, Serialize};
use whiskraft_types::{ActivationId, QueueKey};

/// Milliseconds since the Unix epoch, by the clock of whoever proposed.
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
    /// Run that is under way or next, from 1; of one that has ended the last one.
    pub run: u32,
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
    pub fn expires(&self) -> Option<UnixMillis> {
        match self.state {
            RowState::Open { .. } => None,
            RowState::Ended { expires, .. } => Some(expires),
        }
    }

    /// Whether it counts as absent by a lane's clock.
    #[must_use]
    pub fn is_expired(&self, clock: UnixMillis) -> bool {
        self.expires().is_some_and(|expires| expires <= clock)
    }
}

/// How far an activation is, as the journal knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowState {
    /// Accepted, not ended.
    Open {
        /// Its next run must not begin before.
        not_before: Option<UnixMillis>,
    },
    /// Ended; the record is there until it expires.
    Ended {
        /// When.
        at: UnixMillis,
        /// When the row may go.
        expires: UnixMillis,
        /// Whether it is listed as a dead letter; its payload is kept then.
        dead_letter: bool,
    },
}
