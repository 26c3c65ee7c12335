//! Creations that wait for memory, by namespace and in order. They hold their slots and lose no retry by waiting; each
//! ends at its own deadline.
//!
//! Bounded: a namespace has at most as many as it has slots, and no more than the list takes; what finds no room fails as
//! it would without waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use whiskraft_types::{ContainerId, NamespaceName};

/// Creations of one namespace that wait; its others are asked for again by their queues.
const PER_NAMESPACE_MAX: usize = 256;

/// The lists.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    lists: BTreeMap<NamespaceName, VecDeque<ContainerId>>,
    all: BTreeMap<ContainerId, Parked>,
    /// Those whose queues do not know yet that they wait.
    untold: BTreeSet<ContainerId>,
}

#[derive(Debug)]
struct Parked {
    namespace: NamespaceName,
    /// What its queue was told last.
    told: Option<Obstacle>,
}

/// What keeps a creation from its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// No invoker has enough.
    Memory,
    /// Namespaces that have less come first.
    Turn,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn contains(&self, container: ContainerId) -> bool {
        self.all.contains_key(&container)
    }

    /// Appends a creation; false if there is no room. One that waits already keeps its place.
    pub(crate) fn push(&mut self, namespace: &NamespaceName, container: ContainerId) -> bool {
        if self.contains(container) {
            return true;
        }
        let list = self.lists.entry(namespace.clone()).or_default();
        if list.len() >= PER_NAMESPACE_MAX {
            return false;
        }
        list.push_back(container);
        self.untold.insert(container);
        let namespace = namespace.clone();
        self.all.insert(
            container,
            Parked {
                namespace,
                told: None,
            },
        );
        true
    }

    pub(crate) fn remove(&mut self, container: ContainerId) -> bool {
        let Some(parked) = self.all.remove(&container) else {
            return false;
        };
        self.untold.remove(&container);
        if let Some(list) = self.lists.get_mut(&parked.namespace) {
            list.retain(|other| *other != container);
            if list.is_empty() {
                self.lists.remove(&parked.namespace);
            }
        }
        true
    }

    /// Whether the queue has to be told of an obstacle: once per change.
    pub(crate) fn is_news(&mut self, container: ContainerId, obstacle: Obstacle) -> bool {
        self.untold.remove(&container);
        self.all
            .get_mut(&container)
            .is_some_and(|parked| parked.told.replace(obstacle) != Some(obstacle))
    }

    /// What a creation waits for, as its queue was told.
    pub(crate) fn obstacle(&self, container: ContainerId) -> Option<Obstacle> {
        self.all.get(&container)?.told
    }

    /// Up to `max` of which nobody has told their queues that they wait.
    pub(crate) fn untold(&self, max: usize) -> Vec<ContainerId> {
        self.untold.iter().copied().take(max).collect()
    }

    /// Namespaces in which something waits, but for these.
    pub(crate) fn namespaces<'a>(
        &'a self,
        but: &'a BTreeSet<NamespaceName>,
    ) -> impl Iterator<Item = &'a NamespaceName> {
        self.lists.keys().filter(|namespace| !but.contains(*namespace))
    }

    /// The first creation of a namespace that was not tried yet: first those that `come_first`, then in order.
    pub(crate) fn first(
        &self,
        namespace: &NamespaceName,
        tried: &BTreeSet<ContainerId>,
        come_first: impl Fn(ContainerId) -> bool,
    ) -> Option<ContainerId> {
        let list = self.lists.get(namespace)?.iter().copied();
        let mut left = list.filter(|container| !tried.contains(container)).peekable();
        let oldest = left.peek().copied();
        left.find(|container| come_first(*container)).or(oldest)
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::SessionId;

    use super::*;

    fn container(seq: u64) -> ContainerId {
        ContainerId {
            session: SessionId(1),
            seq,
        }
    }

    #[test]
    fn a_namespace_waits_in_order_and_within_its_bound() {
        let (mut waiting, guest) = (Waiting::default(), "guest".parse().unwrap());
        for seq in 1..=PER_NAMESPACE_MAX as u64 {
            assert!(waiting.push(&guest, container(seq)));
        }
        assert!(!waiting.push(&guest, container(999)));
        assert!(waiting.push(&guest, container(1)), "it has its place already");
        let mut tried = BTreeSet::new();
        let none = |_| false;
        assert_eq!(waiting.first(&guest, &tried, none), Some(container(1)));
        assert_eq!(
            waiting.first(&guest, &tried, |id| id == container(9)),
            Some(container(9))
        );
        tried.insert(container(1));
        assert_eq!(waiting.first(&guest, &tried, none), Some(container(2)));
        assert!(waiting.remove(container(2)) && !waiting.remove(container(2)));
        assert_eq!(waiting.first(&guest, &tried, none), Some(container(3)));
    }

    #[test]
    fn a_queue_is_told_once_per_change() {
        let (mut waiting, guest) = (Waiting::default(), "guest".parse().unwrap());
        waiting.push(&guest, container(1));
        assert!(waiting.is_news(container(1), Obstacle::Memory));
        assert!(!waiting.is_news(container(1), Obstacle::Memory));
        assert!(waiting.is_news(container(1), Obstacle::Turn));
        assert!(!waiting.is_news(container(2), Obstacle::Turn));
        waiting.push(&guest, container(3));
        waiting.push(&guest, container(4));
        assert_eq!(waiting.untold(9), [container(3), container(4)]);
        assert_eq!(waiting.untold(1), [container(3)]);
        waiting.remove(container(3));
        assert!(waiting.is_news(container(4), Obstacle::Turn));
        assert_eq!(waiting.untold(9), []);
    }
}
