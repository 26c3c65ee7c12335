//! Reports about containers, kept until a scheduler acknowledges them.
//!
//! Invariant: at most one report of a container is on its way; the next follows its ack. So reports of one
//! container cannot overtake each other, whichever schedulers carry them.

use std::collections::BTreeMap;

use whiskraft_types::{ContainerId, QueueKey};

use crate::Change;

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) key: QueueKey,
    pub(crate) change: Change,
    /// Newest change after the one on its way; those between need not be told.
    next: Option<Change>,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    by_container: BTreeMap<ContainerId, Pending>,
    by_seq: BTreeMap<u64, ContainerId>,
    seq: u64,
}

impl Outbox {
    /// Takes a change in; true if it has to be sent now.
    pub(crate) fn push(&mut self, container: ContainerId, key: &QueueKey, change: Change) -> bool {
        if let Some(pending) = self.by_container.get_mut(&container) {
            pending.next = Some(change);
            return false;
        }
        self.put(container, key.clone(), change);
        true
    }

    fn put(&mut self, container: ContainerId, key: QueueKey, change: Change) {
        self.seq += 1;
        self.by_seq.insert(self.seq, container);
        self.by_container.insert(
            container,
            Pending {
                seq: self.seq,
                key,
                change,
                next: None,
            },
        );
    }

    /// Takes an ack in; the container whose next change has to be sent now, if there is one.
    pub(crate) fn acked(&mut self, seq: u64) -> Option<ContainerId> {
        let container = self.by_seq.remove(&seq)?;
        let pending = self.by_container.remove(&container)?;
        let next = pending.next?;
        self.put(container, pending.key, next);
        Some(container)
    }

    pub(crate) fn forget(&mut self, container: &ContainerId) {
        if let Some(pending) = self.by_container.remove(container) {
            self.by_seq.remove(&pending.seq);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_container.clear();
        self.by_seq.clear();
    }

    pub(crate) fn find(&self, container: &ContainerId) -> Option<&Pending> {
        self.by_container.get(container)
    }

    /// Queues that reports are about.
    pub(crate) fn keys(&self) -> impl Iterator<Item = QueueKey> {
        self.by_container.values().map(|pending| pending.key.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// Containers with a report on its way, oldest report first.
    pub(crate) fn waiting(&self) -> Vec<ContainerId> {
        self.by_seq.values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whiskraft_types::SessionId;

    fn key() -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/hello".parse().unwrap(),
        }
    }

    #[test]
    fn next_report_of_a_container_waits_for_the_ack_and_is_the_newest() {
        let mut outbox = Outbox::default();
        let c = ContainerId {
            session: SessionId(1),
            seq: 1,
        };
        assert!(outbox.push(c, &key(), Change::Running));
        assert!(!outbox.push(c, &key(), Change::Warm));
        assert!(!outbox.push(c, &key(), Change::Removed { reason: "x".into() }));
        assert_eq!(outbox.acked(7), None);
        assert_eq!(outbox.acked(1), Some(c));
        assert!(matches!(outbox.find(&c).unwrap().change, Change::Removed { .. }));
        assert_eq!(outbox.acked(1), None, "an ack counts once");
        assert_eq!(outbox.acked(2), None);
        assert_eq!(outbox.len(), 0);
    }
}
