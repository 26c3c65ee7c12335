//! What a backend answers: how init and run ended, as values that become the activation record.

use std::time::Duration;

use bytes::Bytes;
use whiskraft_types::{ActivationId, ActivationRecord, ActivationStatus, ContainerId, InvokerId};

use super::classify::error_result;

/// How an init ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitOutcome {
    /// The code is loaded.
    Ready(InitSpan),
    /// The activation that caused it ends with this; remove the container.
    Failed(Ended),
    /// The container could not take it; the activation did not start. Remove the container.
    GiveBack(GiveBack),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOutcome {
    /// The activation is over. Reuse the container only if [`Ended::is_reusable`].
    Ended(Ended),
    /// Not one byte reached the action: the activation may go elsewhere. Remove the container.
    GiveBack(GiveBack),
}

/// The activation was certainly not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GiveBack {
    /// Why, for the refusal sent to the scheduler.
    pub reason: String,
}

/// When an init ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitSpan {
    /// Start, milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// Length.
    pub took: Duration,
}

/// Whether the log lines are all there. A value: nothing looks for texts in what users print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOutcome {
    /// All of them.
    Complete,
    /// Cut at the limit; the notice is the last line.
    Truncated,
    /// The end could not be told; the notice is the last line.
    Incomplete,
}

/// An activation that ended in a container, and what its record needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Status class.
    pub status: ActivationStatus,
    /// JSON text of the result; `{"error": …}` unless success.
    pub result: Bytes,
    /// `response.size` of the record: UTF-16 units of the body, or the Content-Length of a truncated one.
    pub size: Option<u64>,
    /// Start of the call (init or run), milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// Length of the call.
    pub took: Duration,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// Lines of the record.
    pub logs: Vec<String>,
    /// What is known about them.
    pub log_outcome: LogOutcome,
    /// Whether this ended an init instead of a run.
    pub in_init: bool,
}

impl Ended {
    /// The end of an activation whose arguments cannot be passed to any action. It cost the container nothing.
    pub(crate) fn refused_arguments(now_ms: u64) -> Self {
        Self {
            status: ActivationStatus::ApplicationError,
            result: error_result("The arguments are not a JSON object or array."),
            size: None,
            start_ms: now_ms,
            took: Duration::ZERO,
            timed_out: false,
            logs: Vec::new(),
            log_outcome: LogOutcome::Complete,
            in_init: false,
        }
    }

    /// The end of a run that says itself, by its result, that it failed.
    pub(crate) fn application_error(result: Bytes, start_ms: u64, took: Duration) -> Self {
        Self {
            status: ActivationStatus::ApplicationError,
            size: Some(result.len() as u64),
            result,
            start_ms,
            took,
            timed_out: false,
            logs: Vec::new(),
            log_outcome: LogOutcome::Complete,
            in_init: false,
        }
    }

    /// The end of an activation whose container broke its promises.
    pub(crate) fn developer_error(text: &str, start_ms: u64, took: Duration, in_init: bool) -> Self {
        Self {
            status: ActivationStatus::DeveloperError,
            result: error_result(text),
            size: None,
            start_ms,
            took,
            timed_out: false,
            logs: Vec::new(),
            log_outcome: LogOutcome::Complete,
            in_init,
        }
    }

    /// Whether the container may run another activation: it did what the protocol asks for.
    #[must_use]
    pub const fn is_reusable(&self) -> bool {
        matches!(
            self.status,
            ActivationStatus::Success | ActivationStatus::ApplicationError
        )
    }

    /// Length of the run in microseconds, at least 1; 0 if the end says nothing about the action: the platform failed, or
    /// the action never got to run.
    #[must_use]
    pub fn run_us(&self) -> u64 {
        let never_ran = self.in_init || self.took.is_zero() || self.status == ActivationStatus::WhiskError;
        if never_ran {
            return 0;
        }
        u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Makes the activation record of a run, from 1. `init` is the init that ran for this activation just before the run;
    /// `waited_ms` is how long it waited at the schedulers and here until init (or a warm run) began.
    #[must_use]
    pub fn into_record(
        self,
        (id, run): (ActivationId, u32),
        init: Option<InitSpan>,
        waited_ms: u64,
        ran_on: (InvokerId, ContainerId),
    ) -> ActivationRecord<Bytes> {
        let init_took = if self.in_init {
            Some(self.took)
        } else {
            init.map(|span| span.took)
        };
        let before = if self.in_init {
            Duration::ZERO
        } else {
            init_took.unwrap_or_default()
        };
        let init_ms = init_took.map(millis);
        ActivationRecord {
            id,
            status: self.status,
            result: self.result,
            logs: self.logs,
            start_ms: self.start_ms.saturating_sub(millis(before)),
            end_ms: self.start_ms + millis(self.took),
            init_ms,
            wait_ms: waited_ms,
            timed_out: self.timed_out,
            ran_on: Some(ran_on),
            run,
            cancelled: false,
        }
    }
}

/// Whole milliseconds of a duration.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use whiskraft_types::SessionId;

    use super::*;

    fn ended(in_init: bool) -> Ended {
        Ended {
            status: ActivationStatus::Success,
            result: Bytes::from_static(b"{}"),
            size: Some(2),
            start_ms: 10_000,
            took: Duration::from_millis(70),
            timed_out: false,
            logs: Vec::new(),
            log_outcome: LogOutcome::Complete,
            in_init,
        }
    }

    fn times(ended: Ended, init: Option<InitSpan>) -> (u64, u64, Option<u64>) {
        let container = ContainerId {
            session: SessionId(1),
            seq: 1,
        };
        let record = ended.into_record(
            (ActivationId::from_bytes([1; 16]), 1),
            init,
            5,
            (InvokerId(1), container),
        );
        (record.start_ms, record.end_ms, record.init_ms)
    }

    #[test]
    fn duration_is_init_plus_run_without_the_gap_between() {
        let init = InitSpan {
            start_ms: 9_000,
            took: Duration::from_millis(300),
        };
        assert_eq!(times(ended(false), Some(init)), (9_700, 10_070, Some(300)));
    }

    #[test]
    fn length_of_the_run_is_exact_and_zero_only_without_a_run() {
        let run = |took, in_init, status| {
            let ended = Ended {
                took,
                status,
                ..ended(in_init)
            };
            ended.run_us()
        };
        use ActivationStatus::{ApplicationError, DeveloperError, Success, WhiskError};
        assert_eq!(run(Duration::from_micros(1_234), false, Success), 1_234);
        assert_eq!(run(Duration::from_micros(1_234), false, ApplicationError), 1_234);
        assert_eq!(run(Duration::from_micros(1_234), false, DeveloperError), 1_234);
        assert_eq!(run(Duration::from_nanos(300), false, Success), 1);
        assert_eq!(run(Duration::from_micros(1_234), false, WhiskError), 0);
        assert_eq!(run(Duration::from_micros(1_234), true, DeveloperError), 0);
        assert_eq!(Ended::refused_arguments(7).run_us(), 0);
    }

    #[test]
    fn warm_run_has_its_own_times() {
        assert_eq!(times(ended(false), None), (10_000, 10_070, None));
    }

    #[test]
    fn failed_init_has_the_times_of_the_init() {
        assert_eq!(times(ended(true), None), (10_000, 10_070, Some(70)));
    }
}
