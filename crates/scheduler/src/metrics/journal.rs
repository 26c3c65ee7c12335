//! What is counted of the journal: entries by kind and outcome, appends, recoveries, records that are kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::counters::{Histogram, WAIT_BOUNDS};

/// Kinds of entries, as labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A new activation.
    Accept,
    /// Another run of one.
    Retry,
    /// Its end.
    End,
    /// That it ends as cancelled.
    Cancel,
}

impl EntryKind {
    /// As labels, by their number.
    pub(crate) const NAMES: [&str; 4] = ["accept", "retry", "end", "cancel"];
}

/// What became of an entry, as labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryOutcome {
    /// On the disks of a majority.
    Written,
    /// The journal had it already.
    Known,
    /// Not written, and said so.
    Refused,
    /// Nobody knows yet.
    Unknown,
    /// Not written, and tried again.
    Repeated,
}

impl EntryOutcome {
    /// As labels, by their number.
    pub(crate) const NAMES: [&str; 5] = ["written", "known", "refused", "unknown", "repeated"];
}

/// The counters.
#[derive(Debug)]
pub(crate) struct JournalCounters {
    entries: [[AtomicU64; EntryOutcome::NAMES.len()]; EntryKind::NAMES.len()],
    pub(crate) batches: AtomicU64,
    pub(crate) append: Histogram,
    pub(crate) recovery: Histogram,
    pub(crate) recovered: AtomicU64,
    pub(crate) archived: AtomicU64,
    pub(crate) unarchived: AtomicU64,
}

impl JournalCounters {
    pub(crate) fn new() -> Self {
        Self {
            entries: Default::default(),
            batches: AtomicU64::new(0),
            append: Histogram::new(WAIT_BOUNDS),
            recovery: Histogram::new(WAIT_BOUNDS),
            recovered: AtomicU64::new(0),
            archived: AtomicU64::new(0),
            unarchived: AtomicU64::new(0),
        }
    }

    /// An entry has its answer.
    pub(crate) fn entry(&self, kind: EntryKind, outcome: EntryOutcome) {
        self.entries[kind as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A batch has its answer.
    pub(crate) fn appended(&self, after: Duration) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.append.observe(after);
    }

    /// What a queue had open is known.
    pub(crate) fn recovered(&self, after: Duration) {
        self.recovery.observe(after);
    }

    /// Entries with their labels.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Vec<&'static str>, f64)> {
        let kinds = EntryKind::NAMES.into_iter().zip(&self.entries);
        kinds.flat_map(|(kind, counters)| {
            let outcomes = EntryOutcome::NAMES.into_iter().zip(counters);
            outcomes.map(move |(outcome, count)| (vec![kind, outcome], count.load(Ordering::Relaxed) as f64))
        })
    }
}
