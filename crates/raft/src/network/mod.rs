//! openraft's network over the peer channels.
//!
//! Invariant: every call carries a deadline; openraft enforces none.

mod snapshot;

#[cfg(test)]
mod network_test;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use tonic::transport::Channel;
use tonic::{Code, Status};
use whiskraft_proto::v1;
use whiskraft_proto::v1::peer_client::PeerClient;

use crate::held::Held;
use crate::peers::{Class, Peers};
use crate::store::SnapshotSource;
use crate::types::{Ballot, LogId, META_GROUP, Types, Vote};
use crate::wire::{self, WireError};
use crate::witness::{OwnDisk, Shown};

/// Pause before the first retry of an unreachable peer; doubled with each one.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest pause: a peer that comes back is found within this time.
const BACKOFF_MAX: Duration = Duration::from_millis(320);
/// Pause without any answer, while one is owed, after which a replication stream is given up. Longer than a slow sync.
const STREAM_IDLE_MAX: Duration = Duration::from_secs(2);

/// Makes connections for openraft.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    peers: Peers,
    group: u32,
    held: Held,
    disk: Arc<OwnDisk>,
}

impl Network {
    /// The network of a group, over these channels; `disk` is where its log is.
    pub(crate) fn new(peers: Peers, group: u32, held: Held, disk: Arc<OwnDisk>) -> Self {
        Self {
            peers,
            group,
            held,
            disk,
        }
    }

    fn connection(&self, target: u64, node: &BasicNode, meta: Class, lane: Class) -> Connection {
        let class = if self.group == META_GROUP { meta } else { lane };
        Connection {
            peers: self.peers.clone(),
            group: self.group,
            disk: Arc::clone(&self.disk),
            target,
            address: node.addr.clone(),
            class,
            held: self.held.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Connection {
        self.connection(target, node, Class::Log, Class::LaneLog)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Connection {
        self.connection(target, node, Class::Heartbeat, Class::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &BasicNode) -> Connection {
        self.connection(target, node, Class::Snapshot, Class::LaneSnapshot)
    }
}

/// One peer, for one class of messages.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    peers: Peers,
    group: u32,
    disk: Arc<OwnDisk>,
    target: u64,
    address: String,
    class: Class,
    held: Held,
}

/// What went through a replication stream.
#[derive(Debug)]
struct Sent {
    /// Of the leader that sends.
    vote: Ballot,
    frames: AtomicU64,
    /// What the last frame said is committed.
    committed: AtomicU64,
}

type Result<T> = std::result::Result<T, RPCError<Types>>;

fn network_error(text: impl ToString) -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string(text))
}

fn unreachable(text: impl ToString) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(text))
}

/// openraft backs off from unreachable peers and repeats other failures at once, so everything that will fail the same
/// way in a moment counts as unreachable.
fn rpc_error(status: &Status) -> RPCError<Types> {
    match status.code() {
        Code::Unavailable
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::PermissionDenied
        | Code::ResourceExhausted => unreachable(status),
        _ => network_error(status),
    }
}

impl From<WireError> for RPCError<Types> {
    fn from(error: WireError) -> Self {
        network_error(error)
    }
}

impl Connection {
    fn client(&self) -> Result<PeerClient<Channel>> {
        self.peers.client(&self.address, self.class).map_err(unreachable)
    }

    fn envelope(&self) -> v1::Envelope {
        self.peers.envelope_of(self.group, self.target)
    }

    /// Waits for an answer until the deadline.
    async fn call<T>(
        &self,
        ttl: Duration,
        call: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
    ) -> Result<T> {
        let reply = tokio::time::timeout(ttl, call).await;
        let reply = reply
            .map_err(|_| network_error(format!("scheduler {} did not answer in {ttl:?}", self.target)))?;
        let reply = reply.map_err(|status| rpc_error(&status))?;
        self.peers.answered(self.target);
        Ok(reply.into_inner())
    }

    /// Notes that the peer has acknowledged the log up to an entry, to the leader of this ballot.
    fn note_acknowledged(&self, vote: Ballot, matched: Option<LogId>, committed: u64) {
        let shown = match matched {
            Some(last) => Shown::entry(vote, last.into(), committed),
            None => Shown::vote(vote),
        };
        self.peers.witness().note(self.group, self.target, &shown);
    }

