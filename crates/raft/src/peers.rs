//! Connections to the other schedulers: one lazy channel per peer and class, and what is known about reachability.
//!
//! Used by the consensus network, by forwarding, keepalives and identification. Classes keep bulk away from heartbeats.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use whiskraft_proto::transport::Gathered;
use whiskraft_proto::v1::peer_client::PeerClient;
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};

use crate::clock;
use crate::config::Settings;
use crate::identity::{Identity, Incarnation};
use crate::server::connect;
use crate::types::META_GROUP;
use crate::wire;
use crate::witness::Witness;

/// HTTP/2 flow control window of a stream.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2 flow control window of a connection.
pub(crate) const CONNECTION_WINDOW: u32 = 4 << 20;

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Replication of the log.
    Log,
    /// Heartbeats and votes.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Forwarded proposals, read indices, keepalives, identification, membership.
    Forward,
    /// Replication of the lanes' logs: bulk, which must not delay that of group 0.
    LaneLog,
    /// Snapshots of lanes.
    LaneSnapshot,
    /// Forwarded batches and read indices of lanes.
    LaneForward,
}

impl Class {
    const fn is_for_lanes(self) -> bool {
        match self {
            Self::Log | Self::Heartbeat | Self::Snapshot | Self::Forward => false,
            Self::LaneLog | Self::LaneSnapshot | Self::LaneForward => true,
        }
    }
}

/// All peers of a node; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Drives the connections, whoever makes the first call on one.
    runtime: Handle,
    /// Drives those of the lanes.
    lane_runtime: Handle,
    /// Cluster and own id; a joining node learns them after it has spoken to its first peer.
    identity: RwLock<(String, u64)>,
    incarnation: Incarnation,
    witness: Witness,
    connect_timeout: Duration,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    reachable_for: Duration,
    channels: Mutex<BTreeMap<(String, Class), Channel>>,
    answered: Mutex<BTreeMap<u64, Instant>>,
}

/// Silence of a peer, in longest election timeouts, after which it counts as unreachable.
const REACHABLE_ELECTIONS: u32 = 4;

impl Peers {
    /// No connections yet.
    pub(crate) fn new(
        (runtime, lane_runtime): (Handle, Handle),
        identity: &Identity,
        settings: &Settings,
    ) -> Self {
        let inner = Inner {
            runtime,
            lane_runtime,
            identity: RwLock::new((identity.cluster_id.clone(), identity.id)),
            incarnation: identity.incarnation,
            witness: Witness::default(),
            connect_timeout: settings.election_max,
            keepalive_interval: settings.election_max,
            keepalive_timeout: settings.election_min,
            reachable_for: settings.election_max * REACHABLE_ELECTIONS,
            channels: Mutex::default(),
            answered: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sets what a joining node was told.
    pub(crate) fn set_identity(&self, cluster_id: String, id: u64) {
        *self
            .inner
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = (cluster_id, id);
    }

    /// This node.
    pub(crate) fn id(&self) -> u64 {
        self.inner
            .identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .1
    }

    /// This cluster.
    pub(crate) fn cluster_id(&self) -> String {
        self.inner
            .identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    /// Identity of this node's data directory.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// What the members have shown to each other.
    pub(crate) fn witness(&self) -> &Witness {
        &self.inner.witness
    }

    /// The head of a message to a peer, about group 0.
    pub(crate) fn envelope(&self, to: u64) -> v1::Envelope {
        self.envelope_of(META_GROUP, to)
    }

    /// The head of a message to a peer, about a group.
    pub(crate) fn envelope_of(&self, group: u32, to: u64) -> v1::Envelope {
        let (cluster_id, from) = self
            .inner
            .identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        v1::Envelope {
            cluster_id,
            group,
            from,
            to,
            shown: self.witness().seen(group, to).as_ref().map(wire::shown),
        }
    }

    /// Why a message is not for this node.
    pub(crate) fn refusal(&self, envelope: Option<&v1::Envelope>) -> Option<String> {
        let Some(envelope) = envelope else {
            return Some("the message has no envelope".to_owned());
        };
        let identity = self.inner.identity.read().unwrap_or_else(PoisonError::into_inner);
        let (cluster_id, id) = &*identity;
        if envelope.cluster_id != *cluster_id {
            let theirs = &envelope.cluster_id;
            Some(format!(
                "this is a scheduler of cluster {cluster_id}, the message is for cluster {theirs}"
            ))
        } else if envelope.to != *id {
            Some(format!(
                "this is scheduler {id}, the message is for scheduler {}",
                envelope.to
            ))
        } else {
            None
        }
    }

    /// What drives the calls of a class.
    pub(crate) fn runtime(&self, class: Class) -> &Handle {
        match class.is_for_lanes() {
            true => &self.inner.lane_runtime,
            false => &self.inner.runtime,
        }
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<(String, Class), Channel>> {
        self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client on the channel to an address.
    pub(crate) fn client(&self, address: &str, class: Class) -> Result<PeerClient<Channel>, String> {
        let mut channels = self.channels();
        let channel = match channels.get(&(address.to_owned(), class)) {
            Some(channel) => channel.clone(),
            None => {
                let is_for_lanes = class.is_for_lanes();
                let _entered = self.runtime(class).enter();
                let to: Arc<str> = address.into();
                let connector = tower::service_fn(move |_| {
                    let to = Arc::clone(&to);
                    async move {
                        let connection = connect(&to, is_for_lanes).await?;
                        io::Result::Ok(TokioIo::new(Gathered::new(connection)))
                    }
                });
                let channel = self.endpoint(address)?.connect_with_connector_lazy(connector);
                channels.insert((address.to_owned(), class), channel.clone());
                channel
            }
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX))
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| format!("peer address {address:?} is not host:port: {error}"))?;
        // A peer behind a partition that swallows packets keeps its connection open; without these pings the first call
        // after the partition would wait for TCP's next retransmission.
        Ok(endpoint
            .connect_timeout(self.inner.connect_timeout)
            .http2_keep_alive_interval(self.inner.keepalive_interval)
            .keep_alive_timeout(self.inner.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW))
    }

    /// Notes that a peer has answered.
    pub(crate) fn answered(&self, peer: u64) {
        let mut answered = self.inner.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.insert(peer, clock::now());
    }

    /// Whether a peer has answered lately.
    pub(crate) fn is_reachable(&self, peer: u64) -> bool {
        let answered = self.inner.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered
            .get(&peer)
            .is_some_and(|at| clock::now().duration_since(*at) <= self.inner.reachable_for)
    }
}
