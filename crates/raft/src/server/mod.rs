//! The Peer service: what the other schedulers ask of this one.
//!
//! It listens from the first moment of a start, so that members can identify each other before the cluster has formed;
//! everything else is refused until the node is complete. A message that names another cluster, group or target is
//! refused: wrong addresses are the classic way to a split brain.

mod identify;
mod leader;
mod snapshot;

use std::net::TcpListener;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::Semaphore;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1::peer_server::{Peer, PeerServer};
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};

use crate::core::Core;
use crate::fatal::Fatal;
use crate::identity::Identity;
use crate::peers::{CONNECTION_WINDOW, Peers, STREAM_WINDOW};
use crate::sessions::KeeperHandle;
use crate::store::SnapshotDir;
use crate::wire;

/// Calls under way on one connection: forwarded proposals above all.
const CALLS_MAX: u32 = 4096;
/// Snapshots received at a time: one of the leader, one of a leader that has just been replaced.
const SNAPSHOTS_MAX: usize = 2;

/// What the service needs of a node that is complete.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) core: Core,
    pub(crate) keeper: KeeperHandle,
    pub(crate) snapshots: SnapshotDir,
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
    receiving: Semaphore,
}

impl PeerService {
    /// A service that can say who it is, and nothing else yet.
    pub(crate) fn new(peers: Peers, identity: Identity) -> Self {
        let inner = Inner {
            peers,
            identity: RwLock::new(identity),
            running: OnceLock::new(),
            receiving: Semaphore::new(SNAPSHOTS_MAX),
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
    pub(crate) async fn serve(self, listener: TcpListener, fatal: Fatal) -> Result<(), String> {
        listener
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = PeerServer::new(self)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX);
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(CALLS_MAX)
            .add_service(service)
            .serve_with_incoming(incoming);
        // Streams of peers never end by themselves, so a graceful end would wait for ever.
        tokio::select! {
            biased;
            _ = fatal.wait() => Ok(()),
            served = server => served.map_err(|error| error.to_string()),
        }
    }

    fn running(&self) -> Result<&Running, Status> {
        self.inner
            .running
            .get()
            .ok_or_else(|| Status::unavailable("the scheduler is starting"))
    }

    /// The node, for a message that is meant for it.
    fn admit(&self, envelope: Option<&v1::Envelope>) -> Result<&Running, Status> {
        match self.inner.peers.refusal(envelope) {
            Some(reason) => {
                tracing::debug!(%reason, "message of a peer refused");
                Err(Status::permission_denied(reason))
            }
            None => self.running(),
        }
    }
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
        let raft = self.running()?.core.raft.clone();
        let service = self.clone();
        let requests = request.into_inner().map(move |frame| {
            let frame = frame.map_err(|status| status.message().to_owned())?;
            service
                .admit(frame.envelope.as_ref())
                .map_err(|status| status.message().to_owned())?;
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
        let replies = raft
            .stream_append(requests)
            .map(|reply| reply.map(wire::stream_result).map_err(stopped));
        Ok(Response::new(replies.boxed()))
    }

    async fn append_once(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let request = request.into_inner();
        let running = self.admit(request.envelope.as_ref())?;
        let parsed = wire::parse_append(request).map_err(invalid)?;
        let reply = running.core.raft.append_entries(parsed).await.map_err(stopped)?;
        Ok(Response::new(wire::append_response(reply)))
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::VoteResponse>, Status> {
        let request = request.into_inner();
        let running = self.admit(request.envelope.as_ref())?;
        let parsed = wire::parse_vote_request(request).map_err(invalid)?;
        let reply = running.core.raft.vote(parsed).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response(&reply)))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let request = request.into_inner();
        let running = self.admit(request.envelope.as_ref())?;
        let parsed = wire::parse_vote_request(request).map_err(invalid)?;
        let reply = running.core.raft.pre_vote(parsed).await.map_err(stopped)?;
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
        let running = self.admit(request.envelope.as_ref())?;
        let parsed = wire::parse_transfer(request).map_err(invalid)?;
        let reply = running
            .core
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
        let running = self.admit(request.envelope.as_ref())?;
        leader::propose(running, &request.command)
            .await
            .map(Response::new)
    }

    async fn read_index(
        &self,
        request: Request<v1::ReadIndexRequest>,
    ) -> Result<Response<v1::ReadIndexResponse>, Status> {
        let running = self.admit(request.into_inner().envelope.as_ref())?;
        Ok(Response::new(leader::read_index(running).await))
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

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        self.on_change_membership(request.into_inner())
            .await
            .map(Response::new)
    }
}
