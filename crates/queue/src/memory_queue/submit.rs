//! Hot path: acceptance. Budget per activation: one ledger entry, no copy of the payload but its handle, no lock;
//! a container that asks gets it in the same step.
//!
//! The ledger comes first: what is known is never run a second time, whatever the limits say about new ones. A new durable
//! activation goes to the journal before anybody hears that it is taken.

use std::time::Duration;

use whiskraft_types::{ActivationId, ActivationStatus, Instant, Rejection, ThrottleScope};

use super::ending::{End, acknowledge_to, lost_text};
use super::{MemoryQueue, RETRY_AFTER};
use crate::ledger::{EndKind, Entry, Stage, Waiters};
use crate::waiting::Ticket;
use crate::{ControllerId, JournalEntry, Output, Terms};

/// One attempt of a controller.
pub(super) struct Submission<P> {
    pub(super) controller: ControllerId,
    pub(super) id: ActivationId,
    pub(super) attempt: u32,
    pub(super) waited: Duration,
    pub(super) caller: Option<ActivationId>,
    pub(super) payload: P,
    pub(super) terms: Terms,
}

/// What a submission meets.
enum Admission {
    /// It is known.
    Known,
    /// It is known, and its acceptance is on its way to the journal: everybody is answered then.
    Journaling,
    /// It is new.
    New,
    /// It is new to this queue, and the journal has to say the rest.
    ToJournal,
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_submit(&mut self, now: Instant, submission: Submission<P>, out: &mut Vec<Output<P, R>>) {
        let (controller, id) = (submission.controller, submission.id);
        match self.admit(now, &submission) {
            Err(rejection) => out.push(Output::Reject {
                controller,
                id,
                rejection,
            }),
            Ok(Admission::Known) => {
                out.push(Output::Accept { controller, id });
                self.join(now, submission, out);
            }
            Ok(Admission::Journaling) => self.join(now, submission, out),
            Ok(Admission::New) => {
                out.push(Output::Accept { controller, id });
                self.accept(now, submission, out);
            }
            Ok(Admission::ToJournal) => self.journal_acceptance(now, submission, out),
        }
    }

