//! A typed no, with the advice that tells the SDK what to do next.

use std::fmt;
use std::time::Duration;

use crate::{Epoch, SchedulerId};

/// The limit that a rejected activation ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThrottleScope {
    /// The namespace has no room for another container and this action has none.
    Namespace,
    /// The action's queue is full.
    Action,
    /// The stream has more unanswered submissions than its window.
    Stream,
    /// The namespace has used its invocations per minute.
    Rate,
    /// The queue keeps so many results that nobody fetched that nothing new may start.
    Results,
}

impl ThrottleScope {
    /// What was reached, with the value of the limit if it is known: the same words for every refusal by it.
    #[must_use]
    pub const fn reached(self, limit: Option<u32>) -> Reached {
        Reached { scope: self, limit }
    }

    /// What a person can do about it.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Namespace => "more are allowed with: whiskraft namespace set NAMESPACE --containers N",
            Self::Action => {
                "more containers to serve it are allowed with: whiskraft namespace set NAMESPACE --containers N, \
                 a longer queue with the setting scheduler.queue.len-max"
            }
            Self::Stream => "more are allowed with the setting scheduler.submit.window",
            Self::Rate => {
                "more are allowed with: whiskraft namespace set NAMESPACE --invocations-per-minute N"
            }
            Self::Results => "restart the callers that stopped reading their results",
        }
    }
}

/// A limit that was reached, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    scope: ThrottleScope,
    limit: Option<u32>,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit.map_or_else(String::new, |limit| format!("{limit} "));
        match self.scope {
            ThrottleScope::Namespace => {
                write!(
                    f,
                    "the namespace uses all its {limit}containers and the action has none"
                )
            }
            ThrottleScope::Action => write!(
                f,
                "the queue of the action is full, at its limit of {limit}waiting activations"
            ),
            ThrottleScope::Stream => write!(
                f,
                "the stream has {limit}submissions without an answer, as many as it may"
            ),
            ThrottleScope::Rate => write!(f, "the namespace has used its {limit}invocations per minute"),
            ThrottleScope::Results => write!(
                f,
                "the queue of the action holds {limit}results that no caller has fetched, as many as it may"
            ),
        }
    }
}

/// A pause for people: rounded up, so that who waits for so long does not come too early.
struct Pause(Duration);

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros().div_ceil(1000) {
            millis if millis < 1000 => write!(f, "{millis} ms"),
            millis => {
                let tenths = millis.div_ceil(100);
                write!(f, "{}.{} s", tenths / 10, tenths % 10)
            }
        }
    }
}

/// Who leads the queue, as far as the refusing scheduler knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotLeader {
    /// Leader now; `None` while nobody leads.
    pub leader: Option<SchedulerId>,
    /// Epoch of that leadership.
    pub epoch: Epoch,
}

/// Why a scheduler refused a submission, a pull or a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another scheduler leads the queue: go there.
    #[error("not the leader of this queue (epoch {})", .0.epoch)]
    NotLeader(NotLeader),
    /// Nobody has ensured this queue: call `EnsureQueues`.
    #[error("the queue does not exist")]
    NoQueue,
    /// Over a limit: final for this activation; try a new one after `retry_after`.
    #[error("{}; try again in {}; {}", .scope.reached(*.limit), Pause(*.retry_after), .scope.remedy())]
    Throttled {
        /// Which limit.
        scope: ThrottleScope,
        /// Its value; `None` if whoever refuses does not know it.
        limit: Option<u32>,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The payload is over the limit: final.
    #[error("request larger than allowed: [{len}] > {len_max} bytes")]
    TooLarge {
        /// Bytes sent.
        len: u64,
        /// Bytes allowed.
        len_max: u64,
    },
    /// This scheduler is being drained: ask `EnsureQueues` again.
    #[error("the scheduler is draining")]
    Draining,
    /// Same id, other content: final.
    #[error("this activation id was used with another payload")]
    Conflict,
    /// Fenced, without quorum or overloaded: try again after a pause.
    #[error("the scheduler is not available: {reason}")]
    Unavailable {
        /// What it lacks.
        reason: String,
    },
    /// The request can never succeed: final.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The disk of the Raft leader has no room for documents or code: final until somebody makes room.
    #[error("the cluster cannot store it: {reason}")]
    StorageFull {
        /// Which disk, and how much is left.
        reason: String,
    },
    /// The action does not exist: final.
    #[error("action {action} does not exist")]
    NoAction {
        /// Its name.
        action: String,
    },
}

impl Rejection {
    /// Whether the SDK may try the same id again by itself.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeader(_) | Self::NoQueue | Self::Draining | Self::Unavailable { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(scope: ThrottleScope, limit: Option<u32>, millis: u64) -> String {
        let retry_after = Duration::from_millis(millis);
        let throttled = Rejection::Throttled {
            scope,
            limit,
            retry_after,
        };
        throttled.to_string()
    }

    #[test]
    fn a_throttle_says_which_limit_its_value_when_to_come_back_and_what_helps() {
        let cases = [
            (
                ThrottleScope::Rate,
                60,
                "the namespace has used its 60 invocations per minute; try again in 1.3 s; \
                 more are allowed with: whiskraft namespace set NAMESPACE --invocations-per-minute N",
            ),
            (
                ThrottleScope::Namespace,
                2,
                "the namespace uses all its 2 containers and the action has none; try again in 1.3 s; \
                 more are allowed with: whiskraft namespace set NAMESPACE --containers N",
            ),
            (
                ThrottleScope::Action,
                10_000,
                "the queue of the action is full, at its limit of 10000 waiting activations; try again in 1.3 s; more \
                 containers to serve it are allowed with: whiskraft namespace set NAMESPACE --containers N, a longer \
                 queue with the setting scheduler.queue.len-max",
            ),
            (
                ThrottleScope::Stream,
                4096,
                "the stream has 4096 submissions without an answer, as many as it may; try again in 1.3 s; more are \
                 allowed with the setting scheduler.submit.window",
            ),
            (
                ThrottleScope::Results,
                10_000,
                "the queue of the action holds 10000 results that no caller has fetched, as many as it may; try again in 1.3 s; \
                 restart the callers that stopped reading their results",
            ),
        ];
        for (scope, limit, expected) in cases {
            assert_eq!(text(scope, Some(limit), 1234), expected);
        }
    }

    #[test]
    fn a_limit_that_is_not_known_is_left_out_and_a_pause_is_rounded_up() {
        let unknown = text(ThrottleScope::Rate, None, 250);
        assert!(
            unknown.starts_with("the namespace has used its invocations per minute; try again in 250 ms; "),
            "{unknown}"
        );
        for (millis, expected) in [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_901, "60.0 s")] {
            assert_eq!(Pause(Duration::from_millis(millis)).to_string(), expected);
        }
    }
}
