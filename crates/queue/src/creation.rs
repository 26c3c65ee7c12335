//! One container creation, from its reservation to the first ask: deadline and retries.
//!
//! The scheduler keeps a [`CreationJob`] per container in progress and asks it what to do at each failure; when the
//! job gives up, the queue hears `CreationFailed` and the container leaves the table.

use std::time::Duration;

use whiskraft_types::{ContainerId, CreationError, CreationErrorClass, Instant, InvokerId};

/// Times and limits of creations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreationSettings {
    /// Time for a creation with all its retries. Default 20 s.
    pub timeout: Duration,
    /// Multiplies the time for images that must be pulled. Default 15.
    pub blackbox_multiple: u32,
    /// Waits between tries. Default 5 of 100 ms, doubling.
    pub backoff: Backoff,
}

impl Default for CreationSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(20),
            blackbox_multiple: 15,
            backoff: Backoff {
                base: Duration::from_millis(100),
                retries_max: 5,
            },
        }
    }
}

impl CreationSettings {
    /// Time for one creation.
    #[must_use]
    pub fn timeout(&self, blackbox: bool) -> Duration {
        if blackbox {
            self.timeout.saturating_mul(self.blackbox_multiple)
        } else {
            self.timeout
        }
    }
}

/// Waits that double with every retry, and an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the first retry.
    pub base: Duration,
    /// Most retries.
    pub retries_max: u32,
}

impl Backoff {
    /// Wait before the next retry when `retries` were made; `None` if that were too many.
    #[must_use]
    pub fn wait(&self, retries: u32) -> Option<Duration> {
        (retries < self.retries_max).then(|| {
            self.base
                .saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX))
        })
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreationStep {
    /// Place the container again after this wait, anywhere else if possible.
    Retry {
        /// The wait.
        after: Duration,
    },
    /// Give up: tell the queue and free the slot.
    Failed(CreationError),
}

/// A creation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreationJob {
    container: ContainerId,
    deadline: Instant,
    backoff: Backoff,
    retries: u32,
    failed: Vec<InvokerId>,
}

impl CreationJob {
    /// The job of a container that was granted at `now`.
    #[must_use]
    pub fn new(container: ContainerId, now: Instant, blackbox: bool, settings: &CreationSettings) -> Self {
        Self::resumed(container, now + settings.timeout(blackbox), 0, settings.backoff)
    }

    /// A job with `retries` behind it; the deadline is one for all tries.
    #[must_use]
    pub const fn resumed(container: ContainerId, deadline: Instant, retries: u32, backoff: Backoff) -> Self {
        Self {
            container,
            deadline,
            backoff,
            retries,
            failed: Vec::new(),
        }
    }

    /// The creation failed, on `invoker` if it had got that far. Failures of the platform are tried again, those of
    /// the action are not. `NoAvailable…` counts too: invokers come and go within the waits.
    pub fn on_error(
        &mut self,
        now: Instant,
        invoker: Option<InvokerId>,
        error: CreationError,
    ) -> CreationStep {
        if let Some(invoker) = invoker.filter(|invoker| !self.failed.contains(invoker)) {
            self.failed.push(invoker);
        }
        let wait = match error.class() {
            CreationErrorClass::Whisk => self.backoff.wait(self.retries),
            CreationErrorClass::Developer => None,
        };
        match wait {
            Some(after) if now + after < self.deadline => {
                self.retries += 1;
                CreationStep::Retry { after }
            }
            _ => CreationStep::Failed(error),
        }
    }

    /// Whether the time is over; the error to report is `Timeout` then.
    #[must_use]
    pub fn is_overdue(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// The container.
    #[must_use]
    pub const fn container(&self) -> ContainerId {
        self.container
    }

    /// When the time is over.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Invokers that failed it; never more than there were tries.
    #[must_use]
    pub fn failed(&self) -> &[InvokerId] {
        &self.failed
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::SessionId;

    use super::*;

    const CONTAINER: ContainerId = ContainerId {
        session: SessionId(1),
        seq: 1,
    };

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn platform_errors_are_tried_six_times_with_doubling_waits() {
        let mut job = CreationJob::new(CONTAINER, at(0), false, &CreationSettings::default());
        for millis in [100, 200, 400, 800, 1600] {
            let step = job.on_error(at(0), Some(InvokerId(millis)), CreationError::ResourceNotEnough);
            assert_eq!(
                step,
                CreationStep::Retry {
                    after: Duration::from_millis(millis)
                }
            );
        }
        assert_eq!(
            job.on_error(at(0), Some(InvokerId(1)), CreationError::ResourceNotEnough),
            CreationStep::Failed(CreationError::ResourceNotEnough)
        );
        assert_eq!(job.failed().len(), 6);
    }

    #[test]
    fn a_retry_that_could_not_end_in_time_is_not_made() {
        let mut job = CreationJob::new(CONTAINER, at(0), false, &CreationSettings::default());
        let step = job.on_error(at(19_950), None, CreationError::Whisk);
        assert_eq!(step, CreationStep::Failed(CreationError::Whisk));
        assert!(!job.is_overdue(at(19_999)));
        assert!(job.is_overdue(at(20_000)));
    }
}
