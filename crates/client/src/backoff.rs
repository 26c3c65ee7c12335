//! Pauses between tries of the same thing: doubling, bounded, and a random part of it each time.

use std::time::Duration;

use rand::Rng;

/// First pause.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest: a scheduler that came back is used again within about this time.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Pauses of one loop.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = PAUSE_MIN
            .saturating_mul(1_u32 << self.tries.min(16))
            .min(PAUSE_MAX);
        self.tries = self.tries.saturating_add(1);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_start_over() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= PAUSE_MIN);
        let late = (0..100).map(|_| backoff.next()).last().unwrap();
        assert!((PAUSE_MAX / 2..=PAUSE_MAX).contains(&late), "{late:?}");
        backoff.reset();
        assert!(backoff.next() <= PAUSE_MIN);
    }
}
