//! Activations that nobody waits for any more, on their way from dropped handles to the actor.
//!
//! A drop cannot wait for room in a channel, so the ids go into a list of their own. It is bounded by the handles that
//! were alive when the actor looked last.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use whiskraft_types::ActivationId;

/// Shared by the handles, which add, and the actor, which takes.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    ids: Mutex<Vec<ActivationId>>,
    added: Notify,
}

impl Forgotten {
    pub(crate) fn add(&self, id: ActivationId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        self.added.notify_one();
    }

    /// Waits until there is something to take. May be cancelled.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    pub(crate) fn take(&self) -> Vec<ActivationId> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
