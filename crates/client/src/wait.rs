//! Waiting for the actor's answer about one activation.

use std::time::Duration;

use tokio::sync::oneshot;
use whiskraft_types::{ActivationId, Rejection};

use crate::{InvokeError, InvokeOptions};

/// The actor's own answer at a deadline says more, so it gets this much longer.
const JOINED_SLACK: Duration = Duration::from_millis(200);

/// How one caller waits for an answer of the actor. By its idempotency key it may have joined another caller, whose
/// deadline is not its own.
pub(crate) struct Wait {
    key: Option<String>,
    deadline: Duration,
}

impl Wait {
    pub(crate) fn new(options: &InvokeOptions) -> Self {
        Self {
            key: options.idempotency_key.clone(),
            deadline: options.deadline.saturating_add(JOINED_SLACK),
        }
    }

    pub(crate) async fn until<T>(
        self,
        id: ActivationId,
        answer: oneshot::Receiver<Result<T, InvokeError>>,
    ) -> Result<T, InvokeError> {
        let Some(key) = self.key else {
            return answer.await.unwrap_or(Err(InvokeError::Closed { id }));
        };
        let answered = tokio::time::timeout(self.deadline, answer).await;
        let Ok(answer) = answered else {
            return Err(InvokeError::Deadline {
                id,
                attempts: 0,
                accepted: false,
            });
        };
        answer
            .unwrap_or(Err(InvokeError::Closed { id }))
            .map_err(|error| match error {
                InvokeError::Rejected {
                    rejection: Rejection::Conflict,
                    ..
                } => InvokeError::KeyConflict { id, key },
                other => other,
            })
    }
}
