//! Watching the replicated tables: typed changes in log order, resumed by itself when a scheduler is lost.

mod event;
mod subscription;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use whiskraft_types::LogRevision;

pub use self::event::{
    Container, ContainerState, Document, Invoker, Member, Namespace, Queue, Session, Table, Throttle,
    WatchEvent,
};
pub(crate) use self::subscription::Subscription;
use crate::shared::Shared;

/// Updates that wait for a slow reader; then the stream waits, and a scheduler cuts it with a `Resync` in time.
const UPDATES_MAX: usize = 16;

/// What a watch brings.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchUpdate {
    /// Forget everything; a snapshot follows.
    Resync {
        /// Why.
        reason: String,
    },
    /// Part of a snapshot. What no part up to the last one mentions does not exist.
    Snapshot {
        /// Log revision of the snapshot.
        revision: LogRevision,
        /// Rows.
        events: Vec<WatchEvent>,
        /// Whether it is complete now.
        last: bool,
    },
    /// Changes, every one exactly once and in log order.
    Changes {
        /// Log revision after them; pass it to resume a later watch.
        revision: LogRevision,
        /// Rows that changed.
        events: Vec<WatchEvent>,
    },
}

/// A running watch. Never ends by itself: it moves to another scheduler when one is lost. Dropping it ends it.
#[derive(Debug)]
pub struct WatchStream {
    updates: mpsc::Receiver<WatchUpdate>,
    task: JoinHandle<()>,
}

impl WatchStream {
    pub(crate) fn start(mut subscription: Subscription) -> Self {
        let (sender, updates) = mpsc::channel(UPDATES_MAX);
        let task = tokio::spawn(async move {
            loop {
                let update = subscription
                    .next(|cause| tracing::debug!(cause, "watch interrupted"))
                    .await;
                if sender.send(update).await.is_err() {
                    return;
                }
            }
        });
        Self { updates, task }
    }

    /// The next update; waits for one.
    pub async fn next(&mut self) -> Option<WatchUpdate> {
        self.updates.recv().await
    }
}

impl Stream for WatchStream {
    type Item = WatchUpdate;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchUpdate>> {
        self.updates.poll_recv(context)
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A subscription that resumes after `after`, or starts with a snapshot.
pub(crate) fn subscribe(shared: &Arc<Shared>, tables: &[Table], after: Option<LogRevision>) -> Subscription {
    Subscription::new(Arc::clone(shared), tables.to_vec(), after)
}
