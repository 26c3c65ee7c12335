//! What the replicated log does: grants slots, knows containers, changes leaders.

use std::collections::BTreeSet;

use whiskraft_queue::{Input, KnownContainer};
use whiskraft_types::{ContainerId, CreationError, InvokerId, SessionId};

use crate::model::Model;
use crate::world::{INVOKERS, LIMIT, Row, World, choose, queue};

impl World {
    pub(crate) fn grant(&mut self, count: u32) {
        let Some(asked) = self.asked.pop_front() else {
            return;
        };
        let room = LIMIT - (self.counts().running + self.counts().in_progress);
        let own = self.table.len() as u32;
        let room = room.min(self.instances.map_or(LIMIT, |limit| limit.saturating_sub(own)));
        let containers: Vec<_> = (0..count.min(asked).min(room))
            .map(|_| self.new_container())
            .collect();
        let revision = self.revision;
        let row = Row {
            invoker: None,
            running: false,
            revision,
        };
        self.table
            .extend(containers.iter().map(|container| (*container, row)));
        // Of three the first comes with its place, and the tables tell of that before the grant is heard of; the second as
        // well, and they tell afterwards; the third has none yet.
        let early = |container: &ContainerId| container.seq.is_multiple_of(3);
        let late = |container: &ContainerId| container.seq % 3 == 1;
        for container in containers.iter().copied().filter(early) {
            self.place_at(container, asked);
        }
        let place =
            |container: ContainerId| (container, self.table.get(&container).and_then(|row| row.invoker));
        self.tell(Input::Granted {
            asked,
            containers: containers.iter().copied().map(place).collect(),
            revision,
        });
        for container in containers.into_iter().filter(late) {
            self.place_at(container, asked);
        }
    }

    fn place_at(&mut self, container: ContainerId, pick: u32) {
        let invoker = InvokerId((container.seq + u64::from(pick)) % INVOKERS + 1);
        self.table.get_mut(&container).unwrap().invoker = Some(invoker);
        self.homes.insert(container, invoker);
        self.tell(Input::ContainerPlaced { container, invoker });
    }

    pub(crate) fn new_container(&mut self) -> ContainerId {
        self.seq += 1;
        ContainerId {
            session: SessionId(self.epoch.0),
            seq: self.seq,
        }
    }

    pub(crate) fn remove_row(&mut self, container: ContainerId) {
        if self.table.remove(&container).is_some() {
            self.tell(Input::ContainerRemoved { container });
        }
    }

    pub(crate) fn place(&mut self, pick: u8) {
        let unplaced = self
            .table
            .iter()
            .filter(|(_, row)| row.invoker.is_none())
            .map(|(id, _)| *id);
        let Some(container) = choose(unplaced, pick) else {
            return;
        };
        self.place_at(container, u32::from(pick));
    }

    /// A container comes up and asks for the first time.
    pub(crate) fn ready(&mut self, pick: u8) {
        let starting = self
            .table
            .iter()
            .filter_map(|(id, row)| (!row.running).then_some((*id, row.invoker?)));
        let Some((container, invoker)) = choose(starting, pick) else {
            return;
        };
        let row = self.table.get_mut(&container).unwrap();
        row.running = true;
        let revision = row.revision;
        self.invokers
            .get_mut(&invoker)
            .unwrap()
            .containers
            .insert(container, (0, revision));
        self.tell(Input::ContainerRunning { container, invoker });
        self.ask((invoker, container), 1);
    }

    pub(crate) fn fail_creation(&mut self, pick: u8) {
        let starting = self
            .table
            .iter()
            .filter(|(_, row)| !row.running)
            .map(|(id, _)| *id);
        let Some(container) = choose(starting, pick) else {
            return;
        };
        let error = if pick.is_multiple_of(2) {
            CreationError::BlackBox
        } else {
            CreationError::ResourceNotEnough
        };
        self.table.remove(&container);
        self.tell(Input::CreationFailed {
            container,
            error,
            message: "creation failed".to_owned(),
        });
    }

    /// A creation has to wait for memory or an invoker.
    pub(crate) fn delay(&mut self, pick: u8) {
        let starting = self.table.iter().filter(|(_, row)| !row.running);
        let Some(container) = choose(starting.map(|(id, _)| *id), pick) else {
            return;
        };
        let error = if pick.is_multiple_of(2) {
            CreationError::NoAvailableInvokers
        } else {
            CreationError::NoAvailableResources
        };
        self.tell(Input::CreationDelayed {
            container,
            error,
            message: "not now".to_owned(),
        });
    }

    pub(crate) fn lose_leader(&mut self) {
        self.epoch = self.epoch.next();
        self.queue = queue(
            self.epoch,
            self.revision,
            self.instances,
            &self.settings,
            self.now,
        );
        self.model = Model::default();
        self.asked.clear();
        self.fenced = false;
        self.draining = false;
        self.throttled = false;
        for call in self.calls.values_mut() {
            call.submitted_here = false;
            call.lost_at.get_or_insert(self.now);
        }
        // Slots that were reserved and never placed are given up by the new leader.
        self.table.retain(|_, row| row.invoker.is_some());
        self.invokers
            .values_mut()
            .for_each(|invoker| invoker.registered = false);
        // An invoker with results but no container left is expected as well: the table keeps a container until its
        // results are acknowledged, or the sender finds another way to know.
        let holds = |id: &InvokerId| {
            self.table.values().any(|row| row.invoker == Some(*id)) || !self.invokers[id].results.is_empty()
        };
        let expected: Vec<_> = self.invokers.keys().copied().filter(holds).collect();
        let lost: BTreeSet<_> = self.ghosts.values().copied().collect();
        self.model.expected = expected.iter().copied().collect();
        let known = |(container, row): (&ContainerId, &Row)| KnownContainer {
            container: *container,
            invoker: row.invoker,
            revision: row.revision,
            running: row.running,
        };
        let containers = self.table.iter().map(known).collect();
        self.tell(Input::Takeover {
            expected,
            lost: lost.into_iter().collect(),
            containers,
            recovers: false,
        });
    }
}
