//! Results that no scheduler has acknowledged. They survive changes of leader and broken streams.
//!
//! Bounded by bytes and count: at a bound the pool gives no more asks, so at most what runs at that moment is
//! added above it.

use std::collections::BTreeMap;

use whiskraft_types::{ActivationId, ContainerId, QueueKey};

#[derive(Debug)]
pub(crate) struct Stored<R> {
    pub(crate) key: QueueKey,
    /// Where it ran, under the id that the container has now.
    pub(crate) container: ContainerId,
    /// Which run of its activation it is of.
    pub(crate) run: u32,
    pub(crate) record: R,
    /// False while it was held back because the invoker was fenced.
    pub(crate) sent: bool,
    pub(crate) len: u64,
}

#[derive(Debug)]
pub(crate) struct Results<R> {
    stored: BTreeMap<ActivationId, Stored<R>>,
    /// How many of them ran in each container.
    by_container: BTreeMap<ContainerId, u32>,
    bytes: u64,
    bytes_max: u64,
    len_max: usize,
}

impl<R> Results<R> {
    pub(crate) fn new(bytes_max: u64, len_max: usize) -> Self {
        Self {
            stored: BTreeMap::new(),
            by_container: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            len_max,
        }
    }

    pub(crate) fn insert(&mut self, id: ActivationId, result: Stored<R>) {
        self.bytes += result.len;
        *self.by_container.entry(result.container).or_insert(0) += 1;
        if let Some(old) = self.stored.insert(id, result) {
            self.forget(&old);
        }
    }

    /// Forgets a result; the container it ran in, if that was the last one of it.
    pub(crate) fn remove(&mut self, id: &ActivationId) -> Option<ContainerId> {
        let old = self.stored.remove(id)?;
        self.forget(&old);
        (!self.has_of(&old.container)).then_some(old.container)
    }

    /// Forgets all results of a queue; the containers of which none is left.
    pub(crate) fn remove_of(&mut self, key: &QueueKey) -> Vec<ContainerId> {
        let of_queue = self.stored.iter().filter(|(_, result)| result.key == *key);
        let ids: Vec<ActivationId> = of_queue.map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| self.remove(id)).collect()
    }

    fn forget(&mut self, old: &Stored<R>) {
        self.bytes -= old.len;
        if let Some(count) = self.by_container.get_mut(&old.container) {
            *count -= 1;
            if *count == 0 {
                self.by_container.remove(&old.container);
            }
        }
    }

    /// Whether a result of this container is not acknowledged.
    pub(crate) fn has_of(&self, container: &ContainerId) -> bool {
        self.by_container.contains_key(container)
    }

    /// The container goes on under another id.
    pub(crate) fn rename(&mut self, from: ContainerId, to: ContainerId) {
        let Some(count) = self.by_container.remove(&from) else {
            return;
        };
        *self.by_container.entry(to).or_insert(0) += count;
        for result in self.stored.values_mut().filter(|result| result.container == from) {
            result.container = to;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.stored.clear();
        self.by_container.clear();
        self.bytes = 0;
    }

    pub(crate) fn find(&mut self, id: &ActivationId) -> Option<&mut Stored<R>> {
        self.stored.get_mut(id)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max || self.stored.len() >= self.len_max
    }

    pub(crate) fn len(&self) -> usize {
        self.stored.len()
    }

    /// All of them, by id.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = (&ActivationId, &mut Stored<R>)> {
        self.stored.iter_mut()
    }
}
