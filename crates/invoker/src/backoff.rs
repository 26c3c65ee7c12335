//! Waits that grow, with jitter and a cap.

use std::time::Duration;

use crate::clock;
use crate::config::LinkConfig;

/// The wait before the next try.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(config: &LinkConfig) -> Self {
        Self {
            min: config.backoff_min,
            max: config.backoff_max,
            next: config.backoff_min,
        }
    }

    /// A try succeeded: the next failure waits shortly again.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }

    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self) {
        let wait = clock::jittered(self.next);
        self.next = self.next.saturating_mul(2).min(self.max);
        tokio::time::sleep(wait).await;
    }
}
