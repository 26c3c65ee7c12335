//! Hot path: a controller's Submit stream, both directions in one task.
//! Budget per activation: one allocation for the shared content, one for the id on its way back, and a place in two
//! tables of ids; the payload is the buffer the frame came in. No lock that it waits for, no Raft, no disk. A frame carries
//! what is ready; nothing that somebody waits for waits for a fuller one.
//!
//! The task reads on while its peer does not, so two slow ends cannot block each other; it stops only for a peer that
//! overruns its window and does not read the refusals.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tonic::{Status, Streaming};
use whiskraft_proto::{InvalidMessage, activation_id, activation_id_bytes, v1};
use whiskraft_queue::{ControllerId, Terms};
use whiskraft_types::{ActivationId, Epoch, Instant, QueueKey, Rejection, ThrottleScope};

use crate::clock::unix_ms;
use crate::context::Context;
use crate::delivered::Delivered;
use crate::failpoint::failpoint;
use crate::intern::Keys;
use crate::message::{Content, Request, ResultItem, StreamEnd, Submission};
use crate::shard::{QUIET_ITEMS, QUIET_MAX, ShardsHandle};
use crate::window::Window;

/// Batches that wait for one stream, one per shard and turn. A controller that lets more pile up is cut; it submits
/// again when it is back, and the ledgers answer.
const BATCHES_MAX: usize = 1024;
/// Batches put into one frame.
const BATCHES_PER_FRAME: usize = 64;
/// Bytes of results after which a frame is full; its last record may exceed it.
const FRAME_LEN: usize = 1 << 20;
/// Refusals of this task's own that wait for the controller to take a frame; above it the stream is not read.
const REFUSED_MAX: usize = 4096;
/// Outcomes whose confirmation is awaited: some seconds of a busy controller.
const DELIVERED_MAX: usize = 1 << 16;
/// When a controller that overran its window should try again: windows move within milliseconds.
const WINDOW_RETRY: Duration = Duration::from_millis(50);
/// Longest time that the end of the process waits for one controller to take the last frames.
const FLUSH_WAIT_MAX: Duration = Duration::from_millis(500);

type Frames = mpsc::Sender<Result<v1::ResultFrame, Status>>;

/// One stream.
pub(crate) struct SubmitStream {
    context: Context,
    shards: ShardsHandle,
    controller: ControllerId,
    frames: Frames,
    end: StreamEnd<ResultItem>,
    batches: mpsc::Receiver<Vec<ResultItem>>,
    keys: Keys,
    /// Submissions passed to shards and neither accepted nor rejected yet.
    window: Window,
    /// Where the outcomes came from that the controller has not confirmed yet.
    delivered: Delivered,
    /// What this task itself refused; goes out before anything else.
    refused: VecDeque<(ActivationId, Rejection)>,
    /// What shards said; both wait for the controller to take a frame.
    ready: VecDeque<ResultItem>,
    /// Whether something in `ready` is waited for, or has waited long enough.
    is_urgent: bool,
    /// When what is in `ready` has waited long enough; set while there is something.
    quiet_until: Option<Instant>,
    /// Per shard, the submissions of the frame under way.
    outgoing: Vec<Vec<Submission>>,
}

impl SubmitStream {
    pub(crate) fn new(
        context: Context,
        shards: ShardsHandle,
        controller: ControllerId,
        frames: Frames,
    ) -> Self {
        let (items, batches) = mpsc::channel(BATCHES_MAX);
        let end = StreamEnd {
            stream: context.next_stream(),
            items,
            cut: Arc::new(Notify::new()),
        };
        let window = Window::new(context.config.submit.window);
        let outgoing = (0..shards.len()).map(|_| Vec::new()).collect();
        Self {
            context,
            shards,
            controller,
            frames,
            end,
            batches,
            keys: Keys::default(),
            window,
            delivered: Delivered::new(DELIVERED_MAX),
            refused: VecDeque::new(),
            ready: VecDeque::new(),
            is_urgent: false,
            quiet_until: None,
            outgoing,
        }
    }

    /// Runs until either end closes, the stream is cut or the process stops.
    pub(crate) async fn run(mut self, first: v1::SubmitFrame, mut incoming: Streaming<v1::SubmitFrame>) {
        let (controller, stream) = (self.controller, self.end.stream);
        let end = self.end.clone();
        self.shards
            .send_all(|| Request::ControllerOpened {
                controller,
                end: end.clone(),
            })
            .await;
        let context = self.context.clone();
        let cut = Arc::clone(&self.end.cut);
        tokio::select! {
            biased;
            () = context.stopping() => drop(tokio::time::timeout(FLUSH_WAIT_MAX, self.flush()).await),
            () = cut.notified() => {}
            () = self.serve(first, &mut incoming) => {}
        }
        self.shards
            .send_all(|| Request::ControllerClosed { controller, stream })
            .await;
        tracing::debug!(%controller, "submit stream ended");
    }

