//! Controller service: makes sure that queues exist, opens Submit streams, finds activations by id.

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1::{self, controller_server::Controller};
use whiskraft_proto::{activation_id, identity, required};
use whiskraft_queue::{ActivationState, ControllerId};
use whiskraft_state::{Command, DocumentKey, EnsureQueue, Leadership, Response as Answer};
use whiskraft_types::{ActivationId, QueueKey, Rejection};

use crate::context::Context;
use crate::control::hello::check_cluster;
use crate::message::{Found, Request as ShardRequest};
use crate::shard::ShardsHandle;
use crate::submit::SubmitStream;
use crate::wire;

/// Frames under way per stream; more would only add latency behind a slow controller.
const FRAMES_MAX: usize = 4;

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct ControllerService {
    context: Context,
    shards: ShardsHandle,
}

impl ControllerService {
    pub(crate) const fn new(context: Context, shards: ShardsHandle) -> Self {
        Self { context, shards }
    }

    async fn ensure(&self, request: v1::EnsureQueueRequest) -> Result<v1::QueueLeadership, Rejection> {
        let v1::EnsureQueueRequest { key, resubmits } = request;
        let key = required(key, "key").and_then(QueueKey::try_from);
        let key = key.map_err(|error| Rejection::Invalid {
            reason: error.to_string(),
        })?;
        self.context.available().await?;
        if let Some(known) = self.known(&key, resubmits)? {
            return Ok(known);
        }
        let command = Command::EnsureQueue(EnsureQueue { key: key.clone() });
        let (revision, answer) = self
            .context
            .propose(command)
            .await
            .map_err(|error| wire::propose_error(&error))?;
        match answer {
            Answer::Leadership(leadership) => {
                // So that a Submit which follows at once finds what this answer says.
                let _ = self.context.node.wait_applied(revision).await;
                Ok(self.leadership(&key, &leadership))
            }
            Answer::Refused(refusal) => Err(wire::refusal(refusal)),
            _ => Err(wire::unexpected("EnsureQueue")),
        }
    }

    /// The leadership as this node's tables have it, if there is one. A queue of a deleted action finishes what it has and
    /// takes nothing new: whoever asks for it has to hear that, but for what may have begun.
    ///
    /// # Errors
    /// If nobody leads a queue of a deleted action now: somebody will.
    fn known(&self, key: &QueueKey, resubmits: bool) -> Result<Option<v1::QueueLeadership>, Rejection> {
        let document = DocumentKey::action(&key.action);
        let (is_deleted, queue) = self.context.node.read(|state| {
            let document = document.and_then(|document| state.document(&document));
            (document.is_none(), state.queue(key).cloned())
        });
        let Some(queue) = queue.filter(|_| !is_deleted || resubmits) else {
            return Ok(None);
        };
        match queue.leader {
            Some((leader, _)) => {
                let (epoch, revision) = (queue.epoch, queue.revision);
                let known = Leadership {
                    leader,
                    epoch,
                    revision,
                };
                Ok(Some(self.leadership(key, &known)))
            }
            None if is_deleted => {
                let reason = format!("nobody leads queue {key} now; try again");
                Err(Rejection::Unavailable { reason })
            }
            None => Ok(None),
        }
    }

    fn leadership(&self, key: &QueueKey, leadership: &Leadership) -> v1::QueueLeadership {
        let member = self
            .context
            .node
            .read(|state| state.member(leadership.leader).cloned());
        v1::QueueLeadership {
            key: Some(key.into()),
            leader: leadership.leader.0,
            epoch: leadership.epoch.0,
            revision: leadership.revision.0,
            client_address: member.map(|member| member.client_address).unwrap_or_default(),
        }
    }

