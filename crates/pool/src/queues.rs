//! Who leads which queue, as far as this invoker has been told.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{Epoch, QueueKey, SchedulerId};

use crate::WorkerId;

/// Queues without containers whose epoch is remembered, so that a late command of an older leader is refused.
/// Past this those without results are forgotten; such a container would be refused by the replicated state.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) epoch: Epoch,
    pub(crate) leader: SchedulerId,
    pub(crate) workers: BTreeSet<WorkerId>,
    /// A registration of this epoch went into the stream that is open now.
    pub(crate) registered: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<QueueKey, Queue>,
    /// How many of them have no container.
    empty: usize,
}

impl Queues {
    pub(crate) fn find(&self, key: &QueueKey) -> Option<&Queue> {
        self.queues.get(key)
    }

    pub(crate) fn find_mut(&mut self, key: &QueueKey) -> Option<&mut Queue> {
        self.queues.get_mut(key)
    }

    /// Takes a leadership in; false if a newer one is known.
    pub(crate) fn lead(&mut self, key: &QueueKey, epoch: Epoch, leader: SchedulerId) -> bool {
        match self.queues.get_mut(key) {
            Some(queue) if queue.epoch > epoch => return false,
            Some(queue) => {
                queue.registered &= queue.epoch == epoch && queue.leader == leader;
                queue.epoch = epoch;
                queue.leader = leader;
            }
            None => {
                let queue = Queue {
                    epoch,
                    leader,
                    workers: BTreeSet::new(),
                    // There is nothing yet to register.
                    registered: true,
                };
                self.queues.insert(key.clone(), queue);
                self.empty += 1;
            }
        }
        true
    }

    pub(crate) fn link(&mut self, key: &QueueKey, worker: WorkerId) {
        if let Some(queue) = self.queues.get_mut(key) {
            if queue.workers.is_empty() {
                self.empty -= 1;
            }
            queue.workers.insert(worker);
        }
    }

    pub(crate) fn unlink(&mut self, key: &QueueKey, worker: WorkerId) {
        if let Some(queue) = self.queues.get_mut(key)
            && queue.workers.remove(&worker)
            && queue.workers.is_empty()
        {
            self.empty += 1;
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.empty > REMEMBERED_MAX
    }

    /// Forgets queues without containers, except those that are needed.
    pub(crate) fn prune(&mut self, needed: &BTreeSet<QueueKey>) {
        self.queues
            .retain(|key, queue| !queue.workers.is_empty() || needed.contains(key));
        self.empty = self
            .queues
            .values()
            .filter(|queue| queue.workers.is_empty())
            .count();
    }

    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.empty = 0;
    }

    pub(crate) fn led_by(&self, leader: SchedulerId) -> Vec<QueueKey> {
        let led = self.queues.iter().filter(|(_, queue)| queue.leader == leader);
        led.map(|(key, _)| key.clone()).collect()
    }
}
