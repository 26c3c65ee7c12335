//! Asks the schedulers that lead other queues of a full namespace to give up an idle container for a queue led here
//! that has none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use whiskraft_proto::v1::ReclaimRequest;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_state::ContainerState;
use whiskraft_types::QueueKey;

use crate::context::Context;

/// Starved queues that wait to be asked for; one that finds no room is told to its callers as it would be anyway.
const STARVED_MAX: usize = 256;
/// Longest wait for a neighbour: the starved queue gives up after a second.
const ASK_WAIT_MAX: Duration = Duration::from_millis(500);

/// The near end; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct NeighboursHandle {
    sender: mpsc::Sender<QueueKey>,
}

impl NeighboursHandle {
    /// Asks for room for a queue.
    pub(crate) fn ask(&self, starved: QueueKey) {
        let _ = self.sender.try_send(starved);
    }
}

/// Asks.
pub(crate) struct Neighbours {
    context: Context,
    starved: mpsc::Receiver<QueueKey>,
    /// By address; of members that came and went few remain, as there are few members.
    channels: BTreeMap<String, Channel>,
}

impl Neighbours {
    pub(crate) fn new(context: Context) -> (Self, NeighboursHandle) {
        let (sender, starved) = mpsc::channel(STARVED_MAX);
        (
            Self {
                context,
                starved,
                channels: BTreeMap::new(),
            },
            NeighboursHandle { sender },
        )
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        while let Some(starved) = self.starved.recv().await {
            let asked = self.addresses(&starved).into_iter().filter_map(|address| {
                let mut client = OperatorClient::new(self.channel(&address)?);
                let request = ReclaimRequest {
                    starved: Some((&starved).into()),
                };
                Some(async move {
                    let answer = tokio::time::timeout(ASK_WAIT_MAX, client.reclaim(request)).await;
                    if !matches!(answer, Ok(Ok(_))) {
                        tracing::debug!(address, "neighbour did not answer");
                    }
                })
            });
            let asked: Vec<_> = asked.collect();
            futures::future::join_all(asked).await;
        }
    }

    /// Where the others are that lead queues of this namespace with running containers.
    fn addresses(&self, starved: &QueueKey) -> BTreeSet<String> {
        let node = &self.context.node;
        node.read(|state| {
            let running = state.containers().filter(|(_, row)| {
                row.state == ContainerState::Running
                    && row.key.namespace == starved.namespace
                    && row.key != *starved
            });
            let leaders = running.filter_map(|(_, row)| Some(state.queue(&row.key)?.leader?.0));
            let others = leaders
                .filter(|id| *id != node.id())
                .collect::<BTreeSet<_>>()
                .into_iter();
            others
                .filter_map(|id| Some(state.member(id)?.client_address.clone()))
                .collect()
        })
    }

    fn channel(&mut self, address: &str) -> Option<Channel> {
        if let Some(channel) = self.channels.get(address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let channel = endpoint.connect_timeout(ASK_WAIT_MAX).connect_lazy();
        self.channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }
}
