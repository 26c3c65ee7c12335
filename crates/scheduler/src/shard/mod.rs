//! Shards: each owns a part of the queues that this scheduler leads and drives them in one loop.

mod actor;
mod cold;
mod handle;
mod hot;
mod local;
mod mirror;
mod outbox;
mod outputs;
mod parked;
mod reclaim;
mod tables;

pub(crate) use actor::{Shard, ShardParts};
pub(crate) use handle::{CHANGES_MAX, REQUESTS_MAX, ShardHandle, ShardsHandle};
pub(crate) use outputs::record_of;
pub(crate) use tables::TableChanges;
