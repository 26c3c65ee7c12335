//! Settings of every queue that a scheduler leads; shared by all of them.

use std::sync::Arc;
use std::time::Duration;

use crate::{BuiltInRule, DecisionRule, DequeueOrder, OldestFirst};

/// Limits, times and policies of a [`MemoryQueue`](crate::MemoryQueue).
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// When a queue wants containers. Default [`BuiltInRule`].
    pub rule: Arc<dyn DecisionRule>,
    /// Which waiting activation is next. Default [`OldestFirst`].
    pub order: Arc<dyn DequeueOrder>,
    /// Waiting activations at which new ones are rejected with `Throttled`. Default 10000.
    pub len_max: u32,
    /// Part of `len_max` at or below which they are taken again. Default 0.9.
    pub throttling_fraction: f64,
    /// Longest wait from acceptance to delivery; after it an activation fails. Default 60 s.
    pub retention: Duration,
    /// The same for actions whose image must be pulled. Default 300 s.
    pub retention_blackbox: Duration,
    /// The same for durable activations, whatever their action; from the end of their delay if they have one. Also the
    /// longest time that one is held back for invokers that do not register. Default 24 h.
    pub retention_durable: Duration,
    /// Delayed activations at which new ones that ask for a delay are rejected with `Throttled`. Default 10000.
    pub delayed_max: u32,
    /// Whether records of activations that are not durable are given out to be kept. Default true.
    pub archive: bool,
    /// Age at which a waiting activation asks for more containers. Default 100 ms.
    pub stale_threshold: Duration,
    /// Pause between two scaling decisions while activations wait. Default 100 ms.
    pub decision_interval: Duration,
    /// Most runs that the duration average looks back on. Default 10.
    pub duration_samples: usize,
    /// Time with nothing waiting, running or owed after which the queue is removed. Default 10 min.
    pub idle_after: Duration,
    /// Times that invokers may refuse one activation before it pauses between them, from 100 ms up to 1 s. Default 5.
    pub refusals_free: u8,
    /// Longest time without scaling after a change of leader. Default 1 s.
    pub takeover_wait_max: Duration,
    /// Longest pause between creations while they fail; from 100 ms it doubles up to this. Default 1.6 s.
    pub creation_pause_max: Duration,
    /// Time without a new activation after which a failed creation is forgotten. Default 60 s.
    pub flush_grace: Duration,
    /// Time for which the namespace must have been full without a break until a queue without containers fails its
    /// activations and refuses new ones. With one decision interval on top, callers hear it within a second.
    /// Default 750 ms.
    pub starved_wait: Duration,
    /// Time after which the invoker may forget a result that its controller did not fetch. Default 10 s.
    pub result_grace: Duration,
    /// Time that such a result can be looked up by id, from its end. Default 10 min.
    pub result_keep: Duration,
    /// Most outcomes kept. The oldest whose grace is over go first; with this many within it the queue takes and
    /// hands out nothing new. Default 10000.
    pub results_max: usize,
    /// Time that the id of a received outcome is remembered, to refuse it when it is submitted again. Default 60 s.
    pub dedup_window: Duration,
    /// Most such ids; the oldest go first. Default 10000.
    pub dedup_max: usize,
    /// Ids of outcomes that were dropped and never received, each remembered for `result_keep` and `dedup_window`
    /// from its end, at which the queue takes and hands out nothing new. Default 120000, about 10 MB; only controllers
    /// that died leave any.
    pub unconfirmed_max: usize,
    /// Time for which resubmitted ids may have started on an invoker that was lost around a change of leader.
    /// Default 11 min, the longest that the SDK goes on submitting one.
    pub lost_keep: Duration,
    /// Time after a delivery at which an invoker that has said nothing about it counts as silent. Default 2 s.
    pub silent_after: Duration,
    /// Looks for silence are at multiples of this, so that one wake-up serves many queues; zero: when they are due.
    /// Default 128 ms.
    pub look_grid: Duration,
    /// An activation that an invoker got ends, without an answer, after twice the action's time limit (init and run
    /// have one each) and this much for everything around them. Default 10 s.
    pub answer_slack: Duration,
    /// Time for an invoker to say what became of the activations of a container that the table lost. Default 10 s.
    pub settle_wait: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            rule: Arc::new(BuiltInRule),
            order: Arc::new(OldestFirst),
            len_max: 10_000,
            throttling_fraction: 0.9,
            retention: Duration::from_secs(60),
            retention_blackbox: Duration::from_secs(300),
            retention_durable: Duration::from_secs(24 * 3600),
            delayed_max: 10_000,
            archive: true,
            stale_threshold: Duration::from_millis(100),
            decision_interval: Duration::from_millis(100),
            duration_samples: 10,
            idle_after: Duration::from_secs(600),
            refusals_free: 5,
            takeover_wait_max: Duration::from_secs(1),
            creation_pause_max: Duration::from_millis(1600),
            flush_grace: Duration::from_secs(60),
            starved_wait: Duration::from_millis(750),
            result_grace: Duration::from_secs(10),
            result_keep: Duration::from_secs(600),
            results_max: 10_000,
            dedup_window: Duration::from_secs(60),
            dedup_max: 10_000,
            unconfirmed_max: 120_000,
            lost_keep: Duration::from_secs(660),
            silent_after: Duration::from_secs(2),
            look_grid: Duration::from_millis(128),
            answer_slack: Duration::from_secs(10),
            settle_wait: Duration::from_secs(10),
        }
    }
}

impl QueueSettings {
    /// Waiting activations at or below which throttling ends.
    #[must_use]
    pub fn release_len(&self) -> usize {
        // Truncation is meant: a length is at most the product exactly if it is at most its whole part.
        let released = (f64::from(self.len_max) * self.throttling_fraction.clamp(0.0, 1.0)) as usize;
        // A queue that is at its limit is throttled, whatever the fraction says.
        released.min(self.len_max.saturating_sub(1) as usize)
    }
}
