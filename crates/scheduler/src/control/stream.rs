//! One invoker's Control stream: keepalives, reports of containers and memory up; creations and removals down.
//!
//! One task reads and writes. It never waits for its peer to read before it reads itself, so two slow ends cannot
//! block each other.

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use whiskraft_proto::v1::{self, container_report::Change};
use whiskraft_raft::KeepaliveError;
use whiskraft_state::{Command, ContainerChange, InvokerReport};
use whiskraft_types::{ByteSize, ContainerId, CreationError};

use crate::context::{Context, StreamId};
use crate::control::hello::Peer;
use crate::control::registry::{ControlCommand, ControlStreams};
use crate::creation::CreationHandle;
use crate::reports::ReportsHandle;
use crate::updates::UpdatesHandle;

/// Reports and keepalives under way per stream, acknowledgements that the invoker has not taken included; above it the
/// stream is not read, and the invoker waits.
const UNDER_WAY_MAX: usize = 1024;
/// Commands put into one frame.
const COMMANDS_PER_FRAME: usize = 64;

/// What the tasks of Control streams share; a cheap copy.
#[derive(Clone)]
pub(crate) struct ControlParts {
    pub(crate) context: Context,
    pub(crate) streams: ControlStreams,
    pub(crate) creation: CreationHandle,
    pub(crate) updates: UpdatesHandle,
    pub(crate) reports: ReportsHandle,
}

/// Something the stream waited for has come.
enum Done {
    Keepalive {
        seq: u64,
        result: Result<(), KeepaliveError>,
    },
    Report {
        seq: u64,
    },
    /// Whether the session that the invoker gives up has ended.
    Left {
        closed: bool,
    },
}

type DoneFuture = futures::future::BoxFuture<'static, Done>;

/// One stream.
pub(crate) struct ControlStream {
    parts: ControlParts,
    peer: Peer,
    stream: StreamId,
    commands: mpsc::Receiver<ControlCommand>,
    frames: mpsc::Sender<Result<v1::ControlDown, Status>>,
    under_way: FuturesUnordered<DoneFuture>,
    /// The next frame; goes out as soon as the peer takes one.
    next: v1::ControlDown,
    pending: bool,
    ending: bool,
}

impl ControlStream {
    pub(crate) fn new(
        parts: ControlParts,
        peer: Peer,
        frames: mpsc::Sender<Result<v1::ControlDown, Status>>,
    ) -> Self {
        let stream = parts.context.next_stream();
        let commands = parts.streams.open(peer.invoker, peer.session, stream);
        let welcome = v1::ControlWelcome {
            scheduler: parts.context.node.id().0,
        };
        let next = v1::ControlDown {
            welcome: Some(welcome),
            schedulers: parts.context.scheduler_addresses(),
            ..Default::default()
        };
        let under_way = FuturesUnordered::new();
        Self {
            parts,
            peer,
            stream,
            commands,
            frames,
            under_way,
            next,
            pending: true,
            ending: false,
        }
    }

    /// Runs until either end closes, the session ends or the process stops.
    pub(crate) async fn run(mut self, mut incoming: Streaming<v1::ControlUp>, first: v1::ControlUp) {
        self.on_frame(first).await;
        let context = self.parts.context.clone();
        tokio::select! {
            biased;
            () = context.stopping() => {}
            () = self.serve(&mut incoming) => {}
        }
        self.parts.streams.close(self.peer.invoker, self.stream);
        tracing::debug!(invoker = %self.peer.invoker, session = %self.peer.session, "control stream ended");
    }

