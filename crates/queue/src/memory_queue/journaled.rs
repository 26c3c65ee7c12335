//! What the journal answers: the acceptance of a durable activation, and the ends of its runs.
//!
//! Nothing is said to anybody before the journal has it. A fenced queue keeps the answers until it may act again: another
//! leader may have read the journal meanwhile, and then this one never speaks.

use whiskraft_types::{ActivationId, Instant, Rejection};

use super::MemoryQueue;
use super::cancel::in_line;
use super::ending::End;
use super::submit::unavailable;
use crate::ledger::{EndKind, Ending, Next, Stage};
use crate::{CancelAnswer, Outcome, Output, Verdict};

impl<P: Clone + PartialEq, R: Clone> MemoryQueue<P, R> {
    pub(super) fn on_journaled(
        &mut self,
        now: Instant,
        id: ActivationId,
        verdict: Verdict<R>,
        out: &mut Vec<Output<P, R>>,
    ) {
        if self.is_fenced {
            self.verdicts.push((id, verdict));
            return;
        }
        match self.ledger.find(id).map(|entry| &entry.stage) {
            Some(Stage::Journaling { not_before, .. }) => {
                let not_before = *not_before;
                self.on_acceptance(now, id, not_before, verdict, out);
            }
            Some(Stage::Ending(ending)) => {
                let ending = ending.clone();
                self.on_end_written(now, id, ending, verdict, out);
            }
            _ => tracing::debug!(queue = %self.key, activation = %id, "verdict on nothing under way"),
        }
        self.pump(now, out);
    }

    fn on_acceptance(
        &mut self,
        now: Instant,
        id: ActivationId,
        not_before: Option<Instant>,
        verdict: Verdict<R>,
        out: &mut Vec<Output<P, R>>,
    ) {
        match verdict {
            Verdict::Written | Verdict::Recorded(_) => {
                self.tell_accepted(id, out);
                self.enter_line(now, id, not_before, false, out);
            }
            Verdict::Open { run, not_before } => {
                self.tell_accepted(id, out);
                if let Some(entry) = self.ledger.find_mut(id) {
                    entry.run = run.max(1);
                }
                self.enter_line(now, id, not_before, true, out);
            }
            Verdict::Ended(outcome) => {
                self.tell_accepted(id, out);
                self.tell_ended(now, id, (outcome, 1), CancelAnswer::Ended, out);
            }
            Verdict::Expired => {
                let reason = format!("activation {id} has ended and its record has expired");
                self.reject_all(id, &Rejection::Invalid { reason }, CancelAnswer::Ended, out);
            }
            Verdict::Conflict => self.reject_all(id, &Rejection::Conflict, CancelAnswer::Unknown, out),
            Verdict::Refused(rejection) => self.reject_all(id, &rejection, CancelAnswer::Unknown, out),
            Verdict::Unknown => {
                let rejection = unavailable(
                    "the journal did not answer: the activation may have been taken; submit it again under the same id",
                );
                self.reject_all(id, &rejection, CancelAnswer::Unavailable, out);
            }
        }
    }

    fn tell_accepted(&self, id: ActivationId, out: &mut Vec<Output<P, R>>) {
        let waiters = self
            .ledger
            .find(id)
            .into_iter()
            .flat_map(|entry| entry.waiters.iter());
        out.extend(waiters.map(|controller| Output::Accept { controller, id }));
    }

    /// Nobody gets it: it was not accepted.
    fn reject_all(
        &mut self,
        id: ActivationId,
        rejection: &Rejection,
        answer: CancelAnswer,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.remove(id) else {
            return;
        };
        out.extend(entry.waiters.iter().map(|controller| Output::Reject {
            controller,
            id,
            rejection: rejection.clone(),
        }));
        let answers = entry.asks.into_iter();
        out.extend(answers.map(|ask| Output::CancelAnswered { ask, answer }));
    }

