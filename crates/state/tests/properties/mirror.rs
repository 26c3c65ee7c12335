//! A watcher's copy of the tables, fed by events alone.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_state::{
    ContainerRecord, DocumentKey, DocumentRecord, Event, InvokerRecord, MemberRecord, NamespaceRecord,
    QueueRecord, SessionRecord, State,
};
use whiskraft_types::{ContainerId, InvokerId, NamespaceName, QueueKey, SchedulerId, SessionId};

/// Tables as a watcher knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mirror {
    members: BTreeMap<SchedulerId, MemberRecord>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    queues: BTreeMap<QueueKey, QueueRecord>,
    containers: BTreeMap<ContainerId, ContainerRecord>,
    invokers: BTreeMap<InvokerId, InvokerRecord>,
    namespaces: BTreeMap<NamespaceName, NamespaceRecord>,
    documents: BTreeMap<DocumentKey, DocumentRecord>,
    throttled: BTreeSet<NamespaceName>,
    full: BTreeSet<QueueKey>,
}

impl Mirror {
    /// What a watcher knows that starts now.
    pub(crate) fn of(state: &State) -> Self {
        let mut mirror = Self::default();
        state.snapshot().for_each(|event| mirror.apply(&event));
        mirror
    }

    /// Follows an event; what it says about the row before must be true.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event.clone() {
            Event::Member(id, row) => set(&mut self.members, id, row),
            Event::Session(id, row) => {
                // Renewals and container numbers are not announced.
                let row = row.map(|row| SessionRecord {
                    renewed_seq: 0,
                    container_seq: 0,
                    ..row
                });
                set(&mut self.sessions, id, row);
            }
            Event::Queue(key, row) => set(&mut self.queues, key, row),
            Event::Container {
                id,
                record,
                before,
                removed,
            } => {
                assert_eq!(
                    self.containers.get(&id).map(|row| row.state),
                    before,
                    "state before of {id}"
                );
                if removed {
                    assert_eq!(self.containers.get(&id), Some(&record), "last record of {id}");
                }
                set(&mut self.containers, id, (!removed).then_some(record));
            }
            Event::Invoker(id, row) => set(&mut self.invokers, id, row),
            Event::Namespace(name, row) => set(&mut self.namespaces, name, row),
            Event::Document(key, row) => set(&mut self.documents, key, row),
            Event::NamespaceThrottle(name, throttled) => flip(&mut self.throttled, name, throttled),
            Event::ActionThrottle(key, throttled) => flip(&mut self.full, key, throttled),
            Event::HandedOver { key, from } => {
                assert_eq!(
                    self.queues.get(&key).map(|row| row.epoch),
                    Some(from),
                    "former epoch of {key}"
                );
            }
        }
    }
}

fn set<K: Ord, V: PartialEq>(table: &mut BTreeMap<K, V>, key: K, row: Option<V>) {
    match row {
        Some(row) => drop(table.insert(key, row)),
        None => assert!(
            table.remove(&key).is_some(),
            "an event removes a row that is not there"
        ),
    }
}

fn flip<K: Ord>(set: &mut BTreeSet<K>, key: K, is_in: bool) {
    let has_changed = if is_in { set.insert(key) } else { set.remove(&key) };
    assert!(has_changed, "a throttle event without a change");
}
