//! The near end of all shards: routes by queue key.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tokio::sync::mpsc;
use whiskraft_types::QueueKey;

use crate::message::Request;
use crate::shard::tables::TableChanges;

/// Requests buffered per shard; a full channel is back pressure on the streams that feed it.
pub(crate) const REQUESTS_MAX: usize = 1024;
/// Batches of table changes buffered per shard; a full channel holds back the follower, which then falls behind in
/// the node's ring and starts anew.
pub(crate) const CHANGES_MAX: usize = 256;

/// All shards; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct ShardsHandle {
    shards: Arc<[ShardHandle]>,
}

/// One shard.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) changes: mpsc::Sender<TableChanges>,
}

impl ShardsHandle {
    pub(crate) fn new(shards: Vec<ShardHandle>) -> Self {
        Self {
            shards: shards.into(),
        }
    }

    /// Number of shards.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// The shard of a queue.
    pub(crate) fn of(&self, key: &QueueKey) -> usize {
        shard_of(key, self.len())
    }

    /// Sends to one shard; waits while it is full. Fails only when the process stops.
    pub(crate) async fn send(&self, shard: usize, request: Request) {
        if let Some(shard) = self.shards.get(shard) {
            let _ = shard.requests.send(request).await;
        }
    }

    /// Sends to the shard of a queue.
    pub(crate) async fn send_to(&self, key: &QueueKey, request: Request) {
        self.send(self.of(key), request).await;
    }

    /// Sends to the shard of a queue if that has room; for requests that may get lost.
    pub(crate) fn try_send_to(&self, key: &QueueKey, request: Request) {
        if let Some(shard) = self.shards.get(self.of(key)) {
            let _ = shard.requests.try_send(request);
        }
    }

    /// Sends to every shard.
    pub(crate) async fn send_all(&self, mut request: impl FnMut() -> Request) {
        for shard in 0..self.len() {
            self.send(shard, request()).await;
        }
    }

    /// Sends to every shard that has room, the one that asks included; for requests that may get lost.
    pub(crate) fn try_send_all(&self, mut request: impl FnMut() -> Request) {
        for shard in self.shards.iter() {
            let _ = shard.requests.try_send(request());
        }
    }

    /// Sends table changes to one shard; waits while it is full.
    pub(crate) async fn change(&self, shard: usize, changes: TableChanges) {
        if let Some(shard) = self.shards.get(shard) {
            let _ = shard.changes.send(changes).await;
        }
    }
}

/// The shard of a queue among `count`; the same for the life of the process.
pub(crate) fn shard_of(key: &QueueKey, count: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % count.max(1) as u64).unwrap_or(0)
}
