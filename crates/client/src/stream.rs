//! The task that keeps one Submit stream to one scheduler: opens it, reads it, opens it again when it breaks.
//!
//! Reports to the actor in order; never decides what happens to an activation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Streaming;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::{InvalidMessage, MESSAGE_LEN_MAX, activation_id, required, v1};
use whiskraft_types::{ActivationId, Rejection, SchedulerId};

use crate::ActivationRecord;
use crate::actor::Event;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::core::StreamId;
use crate::directory::{Class, Directory};
use crate::outbox::Outbox;

/// A stream that lived this long was fine; the next try comes without a pause.
const LIVED: Duration = Duration::from_secs(1);

/// One frame, parsed.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) accepted: Vec<ActivationId>,
    pub(crate) rejected: Vec<(ActivationId, Rejection)>,
    pub(crate) completed: Vec<Result<ActivationRecord, (ActivationId, InvalidMessage)>>,
}

/// What the task needs.
pub(crate) struct StreamTask {
    pub(crate) scheduler: SchedulerId,
    pub(crate) address: String,
    pub(crate) hello: v1::SubmitHello,
    pub(crate) open_deadline: Duration,
    pub(crate) clock: Clock,
    pub(crate) directory: Arc<Directory>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) events: mpsc::Sender<Event>,
}

impl StreamTask {
    /// Runs until it is aborted or the actor is gone. Generations start above `generation`.
    pub(crate) async fn run(self, mut generation: u64) {
        let mut backoff = Backoff::default();
        loop {
            generation += 1;
            let since = self.clock.now();
            let Some(cause) = self
                .live(StreamId {
                    scheduler: self.scheduler,
                    generation,
                })
                .await
            else {
                return;
            };
            if self.clock.now().saturating_since(since) >= LIVED {
                backoff.reset();
            }
            tracing::debug!(scheduler = %self.scheduler, address = self.address, cause, "submit stream lost");
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// One life of the stream; returns why it ended, or `None` when nobody listens any more.
    async fn live(&self, stream: StreamId) -> Option<String> {
        let opened = tokio::time::timeout(self.open_deadline, self.open(stream.generation)).await;
        let (welcome, mut frames) = match opened {
            Ok(Ok(opened)) => opened,
            failed => {
                self.outbox.close();
                let cause = match failed {
                    Ok(Err(cause)) => cause,
                    _ => format!("no welcome within {:?}", self.open_deadline),
                };
                self.events
                    .send(Event::StreamFailed {
                        stream,
                        cause: cause.clone(),
                    })
                    .await
                    .ok()?;
                return Some(cause);
            }
        };
        self.events
            .send(Event::StreamOpened { stream, welcome })
            .await
            .ok()?;
        let cause = loop {
            match frames.message().await {
                Ok(Some(frame)) => {
                    let answers = Box::new(parse(frame));
                    self.events.send(Event::Answers { stream, answers }).await.ok()?;
                }
                Ok(None) => break "closed by the scheduler".to_owned(),
                Err(status) => break status.to_string(),
            }
        };
        let unsent = self.outbox.close();
        if self.outbox.is_finished() {
            return None;
        }
        self.events
            .send(Event::StreamLost { stream, unsent })
            .await
            .ok()?;
        Some(cause)
    }

    async fn open(&self, generation: u64) -> Result<(v1::SubmitWelcome, Streaming<v1::ResultFrame>), String> {
        let channel = self
            .directory
            .channel(&self.address, Class::Quick)
            .map_err(|error| error.to_string())?;
        let mut client = ControllerClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
        let frames = self.outbox.open(generation, self.hello.clone());
        let mut answers = client
            .submit(frames)
            .await
            .map_err(|status| describe(&status))?
            .into_inner();
        let first = answers.message().await.map_err(|status| describe(&status))?;
        let welcome = first
            .and_then(|frame| frame.welcome)
            .ok_or("the first frame is no welcome")?;
        if welcome.scheduler != self.scheduler.0 {
            return Err(format!("scheduler {} answers there", welcome.scheduler));
        }
        Ok((welcome, answers))
    }
}

/// Code and text of a gRPC failure, with the cause below it.
pub(crate) fn describe(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What cannot be read is left out and logged; a record that cannot be read still ends its activation.
fn parse(frame: v1::ResultFrame) -> Answers {
    let mut answers = Answers::default();
    for id in frame.accepted {
        answers.accepted.extend(readable(activation_id(&id)));
    }
    for rejected in frame.rejected {
        let rejection = required(rejected.rejection, "rejected.rejection").and_then(Rejection::try_from);
        // A reason that a newer scheduler invented: nothing we could act on, but certainly a no.
        let rejection = rejection.unwrap_or_else(|error| Rejection::Invalid {
            reason: error.to_string(),
        });
        answers
            .rejected
            .extend(readable(activation_id(&rejected.id)).map(|id| (id, rejection)));
    }
    for completed in frame.completed {
        let Some(record) = readable(required(completed.record, "completed.record")) else {
            continue;
        };
        let Some(id) = readable(activation_id(&record.id)) else {
            continue;
        };
        answers
            .completed
            .push(ActivationRecord::try_from(record).map_err(|error| (id, error)));
    }
    answers
}

fn readable<T>(parsed: Result<T, InvalidMessage>) -> Option<T> {
    parsed
        .inspect_err(|error| tracing::warn!(%error, "unreadable part of a result frame ignored"))
        .ok()
}