    async fn pipeline<S>(&self, mut input: S) -> Result<BoxStream<'static, Result<StreamAppendResult<Types>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        // openraft waits out its back-off inside this stream, and a call on a channel that cannot connect fails without
        // ever polling it: taking the first request before the network is touched keeps a dead peer from being
        // called without a pause.
        let Some(first) = input.next().await else {
            return Ok(stream::empty().boxed());
        };
        let sent = Arc::new(Sent {
            vote: first.vote.into(),
            frames: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        });
        let (counter, envelope, disk) = (Arc::clone(&sent), self.envelope(), Arc::clone(&self.disk));
        let frames = stream::iter([first]).chain(input).map(move |request| {
            let committed = request.leader_commit.map_or(0, |id| id.index);
            counter.committed.store(committed, Ordering::Relaxed);
            counter.frames.fetch_add(1, Ordering::Relaxed);
            wire::append(envelope.clone(), &request, disk.synced_in(request.vote.into()))
        });
        // An entry that cannot be encoded ends the stream: leaving it out would make a gap.
        let frames = frames
            .take_while(|frame| std::future::ready(frame.is_ok()))
            .filter_map(|frame: io::Result<_>| std::future::ready(frame.ok()));
        let mut client = self.client()?;
        let replies = self.call(STREAM_IDLE_MAX, client.append(frames)).await?;
        Ok(self.replies(replies, sent))
    }

    /// The answers of a replication stream; an error once one is owed for too long.
    fn replies(
        &self,
        replies: tonic::Streaming<v1::AppendResponse>,
        sent: Arc<Sent>,
    ) -> BoxStream<'static, Result<StreamAppendResult<Types>>> {
        let connection = Arc::new(self.clone());
        let start = Some((replies, 0_u64));
        let next = move |state: Option<(tonic::Streaming<v1::AppendResponse>, u64)>| {
            let (connection, sent) = (Arc::clone(&connection), Arc::clone(&sent));
            async move {
                let (mut replies, received) = state?;
                let target = connection.target;
                loop {
                    let owed = sent.frames.load(Ordering::Relaxed) > received;
                    match tokio::time::timeout(STREAM_IDLE_MAX, replies.message()).await {
                        Ok(Ok(Some(reply))) => {
                            connection.peers.answered(target);
                            let parsed = wire::parse_stream_result(reply).map_err(RPCError::from);
                            if let Ok(Ok(matched)) = &parsed {
                                let committed = sent.committed.load(Ordering::Relaxed);
                                connection.note_acknowledged(sent.vote, *matched, committed);
                            }
                            return Some((parsed, Some((replies, received + 1))));
                        }
                        Ok(Ok(None)) => return None,
                        Ok(Err(status)) => return Some((Err(rpc_error(&status)), None)),
                        Err(_) if owed => {
                            let text =
                                format!("scheduler {target} acknowledged nothing for {STREAM_IDLE_MAX:?}");
                            return Some((Err(network_error(text)), None));
                        }
                        Err(_) => {}
                    }
                }
            }
        };
        stream::unfold(start, next).boxed()
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = SnapshotSource;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>> {
        let vote = Ballot::from(request.vote);
        let frame = wire::append(self.envelope(), &request, self.disk.synced_in(vote));
        let mut client = self.client()?;
        let reply = self
            .call(
                option.soft_ttl(),
                client.append_once(frame.map_err(network_error)?),
            )
            .await?;
        let response = wire::parse_append_response(reply)?;
        let sent = request.entries.last().map(|entry| entry.log_id);
        let matched = match &response {
            AppendEntriesResponse::Success => Some(sent.or(request.prev_log_id)),
            AppendEntriesResponse::PartialSuccess(matched) => Some(*matched),
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
        };
        if let Some(matched) = matched {
            let committed = request.leader_commit.map_or(0, |id| id.index);
            self.note_acknowledged(vote, matched, committed);
        }
        Ok(response)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> openraft::base::BoxFuture<'s, Result<openraft::base::BoxStream<'s, Result<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        // A heartbeat is one request with a short deadline; a stream for each would only cost.
        if self.class == Class::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let replies: openraft::base::BoxStream<'s, _> = self.pipeline(input).await?;
            Ok(replies)
        })
    }

    async fn vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>> {
        let frame = wire::vote_request(self.envelope(), &request);
        let mut client = self.client()?;
        let reply = self.call(option.soft_ttl(), client.vote(frame)).await?;
        let response = wire::parse_vote_response(reply)?;
        if response.vote_granted {
            let granted = Shown::vote(request.vote.into());
            self.peers.witness().note(self.group, self.target, &granted);
        }
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>> {
        let frame = wire::vote_request(self.envelope(), &request);
        let mut client = self.client()?;
        Ok(wire::parse_vote_response(
            self.call(option.soft_ttl(), client.pre_vote(frame)).await?,
        )?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, SnapshotSource>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> std::result::Result<SnapshotResponse<Types>, StreamingError<Types>> {
        if !self.peers.is_reachable(self.target) {
            let text = format!("scheduler {} does not answer", self.target);
            return Err(StreamingError::Unreachable(Unreachable::from_string(text)));
        }
        let last = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let sending = self.held.begin(self.target, last);
        let send = async {
            let (frames, taken) = snapshot::frames(self.envelope(), vote, snapshot.snapshot)?;
            let mut client = self.client()?;
            let install = client.install_snapshot(frames);
            let reply = snapshot::while_taken(option.soft_ttl(), taken, install).await;
            let reply = reply
                .map_err(|stuck| network_error(format!("snapshot for scheduler {}: {stuck}", self.target)))?;
            let reply = reply.map_err(|status| rpc_error(&status))?;
            self.peers.answered(self.target);
            sending.arrived();
            Ok::<_, RPCError<Types>>(reply.into_inner())
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = send => {
                let vote = wire::parse_vote(reply?.vote).map_err(RPCError::from)?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>> {
        let frame = wire::transfer(self.envelope(), &request);
        let mut client = self.client()?;
        let reply = self
            .call(option.soft_ttl(), client.transfer_leader(frame))
            .await?;
        Ok(wire::parse_transfer_response(&request, reply)?)
    }

    fn backoff(&self) -> Option<Backoff> {
        let pauses = std::iter::successors(Some(BACKOFF_MIN), |pause| Some((*pause * 2).min(BACKOFF_MAX)));
        Some(Backoff::new(pauses))
    }
}
