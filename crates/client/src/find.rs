//! Looking activations up by id, and waiting for their records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::Rng;
use tonic::transport::Channel;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::{InvalidMessage, MESSAGE_LEN_MAX, activation_id_bytes, required, v1};
use whiskraft_types::{ActivationId, Epoch, NamespaceName, QueueKey, SchedulerId};

use crate::calls::{Call, Tried};
use crate::{ActivationRecord, CallError, Client, ResultError};

/// Pause between the first two looks for a record that is not there yet.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two looks: what a caller who waits for a long run loses at most.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How far an activation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Accepted, and not to begin (or to run again) yet.
    Delayed,
    /// In its queue.
    Waiting,
    /// Handed to a container, which has not started it yet.
    Delivered,
    /// Running.
    Started,
    /// Ended.
    Done(Box<ActivationRecord>),
    /// Ended so long ago that its record has expired.
    Gone,
}

impl Progress {
    /// One lower-case word, the same in every output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Started => "started",
            Self::Done(_) => "done",
            Self::Gone => "gone",
        }
    }
}

/// An activation that a scheduler knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundActivation {
    /// How far it is.
    pub progress: Progress,
    /// Its queue; `None` only for one that is [`Gone`](Progress::Gone).
    pub key: Option<QueueKey>,
    /// Epoch of the leadership that knows it.
    pub epoch: Epoch,
    /// Who answered.
    pub scheduler: SchedulerId,
    /// Whether it is on the disks of a majority of the schedulers.
    pub durable: bool,
    /// Runs begun or about to begin, from 1: more than one only under a retry policy, or after a loss that the action
    /// allows to repeat.
    pub runs: u32,
    /// When a scheduler first accepted it, by that scheduler's clock, if that is known.
    pub accepted: Option<SystemTime>,
    /// The next run must not begin before.
    pub not_before: Option<SystemTime>,
    /// Its last run failed under a retry policy, and it is still listed as a dead letter.
    pub dead_letter: bool,
}

impl FoundActivation {
    /// Of those that have not ended: what the newest leadership says counts, and the further it is the more is known of
    /// it.
    const fn rank(&self) -> (Epoch, u8) {
        let far = match self.progress {
            Progress::Delayed | Progress::Waiting => 0,
            Progress::Delivered => 1,
            Progress::Started => 2,
            Progress::Done(_) | Progress::Gone => 3,
        };
        (self.epoch, far)
    }

    /// Whether no scheduler can know more.
    const fn is_final(&self) -> bool {
        match self.progress {
            Progress::Done(_) | Progress::Gone => true,
            Progress::Delayed | Progress::Waiting | Progress::Delivered | Progress::Started => false,
        }
    }
}

