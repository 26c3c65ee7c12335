//! Which waiting activation goes to the next container that asks.
//!
//! Asked by [`MemoryQueue`](crate::MemoryQueue) once per hand-out from the queue; what comes while a container asks does
//! not wait and is not asked about.

use std::fmt;

use whiskraft_types::{ActivationId, Instant};

use crate::waiting::Waiting;

/// Decides which waiting activation is next. An implementation without state may be shared by all queues.
pub trait DequeueOrder: fmt::Debug + Send + Sync {
    /// Place in the line of the one that goes next; the line is not empty. A place beyond its end means the last.
    fn next(&self, line: Line<'_>) -> usize;
}

/// The built-in order: whoever was accepted first, at whichever scheduler.
#[derive(Debug, Clone, Copy, Default)]
pub struct OldestFirst;

impl DequeueOrder for OldestFirst {
    fn next(&self, _: Line<'_>) -> usize {
        0
    }
}

/// Those that wait, by the moment of their first acceptance.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a>(pub(crate) &'a Waiting);

impl Line<'_> {
    /// How many wait.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a line that is asked about is never empty"
    )]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Who waits at a place, and since when.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<(ActivationId, Instant)> {
        self.0.at(place).map(|ticket| (ticket.id, ticket.accepted_at))
    }
}
