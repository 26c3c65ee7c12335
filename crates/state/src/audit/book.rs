//! The auditor's containers, counted by itself.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{ByteSize, ContainerId, NamespaceName, QueueKey, SessionId};

use super::holds_slot;
use crate::record::ContainerRecord;

/// Containers with the counts that limits are held against.
#[derive(Debug, Default)]
pub(super) struct Book {
    containers: BTreeMap<ContainerId, ContainerRecord>,
    by_queue: BTreeMap<QueueKey, BTreeSet<ContainerId>>,
    by_session: BTreeMap<SessionId, BTreeSet<ContainerId>>,
    slots_by_namespace: BTreeMap<NamespaceName, u32>,
    slots_by_queue: BTreeMap<QueueKey, u32>,
    promised_by_session: BTreeMap<SessionId, u64>,
}

impl Book {
    pub(super) fn put(&mut self, id: ContainerId, record: ContainerRecord) {
        self.remove(id);
        if holds_slot(record.state) {
            let namespace = record.key.namespace.clone();
            *self.slots_by_namespace.entry(namespace).or_default() += 1;
            *self.slots_by_queue.entry(record.key.clone()).or_default() += 1;
        }
        if let Some((_, session)) = record.invoker {
            if holds_slot(record.state) {
                *self.promised_by_session.entry(session).or_default() += record.memory.as_bytes();
            }
            self.by_session.entry(session).or_default().insert(id);
        }
        self.by_queue.entry(record.key.clone()).or_default().insert(id);
        self.containers.insert(id, record);
    }

    pub(super) fn remove(&mut self, id: ContainerId) {
        let Some(old) = self.containers.remove(&id) else {
            return;
        };
        if holds_slot(old.state) {
            give_back(&mut self.slots_by_namespace, &old.key.namespace);
            give_back(&mut self.slots_by_queue, &old.key);
        }
        if let Some((_, session)) = old.invoker {
            if holds_slot(old.state)
                && let Some(promised) = self.promised_by_session.get_mut(&session)
            {
                *promised = promised.saturating_sub(old.memory.as_bytes());
            }
            forget(&mut self.by_session, &session, id);
        }
        forget(&mut self.by_queue, &old.key, id);
    }

    pub(super) fn get(&self, id: ContainerId) -> Option<&ContainerRecord> {
        self.containers.get(&id)
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = (ContainerId, &ContainerRecord)> {
        self.containers.iter().map(|(id, record)| (*id, record))
    }

    pub(super) fn slots_of_namespace(&self, name: &NamespaceName) -> u32 {
        self.slots_by_namespace.get(name).copied().unwrap_or(0)
    }

    pub(super) fn slots_of_queue(&self, key: &QueueKey) -> u32 {
        self.slots_by_queue.get(key).copied().unwrap_or(0)
    }

    /// Memory of the containers that hold a slot on the invoker of a session.
    pub(super) fn promised_under(&self, session: SessionId) -> ByteSize {
        ByteSize::bytes(self.promised_by_session.get(&session).copied().unwrap_or(0))
    }

    /// The session is over: its invoker has nothing any more.
    pub(super) fn close(&mut self, session: SessionId) {
        self.promised_by_session.remove(&session);
    }

    /// Containers of a queue that are on no invoker.
    pub(super) fn unplaced_of(&self, key: &QueueKey) -> impl Iterator<Item = ContainerId> {
        self.of_queue(key)
            .filter(|(_, record)| record.invoker.is_none())
            .map(|(id, _)| id)
    }

    /// Containers on the invoker of a session.
    pub(super) fn placed_under(&self, session: SessionId) -> impl Iterator<Item = ContainerId> {
        self.by_session.get(&session).into_iter().flatten().copied()
    }

    fn of_queue(&self, key: &QueueKey) -> impl Iterator<Item = (ContainerId, &ContainerRecord)> {
        let ids = self.by_queue.get(key).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.containers.get(id)?)))
    }
}

fn give_back<K: Ord>(slots: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = slots.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            slots.remove(key);
        }
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ContainerId>>, key: &K, id: ContainerId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
