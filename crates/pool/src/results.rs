//! Results that no scheduler has acknowledged. They survive changes of leader and broken streams.
//!
//! Bounded by bytes and count: at a bound the pool gives no more asks, so at most what runs at that moment is
//! added above it.

use std::collections::BTreeMap;

use whiskraft_types::{ActivationId, ContainerId, QueueKey};

#[derive(Debug)]
pub(crate) struct Stored<R> {
    pub(crate) key: QueueKey,
    /// Where it ran.
    pub(crate) container: ContainerId,
    pub(crate) record: R,
    /// False while it was held back because the invoker was fenced.
    pub(crate) sent: bool,
    pub(crate) len: u64,
}

#[derive(Debug)]
pub(crate) struct Results<R> {
    stored: BTreeMap<ActivationId, Stored<R>>,
    bytes: u64,
    bytes_max: u64,
    len_max: usize,
}

impl<R> Results<R> {
    pub(crate) fn new(bytes_max: u64, len_max: usize) -> Self {
        Self {
            stored: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            len_max,
        }
    }

    pub(crate) fn insert(&mut self, id: ActivationId, result: Stored<R>) {
        self.bytes += result.len;
        if let Some(old) = self.stored.insert(id, result) {
            self.bytes -= old.len;
        }
    }

    pub(crate) fn remove(&mut self, id: &ActivationId) {
        if let Some(old) = self.stored.remove(id) {
            self.bytes -= old.len;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.stored.clear();
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

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of them, by id.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = (&ActivationId, &mut Stored<R>)> {
        self.stored.iter_mut()
    }
}
