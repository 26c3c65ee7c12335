//! The gRPC services of a fake scheduler.

use std::pin::Pin;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_server::Controller;
use whiskraft_proto::v1::watch_server::Watch;

use super::{Fake, Mode, Seen, record};

pub type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    pub(super) fn check_up(&self) -> Result<(), Status> {
        match self.with(|state| state.down) {
            true => Err(Status::unavailable("down by the test")),
            false => Ok(()),
        }
    }

    async fn on_frame(&self, frame: v1::SubmitFrame) {
        if let Some(hello) = frame.hello {
            self.see(Seen::Hello(hello));
        }
        for id in frame.received {
            self.see(Seen::Received(id.to_vec()));
        }
        if !frame.submissions.is_empty() {
            self.see(Seen::Frame(frame.submissions.len()));
        }
        let echo = self.with(|state| state.mode) == Mode::Echo;
        for submission in frame.submissions {
            let id = submission.id.clone();
            self.see(Seen::Submission(submission));
            if echo {
                let completed = vec![v1::CompletedActivation {
                    record: Some(record(&id)),
                    epoch: 1,
                }];
                self.say(v1::ResultFrame {
                    accepted: vec![id],
                    completed,
                    ..Default::default()
                })
                .await;
            }
        }
    }
}

#[tonic::async_trait]
impl Controller for Fake {
    type SubmitStream = Frames<v1::ResultFrame>;

    async fn ensure_queues(
        &self,
        request: Request<v1::EnsureQueuesRequest>,
    ) -> Result<Response<v1::EnsureQueuesResponse>, Status> {
        let queues = request.into_inner().queues;
        self.see(Seen::Ensures(queues.len()));
        for queue in &queues {
            self.see(Seen::Ensure(queue.key.clone().unwrap()));
        }
        self.check_up()?;
        let (outcome, log_leader) = self.with(|state| (state.ensure.clone(), state.log_leader));
        let outcomes = queues.iter().map(|_| v1::QueueEnsured {
            outcome: outcome.clone(),
        });
        Ok(Response::new(v1::EnsureQueuesResponse {
            outcomes: outcomes.collect(),
            log_leader,
        }))
    }

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitFrame>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        self.check_up()?;
        let mut frames = request.into_inner();
        let (results, receiver) = mpsc::channel(1024);
        let welcome = self.with(|state| {
            state.results = Some(results.clone());
            v1::SubmitWelcome {
                scheduler: state.id,
                window: state.window,
                payload_len_max: state.payload_len_max,
                cluster_id: state.cluster_id.clone(),
            }
        });
        let first = v1::ResultFrame {
            welcome: Some(welcome),
            ..Default::default()
        };
        results.send(Ok(first)).await.unwrap();
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                fake.on_frame(frame).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel_activation(
        &self,
        request: Request<v1::CancelActivationRequest>,
    ) -> Result<Response<v1::CancelActivationResponse>, Status> {
        self.cancel(request)
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        self.list(request)
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<v1::RedriveDeadLettersRequest>,
    ) -> Result<Response<v1::RedriveDeadLettersResponse>, Status> {
        self.redrive(request)
    }

    async fn purge_dead_letters(
        &self,
        request: Request<v1::PurgeDeadLettersRequest>,
    ) -> Result<Response<v1::PurgeDeadLettersResponse>, Status> {
        self.purge(request)
    }

    async fn find_activation(
        &self,
        request: Request<v1::FindActivationRequest>,
    ) -> Result<Response<v1::FindActivationResponse>, Status> {
        self.check_up()?;
        self.see(Seen::Find(request.into_inner()));
        Ok(Response::new(self.with(|state| state.find.clone())))
    }
}

#[tonic::async_trait]
impl Watch for Fake {
    type WatchStream = Frames<v1::WatchFrame>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.check_up()?;
        let request = request.into_inner();
        let (frames, receiver) = mpsc::channel(1024);
        for frame in self.world.start(request.after) {
            frames.send(Ok(frame)).await.unwrap();
        }
        self.with(|state| state.watches.push(frames));
        self.see(Seen::Watch(request));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
