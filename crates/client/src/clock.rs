//! The one place where this crate reads a clock.

use std::time::{Duration, SystemTime};

use whiskraft_types::Instant;

/// The monotonic clock of one client, counted from its making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the clock of this crate")]
    pub(crate) fn start() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of this crate")]
    pub(crate) fn now(&self) -> Instant {
        Instant::from_origin(tokio::time::Instant::now().saturating_duration_since(self.origin))
    }

    /// The wall clock, on which a caller says when something may begin.
    #[expect(clippy::disallowed_methods, reason = "the clock of this crate")]
    pub(crate) fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// The same moment on the clock of the standard library.
    pub(crate) fn to_std(self, at: Instant) -> std::time::Instant {
        let origin = self.origin.into_std();
        origin.checked_add(at.since_origin()).unwrap_or(origin)
    }

    /// Ends at `deadline`; never, if there is none or it is out of the clock's range.
    pub(crate) async fn sleep_until(&self, deadline: Option<Instant>) {
        match deadline.and_then(|at| self.origin.checked_add(at.since_origin())) {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// What is left until `deadline`.
    pub(crate) fn left(&self, deadline: Instant) -> Duration {
        deadline.saturating_since(self.now())
    }
}
