//! Invocations per minute of a namespace, over all schedulers.
//!
//! One scheduler, the *rate home* ([`State::rate_home`](whiskraft_state::State::rate_home)), owns the bucket of the
//! namespace (`homes.rs`). Every scheduler that leads queues of it keeps a small stock of tokens that its shards take
//! from without a lock (`stock.rs`), filled by one ask at a time (`actor.rs`).
//!
//! Bound: in any 60 s the schedulers accept at most the limit, its burst of a sixth, and what stocks held: a tenth of a
//! second's worth each, at least one. A move of the home adds a burst. A scheduler whose home does not answer accepts its
//! share, the limit divided by the live schedulers.

mod actor;
mod homes;
mod stock;

pub(crate) use actor::{RateActor, RateHandle};
pub(crate) use stock::{Stock, Take};
