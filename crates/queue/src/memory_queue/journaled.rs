//! What the journal answers: the acceptance of a durable activation, and the ends of its runs.
//!
//! Nothing is said to anybody before the journal has it. A fenced queue keeps the answers until it may act again: another
//! leader may have read the journal meanwhile, and then this one never speaks.

use whiskraft_types::{ActivationId, Instant, Rejection};

use super::MemoryQueue;
use super::cancel::in_line;
use super::ending::{End, container_text};
use super::noted::Elsewhere;
use super::submit::unavailable;
use crate::ledger::{EndKind, Ending, Found, Next, Stage};
use crate::{CancelAnswer, Outcome, Output, Verdict};

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
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
        match self.ledger.find_mut(id).map(|entry| &mut entry.stage) {
            Some(Stage::Journaling { not_before, found }) => {
                let (not_before, found) = (*not_before, found.take());
                self.on_acceptance(now, id, (not_before, found), verdict, out);
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
        (not_before, found): (Option<Instant>, Option<Box<Found<R>>>),
        verdict: Verdict<R>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let (rejection, answer) = match verdict {
            Verdict::Written | Verdict::Recorded(_) => {
                self.tell_accepted(id, out);
                return self.enter_accepted(now, id, not_before, false, found, out);
            }
            // What ended here runs again for no copy of the journal that is behind.
            Verdict::Open { .. } if self.has_ended(id) => {
                let reason =
                    format!("the journal does not show yet that activation {id} has ended; try again");
                (unavailable(&reason), CancelAnswer::Ended)
            }
            Verdict::Open { run, not_before } => {
                self.tell_accepted(id, out);
                if let Some(entry) = self.ledger.find_mut(id) {
                    entry.run = run.max(1);
                }
                // Once all of former leaders is here, a row that this queue does not know is of this leadership: it was written
                // without an answer, and nobody has sent it anywhere.
                let may_have_begun = self.is_recovering;
                return self.enter_accepted(now, id, not_before, may_have_begun, found, out);
            }
            Verdict::Ended(outcome) => {
                self.tell_accepted(id, out);
                out.extend(found.map(|found| acknowledge(&found)));
                return self.tell_ended(now, id, (outcome, 1), CancelAnswer::Ended, out);
            }
            Verdict::Expired => {
                self.ledger.note_recorded(now, id, &self.settings);
                let reason = format!("activation {id} has ended and its record has expired");
                (Rejection::Invalid { reason }, CancelAnswer::Ended)
            }
            Verdict::Conflict => (Rejection::Conflict, CancelAnswer::Unknown),
            Verdict::Refused(rejection) => (rejection, CancelAnswer::Unknown),
            Verdict::Unknown => {
                let rejection = unavailable(
                    "the journal did not answer: the activation may have been taken; submit it again under the same id",
                );
                (rejection, CancelAnswer::Unavailable)
            }
        };
        self.reject_all(now, id, &rejection, answer, found, out);
    }

    fn has_ended(&self, id: ActivationId) -> bool {
        self.ledger.is_recorded(id) || self.ledger.is_settled(id)
    }

    /// What the journal has goes on: with the record of its run, where an invoker says that it is, or in its line.
    fn enter_accepted(
        &mut self,
        now: Instant,
        id: ActivationId,
        not_before: Option<Instant>,
        may_have_begun: bool,
        found: Option<Box<Found<R>>>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.find(id) else {
            return;
        };
        let may_have_begun = may_have_begun || found.is_some() || !entry.noted.is_empty();
        match found.map(|found| *found) {
            Some(Found { invoker, kept }) if kept.run >= entry.run => {
                self.ledger.change(id, Stage::Held);
                self.on_record(now, invoker, kept, out);
            }
            older => {
                out.extend(older.map(|found| acknowledge(&found)));
                self.enter_line(now, id, not_before, may_have_begun, out);
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

    /// Nobody gets it: it was not accepted. What invokers have said of it stays known.
    fn reject_all(
        &mut self,
        now: Instant,
        id: ActivationId,
        rejection: &Rejection,
        answer: CancelAnswer,
        found: Option<Box<Found<R>>>,
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
        let noted = entry.noted.iter().copied();
        let there = noted.filter(|at| self.containers.find(*at).is_some());
        for container in there.collect::<Vec<_>>() {
            self.adopt(now, container, id, out);
        }
        // What runs is later than what has a record, which is offered again.
        if let Some(found) = found.filter(|_| self.ledger.find(id).is_none()) {
            self.on_record(now, found.invoker, found.kept, out);
        }
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
        if may_have_begun && self.enter_elsewhere(now, id, out) {
            return;
        }
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

    /// One that a container has, or had, waits in no line.
    fn enter_elsewhere(&mut self, now: Instant, id: ActivationId, out: &mut Vec<Output<P, R>>) -> bool {
        match self.pass_on(now, id, out) {
            Elsewhere::Nowhere => false,
            Elsewhere::There => true,
            Elsewhere::Gone(container) => {
                self.ledger.change(id, Stage::Held);
                self.lose(now, vec![id], &container_text(container), out);
                true
            }
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
        let entry = self.ledger.find(id);
        let (run, may_have_begun) = entry.map_or((1, true), |entry| (entry.run, entry.may_have_begun));
        if let Some(invoker) = done.invoker {
            out.push(Output::AcknowledgeInvoker { invoker, id });
        }
        match (next, verdict) {
            (_, Verdict::Ended(outcome)) => {
                self.tell_ended(now, id, (outcome, run), CancelAnswer::Ended, out);
            }
            // The row has moved on: what it says is what follows.
            (
                next,
                Verdict::Open {
                    run: known,
                    not_before,
                },
            ) if known > next.run(run) => {
                self.begin_run(now, id, (known, not_before), true, out);
            }
            (Next::Retry { run, not_before }, _) => {
                self.begin_run(now, id, (run, Some(not_before)), false, out);
            }
            (Next::End { .. }, verdict) => {
                let answer = match done.kind {
                    EndKind::Cancelled if may_have_begun => CancelAnswer::Stopping,
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

    /// The journal has another run of it.
    fn begin_run(
        &mut self,
        now: Instant,
        id: ActivationId,
        (run, not_before): (u32, Option<Instant>),
        may_have_begun: bool,
        out: &mut Vec<Output<P, R>>,
    ) {
        if let Some(entry) = self.ledger.find_mut(id) {
            (entry.run, entry.refusals) = (run, 0);
            if !may_have_begun {
                // What others have is an older one.
                entry.noted.clear();
            }
        }
        self.enter_line(now, id, not_before, may_have_begun, out);
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

/// Its invoker may forget it.
const fn acknowledge<P, R>(found: &Found<R>) -> Output<P, R> {
    Output::AcknowledgeInvoker {
        invoker: found.invoker,
        id: found.kept.id,
    }
}
