//! What other schedulers have sent of queues that they are about to hand over to this one. Kept until the leadership begins,
//! the sender takes it back, or too much time has passed.
//!
//! Invariant: an import is used by the leadership that directly follows its epoch by hand-over, and by no other: after any
//! other change of leader the sender may have gone on.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use whiskraft_queue::MovedPlace;
use whiskraft_types::{Epoch, Instant, QueueKey, SessionId};

use crate::handoff::MovedActivation;

/// Time after which an import is dropped. Far above the time of any hand-over whose outcome is known; a later one begins as
/// if the former leader had died.
pub(crate) const KEEP: Duration = Duration::from_secs(30);

/// One queue's.
#[derive(Debug)]
pub(crate) struct Import {
    /// In which the sender leads it.
    pub(crate) epoch: Epoch,
    /// The sender.
    pub(crate) session: SessionId,
    /// Of which attempt.
    pub(crate) attempt: u64,
    pub(crate) activations: Vec<MovedActivation>,
    /// Its part of the memory that all imports may take.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// All of a shard.
#[derive(Default)]
pub(crate) struct Imports(BTreeMap<QueueKey, (Instant, Import)>);

impl Imports {
    /// Keeps an import; an earlier one of the queue goes, unless that is of a later attempt.
    pub(crate) fn put(&mut self, now: Instant, key: QueueKey, import: Import) {
        let is_late = self
            .0
            .get(&key)
            .is_some_and(|(_, known)| known.session == import.session && known.attempt > import.attempt);
        if !is_late {
            self.0.insert(key, (now, import));
        }
    }

    /// Takes an import for the leadership that follows an epoch; ages are as of now.
    pub(crate) fn take(&mut self, now: Instant, key: &QueueKey, from: Epoch) -> Option<Vec<MovedActivation>> {
        let (at, import) = self.0.remove(key)?;
        let age = now.saturating_since(at);
        if import.epoch != from || age >= KEEP {
            return None;
        }
        let mut activations = import.activations;
        for moved in &mut activations {
            moved.waited += age;
            moved.ready += age;
            match &mut moved.place {
                MovedPlace::Ended { age: since, .. } => *since += age,
                MovedPlace::Delayed(delay) => *delay = delay.saturating_sub(age),
                MovedPlace::Waiting | MovedPlace::Held | MovedPlace::InFlight { .. } => {}
            }
        }
        Some(activations)
    }

    /// Drops what a session sent up to an attempt.
    pub(crate) fn forget(&mut self, session: SessionId, attempt: u64, key: &QueueKey) {
        let is_meant = |import: &Import| import.session == session && import.attempt <= attempt;
        if self.0.get(key).is_some_and(|(_, import)| is_meant(import)) {
            self.0.remove(key);
        }
    }

    /// When the first is dropped.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().map(|(at, _)| *at + KEEP).min()
    }

    /// Drops what was kept long enough.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, (at, _)| now.saturating_since(*at) < KEEP);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn key() -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/hello".parse().unwrap(),
        }
    }

    fn at(secs: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(secs))
    }

    fn import(room: &Arc<Semaphore>, epoch: u64, attempt: u64) -> Import {
        Import {
            epoch: Epoch(epoch),
            session: SessionId(7),
            attempt,
            activations: Vec::new(),
            _room: Arc::clone(room).try_acquire_owned().unwrap(),
        }
    }

    #[test]
    fn only_the_leadership_that_follows_its_epoch_in_time_gets_it_and_its_room_comes_back() {
        let (mut imports, room) = (Imports::default(), Arc::new(Semaphore::new(1)));
        imports.put(at(0), key(), import(&room, 4, 1));
        assert!(imports.take(at(1), &key(), Epoch(5)).is_none());
        assert_eq!(room.available_permits(), 1);
        imports.put(at(0), key(), import(&room, 4, 1));
        assert!(imports.take(at(30), &key(), Epoch(4)).is_none(), "too late");
        imports.put(at(0), key(), import(&room, 4, 1));
        assert!(imports.take(at(29), &key(), Epoch(4)).is_some());
        assert!(imports.take(at(29), &key(), Epoch(4)).is_none());
    }

    #[test]
    fn a_late_attempt_does_not_replace_a_newer_one_and_what_is_taken_back_is_gone() {
        let (mut imports, room) = (Imports::default(), Arc::new(Semaphore::new(2)));
        imports.put(at(0), key(), import(&room, 4, 2));
        imports.put(at(0), key(), import(&room, 4, 1));
        assert_eq!(room.available_permits(), 1);
        imports.forget(SessionId(7), 1, &key());
        assert_eq!(room.available_permits(), 1, "of a newer attempt");
        imports.forget(SessionId(7), 2, &key());
        assert_eq!(room.available_permits(), 2);
        imports.put(at(0), key(), import(&room, 4, 2));
        assert_eq!(imports.next(), Some(at(30)));
        imports.expire(at(30));
        assert_eq!(room.available_permits(), 2);
    }
}
