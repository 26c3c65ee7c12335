//! The Peer service: what the other schedulers ask of this one.
//!
//! It listens from the first moment of a start, so that members can identify each other before the cluster has formed;
//! everything else is refused until the node is complete. A message that names another cluster, group or target is
//! refused: wrong addresses are the classic way to a split brain.

mod accept;
mod death;
mod identify;
mod leader;
mod snapshot;

#[cfg(test)]
mod server_test;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1::peer_server::{Peer, PeerServer};
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};

use self::accept::Sorter;
use crate::core::{Core, Group};
use crate::error::StopReason;
use crate::fatal::Fatal;
use crate::identity::Identity;
use crate::peers::{CONNECTION_WINDOW, Peers, STREAM_WINDOW};
use crate::sessions::KeeperHandle;
use crate::store::SnapshotDir;
use crate::types::{META_GROUP, Types};
use crate::wire;

pub(crate) use self::accept::connect;

/// Pause between two pings of a connection, and the longest wait for the answer: a peer that is gone without a word
/// holds its calls, and what they have taken, that long.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_WAIT_MAX: Duration = Duration::from_secs(2);
/// Calls under way on one connection: forwarded proposals above all.
const CALLS_MAX: u32 = 4096;
/// Snapshots of a group received at a time: one of the leader, one of a leader that has just been replaced.
const SNAPSHOTS_MAX: usize = 2;

/// What the service needs of a node that is complete.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) core: Core,
    pub(crate) keeper: KeeperHandle,
    /// Group 0 and the lanes.
    pub(crate) groups: BTreeMap<u32, Served>,
}

/// A group that is served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) group: Group,
    /// Where its snapshots are received.
    pub(crate) snapshots: SnapshotDir,
    receiving: Arc<Semaphore>,
    /// Where its messages are decoded: those of the lanes not in front of group 0's core.
    runtime: Handle,
}

impl Served {
    /// A group, where its snapshots go, and the runtime of its core.
    pub(crate) fn new(group: Group, snapshots: SnapshotDir, runtime: Handle) -> Self {
        let receiving = Arc::new(Semaphore::new(SNAPSHOTS_MAX));
        Self {
            group,
            snapshots,
            receiving,
            runtime,
        }
    }

    /// Hands the requests of a replication stream to the consensus core, as fast as it takes them.
    fn append(
        &self,
        requests: impl Stream<Item = AppendEntriesRequest<Types>> + Send + 'static,
    ) -> BoxStream<'static, Result<v1::AppendResponse, Status>> {
        // The task that reads the requests, and so decodes them, is spawned where this is called.
        let _entered = self.runtime.enter();
        let replies = self.group.raft.stream_append(requests);
        replies
            .map(|reply| reply.map(wire::stream_result).map_err(stopped))
            .boxed()
    }
}

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PeerService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    peers: Peers,
    identity: RwLock<Identity>,
    running: OnceLock<Running>,
}