    async fn serve(&mut self, first: v1::SubmitFrame, incoming: &mut Streaming<v1::SubmitFrame>) {
        let welcome = v1::SubmitWelcome {
            scheduler: self.context.node.id().0,
            window: self.context.config.submit.window.get(),
            payload_len_max: self.context.config.submit.payload_len_max.as_bytes(),
            cluster_id: self.context.node.cluster_id().to_owned(),
        };
        let welcome = v1::ResultFrame {
            welcome: Some(welcome),
            ..Default::default()
        };
        if self.frames.send(Ok(welcome)).await.is_err() {
            return;
        }
        self.on_frame(first).await;
        let (frames, clock) = (self.frames.clone(), self.context.clock);
        let mut batches = Vec::with_capacity(BATCHES_PER_FRAME);
        loop {
            tokio::select! {
                biased;
                permit = frames.reserve(), if self.has_urgent() => match permit {
                    Ok(permit) => {
                        let frame = self.next_frame();
                        if !frame.completed.is_empty() {
                            failpoint!("completed-before-sent");
                        }
                        if !frame.accepted.is_empty() {
                            failpoint!("accepted-before-sent");
                        }
                        permit.send(Ok(frame));
                    }
                    Err(_closed) => return,
                },
                count = self.batches.recv_many(&mut batches, BATCHES_PER_FRAME), if !self.has_urgent() => {
                    if count == 0 {
                        return;
                    }
                    batches.drain(..).flatten().for_each(|item| self.on_item(item));
                }
                () = clock.sleep_until(self.quiet_until.unwrap_or_default()), if self.quiet_until.is_some() => {
                    self.is_urgent = true;
                    self.quiet_until = None;
                }
                frame = incoming.message(), if self.refused.len() < REFUSED_MAX => match frame {
                    Ok(Some(frame)) => self.on_frame(frame).await,
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    fn has_answers(&self) -> bool {
        !self.refused.is_empty() || !self.ready.is_empty()
    }

    /// Whether a frame is to be sent now.
    fn has_urgent(&self) -> bool {
        !self.refused.is_empty() || self.is_urgent
    }

    /// Takes what a shard has said. Acceptances that nobody waits for go along with what follows.
    fn on_item(&mut self, item: ResultItem) {
        let is_quiet = matches!(item, ResultItem::Accepted(id) if self.window.is_quiet(id));
        self.ready.push_back(item);
        if !is_quiet || self.ready.len() >= QUIET_ITEMS.min(self.window.quiet_max()) {
            self.is_urgent = true;
            self.quiet_until = None;
        } else if !self.is_urgent && self.quiet_until.is_none() {
            self.quiet_until = Some(self.context.clock.now() + QUIET_MAX);
        }
    }

    /// Sends what the shards have said last: where the queues are now.
    async fn flush(&mut self) {
        while let Ok(batch) = self.batches.try_recv() {
            self.ready.extend(batch);
        }
        while self.has_answers() {
            let frame = self.next_frame();
            if self.frames.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    }

    async fn on_frame(&mut self, frame: v1::SubmitFrame) {
        for submission in frame.submissions {
            self.on_submission(submission);
        }
        for shard in 0..self.outgoing.len() {
            let submissions = std::mem::take(&mut self.outgoing[shard]);
            if !submissions.is_empty() {
                self.shards
                    .send(
                        shard,
                        Request::Submit {
                            controller: self.controller,
                            submissions,
                        },
                    )
                    .await;
            }
        }
        if !frame.received.is_empty() {
            self.on_received(&frame.received).await;
        }
    }

    fn on_submission(&mut self, submission: v1::Submission) {
        // Without an id there is nothing to answer to; a correct SDK cannot get here.
        let Ok(id) = activation_id(&submission.id) else {
            return tracing::warn!(controller = %self.controller, "submission without a proper id dropped");
        };
        // A durable one may be joined by somebody who waits for its acceptance.
        let is_quiet = submission.blocking && submission.durability != i32::from(v1::Durability::Quorum);
        match self.check(id, submission) {
            Ok((submission, shard)) => {
                self.window.on_submitted(id, is_quiet);
                self.outgoing[shard].push(submission);
            }
            Err(rejection) => {
                self.context.metrics.rejected(&rejection);
                self.refused.push_back((id, rejection));
            }
        }
    }

    fn check(
        &mut self,
        id: ActivationId,
        submission: v1::Submission,
    ) -> Result<(Submission, usize), Rejection> {
        let config = &self.context.config.submit;
        let (len, len_max) = (submission.payload.len() as u64, config.payload_len_max.as_bytes());
        if len > len_max {
            return Err(Rejection::TooLarge { len, len_max });
        }
        if self.window.is_full() {
            return Err(Rejection::Throttled {
                scope: ThrottleScope::Stream,
                limit: Some(self.context.config.submit.window.get()),
                retry_after: WINDOW_RETRY,
            });
        }
        let parsed = self.keys.parse(&self.shards, &self.context.node, submission.key);
        let (key, shard) = parsed.map_err(|error: InvalidMessage| Rejection::Invalid {
            reason: error.to_string(),
        })?;
        // One that cannot be read is none: who names nobody is served as before there were names.
        let caller = activation_id(&submission.caller).ok();
        let payload = Arc::new(Content {
            arguments: submission.payload,
            transaction: submission.transaction,
            subject: submission.subject,
            api_key: submission.api_key,
            cause: submission.cause,
        });
        let terms = self.terms(submission.durability, submission.not_before_ms)?;
        let (epoch, attempt) = (Epoch(submission.epoch), submission.attempt.max(1));
        Ok((
            Submission {
                id,
                key,
                epoch,
                attempt,
                waited: Duration::from_millis(submission.waited_ms),
                caller,
                payload,
                terms,
            },
            shard,
        ))
    }

    /// What a submission asks for, in the time of this process.
    ///
    /// # Errors
    /// `Invalid` if it cannot be promised.
    fn terms(&self, durability: i32, not_before_ms: u64) -> Result<Terms, Rejection> {
        let invalid = |reason: &str| Rejection::Invalid {
            reason: reason.to_owned(),
        };
        let durable = match v1::Durability::try_from(durability) {
            Ok(v1::Durability::Unspecified | v1::Durability::Memory) => false,
            Ok(v1::Durability::Quorum) => true,
            Err(_) => return Err(invalid("durability is none that this scheduler knows; update it")),
        };
        if not_before_ms == 0 {
            let not_before = None;
            return Ok(Terms { durable, not_before });
        }
        if !durable {
            return Err(invalid(
                "an activation that must wait for its time needs durability QUORUM: memory does not keep it so long",
            ));
        }
        let ahead = Duration::from_millis(not_before_ms.saturating_sub(unix_ms()));
        let not_before = (!ahead.is_zero()).then(|| self.context.clock.now() + ahead);
        Ok(Terms { durable, not_before })
    }

    async fn on_received(&mut self, received: &[bytes::Bytes]) {
        let mut by_shard: Vec<Vec<(QueueKey, ActivationId)>> =
            self.outgoing.iter().map(|_| Vec::new()).collect();
        for id in received {
            // One that came on an earlier stream is sent again and confirmed again.
            let known = activation_id(id)
                .ok()
                .and_then(|id| Some((id, self.delivered.confirm(id)?)));
            if let Some((id, key)) = known {
                by_shard[self.shards.of(&key)].push((key, id));
            }
        }
        for (shard, ids) in by_shard
            .into_iter()
            .enumerate()
            .filter(|(_, ids)| !ids.is_empty())
        {
            self.shards
                .send(
                    shard,
                    Request::Received {
                        controller: self.controller,
                        ids,
                    },
                )
                .await;
        }
    }

    /// A frame of what is ready, up to its length.
    fn next_frame(&mut self) -> v1::ResultFrame {
        let mut frame = v1::ResultFrame::default();
        let mut len = 0;
        let rejected = |id, rejection: Rejection| v1::RejectedSubmission {
            id: activation_id_bytes(id),
            rejection: Some(rejection.into()),
        };
        let refused = self.refused.drain(..);
        frame
            .rejected
            .extend(refused.map(|(id, rejection)| rejected(id, rejection)));
        while len < FRAME_LEN
            && let Some(item) = self.ready.pop_front()
        {
            match item {
                ResultItem::Accepted(id) => {
                    self.window.on_answered(id);
                    frame.accepted.push(activation_id_bytes(id));
                }
                ResultItem::Rejected(id, rejection) => {
                    // One that was accepted before, by a leader that is none any more, counts no second time.
                    self.window.on_answered(id);
                    frame.rejected.push(rejected(id, rejection));
                }
                ResultItem::Completed { key, epoch, record } => {
                    len += record.result.len() + record.logs.iter().map(String::len).sum::<usize>();
                    self.delivered.insert(record.id, key);
                    let record = Some(Arc::unwrap_or_clone(record).into());
                    frame.completed.push(v1::CompletedActivation {
                        record,
                        epoch: epoch.0,
                    });
                }
            }
        }
        self.is_urgent = !self.ready.is_empty();
        self.quiet_until = None;
        frame
    }
}
