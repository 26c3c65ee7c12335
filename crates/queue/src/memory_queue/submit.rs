//! Hot path: acceptance. Budget per activation: one ledger entry, no copy of the payload but its handle, no lock;
//! a container that asks gets it in the same step.
//!
//! The ledger comes first: what is known is never run a second time, whatever the limits say about new ones.

use std::time::Duration;

use whiskraft_types::{ActivationId, ActivationStatus, Instant, Rejection, ThrottleScope};

use super::ending::{acknowledge_to, lost_text};
use super::{MemoryQueue, RETRY_AFTER};
use crate::ledger::{Entry, Stage, Waiters};
use crate::waiting::Ticket;
use crate::{ControllerId, Output};

/// One attempt of a controller.
pub(super) struct Submission<P> {
    pub(super) controller: ControllerId,
    pub(super) id: ActivationId,
    pub(super) attempt: u32,
    pub(super) waited: Duration,
    pub(super) caller: Option<ActivationId>,
    pub(super) payload: P,
}

impl<P: Clone + PartialEq, R: Clone> MemoryQueue<P, R> {
    pub(super) fn on_submit(&mut self, now: Instant, submission: Submission<P>, out: &mut Vec<Output<P, R>>) {
        let (controller, id) = (submission.controller, submission.id);
        match self.admit(now, id, submission.attempt, &submission.payload) {
            Err(rejection) => out.push(Output::Reject {
                controller,
                id,
                rejection,
            }),
            Ok(is_known) => {
                out.push(Output::Accept { controller, id });
                if is_known {
                    self.join(now, submission, out);
                } else {
                    self.accept(now, submission, out);
                }
            }
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
        if self.is_draining {
            return Err(Rejection::Draining);
        }
        // One that may have begun under a former leader is not new.
        let may_have_begun = attempt > 1 && (!self.expected.is_empty() || self.lost(now).is_some());
        if self.action.deleted && !may_have_begun {
            return Err(Rejection::NoQueue);
        }
        match self.reached(now) {
            None => Ok(false),
            // It may have been accepted and even started under a former leader: only a refusal that lets the SDK try
            // again keeps that promise.
            Some((scope, limit)) if attempt > 1 => {
                Err(unavailable(&format!("{}; try again", scope.reached(Some(limit)))))
            }
            Some((scope, limit)) => Err(Rejection::Throttled {
                scope,
                limit: Some(limit),
                retry_after: RETRY_AFTER,
            }),
        }
    }

    /// The limit that keeps new activations out, and its value.
    fn reached(&self, now: Instant) -> Option<(ThrottleScope, u32)> {
        if self.is_throttled {
            return Some((ThrottleScope::Action, self.settings.len_max));
        }
        if let Some(limit) = self.ledger.full(&self.settings) {
            return Some((ThrottleScope::Results, u32::try_from(limit).unwrap_or(u32::MAX)));
        }
        // A queue without a container may use the excess, so it has seen that full too.
        self.is_starved(now).then_some((
            ThrottleScope::Namespace,
            self.counts.limit.max(self.counts.limit_over),
        ))
    }

    /// A known activation: another attempt, or another controller that wants its outcome.
    fn join(&mut self, now: Instant, submission: Submission<P>, out: &mut Vec<Output<P, R>>) {
        let Submission {
            controller,
            id,
            attempt,
            waited,
            caller,
            payload,
        } = submission;
        let accepted_at = self.accepted_at(now, waited);
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if entry.payload.is_none() {
            // Only an invoker had told of it, so it is in no line: from now on it has the place it had elsewhere.
            entry.ticket.accepted_at = accepted_at.min(entry.ticket.accepted_at);
        }
        entry.waiters.add(controller);
        entry.attempt = entry.attempt.max(attempt);
        entry.payload.get_or_insert(payload);
        if let Stage::Done(done) = &entry.stage {
            out.push(Output::Complete {
                controller,
                id,
                outcome: done.outcome.clone(),
                run: 1,
            });
        } else {
            self.ledger.note_caller(id, caller);
        }
    }

    /// A new activation: to a container that asks, or to its place in the queue.
    fn accept(&mut self, now: Instant, submission: Submission<P>, out: &mut Vec<Output<P, R>>) {
        let Submission {
            controller,
            id,
            attempt,
            waited,
            caller,
            payload,
        } = submission;
        let ticket = self.next_ticket(now, waited, id);
        let waiters = Waiters::one(controller);
        let entry = |stage, payload| {
            Entry::new(now, stage, waiters, Some(payload), ticket, attempt).called_by(caller)
        };
        if attempt > 1 && !self.expected.is_empty() {
            self.held.insert(ticket);
            return self.ledger.insert(entry(Stage::Held, payload));
        }
        let doom = self.doom(now, attempt);
        if doom.is_none()
            && let Some((container, invoker)) = self.containers.take_ready()
        {
            out.push(Output::Deliver {
                invoker,
                container,
                id,
                attempt,
                run: 1,
                waited: now.saturating_since(ticket.accepted_at),
                payload: payload.clone(),
            });
            self.ledger.insert(entry(Stage::Delivered(container), payload));
            self.starved = None;
            return self.watch_sent(now);
        }
        self.waiting.insert(ticket);
        self.ledger.insert(entry(Stage::Waiting, payload));
        match doom {
            Some((status, text)) => self.fail(now, id, status, text, out),
            None => self.decide_for(now, &ticket),
        }
    }

    /// The place of an activation that was first accepted `waited` ago. More than the retention is as good as the
    /// retention; a moment before the origin of the clock cannot be written down.
    pub(super) fn next_ticket(&mut self, now: Instant, waited: Duration, id: ActivationId) -> Ticket {
        let seq = self.next_seq;
        self.next_seq += 1;
        let accepted_at = self.accepted_at(now, waited);
        Ticket { seq, id, accepted_at }
    }

    fn accepted_at(&self, now: Instant, waited: Duration) -> Instant {
        let age = waited.min(self.retention());
        Instant::from_origin(now.since_origin().saturating_sub(age))
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
