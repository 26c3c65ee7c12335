//! When arrivals are due, and which part of a run is measured.

use std::time::Duration;

/// Part of a run, in time from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Its first moment.
    pub(super) from: Duration,
    /// The first moment after it.
    pub(super) to: Duration,
}

impl Window {
    /// The measured part of a run: what follows the warm-up.
    pub(super) fn after(warm_up: Duration, time: Duration) -> Self {
        Self {
            from: warm_up,
            to: warm_up + time,
        }
    }

    /// Whether a moment is in it.
    pub(super) fn contains(&self, at: Duration) -> bool {
        self.from <= at && at < self.to
    }
}

/// Arrivals at a fixed rate from the start of a run to the end of its window, whatever becomes of the ones before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Schedule {
    rate: f64,
    window: Window,
}

impl Schedule {
    /// So many arrivals per second.
    pub(super) const fn new(rate: f64, window: Window) -> Self {
        Self { rate, window }
    }

    /// When arrival `n`, from 0, is due; `None` if there are fewer. Each is reckoned from the start, so that no error adds
    /// up.
    pub(super) fn due(&self, n: u64) -> Option<Duration> {
        let due = Duration::try_from_secs_f64(n as f64 / self.rate).ok()?;
        (due < self.window.to).then_some(due)
    }

    /// How many arrivals are due before a moment, the end at the latest.
    pub(super) fn count_before(&self, at: Duration) -> u64 {
        let at = at.min(self.window.to);
        // The estimate may be off by the rounding of a division.
        let mut count = (at.as_secs_f64() * self.rate).ceil() as u64;
        while count > 0 && self.due(count - 1).is_none_or(|due| due >= at) {
            count -= 1;
        }
        while self.due(count).is_some_and(|due| due < at) {
            count += 1;
        }
        count
    }

    /// How many are due within the window.
    pub(super) fn count_in_window(&self) -> u64 {
        self.count_before(self.window.to) - self.count_before(self.window.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: f64, warm_up_ms: u64, time_ms: u64) -> Schedule {
        let window = Window::after(Duration::from_millis(warm_up_ms), Duration::from_millis(time_ms));
        Schedule::new(rate, window)
    }

    #[test]
    fn arrivals_are_due_at_fixed_times_that_do_not_drift() {
        let schedule = schedule(3.0, 0, 3_600_000);
        assert_eq!(schedule.due(0), Some(Duration::ZERO));
        assert_eq!(schedule.due(1), Some(Duration::from_nanos(333_333_333)));
        assert_eq!(schedule.due(3 * 3000), Some(Duration::from_secs(3000)));
        assert_eq!(schedule.due(3 * 3600), None, "the end is not within");
    }

    #[test]
    fn the_window_counts_what_is_due_in_it() {
        let counted = |schedule: Schedule| {
            let due = (0..).map_while(|n| schedule.due(n));
            due.filter(|due| schedule.window.contains(*due)).count() as u64
        };
        for (rate, warm_up, time) in [
            (1000.0, 2000, 10_000),
            (3.0, 500, 1000),
            (7.0, 333, 777),
            (0.1, 1, 5),
            (12_345.6, 17, 231),
        ] {
            let schedule = schedule(rate, warm_up, time);
            assert_eq!(schedule.count_in_window(), counted(schedule), "{schedule:?}");
        }
        assert_eq!(schedule(1000.0, 2000, 10_000).count_in_window(), 10_000);
    }
}