impl Client {
    /// Looks an activation up at all schedulers; the first that knows its end is enough. `None`: every scheduler answered,
    /// and none knows it (any more).
    ///
    /// # Errors
    /// [`CallError`] if nobody knew it and somebody who might could not be asked.
    pub async fn find_activation(
        &self,
        namespace: &NamespaceName,
        id: ActivationId,
    ) -> Result<Option<FoundActivation>, CallError> {
        let request = v1::FindActivationRequest {
            id: activation_id_bytes(id),
            namespace: namespace.to_string(),
        };
        let call = Call::quick(self.shared(), "find activation");
        let members = self.members();
        if members.is_empty() {
            // Asks the endpoints, so that the error says why nobody is known.
            let answer = call.ask(self.shared(), |channel| find(channel, request.clone(), None));
            return Ok(answer.await?.value);
        }
        let mut answers: FuturesUnordered<_> = members
            .into_iter()
            .map(|(scheduler, _)| {
                let request = request.clone();
                call.ask_member(self.shared(), scheduler, move |channel| {
                    find(channel, request, Some(scheduler))
                })
            })
            .collect();
        let mut best: Option<FoundActivation> = None;
        let mut failure = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(Some(found)) if found.is_final() => return Ok(Some(found)),
                Ok(Some(found)) if best.as_ref().is_none_or(|best| found.rank() > best.rank()) => {
                    best = Some(found);
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        match (best, failure) {
            (Some(found), _) => Ok(Some(found)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Waits for the record of an activation that anybody has submitted, for `wait` at most; asks once if that is zero.
    ///
    /// Looks again and again, up to a second apart. Whoever holds an [`Invocation`](crate::Invocation) hears sooner.
    ///
    /// # Errors
    /// [`ResultError::Unknown`] and [`ResultError::Gone`] at once, [`ResultError::NotYet`] and [`ResultError::Call`] when
    /// the wait is over.
    pub async fn result(
        &self,
        namespace: &NamespaceName,
        id: ActivationId,
        wait: Duration,
    ) -> Result<ActivationRecord, ResultError> {
        let clock = self.shared().clock;
        let deadline = clock.now() + wait;
        let mut pause = LOOK_PAUSE_MIN;
        loop {
            let error = match self.find_activation(namespace, id).await {
                Ok(None) => return Err(ResultError::Unknown { id }),
                Ok(Some(found)) => match found.progress {
                    Progress::Done(record) => return Ok(*record),
                    Progress::Gone => return Err(ResultError::Gone { id }),
                    _ => ResultError::NotYet {
                        id,
                        found: Box::new(found),
                    },
                },
                // Schedulers that elect a leader answer again soon.
                Err(error) => ResultError::Call(error),
            };
            let left = deadline.saturating_since(clock.now());
            if left.is_zero() {
                return Err(error);
            }
            // Not all who wait at the same moment.
            let jitter = rand::rng().random_range(0.75..=1.0);
            tokio::time::sleep(pause.mul_f64(jitter).min(left)).await;
            pause = (pause * 2).min(LOOK_PAUSE_MAX);
        }
    }
}

async fn find(
    channel: Channel,
    request: v1::FindActivationRequest,
    scheduler: Option<SchedulerId>,
) -> Tried<Option<FoundActivation>> {
    let mut client = ControllerClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    let response = client.find_activation(request).await?.into_inner();
    let found = read_found(response, scheduler.unwrap_or_default());
    Ok(Ok(
        found.map_err(|error| tonic::Status::data_loss(error.to_string()))?
    ))
}

/// `None`: the scheduler does not know it.
pub(crate) fn read_found(
    response: v1::FindActivationResponse,
    scheduler: SchedulerId,
) -> Result<Option<FoundActivation>, InvalidMessage> {
    use v1::find_activation_response::State;

    let progress = match response.state() {
        State::Unspecified => {
            return Err(InvalidMessage::Missing {
                field: "find_activation.state",
            });
        }
        State::Unknown => return Ok(None),
        State::Gone => Progress::Gone,
        State::Delayed => Progress::Delayed,
        State::Waiting => Progress::Waiting,
        State::Delivered => Progress::Delivered,
        State::Started => Progress::Started,
        State::Done => {
            let record = required(response.record, "find_activation.record")?;
            Progress::Done(Box::new(record.try_into()?))
        }
    };
    let key = match (response.key, &progress) {
        (None, Progress::Gone) => None,
        (key, _) => Some(required(key, "find_activation.key")?.try_into()?),
    };
    Ok(Some(FoundActivation {
        progress,
        key,
        epoch: Epoch(response.epoch),
        scheduler,
        durable: response.durable,
        // An older scheduler knows of one run only.
        runs: response.runs.max(1),
        accepted: moment(response.accepted_ms),
        not_before: moment(response.not_before_ms),
        dead_letter: response.dead_letter,
    }))
}

/// A Unix time of the wire, in milliseconds; 0 is none.
pub(crate) fn moment(ms: u64) -> Option<SystemTime> {
    (ms > 0).then(|| UNIX_EPOCH.checked_add(Duration::from_millis(ms)))?
}
