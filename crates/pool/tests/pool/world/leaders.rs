//! The leaders of the queues: they read what the pool sends at once; what they send arrives later, or at once in a case.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{In, Record, World, container, key, queue_of};
use whiskraft_pool::{Change, CreateContainer, Deliver, Input, Registration, Report};
use whiskraft_types::{ActivationId, ByteSize, ContainerId, Epoch, QueueKey, Revision, SchedulerId};

/// One queue, as its leader of now sees it.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) id: SchedulerId,
    pub(crate) epoch: Epoch,
    pub(crate) asks: BTreeMap<ContainerId, u32>,
    /// It waits for the registration that says what there is; later ones of the same stream change nothing.
    pub(crate) waits: bool,
}

impl World {
    pub(super) fn on_asks(&mut self, container: ContainerId, key: &QueueKey, epoch: Epoch, count: u32) {
        let queue = queue_of(key);
        if self.leaders[queue].epoch == epoch && count > 0 {
            *self.leaders[queue].asks.entry(container).or_default() += count;
        }
    }

    pub(super) fn on_withdraw(&mut self, to: SchedulerId, container: ContainerId) {
        let Some(queue) = self.containers.get(&container).copied() else {
            return;
        };
        if self.leaders[queue].id == to {
            self.leaders[queue].asks.remove(&container);
            self.down
                .push_back((to, Input::WithdrawAcked { from: to, container }));
        }
    }

    pub(super) fn on_register(&mut self, registration: &Registration<Record>) {
        let queue = queue_of(&registration.key);
        let is_heard = self.leaders[queue].epoch == registration.epoch;
        self.note_registered(registration, is_heard);
        let leader = &mut self.leaders[queue];
        if is_heard && std::mem::take(&mut leader.waits) {
            let asks = registration
                .containers
                .iter()
                .map(|registered| (registered.container, registered.credits));
            leader.asks = asks.collect();
        }
    }

    pub(super) fn on_report(&mut self, report: &Report) {
        self.reports.push(report.clone());
        match report.change {
            Change::Warm => self.warm.push(report.container),
            Change::Running => {}
            Change::Ended { .. } | Change::Removed { .. } | Change::Failed { .. } => {
                self.warm.retain(|container| *container != report.container);
                for leader in &mut self.leaders {
                    leader.asks.remove(&report.container);
                }
            }
        }
    }

    /// A leader wants a container; its id.
    pub(crate) fn create(
        &mut self,
        queue: usize,
        memory: u64,
        concurrency: u32,
        resume: Option<ContainerId>,
    ) -> ContainerId {
        let id = container(self.next_container);
        self.next_container += 1;
        self.containers.insert(id, queue);
        self.memory_of.insert(id, memory);
        let leader = &self.leaders[queue];
        let create = CreateContainer {
            container: id,
            key: key(queue),
            epoch: leader.epoch,
            leader: leader.id,
            revision: Revision(1),
            memory: ByteSize::mib(memory),
            concurrency,
            resume,
            evict_first: std::mem::take(&mut self.evict_first),
            deadline: self.now + Duration::from_secs(20),
            action: "action",
        };
        self.step(Input::Create(create));
        id
    }

    /// A container that exists, from its leader's wish to its first ask.
    pub(crate) fn running(&mut self, queue: usize, memory: u64, concurrency: u32) -> ContainerId {
        let id = self.create(queue, memory, concurrency, None);
        let worker = self.worker(id);
        self.created(worker);
        id
    }

    pub(crate) fn asks(&self, container: ContainerId) -> u32 {
        self.leaders
            .iter()
            .filter_map(|leader| leader.asks.get(&container))
            .sum()
    }

    pub(crate) fn delivery(&self, queue: usize, activation: ActivationId, container: ContainerId) -> In {
        self.delivery_of(queue, (activation, 1), container)
    }

    pub(crate) fn delivery_of(
        &self,
        queue: usize,
        (activation, run): (ActivationId, u32),
        container: ContainerId,
    ) -> In {
        let leader = &self.leaders[queue];
        let (from, epoch) = (leader.id, leader.epoch);
        Input::Deliver(Deliver {
            from,
            id: activation,
            container,
            epoch,
            run,
            content: run,
        })
    }

    /// The leader answers an ask, and the activation arrives.
    pub(crate) fn deliver(&mut self, activation: ActivationId, container: ContainerId) {
        self.deliver_run(activation, 1, container);
    }

    /// The same with a run of it.
    pub(crate) fn deliver_run(&mut self, activation: ActivationId, run: u32, container: ContainerId) {
        let queue = self.containers[&container];
        let asks = self.leaders[queue].asks.entry(container).or_default();
        *asks = asks.saturating_sub(1);
        let delivery = self.delivery_of(queue, (activation, run), container);
        self.step(delivery);
    }

    /// Another scheduler leads the queue and says so; what the former leader sent may arrive before or after that.
    pub(crate) fn change_leader(&mut self, queue: usize) {
        let leader = &mut self.leaders[queue];
        leader.id = SchedulerId(leader.id.0 % 3 + 1);
        leader.epoch = leader.epoch.next();
        leader.asks.clear();
        leader.waits = true;
        let (from, epoch) = (leader.id, leader.epoch);
        let reregister = Input::Reregister {
            from,
            key: key(queue),
            epoch,
        };
        self.down.push_back((from, reregister));
        self.forget_places(queue);
    }

    /// A scheduler says which queues it leads, as it does on every new stream.
    pub(crate) fn announce(&mut self, from: SchedulerId) {
        for (queue, leader) in self
            .leaders
            .iter()
            .enumerate()
            .filter(|(_, leader)| leader.id == from)
        {
            self.down.push_back((
                from,
                Input::Reregister {
                    from,
                    key: key(queue),
                    epoch: leader.epoch,
                },
            ));
        }
    }

    /// The messages of leaders arrive.
    pub(crate) fn arrive(&mut self) {
        while let Some((_, input)) = self.down.pop_front() {
            self.step(input);
        }
    }

    /// The next message of one scheduler arrives.
    pub(crate) fn arrive_one(&mut self, pick: usize) {
        let senders: BTreeSet<SchedulerId> = self.down.iter().map(|(from, _)| *from).collect();
        let Some(from) = senders.iter().nth(pick % senders.len().max(1)) else {
            return;
        };
        let at = self.down.iter().position(|(sender, _)| sender == from);
        if let Some((_, input)) = at.and_then(|at| self.down.remove(at)) {
            self.step(input);
        }
    }

    /// The leader says that an activation was cancelled.
    pub(crate) fn stop(&mut self, activation: ActivationId, container: ContainerId) {
        let stop = self.stopping(activation, container);
        self.step(stop);
    }

    pub(crate) fn stopping(&self, activation: ActivationId, container: ContainerId) -> In {
        let leader = &self.leaders[self.containers[&container]];
        Input::Stop {
            from: leader.id,
            id: activation,
            container,
            epoch: leader.epoch,
        }
    }
}
