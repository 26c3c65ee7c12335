//! Handle of an accepted activation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::oneshot;
use whiskraft_types::ActivationId;

use crate::handle::ActorHandle;
use crate::{ActivationRecord, InvokeError};

/// How an activation ended.
pub(crate) type Outcome = Result<ActivationRecord, InvokeError>;

/// An activation that a scheduler has accepted. Dropping the handle cancels nothing; that of a durable one lets the
/// client forget it, and its record stays where [`Client::result`](crate::Client::result) finds it.
#[derive(Debug)]
pub struct Invocation {
    id: ActivationId,
    attempts: Arc<AtomicU32>,
    durable: bool,
    outcome: Progress,
    /// Keeps the client at work until the result is there, even if every `Client` is dropped.
    client: ActorHandle,
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
        durable: bool,
        outcome: oneshot::Receiver<Outcome>,
        client: ActorHandle,
    ) -> Self {
        Self {
            id,
            attempts,
            durable,
            outcome: Progress::Open(outcome),
            client,
        }
    }

    /// The activation.
    #[must_use]
    pub const fn id(&self) -> ActivationId {
        self.id
    }

    /// Whether it is on the disks of a majority of the schedulers, so that it runs whatever becomes of this process.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        self.durable
    }

    /// How often it was handed to a scheduler: 1 unless something was lost or refused.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Waits for the record. May be cancelled and called again; once ended it answers the same every time.
    ///
    /// # Errors
    /// [`InvokeError::NoResult`], [`InvokeError::Rejected`], [`InvokeError::Garbled`] or [`InvokeError::Closed`]. None of
    /// them ends a durable activation: [`Client::result`](crate::Client::result) asks for its record.
    pub async fn result(&mut self) -> Result<ActivationRecord, InvokeError> {
        let outcome = match &mut self.outcome {
            Progress::Ended(outcome) => return outcome.clone(),
            Progress::Open(open) => open.await.unwrap_or(Err(InvokeError::Closed { id: self.id })),
        };
        self.outcome = Progress::Ended(outcome.clone());
        outcome
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        if let Progress::Open(open) = &mut self.outcome
            && self.durable
        {
            // First of all: the actor looks whether anybody still listens.
            open.close();
            self.client.forget(self.id);
        }
    }
}
