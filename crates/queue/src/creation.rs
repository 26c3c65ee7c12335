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

/// Refusals for want of memory that count as failures: what the invoker is about to remove may still have it. More of them
/// mean that the memory is gone, and that is waited for.
const REFUSALS_COUNTED: u32 = 2;
/// Time for which an invoker is not asked again by a creation that waits for memory.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

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
    /// Wait for memory, elsewhere or there in a while; no retry is lost by it.
    Wait,
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
    refusals: u32,
    /// Who has refused it for want of memory, and until when that is believed.
    refused: Vec<(InvokerId, Instant)>,
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
            refusals: 0,
            refused: Vec::new(),
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
        if error == CreationError::ResourceNotEnough && now < self.deadline {
            self.refusals = self.refusals.saturating_add(1);
            if let Some(invoker) = invoker.filter(|_| self.refusals > REFUSALS_COUNTED) {
                self.refused.retain(|(_, until)| *until > now);
                self.refused.push((invoker, now + REFUSED_PAUSE));
                return CreationStep::Wait;
            }
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

    /// Invokers that have no memory for it at this time, whatever the tables say.
    pub fn refused(&self, now: Instant) -> impl Iterator<Item = InvokerId> + '_ {
        let still = self.refused.iter().filter(move |(_, until)| *until > now);
        still.map(|(invoker, _)| *invoker)
    }

    /// Invokers that failed it; never more than there were tries, and none twice.
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
            let step = job.on_error(at(0), Some(InvokerId(millis)), CreationError::Whisk);
            assert_eq!(
                step,
                CreationStep::Retry {
                    after: Duration::from_millis(millis)
                }
            );
        }
        assert_eq!(
            job.on_error(at(0), Some(InvokerId(1)), CreationError::Whisk),
            CreationStep::Failed(CreationError::Whisk)
        );
        assert_eq!(job.failed().len(), 6);
    }

    #[test]
    fn the_third_refusal_for_want_of_memory_waits_and_costs_no_retry() {
        let mut job = CreationJob::new(CONTAINER, at(0), false, &CreationSettings::default());
        let mut refuse = |millis: u64, error| job.on_error(at(millis), Some(InvokerId(7)), error);
        for _ in 0..2 {
            let step = refuse(0, CreationError::ResourceNotEnough);
            assert!(matches!(step, CreationStep::Retry { .. }));
        }
        for second in 1..20 {
            let step = refuse(second * 1000, CreationError::ResourceNotEnough);
            assert_eq!(step, CreationStep::Wait);
        }
        let step = refuse(19_000, CreationError::Whisk);
        assert_eq!(
            step,
            CreationStep::Retry {
                after: Duration::from_millis(400)
            }
        );
        assert_eq!(
            refuse(20_000, CreationError::ResourceNotEnough),
            CreationStep::Failed(CreationError::ResourceNotEnough)
        );
        assert_eq!(job.refused(at(19_999)).collect::<Vec<_>>(), [InvokerId(7)]);
        assert_eq!(
            job.refused(at(20_000)).count(),
            0,
            "after a second it may be asked again"
        );
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
