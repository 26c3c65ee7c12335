//! What a shard wants in the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use whiskraft_state::journal::{Delay, UnixMillis};
use whiskraft_types::{ActivationId, Epoch, QueueKey};

use crate::message::{Payload, Record};
use crate::metrics::EntryKind;

/// One entry for the journal, of one activation under one leadership.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) id: ActivationId,
    pub(crate) entry: Entry,
    /// How often it could not be written.
    pub(crate) failures: u32,
    /// Whether this node has caught up with all lanes since the journal did not have it.
    pub(crate) is_caught_up: bool,
}

/// What to write.
#[derive(Debug)]
pub(crate) enum Entry {
    Accept {
        payload: Payload,
        accepted: UnixMillis,
        /// Time since then.
        waited: Duration,
        not_before: Option<Delay>,
        /// Its place among the acceptances under way.
        place: Place,
    },
    Retry {
        run: u32,
        pause: Duration,
    },
    End {
        record: Record,
        /// Whether the record was made here, because the queue knew of none.
        is_made_up: bool,
        run: u32,
        dead_letter: bool,
        at: UnixMillis,
        keep: Duration,
    },
    /// It ends as cancelled, whatever becomes of its run.
    Cancel,
}

impl Entry {
    /// Bytes that it carries, about.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Accept { payload, .. } => payload.len(),
            Self::End { record, .. } => {
                record.result.len() + record.logs.iter().map(String::len).sum::<usize>()
            }
            Self::Retry { .. } | Self::Cancel => 0,
        }
    }

    /// What it is counted as.
    pub(crate) const fn kind(&self) -> EntryKind {
        match self {
            Self::Accept { .. } => EntryKind::Accept,
            Self::Retry { .. } => EntryKind::Retry,
            Self::End { .. } => EntryKind::End,
            Self::Cancel => EntryKind::Cancel,
        }
    }
}

/// Acceptances under way: how many, and their bytes.
#[derive(Debug)]
pub(crate) struct Places {
    count: AtomicUsize,
    bytes: AtomicUsize,
    count_max: usize,
    bytes_max: usize,
}

impl Places {
    pub(crate) const fn new(count_max: usize, bytes_max: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            count_max,
            bytes_max,
        }
    }

    /// A place for an acceptance of so many bytes; `None` if all are taken.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<Place> {
        let place = Place {
            places: Arc::clone(self),
            len,
        };
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(len, Ordering::Relaxed) + len;
        // Dropped, it gives back what it took.
        (count <= self.count_max && bytes <= self.bytes_max).then_some(place)
    }

    /// Acceptances under way.
    pub(crate) fn taken(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// One acceptance's place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    len: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.count.fetch_sub(1, Ordering::Relaxed);
        self.places.bytes.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acceptances_are_bounded_by_count_and_bytes_and_places_come_back() {
        let places = Arc::new(Places::new(2, 100));
        let one = places.take(60).unwrap();
        assert!(places.take(41).is_none(), "too many bytes");
        let two = places.take(40).unwrap();
        assert!(places.take(0).is_none(), "too many");
        drop(one);
        assert_eq!(places.taken(), 1);
        assert!(places.take(60).is_some());
        drop(two);
        assert_eq!(places.taken(), 0);
    }
}
