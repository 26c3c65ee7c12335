//! The only place of the shell that reads clocks and draws random numbers.

use std::sync::OnceLock;
use std::time::Duration;

use rand::Rng;
use whiskraft_types::Instant;

static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();

#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one reading of the monotonic clock"
)]
fn read() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn origin() -> tokio::time::Instant {
    *ORIGIN.get_or_init(read)
}

/// Now, on the clock of this process.
pub(crate) fn now() -> Instant {
    let origin = origin();
    Instant::from_origin(read().saturating_duration_since(origin))
}

/// The same moment for tokio's timers.
pub(crate) fn at(instant: Instant) -> tokio::time::Instant {
    origin() + instant.since_origin()
}

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell's one reading of the wall clock"
)]
pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Identity of this process.
pub(crate) fn incarnation() -> [u8; 16] {
    rand::rng().random()
}

/// A random number below `bound`.
pub(crate) fn below(bound: usize) -> usize {
    rand::rng().random_range(0..bound.max(1))
}

/// Between half of a duration and all of it, so that many invokers do not come back in step.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::rng().random_range(0.5..1.0))
}
