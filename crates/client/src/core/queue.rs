//! A queue with unfinished activations, and the gate that keeps them from hammering the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use whiskraft_types::{ActivationId, Instant};

/// Shortest pause before the cluster is asked again.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause: a leader that died is replaced after about two seconds, and then watch tells us anyway.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// With many queues without a leader the pauses stretch, so that all together ask about 500 times a second.
const PAUSE_PER_QUEUE: Duration = Duration::from_millis(2);

/// Whether activations of a queue may go to its leader now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Gate {
    /// They may.
    #[default]
    Open,
    /// Something failed; the cluster is asked when the pause is over.
    Pausing { until: Instant },
    /// Waits for its turn to ask.
    AskQueued,
    /// `EnsureQueue` is under way.
    Asking,
}

/// A queue with at least one unfinished activation.
#[derive(Debug, Default)]
pub(super) struct ActiveQueue {
    pub(super) gate: Gate,
    /// By order of submission.
    pub(super) waiting: BTreeMap<u64, ActivationId>,
    /// In a backlog, sent or accepted, by order of submission.
    pub(super) placed: BTreeMap<u64, ActivationId>,
    /// Obstacles in a row since a scheduler last accepted something.
    pub(super) failures: u32,
    /// The newest obstacle.
    pub(super) cause: String,
}

impl ActiveQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.placed.is_empty()
    }
}

/// Pause after so many failures in a row, while so many queues are active: a random part of a doubling time.
pub(super) fn pause(failures: u32, queues: usize, rng: &mut impl Rng) -> Duration {
    let queues = u32::try_from(queues).unwrap_or(u32::MAX);
    let longest = PAUSE_MAX.max(PAUSE_PER_QUEUE.saturating_mul(queues));
    let doubled = PAUSE_MIN
        .saturating_mul(1_u32 << failures.clamp(1, 16))
        .min(longest);
    doubled.mul_f64(rng.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn pauses_stay_between_20_and_200_ms_and_differ() {
        let mut rng = StdRng::seed_from_u64(1);
        let pauses: Vec<_> = (0..100).map(|failures| pause(failures, 1, &mut rng)).collect();
        assert!(
            pauses.iter().all(|pause| (PAUSE_MIN..=PAUSE_MAX).contains(pause)),
            "{pauses:?}"
        );
        assert_ne!(pauses[50], pauses[51]);
    }

    #[test]
    fn ten_thousand_queues_ask_five_hundred_times_a_second() {
        let mut rng = StdRng::seed_from_u64(1);
        assert!(pause(20, 10_000, &mut rng) >= Duration::from_secs(10));
        assert!(
            pause(1, 10_000, &mut rng) <= Duration::from_millis(40),
            "the first is still quick"
        );
    }
}
