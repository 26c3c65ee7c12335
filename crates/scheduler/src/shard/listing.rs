//! Lists queues for `status` and `queues`: filtered, ordered and cut while they are walked through, so that neither a
//! shard nor the answer ever holds more than the limit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use whiskraft_proto::v1;
use whiskraft_types::QueueKey;

use crate::shard::actor::Shard;
use crate::shard::local::LocalQueue;
use crate::shard::walk::Visitor;

/// Work of showing a queue, on top of what its ledger holds.
const SHOW_WORK: usize = 64;

/// Which queues come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Those whose oldest activation has waited longest.
    LongestWaiting,
    /// Those in which most wait.
    MostWaiting,
}

/// Place in a listing: what the order says, the other criterion, the key.
type Rank = (u64, u64, QueueKey);

/// Lists queues: never holds more than its limit, whatever there is.
pub(crate) struct Listing {
    order: Order,
    limit: usize,
    namespace: Option<String>,
    action: Option<String>,
    waiting_only: bool,
    listed: BTreeMap<Rank, v1::QueueStatus>,
    /// Queues led here, listed or not.
    pub(crate) queues: u64,
    /// Those of them that were asked for, listed or not.
    pub(crate) matching: u64,
    /// Activations that wait in all of them.
    pub(crate) waiting: u64,
}

impl Listing {
    /// At most `limit` queues.
    pub(crate) const fn new(order: Order, limit: usize) -> Self {
        Self {
            order,
            limit,
            namespace: None,
            action: None,
            waiting_only: false,
            listed: BTreeMap::new(),
            queues: 0,
            matching: 0,
            waiting: 0,
        }
    }

    /// Only what a request asks for. An action is meant by its full name or, without a slash, by its last part.
    pub(crate) fn filtered(mut self, request: &v1::QueuesRequest) -> Self {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.namespace = given(&request.namespace);
        self.action = given(request.action.trim_start_matches('/'));
        self.waiting_only = request.waiting_only;
        self
    }

    /// What was found, in order.
    pub(crate) fn into_queues(self) -> Vec<v1::QueueStatus> {
        self.listed.into_values().collect()
    }

    fn asks_for(&self, local: &LocalQueue, waiting: usize) -> bool {
        let is_action = |action: &String| {
            let name = &local.key().action;
            name.as_str() == action || name.name() == action
        };
        (waiting > 0 || !self.waiting_only)
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| local.key().namespace.as_str() == namespace)
            && self.action.as_ref().is_none_or(is_action)
    }

    fn rank(&self, local: &LocalQueue, waiting: usize) -> Rank {
        let since = local.queue.oldest().map_or(u64::MAX, |at| {
            u64::try_from(at.since_origin().as_micros()).unwrap_or(u64::MAX)
        });
        let fewer = u64::MAX - waiting as u64;
        match self.order {
            Order::LongestWaiting => (since, fewer, local.key().clone()),
            Order::MostWaiting => (fewer, since, local.key().clone()),
        }
    }
}

impl Visitor for Listing {
    fn visit(&mut self, shard: &Shard, local: &LocalQueue) -> ControlFlow<(), usize> {
        let waiting = local.queue.waiting_len();
        self.queues += 1;
        self.waiting += waiting as u64;
        if !self.asks_for(local, waiting) {
            return ControlFlow::Continue(0);
        }
        self.matching += 1;
        let rank = self.rank(local, waiting);
        let is_full = self.listed.len() >= self.limit;
        if is_full && self.listed.last_key_value().is_none_or(|(last, _)| *last <= rank) {
            return ControlFlow::Continue(1);
        }
        if is_full {
            self.listed.pop_last();
        }
        self.listed.insert(rank, shard.status_of(local));
        ControlFlow::Continue(SHOW_WORK + local.queue.ledger_len())
    }
}
