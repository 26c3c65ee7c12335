//! Waiting for conditions. The one place of the harness that reads the clock and sleeps between looks.

use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A moment after which waiting has failed.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    limit: Duration,
}

impl Deadline {
    /// From now on for `limit`.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness measures real processes in real time"
    )]
    pub fn after(limit: Duration) -> Self {
        Self {
            started: Instant::now(),
            limit,
        }
    }

    /// Time since it was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the time is up.
    #[must_use]
    pub fn is_past(&self) -> bool {
        self.elapsed() > self.limit
    }
}

/// Looks at `condition` until it gives a value; the time it took comes with it.
///
/// # Panics
/// When `limit` has passed: a condition that does not come true is a failed test, and `what` says which.
pub async fn until<T, F>(what: &str, limit: Duration, mut condition: F) -> (T, Duration)
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Deadline::after(limit);
    loop {
        if let Some(value) = condition().await {
            return (value, deadline.elapsed());
        }
        assert!(!deadline.is_past(), "{what}: not within {limit:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
