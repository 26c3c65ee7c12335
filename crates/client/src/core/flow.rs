//! Hot path: one activation from submission to its result.
//!
//! Per activation: a handful of ordered-map operations and one message built for the wire; the payload is shared,
//! never copied.

use whiskraft_types::{ActivationId, Instant, Rejection, SchedulerId, ThrottleScope};

use super::io::{NewActivation, Output, StreamId};
use super::{Activation, Place, Router};
use crate::InvokeError;
use crate::invocation::Outcome;

impl Router {
    pub(super) fn on_submit(&mut self, now: Instant, new: NewActivation, out: &mut Vec<Output>) {
        let key = new.key.clone();
        self.seq += 1;
        let (id, activation) = Activation::new(now, self.seq, new);
        self.timers.insert((activation.timer(), id));
        self.stats.submitted += 1;
        self.stats.unfinished += 1;
        self.stats.unfinished_bytes += activation.payload.len() as u64;
        self.queues
            .entry(key.clone())
            .or_default()
            .waiting
            .insert(activation.seq, id);
        self.unfinished.insert(id, activation);
        self.dispatch(now, &key, out);
    }

    /// Sends it if the window has room, else puts it into the backlog. It is `placed` in its queue already.
    pub(super) fn place(
        &mut self,
        now: Instant,
        scheduler: SchedulerId,
        id: ActivationId,
        out: &mut Vec<Output>,
    ) {
        let Some(link) = self.links.get_mut(&scheduler) else {
            return;
        };
        let Some(activation) = self.unfinished.get_mut(&id) else {
            return;
        };
        if link.has_room() {
            self.send(now, scheduler, id, out);
        } else {
            activation.place = Place::Backlog { scheduler };
            link.push_backlog(id);
        }
    }

    fn send(&mut self, now: Instant, scheduler: SchedulerId, id: ActivationId, out: &mut Vec<Output>) {
        let (Some(link), Some(activation)) = (self.links.get_mut(&scheduler), self.unfinished.get_mut(&id))
        else {
            return;
        };
        let (Some(generation), Some(route)) = (link.generation(), self.routes.get(&activation.key)) else {
            return;
        };
        let (len, len_max) = (activation.payload.len() as u64, link.payload_len_max());
        if len > len_max {
            return self.reject(id, Rejection::TooLarge { len, len_max }, out);
        }
        let stream = StreamId {
            scheduler,
            generation,
        };
        match activation.sends {
            0 => {}
            _ if activation.attempt > activation.sent_attempt => self.stats.resubmitted += 1,
            _ => self.stats.retried += 1,
        }
        activation.sends = activation.sends.saturating_add(1);
        activation.sent_attempt = activation.attempt;
        activation.place = Place::Sent {
            stream,
            epoch: route.epoch,
        };
        link.on_sent(id);
        let submission = activation.to_wire(id, now, route.epoch);
        out.push(Output::Send {
            stream,
            id,
            submission,
        });
    }

