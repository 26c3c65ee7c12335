//! How runs end, and what follows: with the record of the run or with a text that says why there is none; with an answer
//! to everybody who waits, or with another run.
//!
//! Of a durable activation the journal hears it first, and its container is free meanwhile. The first outcome is the one
//! that counts. Cancelled ones end as cancelled whatever their run came to: their callers were told so.

use std::time::Duration;

use whiskraft_types::{ActivationId, ActivationStatus, ContainerId, Instant, InvokerId};

use super::MemoryQueue;
use super::retry::{Follow, follow};
use crate::ledger::{Done, EndKind, Ending, Next, Stage, Waiters};
use crate::{JournalEntry, Outcome, Output, RunEnd};

/// The end of a run.
#[derive(Debug, Clone)]
pub(super) struct End<R> {
    /// How.
    pub(super) outcome: Outcome<R>,
    /// Whether another run may follow.
    pub(super) kind: EndKind,
    /// Who keeps the record for us.
    pub(super) invoker: Option<InvokerId>,
}

impl<R> End<R> {
    /// It ran; an invoker has the record.
    pub(super) const fn record(record: R, end: RunEnd, invoker: InvokerId) -> Self {
        Self {
            outcome: Outcome::Record(record),
            kind: match end {
                RunEnd::Success => EndKind::Success,
                RunEnd::Cancelled => EndKind::Cancelled,
                RunEnd::Failed => EndKind::Failed,
            },
            invoker: Some(invoker),
        }
    }

    /// It did not run, or nobody can say.
    pub(super) const fn failure(kind: EndKind, status: ActivationStatus, text: String) -> Self {
        Self {
            outcome: Outcome::Failure { status, text },
            kind,
            invoker: None,
        }
    }

    /// What becomes of it if the activation is cancelled: that, and the record of a stopped run says so itself.
    pub(super) fn of(self, is_cancelled: bool) -> Self {
        if is_cancelled && self.kind != EndKind::Cancelled {
            Self::cancelled(self.invoker)
        } else {
            self
        }
    }

    /// Its caller cancelled it.
    pub(super) const fn cancelled(invoker: Option<InvokerId>) -> Self {
        Self {
            outcome: Outcome::Cancelled,
            kind: EndKind::Cancelled,
            invoker,
        }
    }
}

