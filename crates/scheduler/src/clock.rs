//! The clock of this process: the only place of the crate that reads time.
//!
//! Actors read it once per turn and pass the moment down; everything below works on [`Instant`]s.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whiskraft_types::Instant;

/// How far before the start of the process the origin lies: activations that other schedulers accepted earlier have
/// their moment on this clock too. Longer than durable ones wait, and than the SDK submits one.
const HEAD_START: Duration = Duration::from_secs(30 * 24 * 3600);

/// Monotonic time; a cheap copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that begins to run now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of this crate that reads the monotonic clock"
    )]
    pub(crate) fn start() -> Self {
        Self {
            origin: std::time::Instant::now(),
        }
    }

    /// This moment.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_origin(HEAD_START + self.origin.elapsed())
    }

    /// Waits until `moment`; at once if it has passed.
    pub(crate) async fn sleep_until(&self, moment: Instant) {
        let since_start = moment.since_origin().saturating_sub(HEAD_START);
        tokio::time::sleep_until((self.origin + since_start).into()).await;
    }
}

/// Milliseconds since the Unix epoch, for records that people read; no decision depends on it.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that reads wall time"
)]
pub(crate) fn unix_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