    /// An answer made room in the window.
    fn on_answered(&mut self, now: Instant, stream: StreamId, id: ActivationId, out: &mut Vec<Output>) {
        let StreamId {
            scheduler,
            generation,
        } = stream;
        let Some(link) = self.links.get_mut(&scheduler) else {
            return;
        };
        link.on_answered(generation, id);
        while self.links.get(&scheduler).is_some_and(|link| link.has_room()) {
            let Some(next) = self.links.get_mut(&scheduler).and_then(|link| link.pop_backlog()) else {
                return;
            };
            // Ids in the backlog may have ended or gone elsewhere meanwhile.
            let place = self.unfinished.get(&next).map(|activation| activation.place);
            if place == Some(Place::Backlog { scheduler }) {
                self.send(now, scheduler, next, out);
            }
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        now: Instant,
        stream: StreamId,
        id: ActivationId,
        out: &mut Vec<Output>,
    ) {
        if let Some(activation) = self.unfinished.get_mut(&id) {
            if let Place::Sent { stream: at, epoch } = activation.place
                && at == stream
            {
                activation.place = Place::Accepted { stream, epoch };
            }
            if let Some(queue) = self.queues.get_mut(&activation.key) {
                queue.failures = 0;
            }
            if activation.accepted_at.is_none() {
                activation.accepted_at = Some(now);
                out.push(Output::Accepted { id });
            }
        }
        self.on_answered(now, stream, id, out);
    }

    pub(super) fn on_rejected(
        &mut self,
        now: Instant,
        stream: StreamId,
        id: ActivationId,
        rejection: Rejection,
        out: &mut Vec<Output>,
    ) {
        // A rejection from where it no longer is says nothing about where it is now.
        let here = self
            .unfinished
            .get_mut(&id)
            .filter(|activation| match activation.place {
                Place::Sent { stream: at, .. } | Place::Accepted { stream: at, .. } => at == stream,
                Place::Waiting | Place::Backlog { .. } => false,
            });
        if let Some(activation) = here {
            // Refused before it was accepted: it did not run there. After: it may have.
            let known_unsent = !matches!(activation.place, Place::Accepted { .. });
            // Unless it is unknown whether what the scheduler wrote has reached the journal.
            activation.is_outcome_unknown |=
                activation.durable && matches!(rejection, Rejection::Unavailable { .. });
            let may_have_run = activation.may_have_begun() || !known_unsent;
            let key = activation.key.clone();
            if let Rejection::Throttled {
                scope,
                limit,
                retry_after,
            } = rejection
                && scope != ThrottleScope::Stream
            {
                out.push(Output::Throttled {
                    key: key.clone(),
                    scope,
                    limit,
                    retry_after,
                });
            }
            let try_again = is_tried_again(&rejection, may_have_run);
            if try_again {
                self.take_back(id, known_unsent);
                self.follow_advice(now, stream.scheduler, &key, rejection, out);
            } else {
                self.reject(id, rejection, out);
            }
        }
        self.on_answered(now, stream, id, out);
    }

    /// A result, or what should have been one.
    pub(super) fn on_ended(
        &mut self,
        now: Instant,
        stream: StreamId,
        id: ActivationId,
        outcome: Outcome,
        out: &mut Vec<Output>,
    ) {
        if self.unfinished.contains_key(&id) {
            self.settle(id, outcome, out);
        } else {
            self.stats.results_late += 1;
        }
        // Late ones too: the scheduler keeps the result until we say that we have it.
        out.push(Output::Received { stream, id });
        self.on_answered(now, stream, id, out);
    }

    /// The caller's deadline, or the moment to give up.
    pub(super) fn on_timer(&mut self, now: Instant, id: ActivationId, out: &mut Vec<Output>) {
        let Some(activation) = self.unfinished.get_mut(&id) else {
            return;
        };
        let attempts = activation.sends;
        let cause = || {
            let queue = self.queues.get(&activation.key);
            queue.map(|queue| queue.cause.clone()).unwrap_or_default()
        };
        if activation.given_up_at <= now {
            let waited = now.saturating_since(activation.submitted_at);
            return self.settle(id, Err(InvokeError::NoResult { id, attempts, waited }), out);
        }
        if !activation.may_have_run() {
            let cause = cause();
            return self.settle(id, Err(InvokeError::NotAccepted { id, attempts, cause }), out);
        }
        let accepted = activation.accepted_at.is_some();
        let error = if activation.durable && !accepted {
            let cause = cause();
            InvokeError::NotConfirmed { id, attempts, cause }
        } else {
            InvokeError::Deadline {
                id,
                attempts,
                accepted,
            }
        };
        self.timers.remove(&(activation.timer(), id));
        activation.deadline_passed = true;
        self.timers.insert((activation.timer(), id));
        if activation.blocking || !accepted {
            out.push(Output::Overdue { id, error });
        }
    }

    /// Ends it with a rejection.
    pub(super) fn reject(&mut self, id: ActivationId, rejection: Rejection, out: &mut Vec<Output>) {
        let Some(activation) = self.unfinished.get(&id) else {
            return;
        };
        // Whoever refuses it now has not run it; only an earlier acceptance or an earlier attempt may have.
        let may_have_run = activation.may_have_begun() || matches!(activation.place, Place::Accepted { .. });
        let attempts = activation.sends;
        let error = match rejection {
            Rejection::StorageFull { reason } if !may_have_run => {
                InvokeError::StorageFull { id, attempts, reason }
            }
            rejection => InvokeError::Rejected {
                id,
                attempts,
                may_have_run,
                rejection,
            },
        };
        self.settle(id, Err(error), out);
    }

    /// Nobody here waits for it. The journal has a durably accepted one, so it runs and ends without us; any other one
    /// is looked after as before.
    pub(super) fn on_forget(&mut self, id: ActivationId, out: &mut Vec<Output>) {
        let is_safe = |activation: &Activation| activation.durable && activation.accepted_at.is_some();
        if self.unfinished.get(&id).is_some_and(is_safe) && self.remove(id) {
            self.stats.forgotten += 1;
            out.push(Output::Forgotten { id });
        }
    }

    /// Ends it.
    pub(super) fn settle(&mut self, id: ActivationId, outcome: Outcome, out: &mut Vec<Output>) {
        if !self.remove(id) {
            return;
        }
        match &outcome {
            Ok(_) => self.stats.completed += 1,
            Err(_) => self.stats.failed += 1,
        }
        out.push(Output::Settled { id, outcome });
    }

    /// The only place where an activation leaves the table. `false`: it is not there.
    fn remove(&mut self, id: ActivationId) -> bool {
        let Some(activation) = self.unfinished.remove(&id) else {
            return false;
        };
        self.timers.remove(&(activation.timer(), id));
        self.stats.unfinished -= 1;
        self.stats.unfinished_bytes -= activation.payload.len() as u64;
        if let Some(queue) = self.queues.get_mut(&activation.key) {
            queue.waiting.remove(&activation.seq);
            queue.placed.remove(&activation.seq);
            if queue.is_empty() {
                self.queues.remove(&activation.key);
            }
        }
        true
    }

    /// Takes one back into the waiting ones of its queue.
    pub(super) fn take_back(&mut self, id: ActivationId, known_unsent: bool) {
        let Some(activation) = self.unfinished.get_mut(&id) else {
            return;
        };
        activation.take_back(known_unsent);
        if let Some(queue) = self.queues.get_mut(&activation.key)
            && queue.placed.remove(&activation.seq).is_some()
        {
            queue.waiting.insert(activation.seq, id);
        }
    }
}

/// Whether the same activation is sent again after this refusal, without the caller noticing.
fn is_tried_again(rejection: &Rejection, may_have_run: bool) -> bool {
    match rejection {
        // Windows are between the stream's two ends: no caller can act on that.
        Rejection::Throttled {
            scope: ThrottleScope::Stream,
            ..
        } => true,
        // No limit takes back what somebody has accepted before: that one has to get in.
        Rejection::Throttled { .. } | Rejection::StorageFull { .. } => may_have_run,
        _ => rejection.is_retryable(),
    }
}
