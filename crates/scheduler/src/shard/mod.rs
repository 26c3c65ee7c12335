//! Shards: each owns a part of the queues that this scheduler leads and drives them in one loop.

mod actor;
mod calls;
mod cold;
mod count;
mod handle;
mod hot;
mod led;
mod listing;
mod local;
mod mirror;
mod outbox;
mod outputs;
mod parked;
mod rate;
mod reclaim;
mod release;
mod reset;
pub(crate) mod rotation;
mod search;
mod show;
mod sightings;
mod surplus;
mod tables;
mod throttles;
mod unary;
mod walk;

pub(crate) use actor::{Shard, ShardParts};
pub(crate) use handle::{CHANGES_MAX, REQUESTS_MAX, ShardHandle, ShardsHandle};
pub(crate) use listing::{Listing, Order};
pub(crate) use local::LocalQueue;
pub(crate) use outputs::record_of;
pub(crate) use search::{Explained, Search};
pub(crate) use tables::TableChanges;
pub(crate) use unary::{Delivery, Fetch, FetchAnswer, UnaryRequest};
pub(crate) use walk::{Visitor, Walk};
