//! One activation, wherever in the cluster it is: in a queue led here, in the journal, in a queue of another scheduler.
//!
//! Asked in this order: the own queues know best, the journal knows all durable ones, and who leads the queue knows how far
//! an open one is.

mod cancel;
mod find;
mod peers;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tonic::Status;
use whiskraft_proto::activation_id;
use whiskraft_raft::Lookup;
use whiskraft_types::{ActivationId, NameError, NamespaceName, QueueKey, SchedulerId};

use crate::context::Context;
use crate::message::{Found, Request};
use crate::shard::ShardsHandle;

pub(crate) use find::{answer_of, found_response};
pub(crate) use peers::{ASK_WAIT_MAX, Peers};

/// Calls at a time that make sure that this node's copies of the lanes are as new as the others'; more wait.
const CATCH_UPS_MAX: usize = 64;
/// Longest wait for that.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(2);

/// Shared by the services; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    context: Context,
    shards: ShardsHandle,
    peers: Peers,
    catch_ups: Arc<Semaphore>,
}

impl Cluster {
    pub(crate) fn new(context: Context, shards: ShardsHandle, peers: Peers) -> Self {
        Self {
            context,
            shards,
            peers,
            catch_ups: Arc::new(Semaphore::new(CATCH_UPS_MAX)),
        }
    }

    /// What the queues that are led here know of an activation.
    async fn find_in_queues(&self, id: ActivationId, namespace: &NamespaceName) -> Option<Found> {
        for shard in 0..self.shards.len() {
            let (answer, found) = oneshot::channel();
            let namespace = namespace.clone();
            let find = Request::Find {
                id,
                namespace,
                answer,
            };
            self.shards.send(shard, find).await;
            if let Ok(Some(found)) = found.await {
                return Some(found);
            }
        }
        None
    }

    /// What this node's copies of the lanes have; of another namespace it is nothing.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn look_up(&self, id: ActivationId, namespace: &NamespaceName) -> Result<Lookup, Status> {
        let found = self.context.node.journal().find(id);
        match found.map_err(|error| Status::internal(error.to_string()))? {
            Lookup::Found(journaled) if journaled.row.key.namespace != *namespace => Ok(Lookup::Missing),
            lookup => Ok(lookup),
        }
    }

    /// Makes this node's copies of the lanes as new as everybody's.
    ///
    /// # Errors
    /// If that takes too long: nothing can be said for sure.
    pub(crate) async fn catch_up(&self) -> Result<(), Status> {
        let unavailable =
            |reason: &str| Status::unavailable(format!("the journal cannot be read now: {reason}"));
        let caught_up = async {
            let _turn = self.catch_ups.acquire().await;
            self.context.node.journal().catch_up().await
        };
        match tokio::time::timeout(CATCH_UP_WAIT_MAX, caught_up).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(&error.to_string())),
            Err(_) => Err(unavailable("no answer from the leaders of its lanes in time")),
        }
    }

    /// Who leads a queue, as this node's tables have it.
    fn leader(&self, key: &QueueKey) -> Option<SchedulerId> {
        let leader = self
            .context
            .node
            .read(|state| state.queue(key).and_then(|queue| queue.leader));
        leader.map(|(id, _)| id)
    }
}

/// Id and namespace of a request.
///
/// # Errors
/// If one is not what it should be.
fn named(id: &[u8], namespace: &str) -> Result<(ActivationId, NamespaceName), Status> {
    let id = activation_id(id).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let namespace: Result<NamespaceName, NameError> = namespace.parse();
    let namespace = namespace.map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok((id, namespace))
}
