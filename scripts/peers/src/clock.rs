//! The only place that reads clocks. All times of the load are nanoseconds since the program began.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the first call.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the monotonic clock"
)]
pub(crate) fn now() -> u64 {
    let began = *BEGAN.get_or_init(Instant::now);
    nanos(began.elapsed())
}

/// Time left until a moment; zero if it has passed.
pub(crate) fn until(moment: u64) -> Duration {
    Duration::from_nanos(moment.saturating_sub(now()))
}

/// A length of time as nanoseconds; centuries are the same as for ever.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
