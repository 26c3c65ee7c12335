//! The near end of the actor's channel, and what travels through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{mpsc, oneshot};
use whiskraft_types::ActivationId;

use crate::InvokeError;
use crate::core::NewActivation;
use crate::forgotten::Forgotten;
use crate::invocation::Outcome;

/// Callers that may wait for the same activation: far more than retries make, few enough to answer in one turn.
const JOINED_MAX: usize = 1024;

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
    accepted: Option<oneshot::Sender<Result<(), InvokeError>>>,
    outcome: Option<oneshot::Sender<Outcome>>,
    attempts: Arc<AtomicU32>,
    /// Whether the result itself is waited for, until the deadline.
    is_call: bool,
    /// Others who wait for the same activation, by its idempotency key. None of them has further ones.
    joined: Vec<Waiter>,
}

/// The near end of the actor's channel.
#[derive(Debug, Clone)]
pub(crate) struct ActorHandle {
    requests: mpsc::Sender<Request>,
    forgotten: Arc<Forgotten>,
}

impl ActorHandle {
    pub(crate) const fn new(requests: mpsc::Sender<Request>, forgotten: Arc<Forgotten>) -> Self {
        Self { requests, forgotten }
    }

    /// Nobody waits for this activation through the handle that is being dropped.
    pub(crate) fn forget(&self, id: ActivationId) {
        if !self.requests.is_closed() {
            self.forgotten.add(id);
        }
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
    /// Somebody waits for the result itself.
    pub(crate) fn of_call(outcome: oneshot::Sender<Outcome>) -> Self {
        Self {
            accepted: None,
            outcome: Some(outcome),
            attempts: Arc::default(),
            is_call: true,
            joined: Vec::new(),
        }
    }

    /// Somebody waits for acceptance, and then perhaps for the result.
    pub(crate) fn of_submission(
        accepted: oneshot::Sender<Result<(), InvokeError>>,
        outcome: oneshot::Sender<Outcome>,
        attempts: Arc<AtomicU32>,
    ) -> Self {
        Self {
            accepted: Some(accepted),
            outcome: Some(outcome),
            attempts,
            is_call: false,
            joined: Vec::new(),
        }
    }

    /// Takes in somebody who waits for the same activation.
    pub(crate) fn join(&mut self, mut other: Self, id: ActivationId, is_accepted: bool) {
        if self.joined.len() >= JOINED_MAX {
            return other.settle(Err(InvokeError::IdInUse { id }));
        }
        other
            .attempts
            .store(self.attempts.load(Ordering::Relaxed), Ordering::Relaxed);
        if is_accepted {
            other.accept(Ok(()));
        }
        self.joined.push(other);
    }

    pub(crate) fn on_sent(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.joined.iter().for_each(Self::on_sent);
    }

    pub(crate) fn accept(&mut self, result: Result<(), InvokeError>) {
        for other in &mut self.joined {
            other.accept(result.clone());
        }
        if let Some(accepted) = self.accepted.take() {
            // Whoever asked may have stopped waiting; the activation goes on all the same.
            let _ = accepted.send(result);
        }
    }

    /// Tells whoever waits now that it takes longer; whoever holds an `Invocation` goes on waiting.
    pub(crate) fn give_up(&mut self, error: InvokeError) {
        for other in &mut self.joined {
            other.give_up(error.clone());
        }
        if self.accepted.is_some() {
            self.accept(Err(error));
        } else if let Some(outcome) = self.outcome.take_if(|_| self.is_call) {
            let _ = outcome.send(Err(error));
        }
    }

    pub(crate) fn settle(mut self, outcome: Outcome) {
        for other in std::mem::take(&mut self.joined) {
            other.settle(outcome.clone());
        }
        self.accept(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
        if let Some(waiting) = self.outcome.take() {
            let _ = waiting.send(outcome);
        }
    }

    /// Whether nobody is left who could be told anything.
    pub(crate) fn is_abandoned(&self) -> bool {
        let is_gone = self.accepted.as_ref().is_none_or(oneshot::Sender::is_closed)
            && self.outcome.as_ref().is_none_or(oneshot::Sender::is_closed);
        is_gone && self.joined.iter().all(Self::is_abandoned)
    }
}
