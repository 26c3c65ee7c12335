//! Following another leader, and invokers that come and go.
//!
//! The promise kept here: while invokers live, an activation starts once, whichever leader delivered it. What an
//! invoker reports is adopted; what it does not report was not started; what only a lost invoker could have said ends
//! as possibly started.

use std::collections::BTreeSet;

use whiskraft_types::{ActivationId, ContainerId, Instant, InvokerId};

use super::MemoryQueue;
use super::ending::{End, lost_text, mislaid_text};
use super::noted::note;
use crate::containers::Asker;
use crate::ledger::Stage;
use crate::{KnownContainer, Output, RegisteredContainer, Unacknowledged};

/// What a `Register` says anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All that the invoker has: the stream before it is gone, and what it does not report is not there.
    Everything,
    /// The containers that a former leader left. Those of this leadership may have asked, and got, in the meantime.
    Inherited,
    /// No asks and no losses: on a stream in use, frames may have crossed it.
    Nothing,
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_takeover(
        &mut self,
        now: Instant,
        expected: Vec<InvokerId>,
        lost: Vec<InvokerId>,
        containers: Vec<KnownContainer>,
        out: &mut Vec<Output<P, R>>,
    ) {
        // The former leader has asked for the first container long ago; moving a queue is no reason for another.
        self.initialized = true;
        self.decide_at = None;
        self.taken_over_at = now;
        let until = now + self.settings.lost_keep;
        self.lost = lost.first().map(|invoker| (*invoker, until));
        self.expected.extend(expected);
        for KnownContainer {
            container,
            invoker,
            revision,
            running,
        } in containers
        {
            self.containers.inherit(container, invoker, revision, running);
        }
        self.retire(out);
        if !self.expected.is_empty() {
            self.scale_after = Some(now + self.settings.takeover_wait_max);
            tracing::debug!(queue = %self.key, epoch = %self.epoch, invokers = self.expected.len(),
                "leadership follows another one; waiting for invokers to register");
        }
    }

    pub(super) fn on_register(
        &mut self,
        now: Instant,
        invoker: InvokerId,
        containers: Vec<RegisteredContainer>,
        unacknowledged: Vec<Unacknowledged<R>>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let scope = if self.disconnected.remove(&invoker) {
            self.containers.withdraw_all(invoker);
            Scope::Everything
        } else if self.expected.contains(&invoker) {
            Scope::Inherited
        } else {
            Scope::Nothing
        };
        self.expected.remove(&invoker);
        for kept in unacknowledged {
            self.on_record(now, invoker, kept, out);
        }
        let mut reported = BTreeSet::new();
        for registered in containers {
            reported.extend(registered.in_flight.iter().copied());
            self.register_container(now, invoker, registered, scope, out);
        }
        if scope != Scope::Nothing {
            self.drop_unreported(now, invoker, scope, &reported, out);
        }
        self.retire(out);
        self.try_release(now, out);
        self.pump(now, out);
    }

    fn register_container(
        &mut self,
        now: Instant,
        invoker: InvokerId,
        registered: RegisteredContainer,
        scope: Scope,
        out: &mut Vec<Output<P, R>>,
    ) {
        let RegisteredContainer {
            container,
            revision,
            in_flight,
            credits,
            warmed,
        } = registered;
        let known = self.containers.find(container).map(|known| known.is_inherited);
        if known.is_none() {
            // The table has given it up. What runs in it may end, and its invoker will tell.
            self.containers.insert(container, Some(invoker), revision, true);
        }
        self.containers.place(container, invoker, true);
        for id in in_flight {
            self.adopt(now, container, id, out);
        }
        let replaces = match scope {
            Scope::Everything => known.is_some(),
            Scope::Inherited => known == Some(true),
            Scope::Nothing => false,
        };
        if known.is_none() {
            self.containers.leave(container, Some(now));
            out.push(Output::RemoveContainer { container });
        } else if replaces && self.containers.credit(container, invoker, credits, warmed) == Asker::Served {
            self.failure = None;
        }
    }

    /// An invoker has the activation delivered or started.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        container: ContainerId,
        id: ActivationId,
        out: &mut Vec<Output<P, R>>,
    ) {
        if self.ledger.is_settled(id) || self.ledger.is_recorded(id) {
            return;
        }
        let is_recovering = self.is_recovering;
        let Some(entry) = self.ledger.find_mut(id) else {
            self.adopt_unknown(now, id, 1, Stage::Adopted(container));
            self.containers.adopt(container);
            return self.watch_sent(now);
        };
        match entry.stage {
            Stage::Held | Stage::Waiting | Stage::Delayed(_) => self.settle_in(now, id, container, out),
            Stage::Delivered(at) | Stage::Adopted(at) | Stage::Started(at) if at != container => {
                if entry.is_adopted || entry.is_imported {
                    note(entry, container);
                }
            }
            Stage::Delivered(at) | Stage::Adopted(at) | Stage::Started(at) => {
                if std::mem::take(&mut entry.is_imported) && matches!(entry.stage, Stage::Delivered(_)) {
                    // That it starts may have been told to the former leader after its export.
                    entry.stage = Stage::Adopted(at);
                }
                // The stream on which it was told is gone.
                if entry.is_cancelled {
                    self.stop(now, id, at, out);
                }
            }
            // The journal says whether what it has is the run under way.
            Stage::Journaling { .. } | Stage::Ending(_) => note(entry, container),
            Stage::Done(_) if is_recovering && entry.payload.is_none() => note(entry, container),
            Stage::Done(_) => {}
        }
    }

    /// Settles what we thought the invoker had and it does not report: a delivery got lost on the way, a started one
    /// went with something that the invoker lost. At the first word of an invoker only what a former leader has handed over.
    fn drop_unreported(
        &mut self,
        now: Instant,
        invoker: InvokerId,
        scope: Scope,
        reported: &BTreeSet<ActivationId>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let there: BTreeSet<_> = self.containers.on(invoker).into_iter().collect();
        for id in self
            .ledger
            .ids_where(|stage| stage.container().is_some_and(|at| there.contains(&at)))
        {
            if reported.contains(&id) {
                continue;
            }
            let Some(entry) = self.ledger.find(id) else {
                continue;
            };
            if scope != Scope::Everything && !entry.is_imported {
                continue;
            }
            match entry.stage {
                Stage::Delivered(_) => self.give_back(now, id, out),
                _ => self.lose(now, vec![id], &mislaid_text(invoker), out),
            }
        }
    }

    pub(super) fn on_disconnected(&mut self, invoker: InvokerId) {
        if !self.containers.on(invoker).is_empty() {
            self.disconnected.insert(invoker);
            self.containers.withdraw_all(invoker);
        }
    }

    pub(super) fn on_invoker_gone(&mut self, now: Instant, invoker: InvokerId, out: &mut Vec<Output<P, R>>) {
        self.disconnected.remove(&invoker);
        // What is lost may run again, and not there.
        if !self.containers.is_empty() {
            self.containers.withdraw_all(invoker);
        }
        if self.expected.remove(&invoker) {
            // It did not say what it had, and never will.
            self.lost = Some((invoker, now + self.settings.lost_keep));
        }
        let gone: BTreeSet<_> = self.containers.on(invoker).into_iter().collect();
        let ids = self
            .ledger
            .ids_where(|stage| stage.container().is_some_and(|at| gone.contains(&at)));
        if !ids.is_empty() {
            tracing::warn!(queue = %self.key, %invoker, activations = ids.len(), "invoker lost with activations");
        }
        self.lose(now, ids, &lost_text(invoker), out);
        for container in gone {
            self.containers.remove(container);
        }
        self.try_release(now, out);
        self.decide_soon(now);
    }

    /// Ends the hold-back once nobody is expected any more.
    pub(super) fn try_release(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        if !self.expected.is_empty() || self.is_fenced {
            return;
        }
        if self.scale_after.take().is_some() {
            self.decide_soon(now);
        }
        if let Some(invoker) = self.lost(now) {
            let ids = self.held.ids_where(|_| true);
            return self.lose(now, ids, &lost_text(invoker), out);
        }
        while !self.held.is_empty()
            && let Some(ticket) = self.held.pop()
        {
            self.ledger.change(ticket.id, Stage::Waiting);
            if self
                .ledger
                .find(ticket.id)
                .is_some_and(|entry| entry.is_cancelled)
            {
                self.finish(now, ticket.id, End::cancelled(None), out);
                continue;
            }
            self.waiting.insert(ticket);
            self.decide_for(now, &ticket);
        }
        self.pump(now, out);
    }
}
