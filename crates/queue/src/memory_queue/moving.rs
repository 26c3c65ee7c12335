//! Handing a queue over: what the former leader passes on, and how the next one goes on with it.
//!
//! The ledger says who has what, so nothing of it is held back: what waited is delivered to whoever asks first. What containers
//! had is settled by the registration of their invokers, as after a broken stream.

use whiskraft_types::{ActivationStatus, ContainerId, Instant, InvokerId};

use super::MemoryQueue;
use super::ending::mislaid_text;
use crate::ledger::{Done, Entry, Stage, Waiters};
use crate::{Moved, MovedStage, Output, Progress};

impl<P: Clone + PartialEq, R: Clone> MemoryQueue<P, R> {
    /// Everything that the next leader needs, oldest first. Sound only of a queue that has stopped and is not stepped again
    /// unless the hand-over has certainly failed.
    #[must_use]
    pub fn export(&self, now: Instant) -> Vec<Moved<P, R>> {
        let mut entries: Vec<_> = self.ledger.entries().collect();
        entries.sort_unstable_by_key(|entry| (entry.ticket.accepted_at, entry.ticket.seq));
        let moved = entries.into_iter().filter_map(|entry| {
            Some(Moved {
                id: entry.ticket.id,
                stage: self.moved_stage(now, &entry.stage)?,
                waited: now.saturating_since(entry.ticket.accepted_at),
                payload: entry
                    .payload
                    .clone()
                    .filter(|_| !matches!(entry.stage, Stage::Done(_))),
                attempt: entry.attempt,
                caller: entry.caller(),
                controllers: entry.waiters.iter().collect(),
            })
        });
        moved.collect()
    }

    /// `None` for one whose container has no place: nobody could ever say what became of it, so it is left to its controller.
    fn moved_stage(&self, now: Instant, stage: &Stage<R>) -> Option<MovedStage<R>> {
        let in_flight = |container: ContainerId, progress| {
            let invoker = self.containers.find(container)?.invoker?;
            Some(MovedStage::InFlight {
                container,
                invoker,
                progress,
            })
        };
        match stage {
            Stage::Held => Some(MovedStage::Held),
            Stage::Waiting => Some(MovedStage::Waiting),
            Stage::Delivered(container) => in_flight(*container, Progress::Delivered),
            Stage::Adopted(container) => in_flight(*container, Progress::Adopted),
            Stage::Started(container) => in_flight(*container, Progress::Started),
            Stage::Done(done) => Some(MovedStage::Done {
                outcome: done.outcome.clone(),
                invoker: done.invoker,
                ago: now.saturating_since(done.at),
            }),
        }
    }

    /// Goes on with what the former leader has passed on. Comes right after `Takeover`.
    pub(super) fn on_import(&mut self, now: Instant, moved: Vec<Moved<P, R>>, out: &mut Vec<Output<P, R>>) {
        tracing::debug!(queue = %self.key, epoch = %self.epoch, activations = moved.len(), "takes over what was handed to it");
        for activation in moved {
            if self.ledger.find(activation.id).is_none() {
                self.import(now, activation, out);
            }
        }
        if self.expected.is_empty() {
            self.try_release(now, out);
        }
    }

    fn import(&mut self, now: Instant, moved: Moved<P, R>, out: &mut Vec<Output<P, R>>) {
        let Moved {
            id,
            stage,
            waited,
            payload,
            attempt,
            caller,
            controllers,
        } = moved;
        let ticket = self.next_ticket(now, waited, id);
        let mut waiters = Waiters::default();
        controllers
            .into_iter()
            .for_each(|controller| waiters.add(controller));
        let entry = |stage, payload| {
            Entry::new(now, stage, waiters, payload, ticket, attempt).called_by(caller)
        };
        match stage {
            MovedStage::Held => {
                self.held.insert(ticket);
                self.ledger.insert(entry(Stage::Held, payload));
            }
            MovedStage::Waiting => {
                self.waiting.insert(ticket);
                self.ledger.insert(entry(Stage::Waiting, payload));
                self.decide_for(now, &ticket);
            }
            MovedStage::InFlight {
                container,
                invoker,
                progress,
            } => {
                let stage = match progress {
                    Progress::Delivered => Stage::Delivered(container),
                    Progress::Adopted => Stage::Adopted(container),
                    Progress::Started => Stage::Started(container),
                };
                self.ledger.insert(entry(stage, payload));
                self.import_container(now, container, invoker);
                if !self.expected.contains(&invoker) {
                    // Its session has ended: what it had is lost, delivered or not.
                    self.fail(now, id, ActivationStatus::WhiskError, mislaid_text(invoker), out);
                }
            }
            MovedStage::Done { outcome, invoker, ago } => {
                let at = Instant::from_origin(now.since_origin().saturating_sub(ago));
                let mut entry = entry(Stage::Done(Done { outcome, invoker, at }), None);
                entry.end_call();
                self.ledger.insert(entry);
                self.ledger.note_done(id, at, false);
            }
        }
    }

    /// The container has one more activation, and its invoker says on its next `Register` what it has of them.
    fn import_container(&mut self, now: Instant, container: ContainerId, invoker: InvokerId) {
        let is_known = self.containers.find(container).is_some();
        if !is_known {
            // The table has given it up; what runs in it may end, and its invoker will tell.
            self.containers
                .insert(container, Some(invoker), self.action.revision, true);
        }
        self.containers.place(container, invoker, true);
        self.containers.adopt(container);
        if !is_known {
            self.containers.leave(container, Some(now));
        }
        self.disconnected.insert(invoker);
        self.watch_sent(now);
    }
}
