//! Recent batches of events, bounded by number and bytes.
//!
//! Written by apply; read by any number of [`EventStream`](crate::EventStream)s, which hold nothing but a position.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use whiskraft_state::Event;
use whiskraft_types::LogRevision;

use crate::watch::{Batch, StreamEnd};

/// Memory taken by the texts of an event, roughly: a key and an address or two.
const EVENT_TEXT_LEN: usize = 192;

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    inner: Mutex<Inner>,
    /// Counts publications; streams wait for its change.
    news: watch::Sender<u64>,
    batches_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// Every batch after this revision is in the ring.
    floor: LogRevision,
    /// Every entry up to this revision has been applied and its batch published.
    applied: LogRevision,
    closed: bool,
}

fn weight(batch: &Batch) -> usize {
    size_of::<Batch>() + batch.events.len() * (size_of::<Event>() + EVENT_TEXT_LEN)
}

impl Ring {
    /// An empty ring with its bounds.
    pub(crate) fn new(batches_max: usize, bytes_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            news: watch::Sender::new(0),
            batches_max,
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the batches of applied entries up to `applied`; the oldest make room.
    pub(crate) fn publish(&self, mut batches: Vec<Batch>, applied: LogRevision) {
        // They stay for long, and nothing is added to them.
        batches.iter_mut().for_each(|batch| batch.events.shrink_to_fit());
        let mut inner = self.lock();
        for batch in batches {
            inner.bytes += weight(&batch);
            inner.batches.push_back(Arc::new(batch));
        }
        inner.applied = applied;
        while inner.batches.len() > self.batches_max || inner.bytes > self.bytes_max {
            let Some(oldest) = inner.batches.pop_front() else {
                break;
            };
            inner.bytes -= weight(&oldest);
            inner.floor = oldest.revision;
        }
        drop(inner);
        self.news.send_modify(|count| *count += 1);
    }

    /// Forgets everything: the tables were replaced as of `applied`.
    pub(crate) fn reset(&self, applied: LogRevision) {
        let mut inner = self.lock();
        *inner = Inner {
            floor: applied,
            applied,
            closed: inner.closed,
            ..Inner::default()
        };
        drop(inner);
        self.news.send_modify(|count| *count += 1);
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.news.send_modify(|count| *count += 1);
    }

    /// Revision up to which everything is published.
    pub(crate) fn applied(&self) -> LogRevision {
        self.lock().applied
    }

    /// Whether every batch after `revision` is still there.
    pub(crate) fn retains(&self, revision: LogRevision) -> bool {
        let inner = self.lock();
        revision >= inner.floor && revision <= inner.applied
    }

    /// Tells of publications.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The first batch after `seen`; without one, `seen` moves on to what is applied.
    pub(crate) fn after(&self, seen: &mut LogRevision) -> Result<Option<Arc<Batch>>, StreamEnd> {
        let inner = self.lock();
        if inner.closed {
            return Err(StreamEnd::Stopped);
        }
        if *seen < inner.floor {
            return Err(StreamEnd::Lagged);
        }
        let at = inner.batches.partition_point(|batch| batch.revision <= *seen);
        match inner.batches.get(at) {
            Some(batch) => {
                *seen = batch.revision;
                Ok(Some(Arc::clone(batch)))
            }
            None => {
                *seen = (*seen).max(inner.applied);
                Ok(None)
            }
        }
    }
}
