//! Ids of what has gone, remembered for a while in the order in which it went.
//!
//! Nearly all queues have a few of them: a look at each costs less than a tree, and takes a third of its memory.

use std::collections::{BTreeSet, VecDeque};

use whiskraft_types::{ActivationId, Instant};

/// Most ids that are found by a look at each.
const FEW_MAX: usize = 32;

/// The ids.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    by_time: VecDeque<(Instant, ActivationId)>,
    /// The same ids, while they are many.
    #[expect(clippy::box_collection, reason = "missing nearly always: one word instead of three")]
    many: Option<Box<BTreeSet<ActivationId>>>,
}

impl Remembered {
    /// Adds one; a known one stays as old as it is.
    pub(super) fn push(&mut self, at: Instant, id: ActivationId) {
        let is_new = match &mut self.many {
            Some(many) => many.insert(id),
            None => !self.contains(id),
        };
        if !is_new {
            return;
        }
        self.by_time.push_back((at, id));
        if self.many.is_none() && self.by_time.len() > FEW_MAX {
            self.many = Some(Box::new(self.by_time.iter().map(|(_, id)| *id).collect()));
        }
    }

    /// Forgets the oldest.
    pub(super) fn pop(&mut self) {
        let Some((_, id)) = self.by_time.pop_front() else {
            return;
        };
        if let Some(many) = &mut self.many {
            many.remove(&id);
        }
        if self.by_time.len() < FEW_MAX / 4 && self.by_time.capacity() > FEW_MAX / 2 {
            self.many = None;
            self.by_time.shrink_to(FEW_MAX / 4);
        }
    }

    /// When the oldest went.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.by_time.front().map(|(at, _)| *at)
    }

    /// Whether it is one of them.
    pub(super) fn contains(&self, id: ActivationId) -> bool {
        match &self.many {
            Some(many) => many.contains(&id),
            None => self.by_time.iter().any(|(_, known)| *known == id),
        }
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(number: u32) -> ActivationId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        ActivationId::from_bytes(bytes)
    }

    fn at(number: u32) -> Instant {
        Instant::from_origin(Duration::from_secs(number.into()))
    }

    #[test]
    fn all_are_known_until_they_are_forgotten_however_many_there_are() {
        let mut remembered = Remembered::default();
        for len in [5, 100, 3, 33] {
            let ids = || (0..len).map(|number| number + len * 1000);
            ids().for_each(|number| remembered.push(at(number), id(number)));
            remembered.push(at(1), id(len * 1000));
            assert_eq!(remembered.len(), len as usize, "one that is known is not added");
            for number in ids() {
                assert!(remembered.contains(id(number)));
                assert_eq!(remembered.oldest(), Some(at(number)));
                remembered.pop();
                assert!(!remembered.contains(id(number)));
            }
            assert!(remembered.many.is_none() && remembered.by_time.capacity() <= FEW_MAX / 2);
        }
    }
}
