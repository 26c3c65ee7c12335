//! The clock of a lane: it counts time that has passed, whatever the wall clocks of its nodes say.
//!
//! Only a lane's leader moves it, by the time that has passed on its own monotonic clock since it saw the clock move. So it
//! never runs ahead of the time that has really passed, and a row that is to stay for a day stays for a day at least. Time
//! in which no process ran that could have led the lane does not count: what is kept is kept for longer then.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use whiskraft_types::Instant;

/// Milliseconds on the clock of a lane, from the lane's beginning. Times of two lanes do not compare, and neither does one
/// with a wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LaneMillis(pub u64);

impl LaneMillis {
    /// That much later; time that no clock reaches is the last that it could.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(millis(time)))
    }

    /// That much earlier, but not before the lane's beginning.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(millis(time)))
    }

    /// Time since an earlier moment; none since a later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for LaneMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms of its lane", self.0)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What one node knows of a lane's clock, in the time of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneClock {
    /// What it has applied, and when: time counts from there.
    seen: (LaneMillis, Instant),
    /// The term in which it led the lane last, and from where it counts there.
    led: Option<(u64, (LaneMillis, Instant))>,
}

impl LaneClock {
    /// A lane that was opened now, and stands there.
    #[must_use]
    pub const fn new(clock: LaneMillis, now: Instant) -> Self {
        Self {
            seen: (clock, now),
            led: None,
        }
    }

    /// Batches were applied, and the lane's clock is there: said for every batch, be it that the clock has not moved. What
    /// the batch wrote was not there before, so no time before counts for it.
    pub fn see(&mut self, clock: LaneMillis, now: Instant) {
        if clock >= self.seen.0 {
            self.seen = (clock, now.max(self.seen.1));
        }
    }

    /// The clock by now, to tell how long ago was what this node has applied: never more than has really passed since.
    #[must_use]
    pub fn now(&self, now: Instant) -> LaneMillis {
        count(self.seen, now)
    }

    /// The time that this node gives its next batch as the leader of a term. It must have applied all of the terms before;
    /// one that has not (`None`) does not move the clock. Within a term it counts from one moment, so that no time gets lost
    /// between a batch and its apply.
    pub fn stamp(&mut self, term: Option<u64>, now: Instant) -> LaneMillis {
        let Some(term) = term else {
            // What that batch writes is as old as the clock says only from now on.
            self.seen.1 = self.seen.1.max(now);
            return self.seen.0;
        };
        let from = match self.led {
            Some((led, from)) if led == term => from,
            _ => self.seen,
        };
        self.led = Some((term, from));
        count(from, now).max(self.seen.0)
    }
}

fn count((clock, at): (LaneMillis, Instant), now: Instant) -> LaneMillis {
    clock.after(now.saturating_since(at))
}
