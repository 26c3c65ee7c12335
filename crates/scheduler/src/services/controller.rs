//! Controller service: makes sure that queues exist, opens Submit streams, finds and cancels activations by id, keeps dead
//! letters.

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::identity;
use whiskraft_proto::v1::{self, controller_server::Controller};
use whiskraft_queue::ControllerId;

use crate::cluster::Cluster;
use crate::context::Context;
use crate::control::hello::check_cluster;
use crate::ensure::ensure;
use crate::letters::Letters;
use crate::shard::ShardsHandle;
use crate::submit::SubmitStream;

/// Frames under way per stream; more would only add latency behind a slow controller.
const FRAMES_MAX: usize = 4;

/// Queues in one call: as many commands as the log takes into one append.
const ENSURES_MAX: usize = 1024;

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct ControllerService {
    context: Context,
    shards: ShardsHandle,
    cluster: Cluster,
    letters: Letters,
}

impl ControllerService {
    pub(crate) const fn new(
        context: Context,
        shards: ShardsHandle,
        cluster: Cluster,
        letters: Letters,
    ) -> Self {
        Self {
            context,
            shards,
            cluster,
            letters,
        }
    }
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn ensure_queues(
        &self,
        request: Request<v1::EnsureQueuesRequest>,
    ) -> Result<Response<v1::EnsureQueuesResponse>, Status> {
        use v1::queue_ensured::Outcome;

        let queues = request.into_inner().queues;
        if queues.len() > ENSURES_MAX {
            let count = queues.len();
            return Err(Status::invalid_argument(format!(
                "{count} queues in one call, at most {ENSURES_MAX}"
            )));
        }
        let ensured = ensure(&self.context, queues).await;
        let outcomes = ensured.into_iter().map(|ensured| v1::QueueEnsured {
            outcome: Some(match ensured {
                Ok(leadership) => Outcome::Leadership(leadership),
                Err(rejection) => Outcome::Rejection(rejection.into()),
            }),
        });
        Ok(Response::new(v1::EnsureQueuesResponse {
            outcomes: outcomes.collect(),
            log_leader: self.context.log_leader(),
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
        request: Request<v1::CancelActivationRequest>,
    ) -> Result<Response<v1::CancelActivationResponse>, Status> {
        self.cluster.cancel(request.into_inner()).await.map(Response::new)
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        self.letters.list(request.into_inner()).await.map(Response::new)
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<v1::RedriveDeadLettersRequest>,
    ) -> Result<Response<v1::RedriveDeadLettersResponse>, Status> {
        self.letters
            .redrive(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn purge_dead_letters(
        &self,
        request: Request<v1::PurgeDeadLettersRequest>,
    ) -> Result<Response<v1::PurgeDeadLettersResponse>, Status> {
        self.letters.purge(request.into_inner()).await.map(Response::new)
    }

    async fn find_activation(
        &self,
        request: Request<v1::FindActivationRequest>,
    ) -> Result<Response<v1::FindActivationResponse>, Status> {
        self.cluster.find(request.into_inner()).await.map(Response::new)
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
