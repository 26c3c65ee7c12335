//! Outcomes that a controller was sent and has not confirmed: which queue has to hear of the confirmation.
//!
//! Bounded: the oldest are forgotten first. A confirmation that finds nothing is ignored, and the queue forgets the
//! outcome with its time.

use std::collections::{BTreeMap, HashMap};

use whiskraft_types::{ActivationId, QueueKey};

/// The table of one stream.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// With the number of the delivery.
    keys: HashMap<ActivationId, (u64, QueueKey)>,
    /// By that number: the same activations, oldest first.
    order: BTreeMap<u64, ActivationId>,
    next: u64,
    len_max: usize,
}

impl Delivered {
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            keys: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            len_max,
        }
    }

    /// An outcome leaves for the controller.
    pub(crate) fn insert(&mut self, id: ActivationId, key: QueueKey) {
        if let Some((before, _)) = self.keys.insert(id, (self.next, key)) {
            self.order.remove(&before);
        }
        self.order.insert(self.next, id);
        self.next += 1;
        while self.order.len() > self.len_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.keys.remove(&oldest);
        }
    }

    /// The controller has it.
    pub(crate) fn confirm(&mut self, id: ActivationId) -> Option<QueueKey> {
        let (number, key) = self.keys.remove(&id)?;
        self.order.remove(&number);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/hello".parse().unwrap(),
        }
    }

    fn id(number: u8) -> ActivationId {
        ActivationId::from_bytes([number; 16])
    }

    #[test]
    fn the_oldest_is_forgotten_and_what_is_delivered_again_is_young_again() {
        let mut delivered = Delivered::new(2);
        delivered.insert(id(1), key());
        delivered.insert(id(2), key());
        delivered.insert(id(1), key());
        delivered.insert(id(3), key());
        assert_eq!(delivered.confirm(id(2)), None);
        assert_eq!(delivered.confirm(id(1)), Some(key()));
        assert_eq!(delivered.confirm(id(1)), None);
        assert_eq!(delivered.confirm(id(3)), Some(key()));
        assert!(delivered.keys.is_empty() && delivered.order.is_empty());
    }
}
