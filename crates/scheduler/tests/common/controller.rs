//! A controller: one Submit stream to one scheduler.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_client::ControllerClient;

use super::{connect, soon};

/// What the scheduler said about an activation.
#[derive(Debug)]
pub enum Answer {
    Accepted,
    Rejected(v1::rejection::Kind),
    Completed(v1::ActivationRecord),
}

pub struct Controller {
    frames: mpsc::Sender<v1::SubmitFrame>,
    results: Streaming<v1::ResultFrame>,
    pub welcome: v1::SubmitWelcome,
    ready: VecDeque<([u8; 16], Answer)>,
}

pub fn id(number: u8) -> [u8; 16] {
    [number; 16]
}

fn submission(leadership: &v1::QueueLeadership, number: u8) -> v1::Submission {
    v1::Submission {
        id: id(number).to_vec().into(),
        key: leadership.key.clone(),
        epoch: leadership.epoch,
        attempt: 1,
        blocking: true,
        payload: "{}".into(),
        ..Default::default()
    }
}

impl Controller {
    pub async fn connect(address: &str, identity: u8) -> Self {
        let (frames, receiver) = mpsc::channel(64);
        let hello = v1::SubmitHello {
            controller: vec![identity; 16].into(),
            cluster_id: String::new(),
        };
        frames
            .send(v1::SubmitFrame {
                hello: Some(hello),
                ..Default::default()
            })
            .await
            .unwrap();
        let mut client = ControllerClient::new(connect(address).await);
        let mut results = client
            .submit(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        let first = soon("welcome", results.message()).await.unwrap().unwrap();
        Self {
            frames,
            results,
            welcome: first.welcome.unwrap(),
            ready: VecDeque::new(),
        }
    }

    pub async fn submit(&self, leadership: &v1::QueueLeadership, number: u8, attempt: u32, payload: &str) {
        let submission = v1::Submission {
            attempt,
            payload: payload.to_owned().into(),
            ..submission(leadership, number)
        };
        self.send(submission).await;
    }

    /// Submits an activation that a majority must have on disk before it is accepted.
    pub async fn submit_durable(&self, leadership: &v1::QueueLeadership, number: u8, payload: &str) {
        let submission = v1::Submission {
            payload: payload.to_owned().into(),
            durability: v1::Durability::Quorum.into(),
            blocking: false,
            ..submission(leadership, number)
        };
        self.send(submission).await;
    }

    /// Submits an activation as it is given, but for its queue and id.
    pub async fn submit_as(&self, leadership: &v1::QueueLeadership, number: u8, as_is: v1::Submission) {
        let of = submission(leadership, number);
        let submission = v1::Submission {
            id: of.id,
            key: of.key,
            epoch: of.epoch,
            ..as_is
        };
        self.send(submission).await;
    }

    /// Submits a new activation for another one that waits for it.
    pub async fn call(&self, leadership: &v1::QueueLeadership, number: u8, caller: u8) {
        let submission = v1::Submission {
            caller: id(caller).to_vec().into(),
            ..submission(leadership, number)
        };
        self.send(submission).await;
    }

    async fn send(&self, submission: v1::Submission) {
        self.frames
            .send(v1::SubmitFrame {
                submissions: vec![submission],
                ..Default::default()
            })
            .await
            .unwrap();
    }

    /// Offers many new activations in one frame.
    pub async fn offer(&self, leadership: &v1::QueueLeadership, ids: std::ops::Range<u32>) {
        let submission = |number: u32| v1::Submission {
            id: [[0; 12].as_slice(), &number.to_be_bytes()].concat().into(),
            key: leadership.key.clone(),
            epoch: leadership.epoch,
            attempt: 1,
            payload: "{}".into(),
            ..Default::default()
        };
        let frame = v1::SubmitFrame {
            submissions: ids.map(submission).collect(),
            ..Default::default()
        };
        self.frames.send(frame).await.unwrap();
    }

    pub async fn confirm(&self, number: u8) {
        let received = vec![id(number).to_vec().into()];
        self.frames
            .send(v1::SubmitFrame {
                received,
                ..Default::default()
            })
            .await
            .unwrap();
    }

    /// The next answer, whichever activation it is about.
    pub async fn answer(&mut self) -> ([u8; 16], Answer) {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return next;
            }
            let frame = soon("answer of the scheduler", self.results.message())
                .await
                .unwrap();
            let frame = frame.expect("the scheduler ended the stream");
            let id = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).unwrap();
            self.ready.extend(
                frame
                    .accepted
                    .iter()
                    .map(|accepted| (id(accepted), Answer::Accepted)),
            );
            for rejected in frame.rejected {
                let kind = rejected.rejection.unwrap().kind.unwrap();
                self.ready.push_back((id(&rejected.id), Answer::Rejected(kind)));
            }
            for completed in frame.completed {
                let record = completed.record.unwrap();
                self.ready.push_back((id(&record.id), Answer::Completed(record)));
            }
        }
    }

    /// The next answer about one activation that is no acceptance; others are dropped.
    pub async fn outcome(&mut self, number: u8) -> Answer {
        loop {
            match self.answer().await {
                (found, Answer::Accepted) if found == id(number) => {}
                (found, answer) if found == id(number) => return answer,
                _ => {}
            }
        }
    }

    pub async fn record(&mut self, number: u8) -> v1::ActivationRecord {
        match self.outcome(number).await {
            Answer::Completed(record) => record,
            other => panic!("no record of {number}: {other:?}"),
        }
    }

    pub async fn rejection(&mut self, number: u8) -> v1::rejection::Kind {
        match self.outcome(number).await {
            Answer::Rejected(kind) => kind,
            other => panic!("{number} was not rejected: {other:?}"),
        }
    }

    /// Waits for the acceptance of an activation.
    pub async fn accepted(&mut self, number: u8) {
        match self.answer().await {
            (found, Answer::Accepted) if found == id(number) => {}
            other => panic!("{number} was not accepted: {other:?}"),
        }
    }
}
