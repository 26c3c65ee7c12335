//! One activation in several containers, as invokers tell a leader that follows another one.
//!
//! An invoker says what it has without a run, so two may say the same id: one has the run under way, the other an older one
//! whose leader had given it up. The first that is heard of counts; the others are noted. Before the activation begins
//! anew, or ends as lost, its place goes to one of those. What was noted and is gone may have begun there.

use whiskraft_types::{ActivationId, ContainerId, Instant, InvokerId};

use super::MemoryQueue;
use super::ending::container_text;
use crate::Output;
use crate::ledger::{Entry, Stage};

/// Who else has an activation.
pub(super) enum Elsewhere {
    /// Nobody.
    Nowhere,
    /// Only containers that are gone, this one among them.
    Gone(ContainerId),
    /// It is there from now on.
    There,
}

/// Notes that this container has it too.
pub(super) fn note<P, R>(entry: &mut Entry<P, R>, container: ContainerId) {
    if !entry.noted.contains(&container) {
        entry.noted.push(container);
    }
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// Gives the activation to the container that was noted first and is still there.
    pub(super) fn pass_on(
        &mut self,
        now: Instant,
        id: ActivationId,
        out: &mut Vec<Output<P, R>>,
    ) -> Elsewhere {
        let noted = match self.ledger.find_mut(id) {
            Some(entry) => std::mem::take(&mut entry.noted),
            None => return Elsewhere::Nowhere,
        };
        let Some(first) = noted.first().copied() else {
            return Elsewhere::Nowhere;
        };
        let (mut there, gone): (Vec<_>, Vec<_>) = noted
            .into_iter()
            .partition(|at| self.containers.find(*at).is_some());
        if there.is_empty() {
            return Elsewhere::Gone(first);
        }
        let next = there.remove(0);
        if let Some(entry) = self.ledger.find_mut(id) {
            // One that is gone may have begun it.
            entry.is_doubtful |= !gone.is_empty();
            entry.noted = there;
        }
        self.settle_in(now, id, next, out);
        Elsewhere::There
    }

    /// An invoker has it in this container, delivered or started, and has not said which run that is.
    pub(super) fn settle_in(
        &mut self,
        now: Instant,
        id: ActivationId,
        container: ContainerId,
        out: &mut Vec<Output<P, R>>,
    ) {
        self.move_to(id, Stage::Adopted(container), out);
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        let (is_doubtful, noted) = (entry.is_doubtful, std::mem::take(&mut entry.noted));
        entry.send(now, Stage::Adopted(container));
        (entry.is_adopted, entry.is_doubtful, entry.noted) = (true, is_doubtful, noted);
        let is_cancelled = entry.is_cancelled;
        self.containers.adopt(container);
        self.watch_sent(now);
        if is_cancelled {
            self.stop(now, id, container, out);
        }
    }

    /// A run that may have begun where it is lost: whether the activation goes on elsewhere all the same.
    pub(super) fn outlives(&mut self, now: Instant, id: ActivationId, out: &mut Vec<Output<P, R>>) -> bool {
        let is_noted = |entry: &Entry<P, R>| entry.stage.container().is_some() && !entry.noted.is_empty();
        if !self.ledger.find(id).is_some_and(is_noted)
            || !matches!(self.pass_on(now, id, out), Elsewhere::There)
        {
            return false;
        }
        if let Some(entry) = self.ledger.find_mut(id) {
            entry.is_doubtful = true;
        }
        true
    }

    /// Nothing goes on elsewhere: whether the activation may have begun in a container that is gone, and ends as lost.
    pub(super) fn lose_doubtful(
        &mut self,
        now: Instant,
        id: ActivationId,
        gone: Option<ContainerId>,
        out: &mut Vec<Output<P, R>>,
    ) -> bool {
        let Some(entry) = self.ledger.find(id) else {
            return false;
        };
        let at = gone.or_else(|| entry.stage.container().filter(|_| entry.is_doubtful));
        let Some(at) = at else { return false };
        self.lose(now, vec![id], &container_text(at), out);
        true
    }

    /// The record of a run has come from this invoker, which has nothing else of the activation. What others have may be
    /// a later run only until the journal has said which is under way.
    pub(super) fn note_record(&mut self, id: ActivationId, invoker: InvokerId, is_end: bool) {
        let is_recovering = self.is_recovering;
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if is_end && !(is_recovering && entry.payload.is_none()) {
            entry.noted.clear();
            return;
        }
        if is_end && let Some(at) = entry.stage.container() {
            note(entry, at);
        }
        let containers = &self.containers;
        entry.noted.retain(|at| {
            containers
                .find(*at)
                .is_none_or(|known| known.invoker != Some(invoker))
        });
    }
}
