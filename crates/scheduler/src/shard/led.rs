//! Which queues of this shard's part exist, whoever leads them: tells a leadership that follows another one from a first
//! one.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use whiskraft_types::QueueKey;

/// The queues, by hash: a few bytes for each of all queues of the cluster. Two that share one make the second look like
/// one that was led before, which costs a look at its invokers and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Led {
    hashes: HashSet<u64>,
}

impl Led {
    /// These.
    pub(crate) fn of<'a>(keys: impl Iterator<Item = &'a QueueKey>) -> Self {
        Self {
            hashes: keys.map(hash).collect(),
        }
    }

    /// Notes that a queue is there, or gone; whether it was there before.
    pub(crate) fn note(&mut self, key: &QueueKey, is_there: bool) -> bool {
        let hash = hash(key);
        if is_there {
            !self.hashes.insert(hash)
        } else {
            self.hashes.remove(&hash)
        }
    }
}

fn hash(key: &QueueKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_was_removed_begins_anew() {
        let key = |action: &str| QueueKey {
            namespace: "guest".parse().unwrap(),
            action: action.parse().unwrap(),
        };
        let mut led = Led::of([key("guest/a")].iter());
        assert!(led.note(&key("guest/a"), true), "it moves");
        assert!(!led.note(&key("guest/b"), true), "a new one");
        assert!(led.note(&key("guest/b"), true));
        led.note(&key("guest/b"), false);
        assert!(!led.note(&key("guest/b"), true), "new again");
    }
}
