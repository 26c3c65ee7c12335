//! Rate of a namespace: how many invocations it may start per minute.
//!
//! A meter that fills with what is granted and leaks at the rate; it grants what still fits. The scheduler keeps one per
//! namespace with a limit and calls [`TokenBucket::take`] for every batch of new activations.
//!
//! Invariant: in any window of 60 s at most [`per_minute_max`] are granted, whatever the pattern of the calls.
//! Invariant: all arithmetic is exact. The leak is counted in sixtieths of a nanosecond's worth, so nothing drifts; only
//! a change of the rate rounds, and then to the namespace's disadvantage by less than one part of a nanosecond.

use std::time::Duration;

use whiskraft_types::Instant;

/// What one token costs: the meter leaks `per_minute` of these parts every nanosecond, so a minute is worth
/// `per_minute` tokens.
const PARTS_PER_TOKEN: u128 = 60_000_000_000;
/// A bucket holds this part of a minute's worth, rounded up: ten seconds.
const BURST_FRACTION: u32 = 6;
/// When to ask again if the rate is zero: only a new limit can change the answer.
const RETRY_AT_ZERO: Duration = Duration::from_secs(60);

/// Limits the rate of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    per_minute: u32,
    /// The last rate above zero: what the meter leaks at and is as large for. Zero: there was none yet.
    pace: u32,
    /// Parts granted and not leaked yet; at most the capacity.
    level: u128,
    /// Moment that `level` is of.
    at: Instant,
}

/// Answer of a [`TokenBucket`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// How many may go on; at most as many as were wanted.
    pub granted: u32,
    /// Time from now until one more would be granted; zero if it would be now. 60 s if the rate is zero.
    pub retry_after: Duration,
}

/// Tokens that may be granted at one moment: ten seconds' worth, rounded up.
#[must_use]
pub const fn burst(per_minute: u32) -> u32 {
    per_minute.div_ceil(BURST_FRACTION)
}

/// Most tokens granted in any window of 60 s at a constant rate: `per_minute` and one burst. While the rate changes it
/// is seven bursts of the highest rate of the 70 s before the window's end.
#[must_use]
pub const fn per_minute_max(per_minute: u32) -> u32 {
    per_minute.saturating_add(burst(per_minute))
}

impl TokenBucket {
    /// A bucket from which a burst may be taken at once.
    #[must_use]
    pub const fn new(per_minute: u32, now: Instant) -> Self {
        Self {
            per_minute,
            pace: per_minute,
            level: 0,
            at: now,
        }
    }

    /// Changes the rate. What part of the burst is used stays the same, so that a limit that goes up and down grants no
    /// more than the higher one would. At a rate of zero the meter leaks on at the rate before, so that what follows
    /// begins with its whole burst unless the namespace has used one a moment ago.
    pub fn set_rate(&mut self, per_minute: u32, now: Instant) {
        if per_minute == self.per_minute {
            return;
        }
        self.leak(now);
        self.per_minute = per_minute;
        if per_minute == 0 {
            return;
        }
        let before = self.capacity();
        self.pace = per_minute;
        // Without a rate before nothing can have been used.
        self.level = match before {
            0 => 0,
            before => (self.level * self.capacity()).div_ceil(before),
        };
    }

    /// Grants up to `wanted`.
    pub fn take(&mut self, now: Instant, wanted: u32) -> Taken {
        self.leak(now);
        if self.per_minute == 0 {
            return Taken {
                granted: 0,
                retry_after: RETRY_AT_ZERO,
            };
        }
        let fits = (self.capacity() - self.level) / PARTS_PER_TOKEN;
        // Fits into the type of `wanted`, being at most that.
        let granted = u32::try_from(fits).map_or(wanted, |fits| fits.min(wanted));
        self.level += u128::from(granted) * PARTS_PER_TOKEN;
        Taken {
            granted,
            retry_after: self.retry_after(),
        }
    }

    /// The rate in force.
    #[must_use]
    pub const fn per_minute(&self) -> u32 {
        self.per_minute
    }

    fn leak(&mut self, now: Instant) {
        let leaked = now.saturating_since(self.at).as_nanos() * u128::from(self.pace);
        self.level = self.level.saturating_sub(leaked);
        self.at = self.at.max(now);
    }

    fn retry_after(&self) -> Duration {
        let excess = (self.level + PARTS_PER_TOKEN).saturating_sub(self.capacity());
        let nanos = excess.div_ceil(u128::from(self.per_minute));
        // At most a minute: a token is 60 s at the lowest rate.
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn capacity(&self) -> u128 {
        u128::from(burst(self.pace)) * PARTS_PER_TOKEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    fn taken(granted: u32, retry_after_millis: u64) -> Taken {
        Taken {
            granted,
            retry_after: Duration::from_millis(retry_after_millis),
        }
    }

    #[test]
    fn burst_then_one_by_one() {
        let mut bucket = TokenBucket::new(60, at(0));
        assert_eq!(bucket.take(at(0), 4), taken(4, 0));
        assert_eq!(bucket.take(at(0), 100), taken(6, 1000));
        assert_eq!(bucket.take(at(999), 1), taken(0, 1));
        assert_eq!(bucket.take(at(1000), 5), taken(1, 1000));
        assert_eq!(bucket.take(at(3500), 5), taken(2, 500));
    }

    #[test]
    fn lowest_rate_grants_one_a_minute() {
        let mut bucket = TokenBucket::new(1, at(0));
        assert_eq!(bucket.take(at(0), 2), taken(1, 60_000));
        assert_eq!(bucket.take(at(59_999), 1), taken(0, 1));
        assert_eq!(bucket.take(at(60_000), 1), taken(1, 60_000));
    }

    #[test]
    fn rate_of_zero_grants_nothing_and_the_one_after_it_begins_with_its_burst() {
        let mut bucket = TokenBucket::new(0, at(0));
        assert_eq!(bucket.take(at(100_000), 1), taken(0, 60_000));
        bucket.set_rate(60, at(100_000));
        assert_eq!(bucket.take(at(100_000), 99), taken(10, 1000));
    }

    #[test]
    fn a_moment_at_zero_gains_nothing_and_a_while_at_zero_frees_the_burst() {
        for (pause, granted) in [(0, 0), (4_000, 4), (10_000, 10), (60_000, 10)] {
            let mut bucket = TokenBucket::new(60, at(0));
            assert_eq!(bucket.take(at(0), 99).granted, 10);
            bucket.set_rate(0, at(0));
            assert_eq!(bucket.take(at(pause), 1), taken(0, 60_000));
            bucket.set_rate(60, at(pause));
            assert_eq!(bucket.take(at(pause), 99).granted, granted, "after {pause} ms");
        }
    }

    #[test]
    fn used_part_stays_the_same_when_the_rate_changes() {
        let mut bucket = TokenBucket::new(60, at(0));
        assert_eq!(bucket.take(at(0), 5).granted, 5);
        bucket.set_rate(600, at(0));
        assert_eq!(bucket.take(at(0), 100), taken(50, 100));
        bucket.set_rate(60, at(0));
        assert_eq!(bucket.take(at(0), 1), taken(0, 1000));
    }

    #[test]
    fn clock_that_stands_still_or_goes_back_grants_nothing_more() {
        let mut bucket = TokenBucket::new(6, at(5000));
        assert_eq!(bucket.take(at(5000), 1).granted, 1);
        assert_eq!(bucket.take(at(0), 1), taken(0, 10_000));
        assert_eq!(bucket.take(at(15_000), 1).granted, 1);
    }
}
