//! What the process counts as it goes.
//!
//! Each shard has counters of its own with one writer, so counting on the hot path is a load, an addition and a store
//! without any bus traffic; they are summed when somebody asks. What happens rarely is counted in shared ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use whiskraft_types::{ActivationStatus, CreationError, Rejection, ThrottleScope, WaitReason};

use super::journal::JournalCounters;

/// Upper bounds of waits and proposals, in microseconds.
pub(super) const WAIT_BOUNDS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// Upper bounds of the lengths of turns, in microseconds.
const TURN_BOUNDS: &[u64] = &[
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000,
];

/// Reasons for a rejection, as labels.
pub(crate) const REASONS: [&str; 14] = [
    "not-leader",
    "no-queue",
    "throttled-namespace",
    "throttled-action",
    "throttled-stream",
    "throttled-rate",
    "too-large",
    "draining",
    "conflict",
    "unavailable",
    "invalid",
    "storage-full",
    "no-action",
    "throttled-results",
];

/// Place of a rejection in [`REASONS`].
const fn reason(rejection: &Rejection) -> usize {
    match rejection {
        Rejection::NotLeader(_) => 0,
        Rejection::NoQueue => 1,
        Rejection::Throttled { scope, .. } => match scope {
            ThrottleScope::Namespace => 2,
            ThrottleScope::Action => 3,
            ThrottleScope::Stream => 4,
            ThrottleScope::Rate => 5,
            ThrottleScope::Results => 13,
        },
        Rejection::TooLarge { .. } => 6,
        Rejection::Draining => 7,
        Rejection::Conflict => 8,
        Rejection::Unavailable { .. } => 9,
        Rejection::Invalid { .. } => 10,
        Rejection::StorageFull { .. } => 11,
        Rejection::NoAction { .. } => 12,
    }
}

/// Status classes, as labels, by their number.
pub(crate) const STATUSES: [&str; 4] = ["success", "application-error", "developer-error", "whisk-error"];

/// What happens to a leadership of this scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadershipEvent {
    /// A new queue.
    Created,
    /// A queue that another leadership held before.
    Taken,
    /// Another leadership follows.
    Moved,
    /// The queue is gone.
    Removed,
}

impl LeadershipEvent {
    /// As labels, by their number.
    pub(crate) const NAMES: [&str; 4] = ["created", "taken", "moved", "removed"];
}

/// Adds to a counter that nobody else writes to.
fn bump(counter: &AtomicU64, count: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(count),
        Ordering::Relaxed,
    );
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Observations by length.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: what is longer than all.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn bucket(&self, micros: u64) -> Option<&AtomicU64> {
        self.buckets
            .get(self.bounds.partition_point(|bound| *bound < micros))
    }

    /// Takes an observation of the one thread that writes.
    fn observe_alone(&self, duration: Duration) {
        let micros = micros(duration);
        if let Some(bucket) = self.bucket(micros) {
            bump(bucket, 1);
        }
        bump(&self.sum, micros);
    }

    /// Takes an observation.
    pub(super) fn observe(&self, duration: Duration) {
        let micros = micros(duration);
        if let Some(bucket) = self.bucket(micros) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Adds another one of the same bounds.
    pub(crate) fn add(&self, other: &Self) {
        for (bucket, more) in self.buckets.iter().zip(&other.buckets) {
            bump(bucket, more.load(Ordering::Relaxed));
        }
        bump(&self.sum, other.sum.load(Ordering::Relaxed));
    }

    /// Upper bounds in seconds, each with how many are not longer; then how many there are and their sum.
    pub(crate) fn snapshot(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut total = 0;
        let mut cumulative = Vec::with_capacity(self.bounds.len());
        for (at, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Ordering::Relaxed);
            if let Some(bound) = self.bounds.get(at) {
                cumulative.push((seconds(*bound), total));
            }
        }
        (cumulative, total, seconds(self.sum.load(Ordering::Relaxed)))
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The counters of one shard.
#[derive(Debug)]
pub(crate) struct ShardCounters {
    pub(crate) accepted: AtomicU64,
    pub(crate) rejected: [AtomicU64; REASONS.len()],
    pub(crate) delivered: AtomicU64,
    pub(crate) completed: [AtomicU64; STATUSES.len()],
    pub(crate) dropped: [AtomicU64; WaitReason::ALL.len()],
    pub(crate) wait: Histogram,
    pub(crate) turn: Histogram,
    pub(crate) start: Histogram,
    pub(crate) granted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) running: AtomicU64,
    pub(crate) failed: [AtomicU64; CreationError::ALL.len()],
    pub(crate) leaderships: [AtomicU64; LeadershipEvent::NAMES.len()],
}

