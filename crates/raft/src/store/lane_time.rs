//! The clock of a lane on this node: what it has applied, and the time that has passed since.
//!
//! Wall clocks have no part in it; see `whiskraft_state::journal::LaneClock` for what it promises.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use whiskraft_state::journal::{LaneClock, LaneMillis};

use crate::clock;

/// The clock; shared by the lane's state machine and whoever reads or leads the lane.
#[derive(Debug)]
pub(crate) struct LaneTime {
    origin: Instant,
    clock: Mutex<LaneClock>,
}

impl LaneTime {
    /// A lane that is opened now, of which nothing is known.
    pub(crate) fn start() -> Self {
        Self {
            origin: clock::now(),
            clock: Mutex::new(LaneClock::new(LaneMillis(0), whiskraft_types::Instant::ORIGIN)),
        }
    }

    /// Batches were applied, and the lane's clock is there.
    pub(crate) fn see(&self, clock: LaneMillis) {
        let now = self.moment();
        self.lock().see(clock, now);
    }

    /// The lane's clock by now.
    pub(crate) fn now(&self) -> LaneMillis {
        self.lock().now(self.moment())
    }

    /// The time of the next batch of this node, which leads in a term and has applied all before it, or (`None`) has not.
    pub(crate) fn stamp(&self, term: Option<u64>) -> LaneMillis {
        let now = self.moment();
        self.lock().stamp(term, now)
    }

    fn moment(&self) -> whiskraft_types::Instant {
        whiskraft_types::Instant::from_origin(clock::now().duration_since(self.origin))
    }

    fn lock(&self) -> MutexGuard<'_, LaneClock> {
        // It is replaced in one piece.
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