    /// An activation that the journal has goes where it waits for its run.
    pub(super) fn enter_line(
        &mut self,
        now: Instant,
        id: ActivationId,
        not_before: Option<Instant>,
        may_have_begun: bool,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if let Some(at) = not_before {
            entry.ticket.ready_at = entry.ticket.ready_at.max(at);
        }
        let (ticket, is_cancelled) = (entry.ticket, entry.is_cancelled);
        let stage = match not_before.filter(|at| *at > now) {
            Some(at) => Stage::Delayed(at),
            None if may_have_begun && !self.expected.is_empty() => Stage::Held,
            None => Stage::Waiting,
        };
        match stage {
            Stage::Held => self.held.insert(ticket),
            Stage::Waiting => self.waiting.insert(ticket),
            _ => {}
        }
        let (is_held, waits) = (matches!(stage, Stage::Held), matches!(stage, Stage::Waiting));
        self.ledger.change(id, stage);
        if is_cancelled && !is_held {
            return self.finish(now, id, End::cancelled(None), out);
        }
        if waits {
            self.on_waiting(now, id, may_have_begun, out);
        }
    }

    /// One has joined those that wait: it ends at once if nothing can run it, else somebody has to look for a container.
    fn on_waiting(
        &mut self,
        now: Instant,
        id: ActivationId,
        may_have_begun: bool,
        out: &mut Vec<Output<P, R>>,
    ) {
        if let Some(end) = self.doom(now, may_have_begun) {
            self.fail(now, id, end, out);
        }
        // A fenced queue has only noted the end.
        if let Some(entry) = self.ledger.find(id)
            && matches!(entry.stage, Stage::Waiting)
        {
            let ticket = entry.ticket;
            self.decide_for(now, &ticket);
        }
    }

    fn on_end_written(
        &mut self,
        now: Instant,
        id: ActivationId,
        ending: Ending<R>,
        verdict: Verdict<R>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Ending { done, next } = ending;
        let run = self.ledger.find(id).map_or(1, |entry| entry.run);
        if let Some(invoker) = done.invoker {
            out.push(Output::AcknowledgeInvoker { invoker, id });
        }
        match (next, verdict) {
            (_, Verdict::Ended(outcome)) => {
                self.tell_ended(now, id, (outcome, run), CancelAnswer::Ended, out);
            }
            (Next::Retry { run, not_before }, verdict) => {
                let (run, not_before) = match verdict {
                    // The row has moved on: what it says is what follows.
                    Verdict::Open {
                        run: known,
                        not_before,
                    } if known > run => (known, not_before),
                    _ => (run, Some(not_before)),
                };
                if let Some(entry) = self.ledger.find_mut(id) {
                    (entry.run, entry.refusals) = (run, 0);
                }
                self.enter_line(now, id, not_before, false, out);
            }
            (Next::End { .. }, verdict) => {
                let answer = match done.kind {
                    EndKind::Cancelled => in_line(run),
                    _ => CancelAnswer::Ended,
                };
                let outcome = match verdict {
                    Verdict::Recorded(record) => Outcome::Record(record),
                    _ => done.outcome,
                };
                self.tell_ended(now, id, (outcome, run), answer, out);
            }
        }
    }

    /// The journal has the end of a durable activation: everybody who waits hears it, and it leaves.
    fn tell_ended(
        &mut self,
        now: Instant,
        id: ActivationId,
        (outcome, run): (Outcome<R>, u32),
        answer: CancelAnswer,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.remove(id) else {
            return;
        };
        if let Stage::Journaling {
            found: Some(invoker), ..
        } = entry.stage
        {
            out.push(Output::AcknowledgeInvoker { invoker, id });
        }
        out.extend(entry.waiters.iter().map(|controller| Output::Complete {
            controller,
            id,
            outcome: outcome.clone(),
            run,
        }));
        let answers = entry.asks.into_iter();
        out.extend(answers.map(|ask| Output::CancelAnswered { ask, answer }));
        tracing::trace!(activation = %id, queue = %self.key, "ended");
        self.ledger.note_recorded(now, id, &self.settings);
    }
}
