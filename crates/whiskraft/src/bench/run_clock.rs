//! The clock of a run: time from its start, and the wall clock at its start, by which stamps of invokers are read.

use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::clock;

/// Tries to read both clocks at the same moment; the quickest counts.
const PAIRS: usize = 16;
/// Time between two looks at a run under way.
const LOOK: Duration = Duration::from_millis(200);
/// Readings from which the resolution is told.
const READINGS: usize = 4096;

/// Times from the start of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunClock {
    start: Instant,
    /// Microseconds since the Unix epoch at the start.
    wall_us: i64,
}

impl RunClock {
    /// A clock that starts now.
    pub(super) fn start() -> Self {
        let pairs = (0..PAIRS).map(|_| {
            let before = clock::now();
            let wall_us = wall_us();
            (clock::now() - before, before, wall_us)
        });
        let (took, before, wall_us) = pairs.min_by_key(|(took, ..)| *took).expect("there is a pair");
        Self {
            start: before + took / 2,
            wall_us,
        }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        clock::now().saturating_duration_since(self.start)
    }

    /// The moment so long after the start.
    pub(super) fn at(&self, since: Duration) -> Instant {
        self.start + since
    }

    /// Lets time pass until a moment of the run, with a look now and then. The longest time by which one came late: so long
    /// this process, or the machine, stood still.
    pub(super) async fn pass(&self, at: Duration, mut look: impl FnMut()) -> Duration {
        let mut late = Duration::ZERO;
        loop {
            let left = at.saturating_sub(self.elapsed());
            if left.is_zero() {
                return late;
            }
            let until = at - left.saturating_sub(LOOK);
            tokio::time::sleep_until(self.at(until).into()).await;
            late = late.max(self.elapsed().saturating_sub(until));
            look();
        }
    }

    /// Microseconds from a moment after the start to a stamp; negative if the stamp is earlier.
    pub(super) fn until_stamp(&self, since: Duration, stamp_us: u64) -> i64 {
        let since = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let stamp = i64::try_from(stamp_us).unwrap_or(i64::MAX);
        stamp.saturating_sub(self.wall_us.saturating_add(since))
    }

    /// By how many microseconds the wall clock has been set forward since the start. Stamps read after that are off.
    pub(super) fn step_us(&self) -> i64 {
        let now = Self::start();
        let passed = now.start.saturating_duration_since(self.start);
        let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        now.wall_us - self.wall_us - passed
    }
}

/// The shortest time that the monotonic clock tells apart here.
pub(super) fn resolution() -> Duration {
    let steps = (0..READINGS).map(|_| {
        let before = clock::now();
        clock::now().saturating_duration_since(before)
    });
    steps.filter(|step| !step.is_zero()).min().unwrap_or_default()
}

fn wall_us() -> i64 {
    let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_from_the_moment_of_the_start() {
        let clock = RunClock {
            start: clock::now(),
            wall_us: 5_000_000,
        };
        let due = Duration::from_micros(250);
        assert_eq!(clock.until_stamp(due, 5_000_300), 50);
        assert_eq!(
            clock.until_stamp(due, 5_000_200),
            -50,
            "a clock that is behind is seen"
        );
    }

    #[tokio::test]
    async fn a_moment_that_is_waited_for_has_come() {
        let clock = RunClock::start();
        let mut looks = 0;
        let at = clock.elapsed() + Duration::from_millis(1);
        let late = clock.pass(at, || looks += 1).await;
        assert!(looks >= 1 && clock.elapsed() >= at + late);
        assert_eq!(clock.pass(at, || looks += 1).await, Duration::ZERO, "it is over");
    }

    #[test]
    fn both_clocks_go_at_the_same_pace() {
        let clock = RunClock::start();
        // A clock that is set while this runs would be off by far more.
        assert!(clock.step_us().abs() < 100_000);
        assert!(resolution() < Duration::from_millis(1));
    }
}
