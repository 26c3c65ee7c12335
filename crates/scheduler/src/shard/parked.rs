//! What arrived for a leadership that the shard has not been told of yet: the sender heard of it from a scheduler that
//! has applied more of the log, or the tables show it already and the event is on its way. Milliseconds, as a rule.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_queue::ControllerId;
use whiskraft_types::{Instant, QueueKey};

use crate::context::StreamId;
use crate::control::hello::Peer;
use crate::message::{PullInput, Submission};

/// Items parked per shard; past it senders hear what they would without parking: try again.
const PARKED_MAX: usize = 4096;

/// Time after which what waits is answered from what is known.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// One thing that waits for its queue.
pub(crate) enum ParkedItem {
    Submission(ControllerId, Box<Submission>),
    Pull(Peer, StreamId, PullInput),
}

/// All of a shard, by queue and in order.
#[derive(Default)]
pub(crate) struct Parked {
    items: BTreeMap<QueueKey, Vec<ParkedItem>>,
    len: usize,
    /// When the first of them has waited long enough.
    overdue_at: Option<Instant>,
}

impl Parked {
    /// Keeps an item; gives it back if there is no room.
    pub(crate) fn push(&mut self, now: Instant, key: &QueueKey, item: ParkedItem) -> Result<(), ParkedItem> {
        if self.len >= PARKED_MAX {
            return Err(item);
        }
        self.len += 1;
        self.overdue_at.get_or_insert(now + WAIT_MAX);
        self.items.entry(key.clone()).or_default().push(item);
        Ok(())
    }

    /// Everything that waited for a queue.
    pub(crate) fn take(&mut self, key: &QueueKey) -> Vec<ParkedItem> {
        let items = self.items.remove(key).unwrap_or_default();
        self.len -= items.len();
        self.overdue_at = self.overdue_at.filter(|_| self.len > 0);
        items
    }

    /// When the first of them has waited long enough.
    pub(crate) const fn overdue_at(&self) -> Option<Instant> {
        self.overdue_at
    }

    /// Everything that waited.
    pub(crate) fn take_all(&mut self) -> Vec<ParkedItem> {
        (self.len, self.overdue_at) = (0, None);
        std::mem::take(&mut self.items).into_values().flatten().collect()
    }
}
