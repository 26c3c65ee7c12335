//! Streams of table changes, for the shells.
//!
//! A stream holds no buffer of its own: it remembers the revision it has seen and reads on in the ring that apply writes,
//! so a slow reader costs nothing and is cut when the ring has moved past it.

use std::sync::Arc;

use tokio::sync::watch;
use whiskraft_state::{Event, State};
use whiskraft_types::LogRevision;

use crate::store::Ring;

/// The events of one applied log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Log revision of the entry.
    pub revision: LogRevision,
    /// What it changed, in order; never empty.
    pub events: Vec<Event>,
}

/// Why an [`EventStream`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// The reader fell behind what is kept: subscribe again, from a new state.
    #[error("the reader fell behind the events that are kept")]
    Lagged,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Follows the changes of the tables, in order and without a gap.
#[derive(Debug)]
pub struct EventStream {
    ring: Arc<Ring>,
    news: watch::Receiver<u64>,
    seen: LogRevision,
}

impl EventStream {
    /// Everything after `seen`.
    pub(crate) fn after(ring: Arc<Ring>, seen: LogRevision) -> Self {
        let news = ring.news();
        Self { ring, news, seen }
    }

    /// The next batch; waits for it.
    ///
    /// # Errors
    /// [`StreamEnd::Lagged`] once the ring has moved past the reader, [`StreamEnd::Stopped`] with the node.
    pub async fn next(&mut self) -> Result<Arc<Batch>, StreamEnd> {
        loop {
            // Before the look into the ring, so that a publication between look and wait is noticed.
            self.news.mark_unchanged();
            if let Some(batch) = self.ring.after(&mut self.seen)? {
                return Ok(batch);
            }
            self.news.changed().await.map_err(|_| StreamEnd::Stopped)?;
        }
    }

    /// Log revision up to which this stream has delivered every event.
    #[must_use]
    pub fn revision(&self) -> LogRevision {
        self.seen
    }
}

/// How a watch begins.
#[derive(Debug)]
pub enum WatchStart {
    /// Everything after the wanted revision is retained.
    Resume(EventStream),
    /// It is not, or the watcher is new: these tables, and every change after them.
    Snapshot(State, EventStream),
}
