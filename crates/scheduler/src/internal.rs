//! A controller inside the cluster: submits durable activations on nobody's stream, for redrives and schedules.
//!
//! An activation goes to whoever leads its queue: to a queue led here through [`InternalStream`], which is to the shards a
//! controller as any other, to another scheduler by one call. Its id is the caller's, so that it can be said again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use whiskraft_proto::{activation_id, activation_id_bytes, required, v1};
use whiskraft_queue::{ControllerId, Terms};
use whiskraft_state::Leadership;
use whiskraft_types::{ActivationId, Epoch, QueueKey, Rejection};

use crate::clock::unix_ms;
use crate::cluster::{ASK_WAIT_MAX, Peers};
use crate::context::Context;
use crate::ensure::ensure_queue;
use crate::message::{Content, Payload, Request, ResultItem, StreamEnd, Submission};
use crate::shard::ShardsHandle;

/// Activations handed over that the stream has not taken yet; a full channel makes the next caller wait.
const WAITING_MAX: usize = 256;
/// Batches of answers that wait for the stream.
const BATCHES_MAX: usize = 1024;
/// Longest time for which one activation is tried.
const SUBMIT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause before a queue is tried again; it doubles up to the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A durable activation to be submitted.
#[derive(Debug, Clone)]
pub(crate) struct Internal {
    pub(crate) id: ActivationId,
    pub(crate) key: QueueKey,
    pub(crate) payload: Payload,
    /// Unix time before which it must not begin; zero: at once.
    pub(crate) not_before_ms: u64,
}

/// Submits; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct InternalController {
    context: Context,
    peers: Peers,
    here: mpsc::Sender<Local>,
}

/// One for a queue that is led here.
#[derive(Debug)]
struct Local {
    internal: Internal,
    epoch: Epoch,
    answer: oneshot::Sender<Result<(), Rejection>>,
}

impl InternalController {
    /// The controller, and its stream to the shards of this scheduler.
    pub(crate) fn new(context: Context, shards: ShardsHandle, peers: Peers) -> (Self, InternalStream) {
        let (here, waiting) = mpsc::channel(WAITING_MAX);
        let stream = InternalStream {
            context: context.clone(),
            shards,
            controller: ControllerId(rand::random()),
            waiting,
            answers: BTreeMap::new(),
        };
        (Self { context, peers, here }, stream)
    }

    /// Submits an activation wherever its queue is led; back once a majority has it on disk, or had it before. An error
    /// other than `Unavailable` is final; after that one the same id may be submitted again.
    ///
    /// # Errors
    /// Why it was not accepted, as far as is known.
    pub(crate) async fn submit(&self, internal: Internal) -> Result<(), Rejection> {
        let deadline = self.context.clock.now() + SUBMIT_WAIT_MAX;
        let mut pause = RETRY_PAUSE;
        loop {
            let rejection = match self.try_submit(&internal).await {
                Ok(()) => return Ok(()),
                Err(rejection) => rejection,
            };
            let is_final = !matches!(
                rejection,
                Rejection::NotLeader(_)
                    | Rejection::NoQueue
                    | Rejection::Draining
                    | Rejection::Unavailable { .. }
            );
            if is_final || self.context.clock.now() + pause >= deadline {
                return Err(rejection);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn try_submit(&self, internal: &Internal) -> Result<(), Rejection> {
        let Leadership { leader, epoch, .. } = ensure_queue(&self.context, &internal.key, false).await?;
        if leader == self.context.node.id() {
            return self.submit_here(internal.clone(), epoch).await;
        }
        let silent = || Rejection::Unavailable {
            reason: format!(
                "scheduler {leader}, which leads queue {}, does not answer",
                internal.key
            ),
        };
        let mut client = self.peers.client(leader).ok_or_else(silent)?;
        let answer = tokio::time::timeout(ASK_WAIT_MAX, client.submit_here(request(internal, epoch))).await;
        let answer = answer.map_err(|_| silent())?.map_err(|_| silent())?;
        match answer.into_inner().rejection {
            None => Ok(()),
            Some(rejection) => Err(Rejection::try_from(rejection).unwrap_or_else(|_| silent())),
        }
    }

    /// Submits to a queue that is led here.
    ///
    /// # Errors
    /// Why it was not accepted.
    pub(crate) async fn submit_here(&self, internal: Internal, epoch: Epoch) -> Result<(), Rejection> {
        let (answer, answered) = oneshot::channel();
        let local = Local {
            internal,
            epoch,
            answer,
        };
        let stopping = || Rejection::Unavailable {
            reason: "the scheduler is stopping".to_owned(),
        };
        self.here.send(local).await.map_err(|_| stopping())?;
        let answered = tokio::time::timeout(ASK_WAIT_MAX, answered).await;
        answered
            .map_err(|_| Rejection::Unavailable {
                reason: "the journal takes too long".to_owned(),
            })?
            .unwrap_or_else(|_| Err(stopping()))
    }
}

fn request(internal: &Internal, epoch: Epoch) -> v1::SubmitHereRequest {
    let content = &internal.payload;
    v1::SubmitHereRequest {
        id: activation_id_bytes(internal.id),
        key: Some((&internal.key).into()),
        epoch: epoch.0,
        arguments: content.arguments.clone(),
        transaction: content.transaction.clone(),
        subject: content.subject.clone(),
        api_key: content.api_key.clone(),
        cause: content.cause.clone(),
        not_before_ms: internal.not_before_ms,
    }
}

/// What another scheduler submits, and the epoch that it knows.
///
/// # Errors
/// If a field is not what it should be.
pub(crate) fn parse(
    request: v1::SubmitHereRequest,
) -> Result<(Internal, Epoch), whiskraft_proto::InvalidMessage> {
    let payload = Content {
        arguments: request.arguments,
        transaction: request.transaction,
        subject: request.subject,
        api_key: request.api_key,
        cause: request.cause,
    };
    let internal = Internal {
        id: activation_id(&request.id)?,
        key: required(request.key, "key").and_then(QueueKey::try_from)?,
        payload: Arc::new(payload),
        not_before_ms: request.not_before_ms,
    };
    Ok((internal, Epoch(request.epoch)))
}

/// The stream of the internal controller to the shards of this scheduler.
#[derive(Debug)]
pub(crate) struct InternalStream {
    context: Context,
    shards: ShardsHandle,
    controller: ControllerId,
    waiting: mpsc::Receiver<Local>,
    /// Whoever waits to hear whether an activation was accepted; each gives up after a while.
    answers: BTreeMap<ActivationId, Vec<oneshot::Sender<Result<(), Rejection>>>>,
}

impl InternalStream {
    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        let stopping = context.stopping();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => return,
                () = self.serve() => tracing::warn!("internal submit stream was cut, opens another"),
            }
            // What waits is asked for again under the same id.
            self.answers.clear();
        }
    }

