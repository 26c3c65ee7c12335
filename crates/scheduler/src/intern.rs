//! Hot path: queue keys of one stream, parsed once. A stream talks about few queues many times.
//! Budget per frame: one hash of two strings; no allocation, no check of names and no look at the tables after the first
//! time. That look waits for nobody.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use whiskraft_proto::{InvalidMessage, required, v1};
use whiskraft_raft::Node;
use whiskraft_types::QueueKey;

use crate::shard::ShardsHandle;

/// Keys kept per stream, some 50 bytes each; one that talks about more parses those beyond again.
const KEYS_MAX: usize = 16_384;

/// The two names of a queue, as a frame has them or as they were parsed: a known key is found by those of a frame.
trait Names {
    fn names(&self) -> (&str, &str);
}

impl Hash for dyn Names + '_ {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.names().hash(hasher);
    }
}

impl PartialEq for dyn Names + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Names + '_ {}

impl Names for v1::QueueKey {
    fn names(&self) -> (&str, &str) {
        // Parsed it has no slash in front.
        let action = self.action.strip_prefix('/').unwrap_or(&self.action);
        (&self.namespace, action)
    }
}

/// A key that was parsed.
#[derive(Debug, PartialEq, Eq)]
struct Known(QueueKey);

impl Names for Known {
    fn names(&self) -> (&str, &str) {
        (self.0.namespace.as_str(), self.0.action.as_str())
    }
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.names().hash(hasher);
    }
}

impl<'a> Borrow<dyn Names + 'a> for Known {
    fn borrow(&self) -> &(dyn Names + 'a) {
        self
    }
}

/// The keys of one stream, with the shard of each.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: HashMap<Known, usize>,
}

impl Keys {
    /// The key and its shard.
    ///
    /// # Errors
    /// If it is missing or a name in it breaks the rules.
    pub(crate) fn parse(
        &mut self,
        shards: &ShardsHandle,
        node: &Node,
        key: Option<v1::QueueKey>,
    ) -> Result<(QueueKey, usize), InvalidMessage> {
        let key = required(key, "key")?;
        if let Some(known) = self.find(&key) {
            return Ok(known);
        }
        let parsed = QueueKey::try_from(key)?;
        // With the texts that the tables have: thousands of keys of each stream are kept. Not worth waiting for.
        let shared = node.try_read(|state| state.shared_key(&parsed));
        let parsed = shared.unwrap_or(parsed);
        let shard = shards.of(&parsed);
        self.keep(parsed.clone(), shard);
        Ok((parsed, shard))
    }

    fn find(&self, key: &v1::QueueKey) -> Option<(QueueKey, usize)> {
        let (known, shard) = self.known.get_key_value(key as &dyn Names)?;
        Some((known.0.clone(), *shard))
    }

    fn keep(&mut self, key: QueueKey, shard: usize) {
        let key = Known(key);
        if self.known.len() >= KEYS_MAX && !self.known.contains_key(&key) {
            self.known.clear();
        }
        self.known.insert(key, shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(namespace: &str, action: &str) -> v1::QueueKey {
        v1::QueueKey {
            namespace: namespace.to_owned(),
            action: action.to_owned(),
        }
    }

    fn parsed(action: &str) -> QueueKey {
        QueueKey::try_from(frame("guest", action)).unwrap()
    }

    #[test]
    fn a_known_key_is_found_by_the_names_of_a_frame() {
        let mut keys = Keys::default();
        keys.keep(parsed("guest/hello"), 7);
        let find = |namespace, action| keys.find(&frame(namespace, action));
        let known = Some((parsed("guest/hello"), 7));
        assert_eq!(find("guest", "guest/hello"), known);
        assert_eq!(find("guest", "/guest/hello"), known, "the same action");
        assert_eq!(find("guest", "//guest/hello"), None, "no name");
        assert_eq!(find("guest", "guest/hallo"), None);
        assert_eq!(find("gues", "tguest/hello"), None);
    }

    #[test]
    fn only_a_new_key_makes_room() {
        let mut keys = Keys::default();
        for number in 0..KEYS_MAX {
            keys.keep(parsed(&format!("guest/{number}")), number);
        }
        assert!(keys.find(&frame("guest", "/guest/0")).is_some());
        keys.keep(parsed("/guest/0"), 0);
        assert_eq!(keys.known.len(), KEYS_MAX);
        keys.keep(parsed("guest/new"), 0);
        assert_eq!(keys.known.len(), 1);
    }
}