    /// Whether the queue takes the activation, and whether it knows it already.
    fn admit(&self, now: Instant, submission: &Submission<P>) -> Result<Admission, Rejection> {
        let Submission { id, attempt, .. } = *submission;
        if self.is_fenced {
            return Err(unavailable("its session may have ended"));
        }
        let known = self.ledger.find(id);
        // What the journal has it has not said yet, and an invoker says no run: nothing can be said of a durable one.
        let is_unread = self.is_recovering && known.is_none_or(|entry| entry.payload.is_none());
        if submission.terms.durable && is_unread {
            return Err(unavailable(
                "its durable activations are being read from the journal; try again",
            ));
        }
        if let Some(entry) = known {
            return admit_known(entry, submission);
        }
        if self.ledger.is_settled(id) {
            let reason = format!("activation {id} has ended and its result is no longer kept here");
            return Err(Rejection::Invalid { reason });
        }
        let Terms { durable, not_before } = submission.terms;
        if not_before.is_some() && !durable {
            let reason = "an activation that is to begin later must be durable".to_owned();
            return Err(Rejection::Invalid { reason });
        }
        if self.is_removing {
            return Err(Rejection::NoQueue);
        }
        if self.is_draining {
            return Err(Rejection::Draining);
        }
        if self.ledger.is_recorded(id) {
            return Ok(Admission::ToJournal);
        }
        // One that may have begun under a former leader is not new.
        let may_have_begun = attempt > 1 && (!self.expected.is_empty() || self.lost(now).is_some());
        if self.action.deleted && !may_have_begun {
            return Err(Rejection::NoQueue);
        }
        match self.reached(now, not_before.is_some_and(|at| at > now)) {
            None if durable => Ok(Admission::ToJournal),
            None => Ok(Admission::New),
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
    fn reached(&self, now: Instant, is_delayed: bool) -> Option<(ThrottleScope, u32)> {
        if is_delayed && self.ledger.delayed_len() >= self.settings.delayed_max as usize {
            return Some((ThrottleScope::Action, self.settings.delayed_max));
        }
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
            terms,
        } = submission;
        let accepted_at = self.accepted_at(now, waited, terms.durable);
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if entry.payload.is_none() {
            // Only an invoker had told of it, so it is in no line: from now on it has the place it had elsewhere.
            entry.ticket.accepted_at = accepted_at.min(entry.ticket.accepted_at);
            entry.ticket.ready_at = entry.ticket.accepted_at;
            entry.ticket.is_durable = terms.durable;
        }
        entry.waiters.add(controller);
        entry.attempt = entry.attempt.max(attempt);
        entry.payload.get_or_insert(payload);
        let run = entry.run;
        match &entry.stage {
            // The journal has the last word on how it ended, and may have had it before.
            Stage::Done(_) if terms.durable => self.end_again(now, id, out),
            Stage::Done(done) => out.push(Output::Complete {
                controller,
                id,
                outcome: done.outcome.clone(),
                run,
            }),
            _ if entry.stage.is_over() => {}
            _ => self.ledger.note_caller(id, caller),
        }
    }

    /// A new durable activation: to the journal.
    fn journal_acceptance(&mut self, now: Instant, submission: Submission<P>, out: &mut Vec<Output<P, R>>) {
        let (id, not_before) = (submission.id, submission.terms.not_before);
        let ticket = self.next_ticket(now, submission.waited, id, true);
        let stage = Stage::Journaling {
            not_before,
            found: None,
        };
        out.push(Output::Journal {
            id,
            entry: JournalEntry::Accept {
                payload: submission.payload.clone(),
                waited: now.saturating_since(ticket.accepted_at),
                not_before,
            },
        });
        let waiters = Waiters::one(submission.controller);
        let entry = Entry::new(
            now,
            stage,
            waiters,
            Some(submission.payload),
            ticket,
            submission.attempt,
        );
        self.ledger.insert(entry.called_by(submission.caller));
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
            terms: _,
        } = submission;
        let ticket = self.next_ticket(now, waited, id, false);
        let waiters = Waiters::one(controller);
        let entry = |stage, payload| {
            Entry::new(now, stage, waiters, Some(payload), ticket, attempt).called_by(caller)
        };
        if attempt > 1 && !self.expected.is_empty() {
            self.held.insert(ticket);
            return self.ledger.insert(entry(Stage::Held, payload));
        }
        let doom = self.doom(now, attempt > 1);
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
            Some(end) => self.fail(now, id, end, out),
            None => self.decide_for(now, &ticket),
        }
    }

    /// The place of an activation that was first accepted `waited` ago. For one in memory more than the retention is as
    /// good as the retention; a moment before the origin of the clock cannot be written down.
    pub(super) fn next_ticket(
        &mut self,
        now: Instant,
        waited: Duration,
        id: ActivationId,
        is_durable: bool,
    ) -> Ticket {
        let seq = self.next_seq;
        self.next_seq += 1;
        let accepted_at = self.accepted_at(now, waited, is_durable);
        Ticket {
            seq,
            id,
            accepted_at,
            ready_at: accepted_at,
            is_durable,
        }
    }

    /// The same, of one that was accepted so long ago and might begin since a shorter time, in this order.
    pub(super) fn ticket_ready_for(
        &mut self,
        now: Instant,
        (waited, ready): (Duration, Duration),
        id: ActivationId,
        is_durable: bool,
    ) -> Ticket {
        let mut ticket = self.next_ticket(now, waited, id, is_durable);
        let ready_at = Instant::from_origin(now.since_origin().saturating_sub(ready));
        ticket.ready_at = ticket.ready_at.max(ready_at);
        ticket
    }

    fn accepted_at(&self, now: Instant, waited: Duration, is_durable: bool) -> Instant {
        let age = if is_durable {
            waited
        } else {
            waited.min(self.retention())
        };
        Instant::from_origin(now.since_origin().saturating_sub(age))
    }

    /// Why an activation must end as soon as it joins those that wait.
    pub(super) fn doom(&mut self, now: Instant, may_have_begun: bool) -> Option<End<R>> {
        if let Some(invoker) = self.lost(now).filter(|_| may_have_begun) {
            let text = lost_text(invoker);
            return Some(End::failure(EndKind::Lost, ActivationStatus::WhiskError, text));
        }
        let text = self.developer_failure(now)?;
        Some(End::failure(
            EndKind::Failed,
            ActivationStatus::DeveloperError,
            text,
        ))
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

/// What a submission of a known activation meets.
fn admit_known<P: PartialEq, R>(
    entry: &Entry<P, R>,
    submission: &Submission<P>,
) -> Result<Admission, Rejection> {
    let is_same = entry
        .payload
        .as_ref()
        .is_none_or(|known| *known == submission.payload);
    if !is_same {
        return Err(Rejection::Conflict);
    }
    if submission.terms.durable && !entry.is_durable() && entry.payload.is_some() {
        let id = submission.id;
        let reason = format!("activation {id} was submitted before as one that is not durable");
        return Err(Rejection::Invalid { reason });
    }
    Ok(match entry.stage {
        Stage::Journaling { .. } => Admission::Journaling,
        _ => Admission::Known,
    })
}

/// A refusal after which the SDK tries again.
pub(super) fn unavailable(reason: &str) -> Rejection {
    Rejection::Unavailable {
        reason: reason.to_owned(),
    }
}