    /// One stream, until a shard cuts it.
    async fn serve(&mut self) {
        let (items, mut batches) = mpsc::channel(BATCHES_MAX);
        let cut = Arc::new(Notify::new());
        let end = StreamEnd {
            stream: self.context.next_stream(),
            items,
            cut: Arc::clone(&cut),
        };
        let controller = self.controller;
        self.shards
            .send_all(|| Request::ControllerOpened {
                controller,
                end: end.clone(),
            })
            .await;
        loop {
            tokio::select! {
                biased;
                () = cut.notified() => return,
                batch = batches.recv() => match batch {
                    Some(batch) => self.on_batch(batch).await,
                    None => return,
                },
                local = self.waiting.recv() => match local {
                    Some(local) => self.on_local(local).await,
                    // Nobody submits any more: the process stops.
                    None => std::future::pending().await,
                },
            }
        }
    }

    async fn on_local(&mut self, local: Local) {
        let Local {
            internal,
            epoch,
            answer,
        } = local;
        self.answers.retain(|_, waiting| {
            waiting.retain(|answer| !answer.is_closed());
            !waiting.is_empty()
        });
        let Internal {
            id,
            key,
            payload,
            not_before_ms,
        } = internal;
        self.answers.entry(id).or_default().push(answer);
        let ahead = Duration::from_millis(not_before_ms.saturating_sub(unix_ms()));
        let submission = Submission {
            id,
            key: key.clone(),
            epoch,
            attempt: 1,
            waited: Duration::ZERO,
            caller: None,
            payload,
            terms: Terms {
                durable: true,
                not_before: (!ahead.is_zero()).then(|| self.context.clock.now() + ahead),
            },
        };
        let submit = Request::Submit {
            controller: self.controller,
            submissions: vec![submission],
        };
        self.shards.send_to(&key, submit).await;
    }

    async fn on_batch(&mut self, batch: Vec<ResultItem>) {
        for item in batch {
            match item {
                ResultItem::Accepted(id) => self.settle(id, &Ok(())),
                ResultItem::Rejected(id, rejection) => self.settle(id, &Err(rejection)),
                // Its record is in the journal; nobody here waits for it.
                ResultItem::Completed { key, record, .. } => {
                    self.settle(record.id, &Ok(()));
                    let received = Request::Received {
                        controller: self.controller,
                        ids: vec![(key.clone(), record.id)],
                    };
                    self.shards.send_to(&key, received).await;
                }
            }
        }
    }

    fn settle(&mut self, id: ActivationId, answer: &Result<(), Rejection>) {
        for waiting in self.answers.remove(&id).into_iter().flatten() {
            let _ = waiting.send(answer.clone());
        }
    }
}
