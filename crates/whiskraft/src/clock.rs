//! The only place where the binary reads a clock.

use std::time::{Instant, SystemTime};

/// The present moment on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this shell reads the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock: times that people write are on it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this shell reads the wall clock"
)]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
