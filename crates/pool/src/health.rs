//! Whether schedulers should place containers here: fewer than 3 bad outcomes among the last 10.
//!
//! An unhealthy invoker gets no new containers and so could never prove itself. After a while, longer each time,
//! its oldest bad outcome is forgotten; one more failure brings the verdict back.

use std::collections::VecDeque;
use std::time::Duration;

use whiskraft_types::Instant;

/// Outcomes remembered.
const RING_LEN: usize = 10;
/// Bad outcomes among them that make the invoker unhealthy.
const BAD_MAX: usize = 3;
/// The wait before another chance doubles so many times at most.
const DOUBLINGS_MAX: u32 = 4;

#[derive(Debug)]
pub(crate) struct Health {
    ring: VecDeque<bool>,
    retry: Duration,
    doublings: u32,
}

impl Health {
    pub(crate) fn new(retry: Duration) -> Self {
        Self {
            ring: VecDeque::with_capacity(RING_LEN),
            retry,
            doublings: 0,
        }
    }

    /// Takes an outcome in. When it makes the invoker unhealthy: the moment to give it another chance.
    pub(crate) fn record(&mut self, now: Instant, good: bool) -> Option<Instant> {
        let before = self.is_healthy();
        if self.ring.len() == RING_LEN {
            self.ring.pop_front();
        }
        self.ring.push_back(good);
        if good && self.ring.iter().all(|good| *good) {
            self.doublings = 0;
        }
        (before && !self.is_healthy()).then(|| self.backed_off(now))
    }

    /// Forgets the oldest bad outcome; the moment to do so again if that was not enough.
    pub(crate) fn forgive(&mut self, now: Instant) -> Option<Instant> {
        if let Some(at) = self.ring.iter().position(|good| !good) {
            self.ring.remove(at);
        }
        (!self.is_healthy()).then(|| self.backed_off(now))
    }

    fn backed_off(&mut self, now: Instant) -> Instant {
        let wait = self.retry.saturating_mul(1 << self.doublings);
        self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        now + wait
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.ring.iter().filter(|good| !**good).count() < BAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn three_bad_of_ten_are_too_many() {
        let mut health = Health::new(RETRY);
        assert!(health.is_healthy());
        assert_eq!(health.record(at(0), false), None);
        assert_eq!(health.record(at(0), false), None);
        assert!(health.is_healthy());
        assert_eq!(health.record(at(0), false), Some(at(30)));
        assert!(!health.is_healthy());
        assert_eq!(health.record(at(1), false), None, "the chance is already set");
    }

    #[test]
    fn good_outcomes_push_bad_ones_out() {
        let mut health = Health::new(RETRY);
        for _ in 0..3 {
            health.record(at(0), false);
        }
        for _ in 0..7 {
            health.record(at(1), true);
            assert!(!health.is_healthy());
        }
        health.record(at(1), true);
        assert!(health.is_healthy());
    }

    #[test]
    fn another_chance_comes_later_each_time() {
        let mut health = Health::new(RETRY);
        for _ in 0..3 {
            health.record(at(0), false);
        }
        assert_eq!(health.forgive(at(30)), None);
        assert!(health.is_healthy());
        assert_eq!(health.record(at(31), false), Some(at(31 + 60)));
        assert_eq!(health.forgive(at(91)), None);
        assert_eq!(health.record(at(100), false), Some(at(100 + 120)));
    }
}
