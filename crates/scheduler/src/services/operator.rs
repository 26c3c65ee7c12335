//! Operator service: what this scheduler sees of the cluster and of its own queues, joining, draining, who
//! votes and who leads the log, backups.
//!
//! Control plane: every answer that needs the shards is a walk in bounded pieces, few at a time.

mod backup;
mod drain;
mod explain;
mod join;
mod moving;
mod queues;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use whiskraft_proto::required;
use whiskraft_proto::v1::{self, operator_server::Operator};
use whiskraft_types::{MemberOrder, NameError, NamespaceName, QueueKey};

use crate::context::Context;
use crate::creation::CreationHandle;
use crate::handoff::HandOver;
use crate::knots;
use crate::message::Request as ShardRequest;
use crate::rate::RateHandle;
use crate::shard::{ShardsHandle, Visitor};

/// Walks through the shards at a time: each takes a bounded part of a turn.
const WALKS_MAX: usize = 4;
/// Longest wait for the walks of others; after it the caller is told to come again.
const WALK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Streams of `Queues` at a time; one more is refused.
const STREAMS_MAX: usize = 64;
/// Backups at a time: each holds a view of the store, which then forgets nothing; one more is refused.
const BACKUPS_MAX: usize = 2;

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct OperatorService {
    context: Context,
    shards: ShardsHandle,
    rates: RateHandle,
    creation: CreationHandle,
    hand_over: HandOver,
    walks: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    backups: Arc<Semaphore>,
}

impl OperatorService {
    pub(crate) fn new(
        context: Context,
        shards: ShardsHandle,
        rates: RateHandle,
        creation: CreationHandle,
        hand_over: HandOver,
    ) -> Self {
        Self {
            context,
            shards,
            rates,
            creation,
            hand_over,
            walks: Arc::new(Semaphore::new(WALKS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            backups: Arc::new(Semaphore::new(BACKUPS_MAX)),
        }
    }

    /// Leads a visitor through all queues that are led here, when it is its turn.
    async fn walk<V: Visitor>(&self, visitor: V) -> Result<V, Status> {
        let turn = tokio::time::timeout(WALK_WAIT_MAX, self.walks.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Status::resource_exhausted(
                "too many questions at a time; ask again",
            ));
        };
        let stopping = || Status::unavailable("the scheduler is stopping");
        self.shards.walk(visitor).await.ok_or_else(stopping)
    }
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.overview().await.map(Response::new)
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        use v1::join_response::Outcome;

        let outcome = match self.add_member(request.into_inner()).await {
            Ok(joined) => Outcome::Joined(joined),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::JoinResponse {
            outcome: Some(outcome),
        }))
    }

    async fn change_members(
        &self,
        request: Request<v1::MemberOrder>,
    ) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        use v1::change_members_response::Outcome;

        let order = MemberOrder::try_from(request.into_inner());
        let order = order.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let outcome = match self.context.node.change_members(order).await {
            Ok(id) => {
                tracing::info!(?order, "order of an operator carried out");
                Outcome::Scheduler(id.0)
            }
            Err(error) => Outcome::Refusal(error.into()),
        };
        Ok(Response::new(v1::ChangeMembersResponse {
            outcome: Some(outcome),
        }))
    }

    type QueuesStream = BoxStream<'static, Result<v1::QueuesResponse, Status>>;

    async fn queues(
        &self,
        request: Request<v1::QueuesRequest>,
    ) -> Result<Response<Self::QueuesStream>, Status> {
        self.open_queues(request.into_inner()).map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.look_for(request.into_inner()).await.map(Response::new)
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        use v1::drain_response::Outcome;

        let outcome = match self.set_draining(request.into_inner()).await {
            Ok(drained) => Outcome::Drained(drained),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::DrainResponse {
            outcome: Some(outcome),
        }))
    }

    async fn move_queue(
        &self,
        request: Request<v1::MoveQueueRequest>,
    ) -> Result<Response<v1::MoveQueueResponse>, Status> {
        use v1::move_queue_response::Outcome;

        let outcome = match self.move_one(request.into_inner()).await {
            Ok(moved) => Outcome::Moved(moved),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::MoveQueueResponse {
            outcome: Some(outcome),
        }))
    }

    async fn take_rate(
        &self,
        request: Request<v1::TakeRateRequest>,
    ) -> Result<Response<v1::TakeRateResponse>, Status> {
        let request = request.into_inner();
        let namespace: Result<NamespaceName, NameError> = request.namespace.parse();
        let namespace = namespace.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = self.rates.grant(&namespace, request.wanted)?;
        // Rounded up: who comes back a moment too early would hear the same again.
        let retry_after = answer.taken.retry_after.as_micros().div_ceil(1000);
        Ok(Response::new(v1::TakeRateResponse {
            granted: answer.taken.granted,
            retry_after_ms: u32::try_from(retry_after).unwrap_or(u32::MAX),
            per_minute: answer.per_minute,
        }))
    }

    type BackupStream = BoxStream<'static, Result<v1::BackupPiece, Status>>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.open_backup().await.map(Response::new)
    }

    async fn reclaim(
        &self,
        request: Request<v1::ReclaimRequest>,
    ) -> Result<Response<v1::ReclaimResponse>, Status> {
        let request = request.into_inner();
        let unserved = Duration::from_millis(request.unserved_ms.into());
        let starved = required(request.starved, "starved").and_then(QueueKey::try_from);
        let starved = starved.map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.shards.try_send_all(|| ShardRequest::Reclaim {
            starved: starved.clone(),
            unserved,
            held: request.held,
        });
        Ok(Response::new(v1::ReclaimResponse {}))
    }

    async fn calls(&self, request: Request<v1::CallsRequest>) -> Result<Response<v1::CallsResponse>, Status> {
        let namespace: Result<NamespaceName, NameError> = request.into_inner().namespace.parse();
        let namespace = namespace.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let queues = self.shards.calls(&namespace).await;
        let queues = queues.ok_or_else(|| Status::unavailable("the scheduler is stopping"))?;
        Ok(Response::new(knots::to_wire(&queues)))
    }
}
