//! Hand-off: the ledger of a queue that moves, out of the old leader and into the new one.
//!
//! The old leader delivers nothing from the moment it drains, so its ledger says exactly who has what: what waits there may
//! be delivered by the new leader at once. What is in flight counts as such at its container until its invoker registers.
//! Acceptances on their way to the journal stay behind: their controllers ask again, and the journal answers.

use std::collections::BTreeMap;

use whiskraft_types::{ActivationId, ContainerId, Instant};

use super::MemoryQueue;
use crate::ledger::{Done, EndKind, Ending, Entry, Stage, Waiters};
use crate::{Moved, MovedPlace, Output, RunEnd};

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// Everything that has not ended, and the outcomes that are owed, in the order of acceptance. Taken while draining, and
    /// true as long as nothing is told to this queue.
    #[must_use]
    pub fn export(&self, now: Instant) -> Vec<Moved<P, R>> {
        // What a fenced queue has only noted has ended all the same: it must not begin anew.
        let mut noted = BTreeMap::new();
        for (id, end) in self.deferred.iter() {
            noted.entry(*id).or_insert(end);
        }
        let mut entries: Vec<_> = self.ledger.to_move().collect();
        entries.sort_by_key(|entry| entry.ticket.place());
        let moved = entries.into_iter().filter_map(|entry| {
            let noted = noted.get(&entry.ticket.id).map(|end| {
                let end = (*end).clone().of(entry.is_cancelled);
                Done {
                    outcome: end.outcome,
                    kind: end.kind,
                    invoker: end.invoker,
                    at: now,
                }
            });
            moved(now, entry, noted.as_ref())
        });
        moved.collect()
    }

    /// What a former leader has handed over, after `Takeover`.
    pub(super) fn on_import(&mut self, now: Instant, moved: Vec<Moved<P, R>>, out: &mut Vec<Output<P, R>>) {
        for one in moved {
            if self.ledger.find(one.id).is_none() && !self.ledger.is_recorded(one.id) {
                self.import(now, one, out);
            }
        }
        self.pump(now, out);
    }

    fn import(&mut self, now: Instant, moved: Moved<P, R>, out: &mut Vec<Output<P, R>>) {
        let (id, place) = (moved.id, moved.place);
        let ticket = self.ticket_ready_for(now, (moved.waited, moved.ready), id, moved.durable);
        let mut waiters = Waiters::default();
        moved
            .controllers
            .into_iter()
            .for_each(|controller| waiters.add(controller));
        // Its line is chosen next.
        let entry = Entry::new(now, Stage::Held, waiters, moved.payload, ticket, moved.attempt);
        let mut entry = entry.called_by(moved.caller).in_run(moved.run.max(1));
        (entry.refusals, entry.is_cancelled) = (moved.refusals, moved.cancelled);
        self.ledger.insert(entry);
        match place {
            MovedPlace::Waiting => self.enter_line(now, id, None, false, out),
            MovedPlace::Held => self.enter_line(now, id, None, true, out),
            MovedPlace::Delayed(time) => self.enter_line(now, id, Some(now + time), false, out),
            MovedPlace::InFlight { container, started } => {
                let stage = if started {
                    Stage::Started(container)
                } else {
                    Stage::Delivered(container)
                };
                self.import_in_flight(now, container, stage, id);
            }
            MovedPlace::Ended {
                outcome,
                end,
                lost,
                invoker,
                age,
            } => {
                let at = Instant::from_origin(now.since_origin().saturating_sub(age));
                let done = Done {
                    outcome,
                    kind: kind_of(end, lost),
                    invoker,
                    at,
                };
                self.ledger.change(id, Stage::Done(done));
                if moved.durable {
                    self.end_again(now, id, out);
                } else {
                    self.tell_again(id, moved.run, out);
                }
            }
        }
    }

    /// The old leader may not have told everybody.
    fn tell_again(&mut self, id: ActivationId, run: u32, out: &mut Vec<Output<P, R>>) {
        let Some(entry) = self.ledger.end_call(id) else {
            return;
        };
        let Stage::Done(done) = &entry.stage else { return };
        out.extend(entry.waiters.iter().map(|controller| Output::Complete {
            controller,
            id,
            outcome: done.outcome.clone(),
            run,
        }));
    }

    fn import_in_flight(&mut self, now: Instant, container: ContainerId, stage: Stage<R>, id: ActivationId) {
        let is_known = self.containers.find(container).is_some();
        if !is_known {
            // The table has lost it since: its invoker may still tell.
            self.containers
                .insert(container, None, self.action.revision, true);
        }
        self.containers.adopt(container);
        self.ledger.change(id, stage.clone());
        if let Some(entry) = self.ledger.find_mut(id) {
            entry.send(now, stage);
            entry.is_imported = true;
        }
        if !is_known {
            self.containers.leave(container, Some(now));
        }
        self.watch_sent(now);
    }
}

/// An entry as the new leader is told of it; `noted` is an end that nobody has heard of.
fn moved<P: Clone, R: Clone>(
    now: Instant,
    entry: &Entry<P, R>,
    noted: Option<&Done<R>>,
) -> Option<Moved<P, R>> {
    let place = match (&entry.stage, noted) {
        (Stage::Journaling { .. }, _) => return None,
        (Stage::Ending(Ending { done, .. }) | Stage::Done(done), _) | (_, Some(done)) => ended(now, done),
        (Stage::Held, None) => MovedPlace::Held,
        (Stage::Waiting, None) => MovedPlace::Waiting,
        (Stage::Delayed(until), None) => MovedPlace::Delayed(until.saturating_since(now)),
        (Stage::Delivered(container), None) => MovedPlace::InFlight {
            container: *container,
            started: false,
        },
        (Stage::Adopted(container) | Stage::Started(container), None) => MovedPlace::InFlight {
            container: *container,
            started: true,
        },
    };
    Some(Moved {
        id: entry.ticket.id,
        place,
        waited: now.saturating_since(entry.ticket.accepted_at),
        ready: now.saturating_since(entry.ticket.ready_at),
        attempt: entry.attempt,
        run: entry.run,
        refusals: entry.refusals,
        durable: entry.is_durable(),
        cancelled: entry.is_cancelled,
        caller: entry.caller(),
        controllers: entry.waiters.iter().collect(),
        payload: entry.payload.clone(),
    })
}

fn ended<R: Clone>(now: Instant, done: &Done<R>) -> MovedPlace<R> {
    MovedPlace::Ended {
        outcome: done.outcome.clone(),
        end: match done.kind {
            EndKind::Success => Some(RunEnd::Success),
            EndKind::Cancelled => Some(RunEnd::Cancelled),
            EndKind::Failed => Some(RunEnd::Failed),
            EndKind::Final | EndKind::Lost => None,
        },
        lost: done.kind == EndKind::Lost,
        invoker: done.invoker,
        age: now.saturating_since(done.at),
    }
}

const fn kind_of(end: Option<RunEnd>, is_lost: bool) -> EndKind {
    match end {
        Some(RunEnd::Success) => EndKind::Success,
        Some(RunEnd::Cancelled) => EndKind::Cancelled,
        Some(RunEnd::Failed) => EndKind::Failed,
        None if is_lost => EndKind::Lost,
        None => EndKind::Final,
    }
}
