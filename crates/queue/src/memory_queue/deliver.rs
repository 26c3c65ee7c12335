//! Hot path: hand-out and outcome. Budget per activation: one look into the ledger per frame, no copy of payload or
//! record but their handles, no lock.

use std::time::Duration;

use whiskraft_types::{ActivationId, ContainerId, Instant, InvokerId};

use super::MemoryQueue;
use super::ending::End;
use super::noted::Elsewhere;
use crate::containers::Asker;
use crate::ledger::{Done, Ending, Entry, Found, Stage, Waiters};
use crate::{Line, Output, Unacknowledged};

/// Pauses of an activation that invokers refuse again and again.
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(100);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(1);

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_credit(
        &mut self,
        now: Instant,
        invoker: InvokerId,
        container: ContainerId,
        count: u32,
        warmed: bool,
        out: &mut Vec<Output<P, R>>,
    ) {
        match self.containers.credit(container, invoker, count, warmed) {
            Asker::Served => {}
            Asker::Ending { is_free: false } => return,
            // Its creation was given up, or the table lost it: it must not hold memory for nothing. One that was told
            // to end and still asks did not hear it.
            Asker::Stranger | Asker::Ending { is_free: true } => return self.end_asker(container, out),
        }
        self.failure = None;
        self.pump(now, out);
    }

    fn end_asker(&self, container: ContainerId, out: &mut Vec<Output<P, R>>) {
        let is_told = |output: &Output<P, R>| matches!(output, Output::RemoveContainer { container: at } if *at == container);
        // The outcome that freed it came with this ask.
        if !out.iter().any(is_told) {
            tracing::debug!(queue = %self.key, %container, "container asks that should end; ending it");
            out.push(Output::RemoveContainer { container });
        }
    }

    pub(super) fn on_withdraw(&mut self, container: ContainerId, out: &mut Vec<Output<P, R>>) {
        self.containers.withdraw(container);
        out.push(Output::WithdrawAck { container });
    }

    pub(super) fn on_started(&mut self, now: Instant, container: ContainerId, id: ActivationId) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        if matches!(entry.stage, Stage::Delivered(at) | Stage::Adopted(at) if at == container) {
            entry.stage = Stage::Started(container);
            (entry.heard_at, entry.is_silence_told) = (now, false);
        }
    }

    /// An invoker has the record of a run; whether that is the end of the run under way.
    pub(super) fn on_record(
        &mut self,
        now: Instant,
        invoker: InvokerId,
        kept: Unacknowledged<R>,
        out: &mut Vec<Output<P, R>>,
    ) -> bool {
        let Unacknowledged { id, run, end, record } = kept;
        let run = run.max(1);
        let entry = self.ledger.find(id);
        // Else nothing is noted of it, nor will be.
        let has_notes = self.is_recovering || entry.is_some_and(|entry| !entry.noted.is_empty());
        let is_kept_for_us = match entry.map(|entry| (&entry.stage, entry.run)) {
            Some((Stage::Done(_), current)) if run > current && self.is_unread(id) => {
                self.end_later(id, run, out);
                None
            }
            // Offered again while its controllers, or the journal, have not confirmed it: the invoker must go on keeping it.
            Some((Stage::Done(done) | Stage::Ending(Ending { done, .. }), _)) => {
                let is_same = done.invoker == Some(invoker);
                self.note_record(id, invoker, false);
                Some(is_same)
            }
            Some((Stage::Journaling { .. }, _)) => {
                let kept = Unacknowledged { id, run, end, record };
                self.note_record(id, invoker, false);
                self.note_found(Found { invoker, kept }, out);
                return false;
            }
            Some((_, current)) if run < current => {
                // In this order: the ack is for the old run, and must not meet a later one there.
                out.push(Output::AcknowledgeInvoker { invoker, id });
                self.note_record(id, invoker, false);
                self.on_old_record(now, invoker, id, out);
                Some(true)
            }
            Some((_, current)) => {
                // What an invoker said it has, it said without a run.
                if run > current
                    && let Some(entry) = self.ledger.find_mut(id)
                {
                    entry.run = run;
                }
                None
            }
            None if self.ledger.is_settled(id) || self.ledger.is_recorded(id) => Some(false),
            // It ran under a former leader; its controller will ask.
            None => {
                self.adopt_unknown(now, id, run, Stage::Held);
                None
            }
        };
        match is_kept_for_us {
            None => {
                if has_notes {
                    self.note_record(id, invoker, true);
                }
                self.finish(now, id, End::record(record, end, invoker), out);
            }
            Some(false) => out.push(Output::AcknowledgeInvoker { invoker, id }),
            Some(true) => {}
        }
        is_kept_for_us.is_none()
    }

    /// Whether only invokers have told of it, and the journal has still to say what it has.
    pub(super) fn is_unread(&self, id: ActivationId) -> bool {
        self.is_recovering && self.ledger.find(id).is_some_and(|entry| entry.payload.is_none())
    }

    /// The run that ended last is a later one than was known.
    fn end_later(&mut self, id: ActivationId, run: u32, out: &mut Vec<Output<P, R>>) {
        let before = self.ledger.change(id, Stage::Held);
        if let Some((Stage::Done(Done { invoker, .. }), _)) = before {
            out.extend(invoker.map(|invoker| Output::AcknowledgeInvoker { invoker, id }));
        }
        if let Some(entry) = self.ledger.find_mut(id) {
            entry.run = run;
        }
    }

    /// An invoker has a record of what the journal is asked about. Of an older run than another one it is only acknowledged.
    fn note_found(&mut self, new: Found<R>, out: &mut Vec<Output<P, R>>) {
        let (id, mut older) = (new.kept.id, None);
        if let Some(entry) = self.ledger.find_mut(id)
            && let Stage::Journaling { found, .. } = &mut entry.stage
        {
            let is_latest = found.as_ref().is_none_or(|known| known.kept.run <= new.kept.run);
            let new = Box::new(new);
            older = if is_latest { found.replace(new) } else { Some(new) };
            let latest = found.as_ref().map(|known| known.invoker);
            older = older.filter(|older| Some(older.invoker) != latest);
        }
        out.extend(older.map(|older| Output::AcknowledgeInvoker {
            invoker: older.invoker,
            id,
        }));
    }

    /// The record of a run that is not the one under way. If the invoker was thought to have the activation, as it said
    /// without a run, it had that older run: the one under way has not begun.
    fn on_old_record(
        &mut self,
        now: Instant,
        invoker: InvokerId,
        id: ActivationId,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.find(id).filter(|entry| entry.is_adopted) else {
            return;
        };
        let Some(container) = entry.stage.container() else {
            return;
        };
        let is_there = self
            .containers
            .find(container)
            .is_some_and(|known| known.invoker == Some(invoker));
        if is_there {
            self.give_back(now, id, out);
            self.pump(now, out);
        }
    }

    /// Enters an activation that only an invoker has told of.
    pub(super) fn adopt_unknown(&mut self, now: Instant, id: ActivationId, run: u32, stage: Stage<R>) {
        let ticket = self.next_ticket(now, Duration::ZERO, id, false);
        let is_adopted = matches!(stage, Stage::Adopted(_));
        let mut entry = Entry::new(now, stage, Waiters::default(), None, ticket, 1).in_run(run);
        entry.is_adopted = is_adopted;
        self.ledger.insert(entry);
    }

    pub(super) fn on_refused(
        &mut self,
        now: Instant,
        container: ContainerId,
        id: ActivationId,
        out: &mut Vec<Output<P, R>>,
    ) {
        let Some(entry) = self.ledger.find_mut(id) else {
            return;
        };
        entry.noted.retain(|at| *at != container);
        match entry.stage {
            Stage::Delivered(at) | Stage::Adopted(at) if at == container => {}
            Stage::Started(at) if at == container => {
                // Contradicts itself: what was started is not run again.
                let text = "The invoker gave the activation back after its start.".to_owned();
                return self.lose(now, vec![id], &text, out);
            }
            Stage::Delivered(_) | Stage::Adopted(_) | Stage::Started(_) => return,
            Stage::Journaling { .. } | Stage::Held | Stage::Waiting | Stage::Delayed(_) => return,
            Stage::Ending(_) | Stage::Done(_) => return,
        }
        entry.refusals = entry.refusals.saturating_add(1);
        let pause = refusal_pause(entry.refusals, self.settings.refusals_free);
        self.give_back(now, id, out);
        if let Some(pause) = pause
            && let Some(entry) = self.ledger.find(id)
            && matches!(entry.stage, Stage::Waiting)
        {
            // Its place is kept; how long it may wait counts on.
            self.move_to(id, Stage::Delayed(now + pause), out);
        }
        self.pump(now, out);
    }

    /// A delivered activation that was not started gets its place back, unless it was cancelled, or another container has
    /// it, or had it.
    pub(super) fn give_back(&mut self, now: Instant, id: ActivationId, out: &mut Vec<Output<P, R>>) {
        let gone = match self.pass_on(now, id, out) {
            Elsewhere::There => return,
            Elsewhere::Gone(container) => Some(container),
            Elsewhere::Nowhere => None,
        };
        if self.lose_doubtful(now, id, gone, out) {
            return;
        }
        let Some(entry) = self.ledger.find(id) else {
            return;
        };
        if entry.is_cancelled {
            return self.fail(now, id, End::cancelled(None), out);
        }
        let (ticket, is_known) = (entry.ticket, entry.payload.is_some());
        self.move_to(id, Stage::Waiting, out);
        if !is_known {
            // Nobody has submitted it to us yet; whoever does will find it new.
            self.ledger.remove(id);
            return;
        }
        self.waiting.insert(ticket);
        self.decide_for(now, &ticket);
    }

    /// Gives waiting activations to containers that ask, until one of both runs out.
    pub(super) fn pump(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        while self.may_hand_out() && self.containers.has_ready() {
            if self.waiting.is_empty() {
                return;
            }
            let place = self.settings.order.next(Line(&self.waiting));
            let Some(ticket) = self.waiting.take(place) else {
                return;
            };
            let Some(entry) = self.ledger.find_mut(ticket.id) else {
                continue;
            };
            let Some(payload) = entry.payload.clone() else {
                continue;
            };
            let Some((container, invoker)) = self.containers.take_ready() else {
                return;
            };
            entry.send(now, Stage::Delivered(container));
            let (id, attempt, run) = (ticket.id, entry.attempt, entry.run);
            let waited = now.saturating_since(ticket.accepted_at);
            tracing::trace!(activation = %id, %container, "delivered");
            out.push(Output::Deliver {
                invoker,
                container,
                id,
                attempt,
                run,
                waited,
                payload,
            });
            self.starved = None;
            self.watch_sent(now);
        }
    }
}

/// Pause before an activation that was refused so often is handed out again: none at first, then longer each time. That it was
/// refused proves that it has not begun, so it ends by its age and never for this.
fn refusal_pause(refusals: u8, free: u8) -> Option<Duration> {
    let doublings = refusals.checked_sub(free)?.checked_sub(1)?;
    let pause = REFUSED_PAUSE_MIN.saturating_mul(1 << doublings.min(10));
    Some(pause.min(REFUSED_PAUSE_MAX))
}