impl ShardCounters {
    pub(crate) fn new() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            rejected: Default::default(),
            delivered: AtomicU64::new(0),
            completed: Default::default(),
            dropped: Default::default(),
            wait: Histogram::new(WAIT_BOUNDS),
            turn: Histogram::new(TURN_BOUNDS),
            start: Histogram::new(WAIT_BOUNDS),
            granted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            running: AtomicU64::new(0),
            failed: Default::default(),
            leaderships: Default::default(),
        }
    }

    /// Adds those of another shard; only for a sum that nobody writes to meanwhile.
    pub(crate) fn add(&self, other: &Self) {
        let one = |sum: &AtomicU64, more: &AtomicU64| bump(sum, more.load(Ordering::Relaxed));
        let many = |sum: &[AtomicU64], more: &[AtomicU64]| {
            sum.iter().zip(more).for_each(|(sum, more)| one(sum, more));
        };
        one(&self.accepted, &other.accepted);
        many(&self.rejected, &other.rejected);
        one(&self.delivered, &other.delivered);
        many(&self.completed, &other.completed);
        many(&self.dropped, &other.dropped);
        self.wait.add(&other.wait);
        self.turn.add(&other.turn);
        self.start.add(&other.start);
        one(&self.granted, &other.granted);
        one(&self.refused, &other.refused);
        one(&self.running, &other.running);
        many(&self.failed, &other.failed);
        many(&self.leaderships, &other.leaderships);
    }
}

/// The writing end of a shard's counters; there is one per shard, and no copy of it.
#[derive(Debug)]
pub(crate) struct ShardMeter {
    counters: Arc<ShardCounters>,
}

impl ShardMeter {
    /// A submission is taken.
    pub(crate) fn accepted(&mut self) {
        bump(&self.counters.accepted, 1);
    }

    /// A submission is not taken.
    pub(crate) fn rejected(&mut self, rejection: &Rejection) {
        bump(&self.counters.rejected[reason(rejection)], 1);
    }

    /// An activation goes to a container.
    pub(crate) fn delivered(&mut self, waited: Duration) {
        bump(&self.counters.delivered, 1);
        self.counters.wait.observe_alone(waited);
    }

    /// An outcome goes to a controller.
    pub(crate) fn completed(&mut self, status: ActivationStatus) {
        let status = usize::from(status.code());
        if let Some(counter) = self.counters.completed.get(status) {
            bump(counter, 1);
        }
    }

    /// An activation has waited too long.
    pub(crate) fn dropped(&mut self, kept_by: WaitReason) {
        bump(&self.counters.dropped[place_of(&WaitReason::ALL, kept_by)], 1);
    }

    /// The log has answered a reservation.
    pub(crate) fn reserved(&mut self, granted: u64, refused: u64) {
        bump(&self.counters.granted, granted);
        bump(&self.counters.refused, refused);
    }

    /// A container that was reserved runs.
    pub(crate) fn started(&mut self, after: Duration) {
        bump(&self.counters.running, 1);
        self.counters.start.observe_alone(after);
    }

    /// A creation was given up.
    pub(crate) fn not_created(&mut self, error: CreationError) {
        bump(&self.counters.failed[place_of(&CreationError::ALL, error)], 1);
    }

    /// A leadership began or ended.
    pub(crate) fn leadership(&mut self, event: LeadershipEvent) {
        bump(&self.counters.leaderships[event as usize], 1);
    }

    /// A turn is over.
    pub(crate) fn turn(&mut self, length: Duration) {
        self.counters.turn.observe_alone(length);
    }
}

/// Place in a list that has every value.
fn place_of<T: PartialEq>(all: &[T], value: T) -> usize {
    all.iter().position(|other| *other == value).unwrap_or_default()
}

