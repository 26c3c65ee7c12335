//! Queues: who leads them, in which epoch.
//!
//! An epoch is the log revision that gave the queue its leader. So it grows with every change of leader, also
//! across a removal of the queue, of which nothing needs to be remembered.

use whiskraft_types::{ActionName, Epoch, LogRevision, QueueKey, Revision, SchedulerId, SessionId};

use crate::command::{DocumentKey, EnsureQueue};
use crate::election::Election;
use crate::event::{Event, Leadership, Refusal, Response};
use crate::record::QueueRecord;
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_ensure_queue(
        &mut self,
        ensure: &EnsureQueue,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let key = &ensure.key;
        let document = DocumentKey::action(&key.action).and_then(|document| self.document(&document));
        let revision = document
            .ok_or_else(|| Refusal::NoAction {
                action: key.action.to_string(),
            })?
            .revision;
        if let Some(leadership) = self.queue(key).and_then(leadership) {
            return Ok(Response::Leadership(leadership));
        }
        let leader = Election::among(self)
            .leader(self, key, turn.revision)
            .ok_or(Refusal::NoScheduler)?;
        let epoch = epoch_of(turn.revision);
        let queue = QueueRecord {
            leader: Some(leader),
            epoch,
            revision,
            throttled: false,
        };
        self.put_queue(key, queue, turn);
        Ok(Response::Leadership(Leadership {
            leader: leader.0,
            epoch,
            revision,
        }))
    }

    pub(crate) fn apply_remove_queue(
        &mut self,
        key: &QueueKey,
        epoch: Epoch,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        self.queue_in_epoch(key, epoch)?;
        self.delete_queue(key, turn);
        Ok(Response::Done)
    }

    /// Each queue by itself: one that has moved on already does not keep the others from moving.
    pub(crate) fn apply_move_queues(
        &mut self,
        from: SessionId,
        queues: &[(QueueKey, Epoch)],
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let election = Election::without(self, from);
        if election.is_empty() {
            return Err(Refusal::NoScheduler);
        }
        for (key, epoch) in queues {
            let moving = self.queue(key).filter(|queue| is_led(queue, from, *epoch));
            let Some(queue) = moving else { continue };
            let queue = QueueRecord {
                leader: election.leader(self, key, turn.revision),
                epoch: epoch_of(turn.revision),
                revision: queue.revision,
                throttled: false,
            };
            self.put_queue(key, queue, turn);
        }
        Ok(Response::Done)
    }

    /// Each queue by itself, as [`Self::apply_move_queues`] does.
    pub(crate) fn apply_hand_over(
        &mut self,
        from: SessionId,
        queues: &[(QueueKey, Epoch, SchedulerId)],
        turn: &mut Turn,
    ) -> Response {
        let election = Election::without(self, from);
        let mut moved = Vec::new();
        for (key, from_epoch, to) in queues {
            let moving = self.queue(key).filter(|queue| is_led(queue, from, *from_epoch));
            let (Some(queue), Some(leader)) = (moving, election.find(*to)) else {
                continue;
            };
            let epoch = epoch_of(turn.revision);
            let queue = QueueRecord {
                leader: Some(leader),
                epoch,
                revision: queue.revision,
                throttled: false,
            };
            turn.event(Event::HandedOver {
                key: key.clone(),
                from: *from_epoch,
            });
            self.put_queue(key, queue, turn);
            moved.push((key.clone(), epoch));
        }
        Response::HandedOver(moved)
    }

    pub(crate) fn apply_set_action_throttle(
        &mut self,
        key: &QueueKey,
        epoch: Epoch,
        throttled: bool,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let queue = QueueRecord {
            throttled,
            ..self.queue_in_epoch(key, epoch)?.clone()
        };
        self.put_queue(key, queue, turn);
        Ok(Response::Done)
    }

    /// Gives the queues of a session that has ended, or those that nobody leads, new leaders.
    pub(crate) fn reassign_queues(&mut self, leader: Option<SessionId>, turn: &mut Turn) {
        let election = Election::among(self);
        if leader.is_none() && election.is_empty() {
            return;
        }
        let keys: Vec<QueueKey> = self.index.queues_of(leader).cloned().collect();
        for key in keys {
            let Some(queue) = self.queue(&key) else { continue };
            let queue = QueueRecord {
                leader: election.leader(self, &key, turn.revision),
                epoch: epoch_of(turn.revision),
                revision: queue.revision,
                throttled: false,
            };
            self.put_queue(&key, queue, turn);
        }
    }

    /// Tells the queues of an action that its document was written or deleted.
    pub(crate) fn raise_revision(&mut self, action: &ActionName, revision: Revision, turn: &mut Turn) {
        let keys: Vec<QueueKey> = self.index.queues_of_action(action).collect();
        for key in keys {
            if let Some(queue) = self.queue(&key) {
                let queue = QueueRecord {
                    revision,
                    ..queue.clone()
                };
                self.put_queue(&key, queue, turn);
            }
        }
    }

    /// Gives back the slots of an action's containers that no invoker has.
    pub(crate) fn delete_unplaced_containers_of(&mut self, action: &ActionName, turn: &mut Turn) {
        let keys: Vec<QueueKey> = self.index.queues_of_action(action).collect();
        keys.iter()
            .for_each(|key| self.delete_unplaced_containers(key, turn));
    }

    fn queue_in_epoch(&self, key: &QueueKey, epoch: Epoch) -> Result<&QueueRecord, Refusal> {
        match self.queue(key) {
            Some(queue) if queue.epoch == epoch => Ok(queue),
            Some(queue) => Err(Refusal::StaleEpoch { current: queue.epoch }),
            None => Err(Refusal::StaleEpoch {
                current: Epoch::default(),
            }),
        }
    }

    fn put_queue(&mut self, key: &QueueKey, queue: QueueRecord, turn: &mut Turn) {
        let key = &self.shared_key(key);
        let old = self.tables.queues.insert(key.clone(), queue.clone());
        if old.as_ref() == Some(&queue) {
            return;
        }
        if old.as_ref().map(|old| old.leader) != Some(queue.leader) {
            old.iter().for_each(|old| self.index.remove_queue(key, old));
            self.index.add_queue(key, &queue);
        }
        let throttled = queue.throttled;
        turn.event(Event::Queue(key.clone(), Some(queue)));
        if old.is_some_and(|old| old.throttled) != throttled {
            turn.event(Event::ActionThrottle(key.clone(), throttled));
        }
    }

    fn delete_queue(&mut self, key: &QueueKey, turn: &mut Turn) {
        let Some(old) = self.tables.queues.remove(key) else {
            return;
        };
        self.index.remove_queue(key, &old);
        turn.event(Event::Queue(key.clone(), None));
        if old.throttled {
            turn.event(Event::ActionThrottle(key.clone(), false));
        }
        // What is on an invoker goes with that invoker at the latest; the rest would keep its slot for ever,
        // since nobody settles it any more.
        self.delete_unplaced_containers(key, turn);
    }
}

/// The epoch of a leadership that starts at a log revision.
const fn epoch_of(revision: LogRevision) -> Epoch {
    Epoch(revision.0)
}

/// Whether a session leads the queue in an epoch.
fn is_led(queue: &QueueRecord, by: SessionId, epoch: Epoch) -> bool {
    queue.epoch == epoch && queue.leader.is_some_and(|(_, session)| session == by)
}

fn leadership(queue: &QueueRecord) -> Option<Leadership> {
    let (leader, _) = queue.leader?;
    Some(Leadership {
        leader,
        epoch: queue.epoch,
        revision: queue.revision,
    })
}

#[cfg(test)]
#[path = "queues_test.rs"]
mod tests;
