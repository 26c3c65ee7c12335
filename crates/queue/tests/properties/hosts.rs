//! What invokers do, and what happens to them.

use std::collections::BTreeSet;
use std::time::Duration;

use whiskraft_queue::{ActivationState, Input, RunEnd};
use whiskraft_types::{ActivationId, ContainerId, InvokerId};

use crate::invoker::Invoker;
use crate::model::Stage;
use crate::world::{Row, World, choose};

/// Lengths of runs in milliseconds.
const LENGTHS: [u64; 4] = [50, 0, 3_000, 5];

impl World {
    pub(crate) fn pulling(&self) -> Vec<(InvokerId, ContainerId)> {
        let all = self.invokers.iter();
        all.flat_map(|(id, invoker)| invoker.containers.keys().map(|container| (*id, *container)))
            .collect()
    }

    pub(crate) fn running(&self, started: bool) -> Vec<(InvokerId, ActivationId)> {
        let all = self.invokers.iter().flat_map(|(at, invoker)| {
            let wanted = invoker
                .running
                .iter()
                .filter(move |(_, (_, is_started))| *is_started == started);
            wanted.map(|(id, _)| (*at, *id))
        });
        all.collect()
    }

    pub(crate) fn ask(&mut self, (at, container): (InvokerId, ContainerId), count: u32) {
        let invoker = self.invokers.get_mut(&at).unwrap();
        let Some((credits, _)) = invoker.containers.get_mut(&container) else {
            return;
        };
        *credits += count;
        if invoker.is_heard() {
            self.tell(Input::Credit {
                invoker: at,
                container,
                count,
                warmed: false,
            });
        }
    }

    pub(crate) fn read(&mut self, at: InvokerId) {
        let invoker = self.invokers.get_mut(&at).unwrap();
        let heard = invoker.is_heard();
        if let Some(Err((id, container))) = invoker.read()
            && heard
        {
            self.give_back(id);
            self.tell(Input::Refused { container, id });
        }
    }

    pub(crate) fn start(&mut self, (at, id): (InvokerId, ActivationId)) {
        if self.mute.contains(&id) {
            return;
        }
        let invoker = self.invokers.get_mut(&at).unwrap();
        let (container, started) = invoker.running.get_mut(&id).unwrap();
        *started = true;
        *self.starts.entry(id).or_default() += 1;
        let (container, heard) = (*container, invoker.is_heard());
        if heard {
            self.tell(Input::Started { container, id });
        }
    }

    pub(crate) fn complete(&mut self, (at, id): (InvokerId, ActivationId), asks: bool, length: u8) {
        if self.mute.contains(&id) {
            return;
        }
        let invoker = self.invokers.get_mut(&at).unwrap();
        let (container, _) = invoker.running.remove(&id).unwrap();
        invoker.results.insert(id, container);
        let mut credits = 0;
        if let (true, Some((open, _))) = (asks, invoker.containers.get_mut(&container)) {
            *open += 1;
            credits = 1;
        }
        if invoker.is_heard() {
            self.model.done(id);
            let (record, duration) = (
                id.to_string(),
                Some(Duration::from_millis(
                    LENGTHS[usize::from(length) % LENGTHS.len()],
                )),
            );
            self.tell(Input::Completed {
                invoker: at,
                container,
                id,
                run: 1,
                end: RunEnd::Success,
                record,
                duration,
                credits,
            });
        }
    }

    pub(crate) fn give_back(&mut self, id: ActivationId) {
        let submitted = self.calls[&id].submitted_here;
        self.model.given_back(id, submitted);
    }

    pub(crate) fn refuse(&mut self, (at, id): (InvokerId, ActivationId)) {
        if self.mute.contains(&id) {
            return;
        }
        let invoker = self.invokers.get_mut(&at).unwrap();
        let (container, _) = invoker.running.remove(&id).unwrap();
        if invoker.is_heard() {
            self.give_back(id);
            self.tell(Input::Refused { container, id });
        }
    }

    /// The container finishes what it has and goes; what is on the wire to it is refused.
    pub(crate) fn end_container(&mut self, container: ContainerId) {
        let Some(Row {
            invoker: Some(at), ..
        }) = self.table.get(&container).copied()
        else {
            self.remove_row(container);
            return;
        };
        self.stop_pulling(at, container);
        self.remove_row(container);
    }