/// All that is counted, of all shards; shared by the whole process.
#[derive(Debug)]
pub(crate) struct Metrics {
    shards: Vec<Arc<ShardCounters>>,
    rejected: [AtomicU64; REASONS.len()],
    pub(crate) keepalives_acknowledged: AtomicU64,
    pub(crate) keepalives_failed: AtomicU64,
    pub(crate) proposals_done: AtomicU64,
    pub(crate) proposals_refused: AtomicU64,
    pub(crate) proposals_failed: AtomicU64,
    pub(crate) proposal: Histogram,
    pub(crate) watchers: AtomicI64,
    pub(crate) journal: JournalCounters,
}

/// The end of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proposed {
    /// The log has it.
    Done,
    /// The tables refused it.
    Refused,
    /// Nobody knows, or there is no quorum.
    Failed,
}

/// Counts a watch stream while it is open.
#[derive(Debug)]
pub(crate) struct Watcher(Arc<Metrics>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// For this many shards.
    pub(crate) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..shards).map(|_| Arc::new(ShardCounters::new())).collect(),
            rejected: Default::default(),
            keepalives_acknowledged: AtomicU64::new(0),
            keepalives_failed: AtomicU64::new(0),
            proposals_done: AtomicU64::new(0),
            proposals_refused: AtomicU64::new(0),
            proposals_failed: AtomicU64::new(0),
            proposal: Histogram::new(WAIT_BOUNDS),
            watchers: AtomicI64::new(0),
            journal: JournalCounters::new(),
        })
    }

    /// The writing end for each shard, to be given away once.
    pub(crate) fn meters(&self) -> Vec<ShardMeter> {
        let counters = self.shards.iter().map(Arc::clone);
        counters.map(|counters| ShardMeter { counters }).collect()
    }

    /// The sum over all shards, and what was refused before it came to one.
    pub(crate) fn sum(&self) -> ShardCounters {
        let sum = ShardCounters::new();
        self.shards.iter().for_each(|shard| sum.add(shard));
        for (sum, more) in sum.rejected.iter().zip(&self.rejected) {
            bump(sum, more.load(Ordering::Relaxed));
        }
        sum
    }

    /// A stream refused a submission before any shard saw it.
    pub(crate) fn rejected(&self, rejection: &Rejection) {
        self.rejected[reason(rejection)].fetch_add(1, Ordering::Relaxed);
    }

    /// The answer to a keepalive of this scheduler's session.
    pub(crate) fn keepalive(&self, is_acknowledged: bool) {
        let counter = if is_acknowledged {
            &self.keepalives_acknowledged
        } else {
            &self.keepalives_failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A proposal has ended.
    pub(crate) fn proposed(&self, outcome: Proposed, after: Duration) {
        let counter = match outcome {
            Proposed::Done => &self.proposals_done,
            Proposed::Refused => &self.proposals_refused,
            Proposed::Failed => &self.proposals_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.proposal.observe(after);
    }

    /// A watch stream opens.
    pub(crate) fn watcher(self: &Arc<Self>) -> Watcher {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watcher(Arc::clone(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed() {
        let metrics = Metrics::new(2);
        for mut meter in metrics.meters() {
            meter.accepted();
            meter.delivered(Duration::from_millis(2));
            meter.completed(ActivationStatus::DeveloperError);
        }
        metrics.rejected(&Rejection::TooLarge { len: 2, len_max: 1 });
        let sum = metrics.sum();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!(
            (of(&sum.accepted), of(&sum.delivered), of(&sum.completed[2])),
            (2, 2, 2)
        );
        assert_eq!(of(&sum.rejected[6]), 1);
        assert_eq!(sum.wait.snapshot().1, 2);
    }

    #[test]
    fn a_histogram_counts_up_to_and_with_its_bounds() {
        let histogram = Histogram::new(&[10, 100]);
        for micros in [1, 10, 11, 100, 101] {
            histogram.observe(Duration::from_micros(micros));
        }
        let (buckets, count, sum) = histogram.snapshot();
        assert_eq!(buckets, [(0.000_01, 2), (0.000_1, 4)]);
        assert_eq!(count, 5);
        assert!((sum - 0.000_223).abs() < 1e-12);
    }
}
