//! The only place of the backends that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic now.
#[expect(
    clippy::disallowed_methods,
    reason = "the backends' one reading of the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Time since the Unix epoch; zero if the clock is set before it.
#[expect(
    clippy::disallowed_methods,
    reason = "the backends' one reading of the wall clock"
)]
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_ms() -> u64 {
    millis(wall())
}

/// Milliseconds of a time since the Unix epoch, as records hold them.
pub(crate) fn millis(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}
