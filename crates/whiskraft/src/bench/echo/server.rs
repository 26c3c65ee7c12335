//! Where a scheduler would be: hands submissions on to the worker and results back to the controller.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{BoxStream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::transport::{scheduler_incoming, scheduler_server};
use whiskraft_proto::v1::controller_server::{Controller, ControllerServer};
use whiskraft_proto::v1::invoker_server::{Invoker, InvokerServer};
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};

use super::frames::{Frames, PerFrame, channel};
use super::messages;
use crate::exit::{Exit, Failure};

/// Serves one controller and one worker until the process is ended.
///
/// # Errors
/// If the address cannot be listened on.
pub(crate) async fn serve(listen: SocketAddr, per_frame: PerFrame) -> Result<(), Failure> {
    let refused = |error| Failure::new(Exit::Refused, format!("cannot listen on {listen}")).caused_by(error);
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let relay = Relay::new(per_frame);
    let controller = ControllerServer::new(relay.clone()).max_decoding_message_size(MESSAGE_LEN_MAX);
    let invoker = InvokerServer::new(relay).max_decoding_message_size(MESSAGE_LEN_MAX);
    scheduler_server()
        .add_service(controller)
        .add_service(invoker)
        .serve_with_incoming(scheduler_incoming(listener))
        .await
        .map_err(|error| Failure::new(Exit::Refused, "the listener failed").caused_by(error))
}

/// Both services.
#[derive(Debug, Clone)]
struct Relay {
    per_frame: PerFrame,
    deliveries: Way<v1::Deliver>,
    results: Way<v1::CompletedActivation>,
}

/// A way to one of the two, who may be not there yet.
#[derive(Debug, Clone)]
struct Way<T> {
    sender: mpsc::Sender<T>,
    receiver: Arc<Mutex<Option<mpsc::Receiver<T>>>>,
}

impl<T> Way<T> {
    fn new() -> Self {
        let (sender, receiver) = channel();
        Self {
            sender,
            receiver: Arc::new(Mutex::new(Some(receiver))),
        }
    }

    /// Its end, for the first who asks.
    fn take(&self) -> Result<mpsc::Receiver<T>, Status> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver
            .take()
            .ok_or_else(|| Status::resource_exhausted("there is one controller and one worker"))
    }
}

impl Relay {
    fn new(per_frame: PerFrame) -> Self {
        Self {
            per_frame,
            deliveries: Way::new(),
            results: Way::new(),
        }
    }
}

/// Takes a stream's records out and puts them in at the other side, until one of the two ends.
async fn hand_on<F, T>(
    mut incoming: Streaming<F>,
    outgoing: mpsc::Sender<T>,
    records: impl Fn(F) -> Vec<T> + Send,
) where
    F: Send + 'static,
    T: Send,
{
    while let Ok(Some(frame)) = incoming.message().await {
        for record in records(frame) {
            if outgoing.send(record).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Controller for Relay {
    type SubmitStream = BoxStream<'static, Result<v1::ResultFrame, Status>>;

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitFrame>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let results = Frames::over(messages::submit_welcome(), self.results.take()?, self.per_frame);
        let records = |frame: v1::SubmitFrame| frame.submissions.into_iter().map(messages::deliver).collect();
        tokio::spawn(hand_on(
            request.into_inner(),
            self.deliveries.sender.clone(),
            records,
        ));
        Ok(Response::new(results.map(Ok).boxed()))
    }

    async fn ensure_queues(
        &self,
        _: Request<v1::EnsureQueuesRequest>,
    ) -> Result<Response<v1::EnsureQueuesResponse>, Status> {
        Err(no_scheduler())
    }

    async fn find_activation(
        &self,
        _: Request<v1::FindActivationRequest>,
    ) -> Result<Response<v1::FindActivationResponse>, Status> {
        Err(no_scheduler())
    }

    async fn cancel_activation(
        &self,
        _: Request<v1::CancelActivationRequest>,
    ) -> Result<Response<v1::CancelActivationResponse>, Status> {
        Err(no_scheduler())
    }

    async fn list_dead_letters(
        &self,
        _: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        Err(no_scheduler())
    }

    async fn redrive_dead_letters(
        &self,
        _: Request<v1::RedriveDeadLettersRequest>,
    ) -> Result<Response<v1::RedriveDeadLettersResponse>, Status> {
        Err(no_scheduler())
    }

    async fn purge_dead_letters(
        &self,
        _: Request<v1::PurgeDeadLettersRequest>,
    ) -> Result<Response<v1::PurgeDeadLettersResponse>, Status> {
        Err(no_scheduler())
    }
}

#[tonic::async_trait]
impl Invoker for Relay {
    type ControlStream = BoxStream<'static, Result<v1::ControlDown, Status>>;
    type PullStream = BoxStream<'static, Result<v1::PullDown, Status>>;

    async fn pull(
        &self,
        request: Request<Streaming<v1::PullUp>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let deliveries = Frames::over(messages::pull_welcome(), self.deliveries.take()?, self.per_frame);
        let records = |frame: v1::PullUp| {
            let completed = frame.completed.into_iter();
            completed.map(messages::completed_activation).collect()
        };
        tokio::spawn(hand_on(
            request.into_inner(),
            self.results.sender.clone(),
            records,
        ));
        Ok(Response::new(deliveries.map(Ok).boxed()))
    }

    async fn open_session(
        &self,
        _: Request<v1::OpenInvokerSessionRequest>,
    ) -> Result<Response<v1::OpenInvokerSessionResponse>, Status> {
        Err(no_scheduler())
    }

    async fn control(
        &self,
        _: Request<Streaming<v1::ControlUp>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        Err(no_scheduler())
    }
}

fn no_scheduler() -> Status {
    Status::unimplemented("this is no scheduler: it hands records on, for a measurement")
}
