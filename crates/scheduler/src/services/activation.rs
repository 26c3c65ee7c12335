//! The unary pull service of OpenWhisk's function-pulling scheduler, over the same queues as the streams.
//!
//! Where it differs from the original: only containers that this cluster created get work; an activation whose answer
//! could not leave goes back to its queue; outcomes are reported here.

mod message;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::{Request, Response, Status};
use whiskraft_proto::activation::activation_service_server::ActivationService as Service;
use whiskraft_proto::activation::{
    CompleteRequest, CompleteResponse, FetchRequest, FetchResponse, RescheduleRequest, RescheduleResponse,
};
use whiskraft_types::{ActivationRecord, ActivationStatus, ContainerId, QueueKey};

use crate::clock::unix_ms;
use crate::context::Context;
use crate::message::{Record, Request as ShardRequest};
use crate::shard::{Delivery, Fetch, FetchAnswer, ShardsHandle, UnaryRequest};
use message::Fqn;

/// Calls open at a time: a fetch is held for a second, so each costs a place for so long.
const CALLS_MAX: usize = 10_000;

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct ActivationService {
    context: Context,
    shards: ShardsHandle,
    calls: Arc<Semaphore>,
}

/// Takes the ask of a fetch back when its caller goes away.
struct Ask {
    shards: ShardsHandle,
    key: QueueKey,
    container: ContainerId,
    is_answered: bool,
}

impl Drop for Ask {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let (key, container) = (self.key.clone(), self.container);
        let cancelled = UnaryRequest::Cancelled { key, container };
        // If there is no room the hold's end does the same.
        self.shards.try_send_to(&self.key, ShardRequest::Unary(cancelled));
    }
}

impl ActivationService {
    pub(crate) fn new(context: Context, shards: ShardsHandle) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        Self {
            context,
            shards,
            calls,
        }
    }

    fn call(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.calls).try_acquire_owned();
        permit
            .map_err(|_| Status::resource_exhausted(format!("{CALLS_MAX} calls are open on this scheduler")))
    }

    async fn fetch(&self, request: FetchRequest) -> Result<String, Status> {
        let _permit = self.call()?;
        let fqn = Fqn::parse(&request.fqn).map_err(Status::invalid_argument)?;
        let revision = message::revision(&request.rev).map_err(Status::invalid_argument)?;
        if fqn.is_warm_up() {
            return Ok(message::nothing());
        }
        let key = key(&request.invocation_namespace, &fqn)?;
        let container = container(&request.container_id)?;
        let last = request
            .last_duration
            .and_then(|millis| u64::try_from(millis).ok());
        let (answer, answered) = oneshot::channel();
        let fetch = Fetch {
            revision,
            container,
            warmed: request.warmed,
            last: last.map(Duration::from_millis),
            alive: request.alive,
            answer,
        };
        let mut ask = Ask {
            shards: self.shards.clone(),
            key: key.clone(),
            container,
            is_answered: false,
        };
        let fetch = UnaryRequest::Fetch {
            key: key.clone(),
            fetch,
        };
        self.shards.send_to(&key, ShardRequest::Unary(fetch)).await;
        let answer = tokio::select! {
            answer = answered => answer.unwrap_or(FetchAnswer::NoQueue),
            () = self.context.stopping() => FetchAnswer::NoQueue,
        };
        ask.is_answered = true;
        match answer {
            FetchAnswer::Delivery(delivery) => Ok(written(delivery, &key, &fqn)),
            FetchAnswer::Nothing => Ok(message::nothing()),
            FetchAnswer::NoQueue => Ok(message::no_queue()),
            FetchAnswer::Mismatch => Ok(message::mismatch()),
            FetchAnswer::TooMany => Err(Status::resource_exhausted(format!(
                "container {container} has as many open fetches as it may run activations"
            ))),
        }
    }

    async fn reschedule(&self, request: RescheduleRequest) -> Result<bool, Status> {
        let _permit = self.call()?;
        let fqn = Fqn::parse(&request.fqn).map_err(Status::invalid_argument)?;
        message::revision(&request.rev).map_err(Status::invalid_argument)?;
        let key = key(&request.invocation_namespace, &fqn)?;
        let id = message::activation_id(&request.activation_message).map_err(Status::invalid_argument)?;
        let (answer, answered) = oneshot::channel();
        let reschedule = UnaryRequest::Reschedule {
            key: key.clone(),
            id,
            answer,
        };
        self.shards.send_to(&key, ShardRequest::Unary(reschedule)).await;
        Ok(answered.await.unwrap_or(false))
    }

    async fn complete(&self, request: CompleteRequest) -> Result<bool, Status> {
        let _permit = self.call()?;
        let fqn = Fqn::parse(&request.fqn).map_err(Status::invalid_argument)?;
        let key = key(&request.invocation_namespace, &fqn)?;
        let container = container(&request.container_id)?;
        let record = record(request)?;
        let (answer, answered) = oneshot::channel();
        let complete = UnaryRequest::Complete {
            key: key.clone(),
            container,
            record,
            answer,
        };
        self.shards.send_to(&key, ShardRequest::Unary(complete)).await;
        tokio::select! {
            answer = answered => Ok(answer.unwrap_or(false)),
            () = self.context.stopping() => Ok(false),
        }
    }
}

