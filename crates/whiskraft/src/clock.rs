//! The only place where the binary reads a clock.

use std::time::Instant;

/// The present moment on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this shell reads the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
