//! Durable activations of former leaders, as the journal has them, and delays that end.
//!
//! A recovered activation counts like a resubmitted one: an invoker may have it. What invokers have said before the
//! journal was read is joined with it here.

use std::cmp::Reverse;

use whiskraft_types::{ActivationId, ActivationStatus, Instant};

use super::MemoryQueue;
use super::ending::End;
use crate::ledger::{Done, EndKind, Entry, Mark, Stage, Waiters};
use crate::{Output, Recovered};

/// Text for a held back activation whose fate no invoker could tell in time.
const HELD_TOO_LONG: &str =
    "The activation may have started before its queue moved; no invoker could tell in time.";

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_recovered(
        &mut self,
        now: Instant,
        mut activations: Vec<Recovered<P>>,
        out: &mut Vec<Output<P, R>>,
    ) {
        // Of those that are older than this clock can say, the oldest comes first all the same.
        activations.sort_by_key(|recovered| Reverse(recovered.waited));
        for recovered in activations {
            self.recover(now, recovered, out);
        }
        if std::mem::take(&mut self.is_recovering) {
            self.archive_found(out);
        }
        self.pump(now, out);
    }

    fn recover(&mut self, now: Instant, recovered: Recovered<P>, out: &mut Vec<Output<P, R>>) {
        let (id, not_before) = (recovered.id, recovered.not_before);
        if self.ledger.is_recorded(id) {
            return;
        }
        if recovered.cancelled
            && let Some(entry) = self.ledger.find_mut(id)
        {
            (entry.is_cancelled, entry.mark) = (true, Mark::Written);
        }
        match self.ledger.find(id) {
            None => {
                let entry = self.recovered_entry(now, recovered);
                self.recover_new(now, entry, not_before, out);
            }
            Some(known) => match &known.stage {
                Stage::Journaling { .. } | Stage::Ending(_) => {}
                // It is known from an older run only, whose end the journal has.
                Stage::Done(_) if known.run < recovered.run => self.recover_over(now, recovered, out),
                _ => self.recover_known(now, recovered, out),
            },
        }
    }

    /// In place of what is known of an older run.
    fn recover_over(&mut self, now: Instant, recovered: Recovered<P>, out: &mut Vec<Output<P, R>>) {
        let (id, not_before) = (recovered.id, recovered.not_before);
        let known = self.ledger.remove(id);
        let mut entry = self.recovered_entry(now, recovered);
        if let Some(known) = known {
            if let Stage::Done(Done {
                invoker: Some(invoker),
                ..
            }) = known.stage
            {
                out.push(Output::AcknowledgeInvoker { invoker, id });
            }
            (entry.waiters, entry.noted, entry.asks) = (known.waiters, known.noted, known.asks);
        }
        self.recover_new(now, entry, not_before, out);
    }

    /// An invoker has told of it, or a controller.
    fn recover_known(&mut self, now: Instant, recovered: Recovered<P>, out: &mut Vec<Output<P, R>>) {
        let id = recovered.id;
        let ages = (recovered.waited, recovered.ready);
        let ticket = self.ticket_ready_for(now, ages, recovered.id, true);
        if let Some(entry) = self.ledger.find_mut(id) {
            // In a line it has its place already.
            if entry.payload.is_none() {
                entry.ticket = ticket;
            }
            entry.ticket.is_durable = true;
            entry.payload = Some(recovered.payload);
            entry.run = entry.run.max(recovered.run);
        }
        self.end_again(now, id, out);
        if recovered.cancelled {
            self.cancel_again(now, id, out);
        }
    }

    /// The journal says of one that was known here that it ends as cancelled.
    fn cancel_again(&mut self, now: Instant, id: ActivationId, out: &mut Vec<Output<P, R>>) {
        match self.ledger.find(id).map(|entry| &entry.stage) {
            Some(Stage::Waiting | Stage::Delayed(_)) => self.finish(now, id, End::cancelled(None), out),
            Some(Stage::Delivered(at) | Stage::Adopted(at) | Stage::Started(at)) => {
                let at = *at;
                self.stop(now, id, at, out);
            }
            // Its end follows what it waits for.
            Some(Stage::Journaling { .. } | Stage::Held | Stage::Ending(_) | Stage::Done(_)) | None => {}
        }
    }

    fn recover_new(
        &mut self,
        now: Instant,
        entry: Entry<P, R>,
        not_before: Option<Instant>,
        out: &mut Vec<Output<P, R>>,
    ) {
        let id = entry.ticket.id;
        self.ledger.insert(entry);
        self.enter_line(now, id, not_before, true, out);
    }

    /// One that ended here in memory turns out to be durable: the journal hears of it, and another run may follow.
    pub(super) fn end_again(&mut self, now: Instant, id: ActivationId, out: &mut Vec<Output<P, R>>) {
        let Some(Stage::Done(done)) = self.ledger.find(id).map(|entry| &entry.stage) else {
            return;
        };
        let end = End {
            outcome: done.outcome.clone(),
            kind: done.kind,
            invoker: done.invoker,
        };
        self.ledger.change(id, Stage::Held);
        if let Some(entry) = self.ledger.find_mut(id) {
            entry.ticket.is_durable = true;
        }
        self.finish(now, id, end, out);
    }

    /// What invokers have told of and the journal does not have was not durable.
    fn archive_found(&self, out: &mut Vec<Output<P, R>>) {
        if !self.settings.archive {
            return;
        }
        for id in self.ledger.ids_where(|stage| matches!(stage, Stage::Done(_))) {
            if let Some(entry) = self.ledger.find(id).filter(|entry| entry.payload.is_none())
                && let Stage::Done(done) = &entry.stage
            {
                out.push(Output::Archive {
                    id,
                    outcome: done.outcome.clone(),
                    run: entry.run,
                });
            }
        }
    }

    /// Delays that are over.
    pub(super) fn begin_due(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        while let Some(id) = self.ledger.due(now) {
            // By the clock of a former leader its time may have come before.
            let may_have_begun = !self.expected.is_empty();
            self.enter_line(now, id, None, may_have_begun, out);
        }
    }

    /// Ends what was held back for too long.
    pub(super) fn drop_held(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        if self.held_until().is_none_or(|at| at > now) {
            return;
        }
        let memory = self.retention();
        let is_durable_over = self.held_durable_until() <= now;
        let ids = self.held.ids_where(|ticket| {
            if ticket.is_durable {
                is_durable_over
            } else {
                ticket.accepted_at + memory <= now
            }
        });
        let why = (EndKind::Lost, ActivationStatus::WhiskError, HELD_TOO_LONG);
        self.fail_all(now, ids, why, out);
    }

    /// When the first of those that are held back has been so for too long.
    pub(super) fn held_until(&self) -> Option<Instant> {
        let memory = self.held.oldest_in_memory().map(|at| at + self.retention());
        let durable = self.held.has_durable().then(|| self.held_durable_until());
        memory.into_iter().chain(durable).min()
    }

    fn held_durable_until(&self) -> Instant {
        self.taken_over_at + self.settings.retention_durable
    }

    fn recovered_entry(&mut self, now: Instant, recovered: Recovered<P>) -> Entry<P, R> {
        let ages = (recovered.waited, recovered.ready);
        let ticket = self.ticket_ready_for(now, ages, recovered.id, true);
        let (waiters, payload) = (Waiters::default(), Some(recovered.payload));
        // Its line is chosen next.
        let entry = Entry::new(now, Stage::Held, waiters, payload, ticket, 1);
        let mut entry = entry.in_run(recovered.run.max(1));
        if recovered.cancelled {
            (entry.is_cancelled, entry.mark) = (true, Mark::Written);
        }
        entry
    }
}
