//! The one place of this crate that reads the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Now, on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that reads the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall time that does not jump: what the wall clock said when the node started, and the monotonic clock since then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall {
    base: Duration,
    at: Instant,
}

impl Wall {
    /// Reads the wall clock once.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of this crate that reads the wall clock"
    )]
    pub(crate) fn start() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base, at: now() }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn millis(&self) -> u64 {
        let now = self.base + now().duration_since(self.at);
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Holds a thread up that may block, until it looks again.
#[expect(
    clippy::disallowed_methods,
    reason = "the engine has no way to wait for a flush without asking for one"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Holds a thread up, to imitate a slow disk.
#[expect(
    clippy::disallowed_methods,
    reason = "imitates a slow disk in measurements; nothing waits for an event here"
)]
pub(crate) fn stall(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}