    async fn find(&self, request: v1::FindActivationRequest) -> Result<Option<Found>, Status> {
        let invalid = |error: String| Status::invalid_argument(error);
        let id = activation_id(&request.id).map_err(|error| invalid(error.to_string()))?;
        let namespace: whiskraft_types::NamespaceName = request
            .namespace
            .parse()
            .map_err(|error: whiskraft_types::NameError| invalid(error.to_string()))?;
        for shard in 0..self.shards.len() {
            let (answer, found) = oneshot::channel();
            let namespace = namespace.clone();
            self.shards
                .send(
                    shard,
                    ShardRequest::Find {
                        id,
                        namespace,
                        answer,
                    },
                )
                .await;
            if let Ok(Some(found)) = found.await {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn ensure_queue(
        &self,
        request: Request<v1::EnsureQueueRequest>,
    ) -> Result<Response<v1::EnsureQueueResponse>, Status> {
        use v1::ensure_queue_response::Outcome;

        let outcome = match self.ensure(request.into_inner()).await {
            Ok(leadership) => Outcome::Leadership(leadership),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::EnsureQueueResponse {
            outcome: Some(outcome),
        }))
    }

    type SubmitStream = BoxStream<'static, Result<v1::ResultFrame, Status>>;

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitFrame>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let mut incoming = request.into_inner();
        let (frames, receiver) = mpsc::channel(FRAMES_MAX);
        let (context, shards) = (self.context.clone(), self.shards.clone());
        // In a task of its own: the answer's headers must not wait for the first frame.
        tokio::spawn(async move {
            let opened = tokio::select! {
                () = context.stopping() => return,
                opened = hello(&context, &mut incoming) => opened,
            };
            match opened {
                Ok((controller, first)) => {
                    SubmitStream::new(context, shards, controller, frames)
                        .run(first, incoming)
                        .await;
                }
                Err(status) => drop(frames.send(Err(status)).await),
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn cancel_activation(
        &self,
        _: Request<v1::CancelActivationRequest>,
    ) -> Result<Response<v1::CancelActivationResponse>, Status> {
        Err(Status::unimplemented("cancel"))
    }

    async fn list_dead_letters(
        &self,
        _: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        Err(Status::unimplemented("dead letters"))
    }

    async fn redrive_dead_letters(
        &self,
        _: Request<v1::RedriveDeadLettersRequest>,
    ) -> Result<Response<v1::RedriveDeadLettersResponse>, Status> {
        Err(Status::unimplemented("dead letters"))
    }

    async fn purge_dead_letters(
        &self,
        _: Request<v1::PurgeDeadLettersRequest>,
    ) -> Result<Response<v1::PurgeDeadLettersResponse>, Status> {
        Err(Status::unimplemented("dead letters"))
    }

    async fn find_activation(
        &self,
        request: Request<v1::FindActivationRequest>,
    ) -> Result<Response<v1::FindActivationResponse>, Status> {
        use v1::find_activation_response::State;

        let request = request.into_inner();
        let Some(found) = self.find(request.clone()).await? else {
            let state = State::Unknown.into();
            return Ok(Response::new(v1::FindActivationResponse {
                state,
                ..Default::default()
            }));
        };
        let id = activation_id(&request.id).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(found_response(id, found)))
    }
}

/// What a queue knows of an activation, as callers read it.
pub(crate) fn found_response(id: ActivationId, found: Found) -> v1::FindActivationResponse {
    use v1::find_activation_response::State;

    let Found {
        key,
        epoch,
        state,
        end,
    } = found;
    let (state, record) = match state {
        ActivationState::Journaling | ActivationState::Waiting => (State::Waiting, None),
        ActivationState::Delayed(_) => (State::Delayed, None),
        ActivationState::Delivered(_) => (State::Delivered, None),
        ActivationState::Started(_) | ActivationState::Ending => (State::Started, None),
        ActivationState::Done(outcome) => (State::Done, Some(crate::shard::record_of(id, outcome, end))),
    };
    v1::FindActivationResponse {
        state: state.into(),
        record: record.map(|record| std::sync::Arc::unwrap_or_clone(record).into()),
        key: Some((&key).into()),
        epoch: epoch.0,
        ..Default::default()
    }
}

async fn hello(
    context: &Context,
    incoming: &mut Streaming<v1::SubmitFrame>,
) -> Result<(ControllerId, v1::SubmitFrame), Status> {
    let mut first = incoming
        .message()
        .await?
        .ok_or_else(|| Status::cancelled("closed before the first frame"))?;
    let hello = first
        .hello
        .take()
        .ok_or_else(|| Status::invalid_argument("the first frame must be a hello"))?;
    check_cluster(context, &hello.cluster_id)?;
    let controller = identity(&hello.controller, "hello.controller");
    let controller = controller.map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok((ControllerId(controller), first))
}
