//! The one place of this crate that reads the clock.

use std::time::Duration;

use tokio::time::Instant;

/// Now, on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that reads the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
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
