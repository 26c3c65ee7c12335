//! What a caller may say about one invocation.

use std::fmt;
use std::time::{Duration, SystemTime};

use whiskraft_types::ActivationId;

use crate::Durability;

/// How long an invocation waits unless told otherwise; OpenWhisk's longest blocking wait.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// Options of [`Client::invoke`](crate::Client::invoke) and [`Client::submit`](crate::Client::submit).
///
/// ```
/// use std::time::Duration;
/// use whiskraft_client::InvokeOptions;
///
/// let options = InvokeOptions { deadline: Duration::from_secs(5), ..InvokeOptions::default() };
/// # let _ = options;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct InvokeOptions {
    /// How long the call may take: until the result for `invoke`, until acceptance for `submit`. Default 60 s.
    pub deadline: Duration,
    /// Id of the activation; `None` draws one. Name one to be able to try again after a crash of the caller.
    pub id: Option<ActivationId>,
    /// With `id`: it may have been submitted before, by an earlier life of the caller. Costs latency after a
    /// scheduler was lost, and makes sure that the activation does not start twice.
    pub may_have_run: bool,
    /// What acceptance has to promise: by default that a submission outlives any minority of the schedulers, and nothing
    /// for a call that waits for its result.
    pub durability: Durability,
    /// It must not begin before. For [`Client::submit`](crate::Client::submit) with durability Quorum only.
    pub not_before: Option<SystemTime>,
    /// Names the request, 1 to 256 bytes, instead of an `id`: submitting the same key again, from anywhere, joins what
    /// is there and starts nothing. A key counts within its namespace and action for as long as the activation's record
    /// is kept; the same key with other arguments is [`InvokeError::KeyConflict`](crate::InvokeError::KeyConflict).
    /// Implies durability Quorum.
    pub idempotency_key: Option<String>,
    /// The action's time limit, if the caller knows it: tells how soon an activation without any answer is given
    /// up. `None` assumes the longest limit there is.
    pub time_limit: Option<Duration>,
    /// Request this belongs to, for logs and for the action's environment.
    pub transaction: String,
    /// Who asks; goes to the action.
    pub subject: String,
    /// `uuid:secret` with which the action may call back, or empty. Never logged.
    pub api_key: String,
    /// The activation that caused this one (a sequence, a trigger).
    pub cause: Option<ActivationId>,
    /// From within an action that waits for the result: its own activation, which the runtime gives it as
    /// `__OW_ACTIVATION_ID`. Lets the scheduler tell calls that wait for each other from ones that only wait; without it
    /// these wait until somebody's time is over. `None` if nobody inside the cluster waits for this one.
    pub caller: Option<ActivationId>,
}

impl Default for InvokeOptions {
    fn default() -> Self {
        Self {
            deadline: DEADLINE_DEFAULT,
            id: None,
            may_have_run: false,
            durability: Durability::Default,
            not_before: None,
            idempotency_key: None,
            time_limit: None,
            transaction: String::new(),
            subject: String::new(),
            api_key: String::new(),
            cause: None,
            caller: None,
        }
    }
}

impl fmt::Debug for InvokeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvokeOptions")
            .field("deadline", &self.deadline)
            .field("id", &self.id)
            .field("may_have_run", &self.may_have_run)
            .field("durability", &self.durability)
            .field("not_before", &self.not_before)
            .field("idempotency_key", &self.idempotency_key)
            .field("time_limit", &self.time_limit)
            .field("transaction", &self.transaction)
            .field("subject", &self.subject)
            .field("api_key", &if self.api_key.is_empty() { "" } else { "<hidden>" })
            .field("cause", &self.cause)
            .field("caller", &self.caller)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_api_key() {
        let options = InvokeOptions {
            api_key: "uuid:secret".to_owned(),
            ..InvokeOptions::default()
        };
        let text = format!("{options:?}");
        assert!(!text.contains("secret") && text.contains("<hidden>"), "{text}");
    }
}
