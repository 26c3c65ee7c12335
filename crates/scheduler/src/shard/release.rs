//! The shard's part of a drain: stops queues that are about to move, and lets those go on that did not.

use whiskraft_queue::Input;
use whiskraft_types::{Epoch, QueueKey, SessionId};

use crate::shard::actor::Shard;
use crate::shard::local::{LocalQueue, Slot};

impl Shard {
    /// Stops up to `count` queues of a session, those without open work first; gives the ones that are stopped.
    pub(crate) fn release(&mut self, session: SessionId, count: usize) -> Vec<(QueueKey, Epoch)> {
        let mut stopped = Vec::new();
        for slot in self.pick(session, count) {
            if let Some(local) = self.queues.get_mut(slot) {
                local.is_moving = true;
                stopped.push((local.key.clone(), local.epoch));
            }
            self.step(slot, Input::Draining(true));
        }
        stopped
    }

    /// The queue certainly did not move.
    pub(crate) fn keep(&mut self, slot: Slot) {
        let was_moving = self
            .queues
            .get_mut(slot)
            .is_some_and(|local| std::mem::take(&mut local.is_moving));
        if was_moving {
            self.step(slot, Input::Draining(false));
        }
    }

    fn pick(&self, session: SessionId, count: usize) -> Vec<Slot> {
        let (mut quiet, mut busy) = (Vec::new(), Vec::new());
        for slot in self.queues.slots() {
            if quiet.len() >= count {
                break;
            }
            let local = self.queues.get(slot);
            match local.filter(|local| local.session == session && !local.is_moving) {
                Some(local) if has_work(local) => busy.push(slot),
                Some(_) => quiet.push(slot),
                None => {}
            }
        }
        let left = count - quiet.len();
        quiet.extend(busy.into_iter().take(left));
        quiet
    }
}

fn has_work(local: &LocalQueue) -> bool {
    local.queue.waiting_len() > 0 || local.queue.view().in_flight > 0
}
