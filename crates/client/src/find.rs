//! Looking activations up by id.

use futures::future::join_all;
use tonic::transport::Channel;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::{InvalidMessage, MESSAGE_LEN_MAX, activation_id_bytes, required, v1};
use whiskraft_types::{ActivationId, Epoch, NamespaceName, QueueKey, SchedulerId};

use crate::calls::{Call, Tried};
use crate::{ActivationRecord, CallError, Client};

/// How far an activation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// In its queue.
    Waiting,
    /// Handed to a container, which has not started it yet.
    Delivered,
    /// Running.
    Started,
    /// Ended.
    Done(Box<ActivationRecord>),
}

/// An activation that a scheduler knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundActivation {
    /// How far it is.
    pub progress: Progress,
    /// Its queue.
    pub key: QueueKey,
    /// Epoch of the leadership that knows it.
    pub epoch: Epoch,
    /// Who answered.
    pub scheduler: SchedulerId,
}

impl FoundActivation {
    /// A record beats everything; then what the newest leadership says counts.
    fn rank(&self) -> (bool, Epoch) {
        (matches!(self.progress, Progress::Done(_)), self.epoch)
    }
}

impl Client {
    /// Looks an activation up at all schedulers. `None`: every scheduler answered, and none knows it (any more).
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
        let answers = join_all(members.into_iter().map(|(scheduler, _)| {
            let request = request.clone();
            call.ask_member(self.shared(), scheduler, move |channel| {
                find(channel, request, Some(scheduler))
            })
        }))
        .await;
        let mut best: Option<FoundActivation> = None;
        let mut failure = None;
        for answer in answers {
            match answer {
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
        State::Unknown | State::Gone => return Ok(None),
        State::Waiting | State::Delayed => Progress::Waiting,
        State::Delivered => Progress::Delivered,
        State::Started => Progress::Started,
        State::Done => {
            let record = required(response.record, "find_activation.record")?;
            Progress::Done(Box::new(record.try_into()?))
        }
    };
    let key = required(response.key, "find_activation.key")?.try_into()?;
    Ok(Some(FoundActivation {
        progress,
        key,
        epoch: Epoch(response.epoch),
        scheduler,
    }))
}