impl PeerService {
    /// A service that can say who it is, and nothing else yet.
    pub(crate) fn new(peers: Peers, identity: Identity) -> Self {
        let inner = Inner {
            peers,
            identity: RwLock::new(identity),
            running: OnceLock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The directory has become a member's.
    pub(crate) fn set_identity(&self, identity: Identity) {
        *self
            .inner
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// The node is complete.
    pub(crate) fn open(&self, running: Running) {
        drop(self.inner.running.set(running));
    }

    /// Serves until the node stops.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        lanes: Handle,
        fatal: Fatal,
    ) -> Result<(), String> {
        listener
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
        let (sorter, of_meta, of_lanes) = Sorter::new(lanes.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn_on(self.clone().serve_connections(of_lanes), &lanes);
        tasks.spawn(self.serve_connections(of_meta));
        // Streams of peers never end by themselves, so a graceful end would wait for ever.
        tokio::select! {
            biased;
            _ = fatal.wait() => Ok(()),
            Some(served) = tasks.join_next() => match served {
                Ok(served) => served.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            () = sorter.run(listener) => Ok(()),
        }
    }

    async fn serve_connections(self, incoming: accept::Incoming) -> Result<(), tonic::transport::Error> {
        let service = PeerServer::new(self)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX);
        let mut server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(PING_INTERVAL))
            .http2_keepalive_timeout(Some(PING_WAIT_MAX))
            .max_concurrent_streams(CALLS_MAX);
        server.add_service(service).serve_with_incoming(incoming).await
    }

    fn running(&self) -> Result<&Running, Status> {
        self.inner
            .running
            .get()
            .ok_or_else(|| Status::unavailable("the scheduler is starting"))
    }

    /// The node, for a message about group 0 that is meant for it.
    fn admit(&self, envelope: Option<&v1::Envelope>) -> Result<&Running, Status> {
        let served = self.admit_group(envelope)?;
        if served.group.group == META_GROUP {
            self.running()
        } else {
            Err(invalid("this is asked of group 0 only"))
        }
    }

    /// A group of the node, for a message that is meant for it.
    fn admit_group(&self, envelope: Option<&v1::Envelope>) -> Result<&Served, Status> {
        if let Some(reason) = self.inner.peers.refusal(envelope) {
            tracing::debug!(%reason, "message of a peer refused");
            return Err(Status::permission_denied(reason));
        }
        let group = envelope.map_or(META_GROUP, |envelope| envelope.group);
        let served = self.running()?.groups.get(&group);
        let served = served
            .ok_or_else(|| Status::permission_denied(format!("raft group {group} is not known here")))?;
        match envelope.and_then(|envelope| lost(&served.group, envelope)) {
            None => Ok(served),
            Some(refusal) => {
                served.group.fatal.stop(StopReason::Identity(refusal.clone()));
                Err(Status::failed_precondition(refusal))
            }
        }
    }

    /// A vote that a member asks for; refused if its log lacks what it has acknowledged.
    fn admit_candidate(
        &self,
        request: v1::VoteRequest,
    ) -> Result<(&Served, openraft::raft::VoteRequest<Types>), Status> {
        let served = self.admit_group(request.envelope.as_ref())?;
        let from = request.envelope.as_ref().map_or(0, |envelope| envelope.from);
        let has = request.last_log.map_or(0, |last| last.index);
        let seen = self.inner.peers.witness().seen(served.group.group, from);
        if let Some(shown) = seen.filter(|shown| shown.committed > has) {
            return Err(Status::failed_precondition(format!(
                "scheduler {from} asks for a vote with a log up to entry {has}, and had committed entries up to {}",
                shown.committed
            )));
        }
        let parsed = wire::parse_vote_request(request).map_err(invalid)?;
        Ok((served, parsed))
    }

    /// Notes what a leader shows of its own disk.
    fn note_leader(&self, request: &v1::AppendRequest) {
        if let (Some(envelope), Some(shown)) = (&request.envelope, wire::shown_by_leader(request)) {
            let witness = self.inner.peers.witness();
            witness.note(envelope.group, envelope.from, &shown);
        }
    }
}

/// The refusal of this node, if its disk lacks what the sender knows that it had.
fn lost(group: &Group, envelope: &v1::Envelope) -> Option<String> {
    let shown = wire::parse_shown(envelope.shown.as_ref()?);
    let loss = group.peers.witness().lost(group.group, &shown)?;
    let address = group.address(envelope.from).unwrap_or_default();
    Some(loss.refusal(group.id(), envelope.from, &address))
}

fn invalid(error: impl ToString) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl ToString) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = BoxStream<'static, Result<v1::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?;
        let first = first.ok_or_else(|| invalid("the stream has no first message"))?;
        let served = self.admit_group(first.envelope.as_ref())?;
        let group = served.group.group;
        let service = self.clone();
        let frames = stream::iter([Ok(first)]).chain(frames);
        let requests = frames.map(move |frame| {
            let frame = frame.map_err(|status| status.message().to_owned())?;
            let served = service
                .admit_group(frame.envelope.as_ref())
                .map_err(|status| status.message().to_owned())?;
            if served.group.group != group {
                return Err(format!("a stream of group {group} turned to another"));
            }
            service.note_leader(&frame);
            wire::parse_append(frame).map_err(|error| error.to_string())
        });
        // The first bad message ends the stream: leaving it out would make a gap that the leader does not see.
        let requests = requests.take_while(|request| {
            if let Err(error) = request {
                tracing::debug!(%error, "replication stream ended");
            }
            std::future::ready(request.is_ok())
        });
        let requests = requests.filter_map(|request| std::future::ready(request.ok()));
        Ok(Response::new(served.append(requests)))
    }

    async fn append_once(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let request = request.into_inner();
        let served = self.admit_group(request.envelope.as_ref())?;
        self.note_leader(&request);
        let parsed = wire::parse_append(request).map_err(invalid)?;
        let reply = served.group.raft.append_entries(parsed).await.map_err(stopped)?;
        Ok(Response::new(wire::append_response(reply)))
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::VoteResponse>, Status> {
        let (served, parsed) = self.admit_candidate(request.into_inner())?;
        let reply = served.group.raft.vote(parsed).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response(&reply)))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let (served, parsed) = self.admit_candidate(request.into_inner())?;
        let reply = served.group.raft.pre_vote(parsed).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response(&reply)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        self.receive_snapshot(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let served = self.admit_group(request.envelope.as_ref())?;
        let parsed = wire::parse_transfer(request).map_err(invalid)?;
        let reply = served
            .group
            .raft
            .handle_transfer_leader(parsed)
            .await
            .map_err(stopped)?;
        Ok(Response::new(wire::transfer_response(reply)))
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeRequest>,
    ) -> Result<Response<v1::ProposeResponse>, Status> {
        let request = request.into_inner();
        let served = self.admit_group(request.envelope.as_ref())?;
        let response = leader::propose(&served.group, &request.commands).await;
        Ok(Response::new(response))
    }

    async fn read_index(
        &self,
        request: Request<v1::ReadIndexRequest>,
    ) -> Result<Response<v1::ReadIndexResponse>, Status> {
        let served = self.admit_group(request.into_inner().envelope.as_ref())?;
        Ok(Response::new(leader::read_index(&served.group).await))
    }

    async fn keepalives(
        &self,
        request: Request<v1::KeepalivesRequest>,
    ) -> Result<Response<v1::KeepalivesResponse>, Status> {
        let request = request.into_inner();
        let running = self.admit(request.envelope.as_ref())?;
        Ok(Response::new(
            leader::keepalives(running, &request.sessions).await,
        ))
    }

    async fn identify(
        &self,
        request: Request<v1::IdentifyRequest>,
    ) -> Result<Response<v1::IdentifyResponse>, Status> {
        Ok(Response::new(self.describe(&request.into_inner())))
    }

    async fn report_end(
        &self,
        request: Request<v1::ReportEndRequest>,
    ) -> Result<Response<v1::ReportEndResponse>, Status> {
        self.on_report_end(request.into_inner()).await.map(Response::new)
    }

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        self.on_change_membership(request.into_inner())
            .await
            .map(Response::new)
    }
}