/// What the last word on an activation needs of its entry, which is looked up once.
struct Told {
    waiters: Waiters,
    /// Whether somebody has submitted it here.
    is_known: bool,
    is_called: bool,
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// Ends a run, and the activation unless another run follows.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        id: ActivationId,
        end: End<R>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if matches!(
            entry.stage,
            Stage::Journaling { .. } | Stage::Ending(_) | Stage::Done(_)
        ) {
            return;
        }
        let is_in_line = entry.stage.container().is_none() && end.invoker.is_none();
        if is_in_line {
            entry.sent_at = now;
        }
        entry.may_have_begun = !is_in_line || end.kind == EndKind::Lost;
        let end = end.of(entry.is_cancelled);
        let (is_durable, run) = (entry.is_durable(), entry.run);
        let told = Told {
            // No memory is asked for but where several wait.
            waiters: entry.waiters.clone(),
            is_known: entry.payload.is_some(),
            is_called: entry.is_called(),
        };
        let follow = follow(now, &self.action, entry, end.kind);
        let done = Done {
            outcome: end.outcome,
            kind: end.kind,
            invoker: end.invoker,
            at: now,
        };
        match follow {
            Follow::Again => self.run_again(now, id, out),
            Follow::Next(next) if is_durable => self.journal_end(id, run, Ending { done, next }, out),
            Follow::Next(_) => self.complete(id, run, told, done, out),
        }
    }

    /// Takes an activation out of its line or its container, into another stage.
    pub(super) fn move_to(&mut self, id: ActivationId, stage: Stage<R>, out: &mut Vec<Output<P, R>>) {
        let Some((before, ticket)) = self.ledger.change(id, stage) else {
            return;
        };
        match before {
            Stage::Held => self.held.remove(&ticket),
            Stage::Waiting => self.waiting.remove(&ticket),
            Stage::Delivered(container) | Stage::Adopted(container) | Stage::Started(container) => {
                if self.containers.settle(container) {
                    out.push(Output::RemoveContainer { container });
                }
            }
            Stage::Journaling { .. } | Stage::Delayed(_) | Stage::Ending(_) | Stage::Done(_) => {}
        }
    }

    /// The journal hears of the end of a run, and of what follows, before anybody else.
    fn journal_end(&mut self, id: ActivationId, run: u32, ending: Ending<R>, out: &mut Vec<Output<P, R>>) {
        let entry = match ending.next {
            Next::Retry { run, not_before } => JournalEntry::Retry { run, not_before },
            Next::End { dead_letter } => JournalEntry::End {
                outcome: ending.done.outcome.clone(),
                run,
                dead_letter,
            },
        };
        if matches!(ending.next, Next::End { .. }) {
            self.ledger.end_call(id);
        }
        self.move_to(id, Stage::Ending(ending), out);
        out.push(Output::Journal { id, entry });
    }

    /// An activation in memory ends: every controller that waits for it hears the outcome.
    fn complete(
        &mut self,
        id: ActivationId,
        run: u32,
        told: Told,
        done: Done<R>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let outcome = done.outcome.clone();
        self.move_to(id, Stage::Done(done), out);
        if told.is_called {
            self.ledger.end_call(id);
        }
        for controller in told.waiters.iter() {
            out.push(Output::Complete {
                controller,
                id,
                outcome: outcome.clone(),
                run,
            });
        }
        tracing::trace!(activation = %id, queue = %self.key, "ended");
        // One that nobody has submitted here may be durable: that is known once the journal has been read.
        if self.settings.archive && (told.is_known || !self.is_recovering) {
            out.push(Output::Archive { id, outcome, run });
        }
        self.ledger.evict(&self.settings);
    }

    /// Ends a run that did not begin, or of which nobody can say. A fenced queue only notes it.
    pub(super) fn fail(&mut self, now: Instant, id: ActivationId, end: End<R>, out: &mut Vec<Output<P, R>>) {
        if self.is_fenced {
            self.deferred.push((id, end));
        } else {
            self.finish(now, id, end, out);
        }
    }

    /// The same for several, with one reason.
    pub(super) fn fail_all(
        &mut self,
        now: Instant,
        ids: Vec<ActivationId>,
        why: (EndKind, ActivationStatus, &str),
        out: &mut Vec<Output<P, R>>,
    ) {
        let (kind, status, text) = why;
        ids.into_iter()
            .for_each(|id| self.fail(now, id, End::failure(kind, status, text.to_owned()), out));
    }

    /// Nobody can say what became of these, unless another container has them.
    pub(super) fn lose(
        &mut self,
        now: Instant,
        mut ids: Vec<ActivationId>,
        text: &str,
        out: &mut Vec<Output<P, R>>,
    ) {
        ids.retain(|id| !self.outlives(now, *id, out));
        self.fail_all(now, ids, (EndKind::Lost, ActivationStatus::WhiskError, text), out);
    }
}

/// Tells invokers what they may forget.
pub(super) fn acknowledge_to<P, R>(out: &mut Vec<Output<P, R>>) -> impl FnMut(InvokerId, ActivationId) {
    |invoker, id| out.push(Output::AcknowledgeInvoker { invoker, id })
}

/// Text for an activation that nobody can tell about any more.
pub(super) fn lost_text(invoker: InvokerId) -> String {
    format!("The activation may have started on invoker {invoker}, which was lost.")
}

/// Text for one that its invoker had and does not have any more.
pub(super) fn mislaid_text(invoker: InvokerId) -> String {
    format!("The activation may have started on invoker {invoker}, which has lost it.")
}

/// Text for one whose container went without a word about it.
pub(super) fn container_text(container: ContainerId) -> String {
    format!("The activation may have started in container {container}, which was removed.")
}

/// Text for one whose invoker lives and says nothing about it.
pub(super) fn unanswered_text(invoker: Option<InvokerId>, bound: Duration) -> String {
    let on = invoker.map_or_else(String::new, |invoker| format!(" {invoker}"));
    format!(
        "The activation may have started; its invoker{on} did not answer within {} ms.",
        bound.as_millis()
    )
}
