//! Hot path: acceptance. Budget per activation: one ledger entry, no copy of the payload but its handle, no lock;
//! a container that asks gets it in the same step.
//!
//! The ledger comes first: what is known is never run a second time, whatever the limits say about new ones.

use std::time::Duration;

use whiskraft_types::{ActivationId, ActivationStatus, Instant, Rejection, ThrottleScope};

use super::{MemoryQueue, RETRY_AFTER, acknowledge_to, lost_text};
use crate::ledger::{Entry, Stage, Waiters};
use crate::waiting::Ticket;
use crate::{ControllerId, Output};

impl<P: Clone + PartialEq, R: Clone> MemoryQueue<P, R> {
    pub(super) fn on_submit(
        &mut self,
        now: Instant,
        controller: ControllerId,
        id: ActivationId,
        attempt: u32,
        payload: P,
        out: &mut Vec<Output<P, R>>,
    ) {
        let is_known = match self.admit(now, id, attempt, &payload) {
            Ok(is_known) => is_known,
            Err(rejection) => {
                return out.push(Output::Reject {
                    controller,
                    id,
                    rejection,
                });
            }
        };
        out.push(Output::Accept { controller, id });
        if is_known {
            self.join(controller, id, attempt, payload, out);
        } else {
            self.accept(now, controller, id, attempt, payload, out);
        }
    }

    /// Whether the queue takes the activation, and whether it knows it already.
    fn admit(&self, now: Instant, id: ActivationId, attempt: u32, payload: &P) -> Result<bool, Rejection> {
        if self.is_fenced {
            return Err(unavailable("its session may have ended"));
        }
        if let Some(entry) = self.ledger.find(id) {
            let is_same = entry.payload.as_ref().is_none_or(|known| known == payload);
            return if is_same {
                Ok(true)
            } else {
                Err(Rejection::Conflict)
            };
        }
        if self.ledger.is_settled(id) {
            let reason = format!("activation {id} has ended and its result is no longer kept here");
            return Err(Rejection::Invalid { reason });
        }
        if self.is_removing {
            return Err(Rejection::NoQueue);
        }
        let limit = if self.is_throttled || self.ledger.is_full(&self.settings) {
            Some(ThrottleScope::Action)
        } else {
            self.is_starved(now).then_some(ThrottleScope::Namespace)
        };
        match limit {
            None => Ok(false),
            // It may have been accepted and even started under a former leader: only a refusal that lets the SDK try
            // again keeps that promise.
            Some(_) if attempt > 1 => Err(unavailable("the queue is full; try again")),
            Some(scope) => Err(Rejection::Throttled {
                scope,
                retry_after: RETRY_AFTER,
            }),
        }
    }

    /// A known activation: another attempt, or another controller that wants its outcome.
    fn join(
        &mut self,
        controller: ControllerId,
        id: ActivationId,
        attempt: u32,
        payload: P,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        entry.waiters.add(controller);
        entry.attempt = entry.attempt.max(attempt);
        entry.payload.get_or_insert(payload);
        if let Stage::Done(done) = &entry.stage {
            out.push(Output::Complete {
                controller,
                id,
                outcome: done.outcome.clone(),
            });
        }
    }

    /// A new activation: to a container that asks, or to the end of the queue.
    fn accept(
        &mut self,
        now: Instant,
        controller: ControllerId,
        id: ActivationId,
        attempt: u32,
        payload: P,
        out: &mut Vec<Output<P, R>>,
    ) {
        let ticket = self.next_ticket(now, id);
        let waiters = Waiters::one(controller);
        if attempt > 1 && !self.expected.is_empty() {
            self.held.insert(ticket);
            self.ledger
                .insert(Entry::new(Stage::Held, waiters, Some(payload), ticket, attempt));
            return;
        }
        let doom = self.doom(now, attempt);
        if doom.is_none()
            && let Some((container, invoker)) = self.containers.take_ready()
        {
            let (waited, handle) = (Duration::ZERO, payload.clone());
            out.push(Output::Deliver {
                invoker,
                container,
                id,
                attempt,
                waited,
                payload: handle,
            });
            self.ledger.insert(Entry::new(
                Stage::Delivered(container),
                waiters,
                Some(payload),
                ticket,
                attempt,
            ));
            return;
        }
        self.waiting.insert(ticket);
        self.ledger.insert(Entry::new(
            Stage::Waiting,
            waiters,
            Some(payload),
            ticket,
            attempt,
        ));
        match doom {
            Some((status, text)) => self.fail(now, id, status, text, out),
            None => self.decide_for_new(now),
        }
    }

    /// The next place in the order of acceptance.
    pub(super) fn next_ticket(&mut self, now: Instant, id: ActivationId) -> Ticket {
        let seq = self.next_seq;
        self.next_seq += 1;
        Ticket {
            seq,
            id,
            accepted_at: now,
        }
    }

    /// Why an activation must end as soon as it is accepted.
    fn doom(&mut self, now: Instant, attempt: u32) -> Option<(ActivationStatus, String)> {
        if let Some(invoker) = self.lost(now).filter(|_| attempt > 1) {
            return Some((ActivationStatus::WhiskError, lost_text(invoker)));
        }
        self.developer_failure(now)
            .map(|text| (ActivationStatus::DeveloperError, text))
    }

    pub(super) fn on_received(
        &mut self,
        now: Instant,
        controller: ControllerId,
        id: ActivationId,
        out: &mut Vec<Output<P, R>>,
    ) {
        self.ledger
            .received(id, controller, now, &self.settings, &mut acknowledge_to(out));
        // Nothing was handed out while too many outcomes were owed.
        self.pump(now, out);
    }
}

fn unavailable(reason: &str) -> Rejection {
    Rejection::Unavailable {
        reason: reason.to_owned(),
    }
}
