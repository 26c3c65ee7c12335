//! Connections to the other schedulers, for questions about single activations.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::Channel;
use whiskraft_proto::v1::neighbour_client::NeighbourClient;
use whiskraft_types::SchedulerId;

use crate::context::Context;
use crate::neighbours::Channels;

/// Longest wait for another scheduler's answer about one activation.
pub(crate) const ASK_WAIT_MAX: Duration = Duration::from_secs(2);

/// The connections; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    context: Context,
    channels: Arc<Mutex<Channels>>,
}

impl Peers {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            channels: Arc::default(),
        }
    }

    /// A way to a scheduler; `None` if it has announced no address.
    pub(crate) fn client(&self, id: SchedulerId) -> Option<NeighbourClient<Channel>> {
        let member = self.context.node.read(|state| state.member(id).cloned())?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get(&member.client_address).map(NeighbourClient::new)
    }

    /// All schedulers with a session but this one.
    pub(crate) fn others(&self) -> Vec<SchedulerId> {
        let me = self.context.node.id();
        self.context.node.read(|state| {
            let members = state.members().map(|(id, _)| id);
            members
                .filter(|id| *id != me && state.scheduler_session(*id).is_some())
                .collect()
        })
    }
}
