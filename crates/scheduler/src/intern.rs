//! Hot path: queue keys of one stream, parsed once. A stream talks about few queues many times.
//! Budget per frame: one hash of two strings; no allocation and no check of names after the first time.

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
        (&self.namespace, &self.action)
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
        if let Some((known, shard)) = self.known.get_key_value(&key as &dyn Names) {
            return Ok((known.0.clone(), *shard));
        }
        let parsed = QueueKey::try_from(key)?;
        // With the texts that the tables have: thousands of keys of each stream are kept.
        let parsed = node.read(|state| state.shared_key(&parsed));
        let shard = shards.of(&parsed);
        if self.known.len() >= KEYS_MAX {
            self.known.clear();
        }
        self.known.insert(Known(parsed.clone()), shard);
        Ok((parsed, shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_key_is_found_by_the_names_of_a_frame() {
        let frame = |namespace: &str, action: &str| v1::QueueKey {
            namespace: namespace.to_owned(),
            action: action.to_owned(),
        };
        let known = Known(QueueKey::try_from(frame("guest", "guest/hello")).unwrap());
        let keys = HashMap::from([(known, 7)]);
        let find = |key: v1::QueueKey| keys.get(&key as &dyn Names).copied();
        assert_eq!(find(frame("guest", "guest/hello")), Some(7));
        assert_eq!(find(frame("guest", "guest/hallo")), None);
        assert_eq!(find(frame("gues", "tguest/hello")), None);
    }
}
