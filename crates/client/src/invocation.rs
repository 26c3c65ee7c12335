//! Handle of an accepted activation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::oneshot;
use whiskraft_types::ActivationId;

use crate::handle::ActorHandle;
use crate::{ActivationRecord, InvokeError};

/// How an activation ended.
pub(crate) type Outcome = Result<ActivationRecord, InvokeError>;

/// An activation that a scheduler has accepted. Dropping the handle cancels nothing.
#[derive(Debug)]
pub struct Invocation {
    id: ActivationId,
    attempts: Arc<AtomicU32>,
    outcome: Progress,
    /// Keeps the client at work until the result is there, even if every `Client` is dropped.
    _client: ActorHandle,
}

#[derive(Debug)]
enum Progress {
    Open(oneshot::Receiver<Outcome>),
    Ended(Outcome),
}

impl Invocation {
    pub(crate) fn new(
        id: ActivationId,
        attempts: Arc<AtomicU32>,
        outcome: oneshot::Receiver<Outcome>,
        client: ActorHandle,
    ) -> Self {
        Self {
            id,
            attempts,
            outcome: Progress::Open(outcome),
            _client: client,
        }
    }

    /// The activation.
    #[must_use]
    pub const fn id(&self) -> ActivationId {
        self.id
    }

    /// How often it was handed to a scheduler: 1 unless something was lost or refused.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Waits for the record. May be cancelled and called again; once ended it answers the same every time.
    ///
    /// # Errors
    /// [`InvokeError::NoResult`], [`InvokeError::Rejected`], [`InvokeError::Garbled`] or [`InvokeError::Closed`].
    pub async fn result(&mut self) -> Result<ActivationRecord, InvokeError> {
        let outcome = match &mut self.outcome {
            Progress::Ended(outcome) => return outcome.clone(),
            Progress::Open(open) => open.await.unwrap_or(Err(InvokeError::Closed { id: self.id })),
        };
        self.outcome = Progress::Ended(outcome.clone());
        outcome
    }
}
