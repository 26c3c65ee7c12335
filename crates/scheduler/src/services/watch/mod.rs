//! Watch service: the changes of the replicated tables, in log order, exactly once per stream, resumable.
//!
//! A stream buffers nothing of its own beyond the frame under construction: it reads on in the node's ring of
//! recent batches when its receiver has room, and is cut with `Resync` and a new snapshot when the ring has moved past it.
//! Only a snapshot has a task of its own. What follows is read by whoever writes the response, and encoded once for all
//! watchers of the same tables: with a thousand of them each step between ring and socket counts a thousand times.

mod told;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tonic::Status;
use whiskraft_proto::v1::{self, watch_frame::Frame};
use whiskraft_proto::{ReadyWatch, ReadyWatchServer};
use whiskraft_raft::{EventStream, StreamEnd, WatchStart};
use whiskraft_state::State;
use whiskraft_types::LogRevision;

use self::told::{Told, Watched, encoded};
use crate::context::Context;
use crate::metrics::Watcher as Counted;
use crate::wire;

/// Frames of a snapshot that wait for a slow receiver.
const FRAMES_MAX: usize = 4;
/// Longest wait for a revision that the watcher has seen elsewhere, before it gets the tables that are here.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(2);
/// Events in one frame of a snapshot: some 100 KiB.
const SNAPSHOT_EVENTS_MAX: usize = 1000;

/// Implements the service; one per process.
#[derive(Debug)]
pub(crate) struct WatchService {
    context: Context,
    told: Arc<Told>,
}

impl WatchService {
    /// The service, for a router.
    pub(crate) fn server(context: Context) -> ReadyWatchServer<Self> {
        ReadyWatchServer::new(Self {
            context,
            told: Arc::default(),
        })
    }
}

impl ReadyWatch for WatchService {
    type Frames = BoxStream<'static, Result<Bytes, Status>>;

    fn watch(&self, request: v1::WatchRequest) -> Result<Self::Frames, Status> {
        let Some(tables) = Watched::parse(&request.tables) else {
            return Err(Status::invalid_argument(
                "tables: name at least one table, and only known ones",
            ));
        };
        let context = self.context.clone();
        let watcher = Watcher {
            context: context.clone(),
            tables,
            told: Arc::clone(&self.told),
            step: Step::Begin(LogRevision(request.after)),
            _counted: context.metrics.watcher(),
        };
        let frames = stream::unfold(watcher, Watcher::next).map(Ok);
        let stopping = async move { context.stopping().await };
        Ok(frames.take_until(stopping).boxed())
    }
}

/// One stream.
struct Watcher {
    context: Context,
    tables: Watched,
    told: Arc<Told>,
    step: Step,
    _counted: Counted,
}

/// A part of a snapshot.
struct Part {
    frame: Bytes,
    is_last: bool,
}

/// What comes next.
enum Step {
    /// Nothing has been sent; the watcher has seen everything up to here.
    Begin(LogRevision),
    /// The parts of a snapshot, then what follows the last of them.
    Snapshot(mpsc::Receiver<Part>, EventStream),
    /// Changes.
    Follow(EventStream),
}

impl Watcher {
    /// The next frame; waits for it. `None`: the node has stopped.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            match self.step {
                Step::Begin(after) => {
                    let (frame, step) = self.begin(after).await;
                    self.step = step;
                    if let Some(frame) = frame {
                        return Some((frame, self));
                    }
                }
                Step::Snapshot(mut parts, events) => match parts.recv().await {
                    Some(Part { frame, is_last }) => {
                        self.step = match is_last {
                            true => Step::Follow(events),
                            false => Step::Snapshot(parts, events),
                        };
                        return Some((frame, self));
                    }
                    // Changes may not follow half a snapshot.
                    None => return None,
                },
                Step::Follow(ref mut events) => match events.next().await {
                    Ok(batch) => {
                        if let Some(frame) = self.told.frame(&batch, self.tables) {
                            return Some((frame, self));
                        }
                    }
                    Err(StreamEnd::Stopped) => return None,
                    Err(StreamEnd::Lagged) => {
                        tracing::debug!("watcher fell behind, sends the tables again");
                        let (state, events) = self.context.node.subscribe();
                        self.step = self.snapshot(state, events);
                        return Some((resync(), self));
                    }
                },
            }
        }
    }

    async fn begin(&self, after: LogRevision) -> (Option<Bytes>, Step) {
        if after == LogRevision(0) {
            let (state, events) = self.context.node.subscribe();
            return (None, self.snapshot(state, events));
        }
        // This node may be behind the one that the watcher comes from.
        let reached = self.context.node.wait_applied(after);
        let _ = tokio::time::timeout(CATCH_UP_WAIT_MAX, reached).await;
        match self.context.node.watch(after) {
            WatchStart::Resume(events) => (None, Step::Follow(events)),
            WatchStart::Snapshot(state, events) => (Some(resync()), self.snapshot(state, events)),
        }
    }

    fn snapshot(&self, state: State, events: EventStream) -> Step {
        let (sender, parts) = mpsc::channel(FRAMES_MAX);
        tokio::spawn(send_snapshot(state, self.tables, sender));
        Step::Snapshot(parts, events)
    }
}

fn resync() -> Bytes {
    let reason = "the revision to resume after is not retained any more".to_owned();
    encoded(Frame::Resync(v1::Resync { reason }))
}

/// Sends the tables in parts; ends with the last one or its receiver.
async fn send_snapshot(state: State, tables: Watched, parts: mpsc::Sender<Part>) {
    let revision = state.revision().0;
    let mut events = state
        .snapshot()
        .filter(|event| tables.wants(event))
        .map(|event| wire::event(&event));
    loop {
        let part: Vec<_> = events.by_ref().take(SNAPSHOT_EVENTS_MAX).collect();
        let is_last = part.len() < SNAPSHOT_EVENTS_MAX;
        let frame = encoded(Frame::Snapshot(v1::WatchBatch {
            revision,
            events: part,
            last: is_last,
        }));
        if parts.send(Part { frame, is_last }).await.is_err() || is_last {
            return;
        }
    }
}
