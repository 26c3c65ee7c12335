//! The near end of the actor's channel, and what travels through it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::{mpsc, oneshot};

use crate::InvokeError;
use crate::core::NewActivation;
use crate::invocation::Outcome;

/// What the handles ask for.
pub(crate) enum Request {
    Submit {
        activation: Box<NewActivation>,
        waiter: Waiter,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Who waits for an activation.
pub(crate) struct Waiter {
    /// Told of the first acceptance, or of the failure before it. `None` for a blocking call.
    pub(crate) accepted: Option<oneshot::Sender<Result<(), InvokeError>>>,
    pub(crate) outcome: Option<oneshot::Sender<Outcome>>,
    pub(crate) attempts: Arc<AtomicU32>,
}

/// The near end of the actor's channel.
#[derive(Debug, Clone)]
pub(crate) struct ActorHandle {
    requests: mpsc::Sender<Request>,
}

impl ActorHandle {
    pub(crate) const fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests }
    }

    /// # Errors
    /// [`InvokeError::Closed`] once the client is closed.
    pub(crate) async fn submit(&self, activation: NewActivation, waiter: Waiter) -> Result<(), InvokeError> {
        let id = activation.id;
        let request = Request::Submit {
            activation: Box::new(activation),
            waiter,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| InvokeError::Closed { id })
    }

    /// Returns when everything has ended.
    pub(crate) async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.requests.send(Request::Close { done }).await.is_ok() {
            // The sender is dropped either after the answer or with the actor: both mean that it ended.
            let _ = ended.await;
        }
    }
}

impl Waiter {
    pub(crate) fn accept(&mut self, result: Result<(), InvokeError>) {
        if let Some(accepted) = self.accepted.take() {
            // Whoever asked may have stopped waiting; the activation goes on all the same.
            let _ = accepted.send(result);
        }
    }

    /// Tells whoever waits now that it takes longer; whoever holds an `Invocation` goes on waiting.
    pub(crate) fn give_up(&mut self, error: InvokeError) {
        if self.accepted.is_some() {
            self.accept(Err(error));
        } else if let Some(outcome) = self.outcome.take() {
            let _ = outcome.send(Err(error));
        }
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.accept(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
        if let Some(waiting) = self.outcome.take() {
            let _ = waiting.send(outcome);
        }
    }
}
