//! The queues that one shard leads, and the indexes that find them: by key, deadline, invoker and namespace.
//!
//! Invariant: every index entry names an occupied slot; [`LocalQueues::remove`] takes all of them along.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use whiskraft_queue::{ActionProfile, MemoryQueue, Recovered};
use whiskraft_types::{ByteSize, ContainerId, Epoch, Instant, InvokerId, NamespaceName, QueueKey, SessionId};

use crate::message::{Payload, Record};
use crate::rate::Stock;
use crate::shard::frozen::Frozen;

/// Place of a queue in its shard; reused after the queue is gone.
pub(crate) type Slot = usize;

/// A queue under one leadership.
pub(crate) struct LocalQueue {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    /// Our session that leads it.
    pub(crate) session: SessionId,
    pub(crate) profile: ActionProfile,
    /// Memory of one container.
    pub(crate) memory: ByteSize,
    pub(crate) queue: MemoryQueue<Payload, Record>,
    /// Where the containers are that it knows.
    pub(crate) places: BTreeMap<ContainerId, InvokerId>,
    /// Invokers that were asked to register on their current stream and have not answered yet.
    pub(crate) asked: BTreeSet<InvokerId>,
    /// What arrives while it is on its way to another scheduler.
    pub(crate) frozen: Option<Frozen>,
    /// While its open activations are read from the journal: those that have been.
    pub(crate) recovering: Option<Vec<Recovered<Payload>>>,
    /// Tokens of its namespace, if that has a rate limit.
    pub(crate) rate: Option<Arc<Stock>>,
    deadline: Option<Instant>,
    invokers: BTreeSet<InvokerId>,
}

impl LocalQueue {
    /// Invokers that it has dealings with.
    pub(crate) fn invokers(&self) -> impl Iterator<Item = InvokerId> {
        self.invokers.iter().copied()
    }

    pub(crate) fn new(
        key: QueueKey,
        session: SessionId,
        profile: ActionProfile,
        memory: ByteSize,
        queue: MemoryQueue<Payload, Record>,
    ) -> Self {
        Self {
            key,
            epoch: queue.epoch(),
            session,
            profile,
            memory,
            queue,
            places: BTreeMap::new(),
            asked: BTreeSet::new(),
            frozen: None,
            recovering: Some(Vec::new()),
            rate: None,
            deadline: None,
            invokers: BTreeSet::new(),
        }
    }
}

/// All queues of a shard.
#[derive(Default)]
pub(crate) struct LocalQueues {
    slots: Vec<Option<LocalQueue>>,
    free: Vec<Slot>,
    by_key: HashMap<QueueKey, Slot>,
    deadlines: BTreeSet<(Instant, Slot)>,
    by_invoker: BTreeSet<(InvokerId, Slot)>,
    by_namespace: BTreeSet<(NamespaceName, Slot)>,
}

impl LocalQueues {
    /// Adds a queue; its key must not be there.
    pub(crate) fn insert(&mut self, queue: LocalQueue) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let before = self.by_key.insert(queue.key.clone(), slot);
        assert!(before.is_none(), "queue {} is led twice by one shard", queue.key);
        self.by_namespace.insert((queue.key.namespace.clone(), slot));
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(queue);
        }
        slot
    }

    /// Removes a queue.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<LocalQueue> {
        let queue = self.slots.get_mut(slot)?.take()?;
        self.by_key.remove(&queue.key);
        self.by_namespace.remove(&(queue.key.namespace.clone(), slot));
        for invoker in &queue.invokers {
            self.by_invoker.remove(&(*invoker, slot));
        }
        if let Some(deadline) = queue.deadline {
            self.deadlines.remove(&(deadline, slot));
        }
        self.free.push(slot);
        Some(queue)
    }

    /// Notes that a queue has dealings with an invoker.
    pub(crate) fn link(&mut self, slot: Slot, invoker: InvokerId) {
        if let Some(queue) = self.get_mut(slot)
            && queue.invokers.insert(invoker)
        {
            self.by_invoker.insert((invoker, slot));
        }
    }

    /// Forgets the dealings of all queues with an invoker; gives those that had some.
    pub(crate) fn unlink(&mut self, invoker: InvokerId) -> Vec<Slot> {
        let slots = self.linked(invoker);
        for slot in &slots {
            self.by_invoker.remove(&(invoker, *slot));
            if let Some(queue) = self.get_mut(*slot) {
                queue.invokers.remove(&invoker);
                queue.asked.remove(&invoker);
            }
        }
        slots
    }

    /// Notes when a queue wants its next tick.
    pub(crate) fn schedule(&mut self, slot: Slot) {
        let Some(queue) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let next = queue.queue.next_deadline();
        if queue.deadline == next {
            return;
        }
        if let Some(old) = std::mem::replace(&mut queue.deadline, next) {
            self.deadlines.remove(&(old, slot));
        }
        if let Some(next) = next {
            self.deadlines.insert((next, slot));
        }
    }

    /// Takes the earliest deadline that has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Slot> {
        let (_, slot) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.deadlines.pop_first();
        if let Some(queue) = self.get_mut(slot) {
            queue.deadline = None;
        }
        Some(slot)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn slot(&self, key: &QueueKey) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&LocalQueue> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut LocalQueue> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Occupied slots.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        (0..self.slots.len())
            .filter(|slot| self.get(*slot).is_some())
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LocalQueue> {
        self.slots.iter().flatten()
    }

    /// Places for queues, occupied or not; slots are below this.
    pub(crate) fn places_len(&self) -> usize {
        self.slots.len()
    }

    /// Queues that have dealings with an invoker.
    pub(crate) fn linked(&self, invoker: InvokerId) -> Vec<Slot> {
        let range = (invoker, Slot::MIN)..=(invoker, Slot::MAX);
        self.by_invoker.range(range).map(|(_, slot)| *slot).collect()
    }

    /// Queues of a namespace.
    pub(crate) fn in_namespace(&self, namespace: &NamespaceName) -> Vec<Slot> {
        let range = (namespace.clone(), Slot::MIN)..=(namespace.clone(), Slot::MAX);
        self.by_namespace.range(range).map(|(_, slot)| *slot).collect()
    }
}