    pub(crate) fn stop_pulling(&mut self, at: InvokerId, container: ContainerId) {
        while self.invokers[&at].inbox.iter().any(|(_, to)| *to == container) {
            self.read(at);
        }
        let here = |invoker: &Invoker| {
            let of = invoker.running.iter().find(|(_, (on, _))| *on == container);
            of.map(|(id, (_, started))| (*id, *started))
        };
        while let Some((id, started)) = here(&self.invokers[&at]) {
            // With its container gone the invoker notices what it has to say.
            self.mute.remove(&id);
            if started {
                self.complete((at, id), false, 0)
            } else {
                self.refuse((at, id))
            }
        }
        self.invokers.get_mut(&at).unwrap().containers.remove(&container);
    }

    pub(crate) fn pause(&mut self, pick: u8) {
        let is_free = |(at, container): &(InvokerId, ContainerId)| {
            let invoker = &self.invokers[at];
            invoker.is_heard()
                && !invoker.running.values().any(|(on, _)| on == container)
                && !invoker.inbox.iter().any(|(_, to)| to == container)
        };
        let free: Vec<_> = self.pulling().into_iter().filter(is_free).collect();
        let Some((at, container)) = choose(free, pick) else {
            return;
        };
        self.tell(Input::Withdraw { container });
        self.invokers.get_mut(&at).unwrap().containers.remove(&container);
        self.table.remove(&container);
        self.tell(Input::ContainerWarm { container });
    }

    pub(crate) fn lose_container(&mut self, pick: u8) {
        if let Some((at, container)) = choose(self.pulling(), pick) {
            self.stop_pulling(at, container);
            self.remove_row(container);
        }
    }

    pub(crate) fn lose_invoker(&mut self, at: InvokerId) {
        let lost = std::mem::take(self.invokers.get_mut(&at).unwrap());
        let open = |id: &ActivationId| self.calls[id].answer.is_none();
        let had = lost
            .running
            .keys()
            .chain(lost.results.keys())
            .filter(|id| open(id))
            .map(|id| (*id, at));
        self.ghosts.extend(had);
        let gone: Vec<_> = self
            .table
            .iter()
            .filter(|(_, row)| row.invoker == Some(at))
            .map(|(id, _)| *id)
            .collect();
        // The leader knows of these, whether or not a controller has asked it: they end.
        lost.running.keys().for_each(|id| self.model.lost(*id));
        // Held ones join the line before the queue says what became of them.
        self.model.settled(at);
        self.tell(Input::InvokerGone { invoker: at });
        gone.into_iter().for_each(|container| self.remove_row(container));
    }

    pub(crate) fn disconnect(&mut self, at: InvokerId) {
        let invoker = self.invokers.get_mut(&at).unwrap();
        if std::mem::take(&mut invoker.connected) {
            invoker.registered = false;
            invoker.inbox.clear();
            self.tell(Input::Disconnected { invoker: at });
        }
    }

    /// The stream stands (again) and the leader hears all that the invoker has.
    pub(crate) fn connect(&mut self, at: InvokerId) {
        let invoker = self.invokers.get_mut(&at).unwrap();
        let is_new = !invoker.is_heard();
        (invoker.connected, invoker.registered) = (true, true);
        if !is_new {
            return;
        }
        let (containers, unacknowledged) = invoker.register();
        unacknowledged.iter().for_each(|kept| self.model.done(kept.id));
        let reported: BTreeSet<_> = containers
            .iter()
            .flat_map(|container| container.in_flight.clone())
            .collect();
        let now = self.now;
        reported.iter().for_each(|id| self.model.adopted(*id, now));
        // Whatever the model has in flight and no invoker has is certainly not started.
        let elsewhere = |id: &ActivationId| {
            self.invokers.values().any(|other| {
                other.running.contains_key(id)
                    || other.results.contains_key(id)
                    || other.inbox.iter().any(|(on_wire, _)| on_wire == id)
            })
        };
        let in_flight = self
            .model
            .stages
            .iter()
            .filter(|(_, stage)| **stage == Stage::InFlight)
            .map(|(id, _)| *id);
        let nowhere: Vec<_> = in_flight
            .filter(|id| !elsewhere(id) && !self.ghosts.contains_key(id))
            .collect();
        nowhere
            .into_iter()
            .filter(|id| self.queue_thinks_at(*id, at))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|id| self.give_back(id));
        self.model.settled(at);
        self.tell(Input::Register {
            invoker: at,
            containers,
            unacknowledged,
        });
    }

    pub(crate) fn queue_thinks_at(&self, id: ActivationId, at: InvokerId) -> bool {
        use ActivationState::{Delivered, Started};
        match self.queue.find(id) {
            Some(Delivered(container) | Started(container)) => self.homes.get(&container) == Some(&at),
            _ => false,
        }
    }
}
