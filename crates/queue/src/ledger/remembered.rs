//! Ids of what has gone, remembered for a while in the order in which it went.
//!
//! Nearly all queues have a few of them: a look at each costs less than a tree, and takes a third of its memory.

use std::collections::{BTreeSet, VecDeque};

use whiskraft_types::{ActivationId, Instant};

/// Most ids that are found by a look at each.
const FEW_MAX: usize = 32;

/// The ids; one word while there are none, as in most queues most of the time.
#[derive(Debug)]
pub(super) struct Remembered(Option<Box<List>>);

#[derive(Debug, Default)]
struct List {
    by_time: VecDeque<(Instant, ActivationId)>,
    /// The same ids, while they are many.
    many: Option<BTreeSet<ActivationId>>,
}

impl Remembered {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    /// Adds one; a known one stays as old as it is.
    pub(super) fn push(&mut self, at: Instant, id: ActivationId) {
        let list = self.0.get_or_insert_default();
        let is_new = match &mut list.many {
            Some(many) => many.insert(id),
            None => !list.contains(id),
        };
        if !is_new {
            return;
        }
        list.by_time.push_back((at, id));
        if list.many.is_none() && list.by_time.len() > FEW_MAX {
            list.many = Some(list.by_time.iter().map(|(_, id)| *id).collect());
        }
    }

    /// Forgets the oldest.
    pub(super) fn pop(&mut self) {
        let Some(list) = &mut self.0 else {
            return;
        };
        let oldest = list.by_time.pop_front();
        if list.by_time.is_empty() {
            self.0 = None;
            return;
        }
        if let Some(((_, id), many)) = oldest.zip(list.many.as_mut()) {
            many.remove(&id);
        }
        let len = list.by_time.len();
        if len < FEW_MAX / 4 {
            list.many = None;
        }
        if len < list.by_time.capacity() / 4 {
            list.by_time.shrink_to(2 * len);
        }
    }

    /// When the oldest went.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.0.as_ref()?.by_time.front().map(|(at, _)| *at)
    }

    /// Whether it is one of them.
    pub(super) fn contains(&self, id: ActivationId) -> bool {
        self.0.as_ref().is_some_and(|list| list.contains(id))
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.by_time.len())
    }
}

impl List {
    fn contains(&self, id: ActivationId) -> bool {
        match &self.many {
            Some(many) => many.contains(&id),
            None => self.by_time.iter().any(|(_, known)| *known == id),
        }
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
        let mut remembered = Remembered::new();
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
            assert!(remembered.0.is_none());
        }
    }

    #[test]
    fn what_many_took_is_given_back_as_they_go() {
        let mut remembered = Remembered::new();
        (0..10_000).for_each(|number| remembered.push(at(number), id(number)));
        while remembered.len() > 1 {
            remembered.pop();
            let list = remembered.0.as_ref().unwrap();
            let (len, capacity) = (list.by_time.len(), list.by_time.capacity());
            assert!(capacity <= 4 * len + 3, "{capacity} for {len}");
            assert_eq!(list.many.is_some(), len >= FEW_MAX / 4);
        }
    }
}
