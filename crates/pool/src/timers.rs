//! Everything that happens later, in one ordered set, so that the shell needs a single timer.

use std::collections::BTreeSet;

use whiskraft_types::Instant;

use crate::WorkerId;

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The container's own: what it means follows from its state.
    Container(WorkerId),
    /// Let a container ask again whose asks were refused.
    AskAgain(WorkerId),
    /// A memory report was held back.
    Memory,
    /// Give an unhealthy invoker another chance.
    Health,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, at: Instant, timer: Timer) {
        self.due.remove(&(at, timer));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, timer)| timer)
    }
}
