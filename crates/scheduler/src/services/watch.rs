//! Watch service: the changes of the replicated tables, in log order, exactly once per stream, resumable.
//!
//! A stream buffers nothing of its own beyond the frame under construction: it reads on in the node's ring of
//! recent batches when its receiver has room, and is cut with `Resync` and a new snapshot when the ring has moved past it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use whiskraft_proto::v1::{self, watch_frame::Frame, watch_server::Watch};
use whiskraft_raft::{Batch, EventStream, StreamEnd, WatchStart};
use whiskraft_state::{ContainerState, Event, State};
use whiskraft_types::LogRevision;

use crate::context::Context;
use crate::wire;

/// Frames that wait for a slow receiver; the rest waits in the ring, which is bounded.
const FRAMES_MAX: usize = 4;
/// Longest wait for a revision that the watcher has seen elsewhere, before it gets the tables that are here.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(2);
/// Events in one frame of a snapshot: some 100 KiB.
const SNAPSHOT_EVENTS_MAX: usize = 1000;

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct WatchService {
    context: Context,
}

impl WatchService {
    pub(crate) const fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = BoxStream<'static, Result<v1::WatchFrame, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let tables: BTreeSet<i32> = request.tables.iter().copied().collect();
        let known =
            |table: &i32| v1::Table::try_from(*table).is_ok_and(|table| table != v1::Table::Unspecified);
        if tables.is_empty() || !tables.iter().all(known) {
            return Err(Status::invalid_argument(
                "tables: name at least one table, and only known ones",
            ));
        }
        let (frames, receiver) = mpsc::channel(FRAMES_MAX);
        let context = self.context.clone();
        let watcher = Watcher {
            context: context.clone(),
            tables,
            frames,
        };
        let after = LogRevision(request.after);
        let counted = self.context.metrics.watcher();
        tokio::spawn(async move {
            let _counted = counted;
            tokio::select! {
                () = context.stopping() => {}
                _ended = watcher.run(after) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}

/// One stream.
struct Watcher {
    context: Context,
    tables: BTreeSet<i32>,
    frames: mpsc::Sender<Result<v1::WatchFrame, Status>>,
}

/// The receiver has gone.
struct Gone;

impl Watcher {
    async fn run(self, after: LogRevision) -> Result<(), Gone> {
        let mut start = if after == LogRevision(0) {
            let (state, events) = self.context.node.subscribe();
            WatchStart::Snapshot(state, events)
        } else {
            // This node may be behind the one that the watcher comes from.
            let reached = self.context.node.wait_applied(after);
            let _ = tokio::time::timeout(CATCH_UP_WAIT_MAX, reached).await;
            self.context.node.watch(after)
        };
        let mut resync = after != LogRevision(0);
        loop {
            let events = match start {
                WatchStart::Resume(events) => events,
                WatchStart::Snapshot(state, events) => {
                    if resync {
                        let reason = "the revision to resume after is not retained any more".to_owned();
                        self.send(Frame::Resync(v1::Resync { reason })).await?;
                    }
                    self.snapshot(&state).await?;
                    events
                }
            };
            match self.follow(events).await? {
                StreamEnd::Stopped => return Ok(()),
                StreamEnd::Lagged => tracing::debug!("watcher fell behind, sends the tables again"),
            }
            let (state, events) = self.context.node.subscribe();
            (start, resync) = (WatchStart::Snapshot(state, events), true);
        }
    }

    async fn snapshot(&self, state: &State) -> Result<(), Gone> {
        let revision = state.revision().0;
        let mut events = state
            .snapshot()
            .filter(|event| self.wants(event))
            .map(|event| wire::event(&event));
        loop {
            let part: Vec<_> = events.by_ref().take(SNAPSHOT_EVENTS_MAX).collect();
            let last = part.len() < SNAPSHOT_EVENTS_MAX;
            self.send(Frame::Snapshot(v1::WatchBatch {
                revision,
                events: part,
                last,
            }))
            .await?;
            if last {
                return Ok(());
            }
        }
    }

    async fn follow(&self, mut events: EventStream) -> Result<StreamEnd, Gone> {
        loop {
            let batch: Arc<Batch> = tokio::select! {
                biased;
                () = self.frames.closed() => return Err(Gone),
                next = events.next() => match next {
                    Ok(batch) => batch,
                    Err(end) => return Ok(end),
                },
            };
            let wanted: Vec<_> = batch
                .events
                .iter()
                .filter(|event| self.wants(event))
                .map(wire::event)
                .collect();
            if !wanted.is_empty() {
                let batch = v1::WatchBatch {
                    revision: batch.revision.0,
                    events: wanted,
                    last: true,
                };
                self.send(Frame::Events(batch)).await?;
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        self.tables.contains(&i32::from(wire::table(event))) && is_told(event)
    }

    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        self.frames
            .send(Ok(v1::WatchFrame { frame: Some(frame) }))
            .await
            .map_err(|_| Gone)
    }
}

/// Whether watchers hear of it: not of a container that has ended, since they heard then that it is gone, and of a queue only
/// who leads it.
fn is_told(event: &Event) -> bool {
    match event {
        Event::Container { record, before, .. } => before.unwrap_or(record.state) != ContainerState::Ended,
        Event::HandedOver { .. } => false,
        _ => true,
    }
}
