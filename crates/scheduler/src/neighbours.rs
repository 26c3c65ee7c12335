//! Asks the schedulers that lead other queues of a full namespace to make room for a queue led here that has no
//! container.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use whiskraft_proto::transport::connect_lazily;
use whiskraft_proto::v1::ReclaimRequest;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_types::{NamespaceName, QueueKey};

use crate::context::Context;

/// Starved queues that wait to be asked for; one that finds no room is told to its callers as it would be anyway.
const STARVED_MAX: usize = 256;
/// Longest wait for a neighbour: a queue that still starves says so again.
const ASK_WAIT_MAX: Duration = Duration::from_millis(500);
/// Starved queues asked for at a time: one that does not answer must not hold up the others.
const ASKS_MAX: usize = 64;

/// Queues of a namespace that are looked at for their leaders.
const QUEUES_MAX: usize = 1024;

/// A starved queue, its time without a container, and how many it has that do not come free.
type Starved = (QueueKey, Duration, u32);

/// The near end; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct NeighboursHandle {
    sender: mpsc::Sender<Starved>,
}

impl NeighboursHandle {
    /// Asks for room for a queue.
    pub(crate) fn ask(&self, starved: QueueKey, unserved: Duration, held: u32) {
        let _ = self.sender.try_send((starved, unserved, held));
    }
}

/// Asks.
pub(crate) struct Neighbours {
    context: Context,
    starved: mpsc::Receiver<Starved>,
    channels: Channels,
}

impl Neighbours {
    pub(crate) fn new(context: Context) -> (Self, NeighboursHandle) {
        let (sender, starved) = mpsc::channel(STARVED_MAX);
        (
            Self {
                context,
                starved,
                channels: Channels::default(),
            },
            NeighboursHandle { sender },
        )
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let mut asks = FuturesUnordered::new();
        let context = self.context.clone();
        let stopping = context.stopping();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => return,
                Some(()) = asks.next() => {}
                starved = self.starved.recv(), if asks.len() < ASKS_MAX => match starved {
                    Some(starved) => asks.extend(self.asks(&starved)),
                    None => return,
                },
            }
        }
    }

    /// One request to each neighbour that may have room, or a queue that comes first.
    fn asks(&mut self, (starved, unserved, held): &Starved) -> Vec<impl Future<Output = ()> + use<>> {
        let request = ReclaimRequest {
            starved: Some(starved.into()),
            unserved_ms: u32::try_from(unserved.as_millis()).unwrap_or(u32::MAX),
            held: *held,
        };
        let addresses = leaders_beside(&self.context, &starved.namespace).into_iter();
        let channels: Vec<_> = addresses
            .filter_map(|address| Some((self.channels.get(&address)?, address)))
            .collect();
        let ask = |(channel, address)| {
            let (mut client, request) = (OperatorClient::new(channel), request.clone());
            async move {
                let answer = tokio::time::timeout(ASK_WAIT_MAX, client.reclaim(request)).await;
                if !matches!(answer, Ok(Ok(_))) {
                    tracing::debug!(address, "neighbour did not answer");
                }
            }
        };
        channels.into_iter().map(ask).collect()
    }
}

/// Where the others are that lead queues of this namespace, with or without containers: who starves must know of whom comes
/// first, and who starves elsewhere is in no table.
pub(crate) fn leaders_beside(context: &Context, namespace: &NamespaceName) -> BTreeSet<String> {
    let node = &context.node;
    node.read(|state| {
        let leaders = state.leaders_in(namespace, QUEUES_MAX).into_iter();
        let others = leaders.filter(|id| *id != node.id());
        others
            .filter_map(|id| Some(state.member(id)?.client_address.clone()))
            .collect()
    })
}

/// Connections to other schedulers by address; of members that came and went few remain, as there are few members.
#[derive(Debug, Default)]
pub(crate) struct Channels(BTreeMap<String, Channel>);

impl Channels {
    /// The connection to an address, opened when it is used.
    pub(crate) fn get(&mut self, address: &str) -> Option<Channel> {
        if let Some(channel) = self.0.get(address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let channel = connect_lazily(&endpoint.connect_timeout(ASK_WAIT_MAX));
        self.0.insert(address.to_owned(), channel.clone());
        Some(channel)
    }
}