/// The answer with an activation; from here on it counts as delivered, as nothing waits before it leaves.
fn written(mut delivery: Delivery, key: &QueueKey, fqn: &Fqn) -> String {
    let (id, revision) = (delivery.id, delivery.revision);
    let text = message::activation(id, &key.namespace, fqn, revision, &delivery.payload, unix_ms());
    delivery.read();
    text
}

fn key(namespace: &str, fqn: &Fqn) -> Result<QueueKey, Status> {
    let namespace = namespace
        .parse()
        .map_err(|error| Status::invalid_argument(format!("invocationNamespace: {error}")))?;
    let action = fqn.action().map_err(Status::invalid_argument)?;
    Ok(QueueKey { namespace, action })
}

fn container(text: &str) -> Result<ContainerId, Status> {
    text.parse()
        .map_err(|error| Status::invalid_argument(format!("containerId: {error}")))
}

fn record(request: CompleteRequest) -> Result<Record, Status> {
    let id = request
        .activation_id
        .parse()
        .map_err(|error| Status::invalid_argument(format!("activationId: {error}")))?;
    let status = match request.status_code {
        0 => ActivationStatus::Success,
        1 => ActivationStatus::ApplicationError,
        2 => ActivationStatus::DeveloperError,
        3 => ActivationStatus::WhiskError,
        other => {
            return Err(Status::invalid_argument(format!(
                "statusCode: {other} is not 0 to 3"
            )));
        }
    };
    serde_json::from_str::<serde::de::IgnoredAny>(&request.result)
        .map_err(|error| Status::invalid_argument(format!("result: {error}")))?;
    Ok(Arc::new(ActivationRecord {
        id,
        status,
        result: request.result.into(),
        logs: request.logs,
        start_ms: request.start_ms,
        end_ms: request.end_ms,
        init_ms: request.init_ms.and_then(|millis| u64::try_from(millis).ok()),
        wait_ms: 0,
        timed_out: false,
        ran_on: None,
        run: 1,
        cancelled: false,
    }))
}

#[tonic::async_trait]
impl Service for ActivationService {
    async fn fetch_activation(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        let activation_message = self.fetch(request.into_inner()).await?;
        Ok(Response::new(FetchResponse { activation_message }))
    }

    async fn reschedule_activation(
        &self,
        request: Request<RescheduleRequest>,
    ) -> Result<Response<RescheduleResponse>, Status> {
        let is_rescheduled = self.reschedule(request.into_inner()).await?;
        Ok(Response::new(RescheduleResponse { is_rescheduled }))
    }

    async fn complete_activation(
        &self,
        request: Request<CompleteRequest>,
    ) -> Result<Response<CompleteResponse>, Status> {
        let is_accepted = self.complete(request.into_inner()).await?;
        Ok(Response::new(CompleteResponse { is_accepted }))
    }
}
