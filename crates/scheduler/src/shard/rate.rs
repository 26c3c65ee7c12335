//! Hot path: a new activation of a namespace with a rate limit takes a token; all others pass with one look at their queue.
//!
//! Without a token and without a word of the rate home the activation waits for that word, a round trip as a rule.
//! Invariant: what is known already, or was accepted before by any leader, takes none: it is not a new invocation.

use whiskraft_queue::ControllerId;
use whiskraft_types::{ActivationId, NamespaceName, Rejection, ThrottleScope};

use crate::message::Submission;
use crate::rate::Take;
use crate::shard::actor::Shard;
use crate::shard::local::Slot;
use crate::shard::parked::ParkedItem;

/// Whether a submission may go on.
pub(crate) enum Charge {
    Free,
    /// It has taken a token.
    Paid,
    /// The rate home is asked.
    Later,
    Refused(Rejection),
}

impl Shard {
    pub(crate) fn charge(&self, slot: Slot, submission: &Submission) -> Charge {
        let Some((local, stock)) = self
            .queues
            .get(slot)
            .and_then(|local| Some((local, local.rate.as_ref()?)))
        else {
            return Charge::Free;
        };
        if submission.attempt > 1 || local.queue.find(submission.id).is_some() {
            return Charge::Free;
        }
        match stock.take(self.now) {
            Take::Token { is_low } => {
                if is_low {
                    self.parts.rates.ask(stock);
                }
                Charge::Paid
            }
            Take::Refused(retry_after) => Charge::Refused(Rejection::Throttled {
                scope: ThrottleScope::Rate,
                limit: Some(stock.per_minute()),
                retry_after,
            }),
            Take::Unknown if self.parking => {
                stock.note_missed();
                self.parts.rates.ask(stock);
                Charge::Later
            }
            Take::Unknown => Charge::Refused(Rejection::Unavailable {
                reason: "the rate limit of the namespace could not be looked up; try again".to_owned(),
            }),
        }
    }

    /// Gives a token back that was taken for an activation which the queue did not accept.
    pub(crate) fn refund(&self, slot: Slot, id: ActivationId) {
        if let Some(local) = self.queues.get(slot)
            && local.queue.find(id).is_none()
            && let Some(stock) = &local.rate
        {
            stock.give_back();
        }
    }

    /// Keeps a submission until something is known.
    pub(crate) fn park(&mut self, controller: ControllerId, submission: Submission, why: &'static str) {
        let key = submission.key.clone();
        let item = ParkedItem::Submission(controller, Box::new(submission));
        if let Err(ParkedItem::Submission(_, submission)) = self.parked.push(self.now, &key, item) {
            let reason = why.to_owned();
            self.reject(controller, *submission, Rejection::Unavailable { reason });
        }
    }

    /// The rate home has answered: what waited for it goes on or is refused.
    pub(crate) fn on_rate_settled(&mut self, namespace: &NamespaceName) {
        for slot in self.queues.in_namespace(namespace) {
            let Some(key) = self.queues.get(slot).map(|local| local.key().clone()) else {
                continue;
            };
            let parked = self.parked.take(&key);
            self.replay(parked);
        }
    }

    /// The limits of a namespace may have changed.
    pub(crate) fn on_limits(&mut self, namespace: &NamespaceName, per_minute: Option<u32>) {
        let stock = self.parts.rates.stock(namespace, per_minute);
        if stock.is_none() {
            self.parts.rates.forget(namespace);
        }
        for slot in self.queues.in_namespace(namespace) {
            if let Some(local) = self.queues.get_mut(slot) {
                local.rate.clone_from(&stock);
            }
        }
        self.on_rate_settled(namespace);
    }

    /// Sets the rate of a queue that is led from now on, or was led through a gap in the events.
    pub(crate) fn refresh_rate(&mut self, slot: Slot) {
        let node = &self.parts.context.node;
        let Some(local) = self.queues.get_mut(slot) else {
            return;
        };
        let limits = node.read(|state| state.namespace_limits(&local.key().namespace));
        local.rate = self
            .parts
            .rates
            .stock(&local.key().namespace, limits.invocations_per_minute);
    }
}
