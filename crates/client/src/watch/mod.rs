//! Watching the replicated tables: typed changes in log order, resumed by itself when a scheduler is lost.

mod event;
mod subscription;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use whiskraft_types::LogRevision;

pub use self::event::{
    Container, ContainerState, Document, Invoker, Member, Namespace, Queue, Session, Table, Throttle,
    WatchEvent,
};
pub(crate) use self::subscription::Subscription;
use crate::directory::Class;
use crate::shared::Shared;

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
///
/// Whoever reads it does its work: no task stands between the connection and the reader. While nobody reads, the stream waits, and
/// a scheduler cuts it with a `Resync` in time.
pub struct WatchStream {
    updates: BoxStream<'static, WatchUpdate>,
}

impl WatchStream {
    pub(crate) fn start(subscription: Subscription) -> Self {
        let updates = stream::unfold(subscription, |mut subscription| async move {
            let update = subscription
                .next(|cause| tracing::debug!(cause, "watch interrupted"))
                .await;
            Some((update, subscription))
        });
        Self {
            updates: updates.boxed(),
        }
    }

    /// The next update; waits for one. Giving up the wait loses nothing.
    pub async fn next(&mut self) -> Option<WatchUpdate> {
        self.updates.next().await
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WatchStream").finish_non_exhaustive()
    }
}

impl Stream for WatchStream {
    type Item = WatchUpdate;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchUpdate>> {
        self.updates.poll_next_unpin(context)
    }
}

/// A subscription that resumes after `after`, or starts with a snapshot.
pub(crate) fn subscribe(shared: &Arc<Shared>, tables: &[Table], after: Option<LogRevision>) -> Subscription {
    Subscription::new(Arc::clone(shared), tables.to_vec(), after, Class::Watch)
}
