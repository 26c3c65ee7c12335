//! Time as the pure crates see it.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// A moment on the monotonic clock of one process, counted from an origin that the process chose. Shells read
/// the clock once per turn and pass it down; comparing instants of two processes means nothing.
///
/// Queues keep many of them for long, so it is one word, and so is one that may be missing: nanoseconds since the origin, plus
/// one. The last that there is comes after 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// The origin of this process's clock.
    pub const ORIGIN: Self = Self(NonZeroU64::MIN);

    /// The moment `elapsed` after the origin, or the last one.
    #[must_use]
    pub const fn from_origin(elapsed: Duration) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos(elapsed)))
    }

    /// Time since the origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }

    /// Time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ORIGIN
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instant").field(&self.since_origin()).finish()
    }
}

/// All nanoseconds of a time, or the most that can be counted.
const fn nanos(time: Duration) -> u64 {
    time.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(time.subsec_nanos() as u64)
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cannot_be_counted_end_at_the_last_moment() {
        let last = Instant::from_origin(Duration::MAX);
        assert_eq!(last + Duration::from_secs(1), last);
        assert_eq!(Instant::ORIGIN + Duration::MAX, last);
        assert!(last > Instant::from_origin(Duration::from_secs(500 * 365 * 24 * 3600)));
        assert_eq!(Instant::ORIGIN.saturating_since(last), Duration::ZERO);
    }

    #[test]
    fn a_moment_keeps_every_nanosecond() {
        let elapsed = Duration::new(86_400, 999_999_999);
        let moment = Instant::from_origin(elapsed);
        assert_eq!(moment.since_origin(), elapsed);
        let later = moment + Duration::from_nanos(2);
        assert_eq!(later.saturating_since(moment), Duration::from_nanos(2));
        assert_eq!(size_of::<Option<Instant>>(), 8);
    }
}