    async fn serve(&mut self, incoming: &mut Streaming<v1::ControlUp>) {
        let frames = self.frames.clone();
        loop {
            tokio::select! {
                biased;
                permit = frames.reserve(), if self.pending => match permit {
                    Ok(permit) => {
                        permit.send(Ok(std::mem::take(&mut self.next)));
                        self.pending = false;
                        if self.ending {
                            return;
                        }
                    }
                    Err(_closed) => return,
                },
                Some(done) = self.under_way.next() => self.on_done(done),
                command = self.commands.recv(), if self.has_room() => match command {
                    Some(command) => self.on_command(command),
                    None => return, // Another stream of the same invoker took over, or its session ended.
                },
                frame = incoming.message(), if self.reads() => match frame {
                    Ok(Some(frame)) => self.on_frame(frame).await,
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    fn reads(&self) -> bool {
        !self.ending && self.under_way.len() + self.next.report_acks.len() < UNDER_WAY_MAX
    }

    fn has_room(&self) -> bool {
        !self.ending && self.next.create.len() + self.next.remove.len() < COMMANDS_PER_FRAME
    }

    fn on_command(&mut self, command: ControlCommand) {
        self.pending = true;
        match command {
            ControlCommand::Create(create) => self.next.create.push(*create),
            ControlCommand::Remove(remove) => self.next.remove.push(remove),
            ControlCommand::Members => self.next.schedulers = self.parts.context.scheduler_addresses(),
            ControlCommand::Expired => self.expire(),
        }
    }

    fn expire(&mut self) {
        self.next.expired = Some(v1::SessionExpired {});
        (self.pending, self.ending) = (true, true);
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Keepalive { seq, result: Ok(()) } => {
                let acked = self.next.keepalive_ack.as_ref().map_or(0, |ack| ack.seq);
                self.next.keepalive_ack = Some(v1::KeepaliveAck { seq: seq.max(acked) });
                self.pending = true;
            }
            Done::Keepalive {
                result: Err(KeepaliveError::Expired(_)),
                ..
            } => self.expire(),
            // No answer: the invoker tries another scheduler, or fences itself.
            Done::Keepalive {
                seq,
                result: Err(error),
            } => {
                tracing::debug!(invoker = %self.peer.invoker, seq, %error, "keepalive not acknowledged");
            }
            Done::Report { seq } => {
                self.next.report_acks.push(seq);
                self.pending = true;
            }
            Done::Left { closed: true } => self.expire(),
            // No answer: the session ends with its time.
            Done::Left { closed: false } => {}
        }
    }

    async fn on_frame(&mut self, frame: v1::ControlUp) {
        if let Some(v1::Keepalive { seq }) = frame.keepalive {
            let (node, session) = (self.parts.context.node.clone(), self.peer.session);
            self.under_way.push(Box::pin(async move {
                Done::Keepalive {
                    seq,
                    result: node.keepalive(session, seq).await,
                }
            }));
        }
        if let Some(memory) = frame.memory {
            self.parts.reports.push(InvokerReport {
                invoker: self.peer.invoker,
                session: self.peer.session,
                healthy: memory.healthy,
                busy: ByteSize::bytes(memory.busy_bytes),
                reclaimable: ByteSize::bytes(memory.reclaimable_bytes),
            });
        }
        for report in frame.reports {
            self.on_report(report).await;
        }
        if frame.leaving.is_some() {
            self.on_leaving();
        }
    }

    /// Ends the session of an invoker that has drained. Its last reports need not be applied before: what they are
    /// about hangs on the session.
    fn on_leaving(&mut self) {
        let (context, Peer { invoker, session }) = (self.parts.context.clone(), self.peer);
        self.under_way.push(Box::pin(async move {
            match context.propose(Command::CloseSession { session }).await {
                Ok(_) => {
                    tracing::info!(%invoker, %session, "invoker left");
                    Done::Left { closed: true }
                }
                Err(error) => {
                    tracing::warn!(%invoker, %session, %error, "session of an invoker that leaves not closed");
                    Done::Left { closed: false }
                }
            }
        }));
    }

    async fn on_report(&mut self, report: v1::ContainerReport) {
        let seq = report.seq;
        let (Some(container), Some(change)) = (report.container, report.change) else {
            tracing::warn!(invoker = %self.peer.invoker, seq, "container report without container or change");
            self.under_way
                .push(Box::pin(std::future::ready(Done::Report { seq })));
            return;
        };
        let container = ContainerId::from(container);
        let change = match change {
            Change::Running(_) => {
                // Elsewhere it still has to come; and what this node does not know yet the table will tell.
                if self.peer.has(&self.parts.context, container) {
                    self.parts.creation.succeeded(container).await;
                }
                ContainerChange::Running
            }
            Change::Warm(_) => ContainerChange::Warm,
            Change::Ended(ended) => {
                tracing::debug!(%container, invoker = %self.peer.invoker, reason = ended.reason,
                    "container ended; its invoker keeps results of it");
                ContainerChange::Ended
            }
            Change::Removed(removed) => {
                tracing::debug!(%container, invoker = %self.peer.invoker, reason = removed.reason, "container removed");
                ContainerChange::Removed
            }
            Change::Failed(failed) => {
                let error = CreationError::from(failed.error());
                if self
                    .parts
                    .creation
                    .failed(container, self.peer, error, failed.message)
                    .await
                {
                    self.under_way
                        .push(Box::pin(std::future::ready(Done::Report { seq })));
                    return;
                }
                // Nobody here waits for it: its leader is elsewhere or gone. The slot is free again.
                ContainerChange::Removed
            }
        };
        let reporter = Some((self.peer.invoker, self.peer.session));
        let applied = self.parts.updates.apply(container, change, reporter).await;
        self.under_way.push(Box::pin(async move {
            let _ = applied.await;
            Done::Report { seq }
        }));
    }
}
