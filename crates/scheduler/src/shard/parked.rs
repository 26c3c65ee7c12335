//! What arrived for a leadership that the tables already show and the shard has not been told of yet: a few
//! milliseconds at most, as the log is applied before its events are passed on.

use std::collections::BTreeMap;

use whiskraft_queue::ControllerId;
use whiskraft_types::QueueKey;

use crate::context::StreamId;
use crate::control::hello::Peer;
use crate::message::{PullInput, Submission};

/// Items parked per shard; past it senders hear what they would without parking: try again.
const PARKED_MAX: usize = 4096;

/// One thing that waits for its queue.
pub(crate) enum ParkedItem {
    Submission(ControllerId, Submission),
    Pull(Peer, StreamId, PullInput),
}

/// All of a shard, by queue and in order.
#[derive(Default)]
pub(crate) struct Parked {
    items: BTreeMap<QueueKey, Vec<ParkedItem>>,
    len: usize,
}

impl Parked {
    /// Keeps an item; gives it back if there is no room.
    pub(crate) fn push(&mut self, key: &QueueKey, item: ParkedItem) -> Result<(), ParkedItem> {
        if self.len >= PARKED_MAX {
            return Err(item);
        }
        self.len += 1;
        self.items.entry(key.clone()).or_default().push(item);
        Ok(())
    }

    /// Everything that waited for a queue.
    pub(crate) fn take(&mut self, key: &QueueKey) -> Vec<ParkedItem> {
        let items = self.items.remove(key).unwrap_or_default();
        self.len -= items.len();
        items
    }

    /// Everything that waited.
    pub(crate) fn take_all(&mut self) -> Vec<ParkedItem> {
        self.len = 0;
        std::mem::take(&mut self.items).into_values().flatten().collect()
    }
}
