//! When activations are due, and which part of a run is measured.

use std::time::Duration;

use crate::clock::nanos;

/// A run: its warm-up, then the part that counts. Moments as [`crate::clock`] has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// When the run begins.
    pub(crate) begin: u64,
    /// First moment that counts.
    pub(crate) from: u64,
    /// First moment after it; nothing more is due.
    pub(crate) to: u64,
}

impl Window {
    pub(crate) fn new(begin: u64, warm_up: Duration, time: Duration) -> Self {
        let from = begin + nanos(warm_up);
        Self {
            begin,
            from,
            to: from + nanos(time),
        }
    }

    /// Whether a moment counts.
    pub(crate) fn contains(&self, moment: u64) -> bool {
        (self.from..self.to).contains(&moment)
    }

    /// When arrival `n`, from 0, is due at a rate per second; `None` if there are fewer. Each is reckoned from the beginning,
    /// so that no error adds up and nothing that happened before delays it.
    pub(crate) fn due(&self, n: u64, rate: f64) -> Option<u64> {
        let due = self.begin + (n as f64 * 1e9 / rate) as u64;
        (due < self.to).then_some(due)
    }

    /// How many arrivals at a rate count.
    pub(crate) fn due_count(&self, rate: f64) -> u64 {
        let before = |moment: u64| ((moment - self.begin) as f64 * rate / 1e9).ceil() as u64;
        before(self.to) - before(self.from)
    }

    /// Length of the part that counts, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        (self.to - self.from) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_due_at_fixed_times() {
        let window = Window::new(7, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(window.due(0, 1000.0), Some(7));
        assert_eq!(window.due(2999, 1000.0), Some(2_999_000_007));
        assert_eq!(window.due(3000, 1000.0), None);
        assert_eq!(window.due_count(1000.0), 2000);
        let counted = (0..3000)
            .filter_map(|n| window.due(n, 1000.0))
            .filter(|due| window.contains(*due));
        assert_eq!(counted.count(), 2000);
    }
}
