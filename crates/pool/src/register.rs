//! Registration: telling a queue's leader everything this invoker has of the queue.
//!
//! A registration replaces what the leader believes about asks, so none given before it counts any more.

use std::collections::BTreeSet;
use std::fmt::Debug;

use whiskraft_types::{ContainerId, Epoch, Instant, QueueKey, SchedulerId};

use crate::pool::Mode;
use crate::timers::Timer;
use crate::{Output, Pool, RegisteredContainer, Registration, WorkerId};

impl<A, D, R> Pool<A, D, R>
where
    A: Debug,
    R: Clone,
{
    pub(crate) fn on_reregister(
        &mut self,
        now: Instant,
        from: SchedulerId,
        key: &QueueKey,
        epoch: Epoch,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        if self.mode == Mode::Closed || !self.queues.lead(key, epoch, from) {
            return;
        }
        self.lead_containers(key);
        // Even an empty answer: the leader holds activations back until it has heard from us.
        self.register(now, key, out);
        self.prune_queues();
    }

    /// Lets the containers of a queue pull from its leader of now.
    pub(crate) fn lead_containers(&mut self, key: &QueueKey) {
        let Some(queue) = self.queues.find(key) else {
            return;
        };
        for worker in &queue.workers {
            if let Some(container) = self.containers.get_mut(worker) {
                container.leader = queue.leader;
                container.epoch = queue.epoch;
            }
        }
    }

    pub(crate) fn on_pull_opened(
        &mut self,
        now: Instant,
        scheduler: SchedulerId,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        if self.mode == Mode::Closed {
            return;
        }
        let held: BTreeSet<QueueKey> = self.results.all().map(|(_, stored)| stored.key.clone()).collect();
        for key in self.queues.led_by(scheduler) {
            let Some(queue) = self.queues.find_mut(&key) else {
                continue;
            };
            queue.registered = queue.workers.is_empty();
            if !queue.workers.is_empty() || held.contains(&key) {
                self.register(now, &key, out);
            }
        }
    }

    /// The first registration of an epoch on a stream starts the count of asks afresh. A repeated one (the leader
    /// missed the first) may cross deliveries, so it tells how things stand and changes nothing.
    pub(crate) fn register(&mut self, now: Instant, key: &QueueKey, out: &mut Vec<Output<A, D, R>>) {
        let Some(queue) = self.queues.find_mut(key) else {
            return;
        };
        let first = !std::mem::replace(&mut queue.registered, true);
        let (to, epoch) = (queue.leader, queue.epoch);
        let workers: Vec<WorkerId> = queue.workers.iter().copied().collect();
        if first {
            for worker in &workers {
                self.count_asks_afresh(now, *worker);
            }
        }
        let containers = workers
            .iter()
            .filter_map(|worker| self.registered(*worker))
            .collect();
        let mut unacknowledged = Vec::new();
        for (_, stored) in self.results.all().filter(|(_, stored)| stored.key == *key) {
            stored.sent = true;
            unacknowledged.push(stored.record.clone());
        }
        out.push(Output::Register(Registration {
            to,
            key: key.clone(),
            epoch,
            containers,
            unacknowledged,
        }));
    }

    fn count_asks_afresh(&mut self, now: Instant, worker: WorkerId) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        // A withdraw that was under way went to a leader, or into a stream, that is no more.
        container.asks = 0;
        let withdrew = std::mem::take(&mut container.withdrawing);
        let idle_since = container.used_at;
        self.take_asks(now, worker);
        if withdrew {
            self.arm_container(worker, idle_since + self.settings.pause_grace);
        }
    }

    fn registered(&self, worker: WorkerId) -> Option<RegisteredContainer> {
        let container = self.containers.get(&worker)?;
        if !container.life.is_live() && container.running.is_empty() {
            return None;
        }
        Some(RegisteredContainer {
            container: container.id,
            revision: container.revision,
            in_flight: container.running.clone(),
            credits: if container.withdrawing { 0 } else { container.asks },
            warmed: container.is_warmed(),
        })
    }

    /// The asks of a container were refused: it asks again after a while, not with a registration, which could cross
    /// a delivery.
    pub(crate) fn on_pull_refused(&mut self, now: Instant, from: SchedulerId, container: ContainerId) {
        let Some(worker) = self.by_id.get(&container).copied() else {
            return;
        };
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        if container.leader == from && container.asks > 0 {
            container.asks = 0;
            self.timers
                .arm(now + self.settings.pull_retry, Timer::AskAgain(worker));
        }
    }

    pub(crate) fn on_queue_gone(
        &mut self,
        from: SchedulerId,
        key: &QueueKey,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let Some(queue) = self.queues.find(key).filter(|queue| queue.leader == from) else {
            return;
        };
        for worker in queue.workers.clone() {
            self.retire(worker, "its queue is gone", out);
        }
        // It goes only when nobody is owed a result any more; the acks of these got lost.
        for container in self.results.remove_of(key) {
            self.tell_held_end(container, out);
        }
    }

    /// Forgets queues that nothing here belongs to, once there are many.
    pub(crate) fn prune_queues(&mut self) {
        if self.queues.is_over() {
            let mut needed: BTreeSet<QueueKey> =
                self.results.all().map(|(_, stored)| stored.key.clone()).collect();
            needed.extend(self.outbox.keys());
            self.queues.prune(&needed);
        }
    }
}
