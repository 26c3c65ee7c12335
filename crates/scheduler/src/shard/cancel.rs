//! Callers that want an activation to end, until its queue has answered.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use whiskraft_queue::{CancelAnswer, Input};
use whiskraft_types::{ActivationId, NamespaceName, QueueKey};

use crate::shard::actor::Shard;

/// Wishes to cancel that wait for their answer; the sender is one call each, and those are bounded.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    waiting: BTreeMap<u64, (QueueKey, oneshot::Sender<CancelAnswer>)>,
    next: u64,
}

impl Cancels {
    fn ask(&mut self, key: QueueKey, answer: oneshot::Sender<CancelAnswer>) -> u64 {
        // Whoever has gone away need not be remembered until the queue answers.
        self.waiting.retain(|_, (_, waiting)| !waiting.is_closed());
        self.next += 1;
        self.waiting.insert(self.next, (key, answer));
        self.next
    }

    /// A queue is given up: it answers nobody any more.
    pub(crate) fn give_up(&mut self, key: &QueueKey) {
        self.waiting.retain(|_, (of, _)| of != key);
    }

    pub(crate) fn answer(&mut self, ask: u64, answer: CancelAnswer) {
        if let Some((_, waiting)) = self.waiting.remove(&ask) {
            let _ = waiting.send(answer);
        }
    }
}

impl Shard {
    /// Passes a wish on to the queue that has the activation.
    pub(crate) fn on_cancel(
        &mut self,
        id: ActivationId,
        namespace: &NamespaceName,
        answer: oneshot::Sender<CancelAnswer>,
    ) {
        let slots = self.queues.in_namespace(namespace).into_iter();
        let has_it = |slot: &_| {
            let local = self.queues.get(*slot);
            local.is_some_and(|local| local.queue.find(id).is_some())
        };
        match slots.into_iter().find(has_it) {
            Some(slot) => {
                let key = self.queues.get(slot).map(|local| local.key().clone());
                if let Some(key) = key {
                    let ask = self.cancels.ask(key, answer);
                    self.step(slot, Input::Cancel { ask, id });
                }
            }
            None => drop(answer.send(CancelAnswer::Unknown)),
        }
    }
}
