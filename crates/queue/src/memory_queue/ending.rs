//! How activations end: with the record of their run, or with a text that says why there is none.

use std::time::Duration;

use whiskraft_types::{ActivationId, ActivationStatus, ContainerId, Instant, InvokerId};

use super::MemoryQueue;
use crate::ledger::{Done, Stage};
use crate::{Outcome, Output};

impl<P: Clone + PartialEq, R: Clone> MemoryQueue<P, R> {
    /// Ends an activation: every controller that waits for it hears the outcome. The first outcome is the one that
    /// counts.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        id: ActivationId,
        outcome: Outcome<R>,
        invoker: Option<InvokerId>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if matches!(entry.stage, Stage::Held | Stage::Waiting) {
            entry.sent_at = now;
        }
        let done = Stage::Done(Done {
            outcome: outcome.clone(),
            invoker,
            at: now,
        });
        match std::mem::replace(&mut entry.stage, done) {
            Stage::Held => self.held.remove(&entry.ticket),
            Stage::Waiting => self.waiting.remove(&entry.ticket),
            Stage::Delivered(container) | Stage::Adopted(container) | Stage::Started(container) => {
                if self.containers.settle(container) {
                    out.push(Output::RemoveContainer { container });
                }
            }
            ended @ Stage::Done(_) => {
                entry.stage = ended;
                return;
            }
        }
        let was_called = entry.end_call();
        for controller in entry.waiters.iter() {
            out.push(Output::Complete {
                controller,
                id,
                outcome: outcome.clone(),
                run: 1,
            });
        }
        tracing::trace!(activation = %id, queue = %self.key, "ended");
        self.ledger.note_done(id, now, was_called);
        self.ledger.evict(&self.settings);
    }

    /// Ends an activation that did not run, or of which nobody can say. A fenced queue only notes it.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        id: ActivationId,
        status: ActivationStatus,
        text: String,
        out: &mut Vec<Output<P, R>>,
    ) {
        let outcome = Outcome::Failure { status, text };
        if self.is_fenced {
            self.deferred.push((id, outcome));
        } else {
            self.finish(now, id, outcome, None, out);
        }
    }

    pub(super) fn fail_all(
        &mut self,
        now: Instant,
        ids: Vec<ActivationId>,
        status: ActivationStatus,
        text: &str,
        out: &mut Vec<Output<P, R>>,
    ) {
        ids.into_iter()
            .for_each(|id| self.fail(now, id, status, text.to_owned(), out));
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
