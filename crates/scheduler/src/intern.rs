//! Hot path: queue keys of one stream, parsed once. A stream talks about few queues many times.
//! Budget per frame: one hash of two strings; no allocation and no check of names after the first time.

use std::collections::HashMap;

use whiskraft_proto::{InvalidMessage, required, v1};
use whiskraft_types::QueueKey;

use crate::shard::ShardsHandle;

/// Keys kept per stream; one that talks about more parses those beyond again.
const KEYS_MAX: usize = 16_384;

/// The keys of one stream, with the shard of each.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: HashMap<v1::QueueKey, (QueueKey, usize)>,
}

impl Keys {
    /// The key and its shard.
    ///
    /// # Errors
    /// If it is missing or a name in it breaks the rules.
    pub(crate) fn parse(
        &mut self,
        shards: &ShardsHandle,
        key: Option<v1::QueueKey>,
    ) -> Result<(QueueKey, usize), InvalidMessage> {
        let key = required(key, "key")?;
        if let Some((known, shard)) = self.known.get(&key) {
            return Ok((known.clone(), *shard));
        }
        let parsed = QueueKey::try_from(key.clone())?;
        let shard = shards.of(&parsed);
        if self.known.len() >= KEYS_MAX {
            self.known.clear();
        }
        self.known.insert(key, (parsed.clone(), shard));
        Ok((parsed, shard))
    }
}
