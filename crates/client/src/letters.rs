//! Dead letters: activations whose last run failed under a retry policy, until somebody has dealt with them.

use std::time::SystemTime;

use bytes::Bytes;
use tonic::transport::Channel;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::{InvalidMessage, MESSAGE_LEN_MAX, activation_id, activation_id_bytes, required, v1};
use whiskraft_types::{
    ActionName, ActivationId, ActivationStatus, ByteSize, NamespaceName, QueueKey, Rejection,
};

use crate::calls::{Call, Tried};
use crate::find::moment;
use crate::{CallError, Client};

/// Most letters that one request names.
const IDS_MAX: usize = 1000;

/// An activation that is not run again unless somebody says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The activation; its record can be read as any other.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// How often it was run.
    pub runs: u32,
    /// When the last run ended, by a scheduler's clock.
    pub ended: Option<SystemTime>,
    /// How the last run ended.
    pub status: ActivationStatus,
    /// First line of the last result, shortened.
    pub error: String,
    /// Length of its arguments, which are kept.
    pub payload_len: ByteSize,
}

/// A place in a list, for the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageCursor(Bytes);

/// A part of the dead letters of a namespace, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterPage {
    /// The letters. There may be fewer than asked for although more follow.
    pub letters: Vec<DeadLetter>,
    /// Where the next page starts; `None`: this is the last one.
    pub next: Option<PageCursor>,
}

/// What became of one letter that was to be run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// The letter.
    pub id: ActivationId,
    /// The new activation, which names the letter as its cause, or why there is none.
    pub outcome: Result<ActivationId, String>,
}

impl Client {
    /// Lists the dead letters of a namespace, or of one action there: up to `limit` (1 to 1000; 0 is 200) of them, those
    /// after `after`.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answers.
    pub async fn dead_letters(
        &self,
        namespace: &NamespaceName,
        action: Option<&ActionName>,
        after: Option<&PageCursor>,
        limit: u32,
    ) -> Result<DeadLetterPage, CallError> {
        let request = v1::ListDeadLettersRequest {
            namespace: namespace.to_string(),
            action: action.map(ToString::to_string).unwrap_or_default(),
            after: after.map(|cursor| cursor.0.clone()).unwrap_or_default(),
            limit,
        };
        let call = Call::logged(self.shared(), "list dead letters");
        Ok(call
            .ask(self.shared(), |channel| list(channel, request.clone()))
            .await?
            .value)
    }

    /// Runs dead letters again, each as a new activation, and takes them off the list. Harmless to repeat: a letter has
    /// one successor, however often it is asked for.
    ///
    /// # Errors
    /// [`CallError`] if the cluster could not do it, perhaps after a part of more than 1000: repeat the call.
    pub async fn redrive(
        &self,
        namespace: &NamespaceName,
        ids: &[ActivationId],
    ) -> Result<Vec<Redriven>, CallError> {
        let call = Call::logged(self.shared(), "redrive dead letters");
        let mut redriven = Vec::with_capacity(ids.len());
        for part in ids.chunks(IDS_MAX) {
            let request = v1::RedriveDeadLettersRequest {
                namespace: namespace.to_string(),
                ids: part.iter().copied().map(activation_id_bytes).collect(),
            };
            let answer = call.ask(self.shared(), |channel| redrive(channel, request.clone()));
            redriven.extend(answer.await?.value);
        }
        Ok(redriven)
    }

    /// Takes dead letters off the list and lets go of their arguments; their records stay until they expire. Says how
    /// many were on it, which may be fewer if an answer was lost and the call repeated.
    ///
    /// # Errors
    /// [`CallError`] if the cluster could not do it, perhaps after a part of more than 1000: repeat the call.
    pub async fn purge(&self, namespace: &NamespaceName, ids: &[ActivationId]) -> Result<u64, CallError> {
        let call = Call::logged(self.shared(), "purge dead letters");
        let mut purged = 0;
        for part in ids.chunks(IDS_MAX) {
            let request = v1::PurgeDeadLettersRequest {
                namespace: namespace.to_string(),
                ids: part.iter().copied().map(activation_id_bytes).collect(),
            };
            let answer = call.ask(self.shared(), |channel| purge(channel, request.clone()));
            purged += answer.await?.value;
        }
        Ok(purged)
    }
}

async fn list(channel: Channel, request: v1::ListDeadLettersRequest) -> Tried<DeadLetterPage> {
    let response = controller(channel).list_dead_letters(request).await?.into_inner();
    if let Some(rejection) = response.rejection {
        return refused(rejection);
    }
    let letters = response
        .letters
        .into_iter()
        .map(read_letter)
        .collect::<Result<_, _>>();
    Ok(Ok(DeadLetterPage {
        letters: letters.map_err(unreadable)?,
        next: Some(response.next)
            .filter(|cursor| !cursor.is_empty())
            .map(PageCursor),
    }))
}

async fn redrive(channel: Channel, request: v1::RedriveDeadLettersRequest) -> Tried<Vec<Redriven>> {
    let response = controller(channel)
        .redrive_dead_letters(request)
        .await?
        .into_inner();
    if let Some(rejection) = response.rejection {
        return refused(rejection);
    }
    let redriven = response
        .redriven
        .into_iter()
        .map(read_redriven)
        .collect::<Result<_, _>>();
    Ok(Ok(redriven.map_err(unreadable)?))
}

async fn purge(channel: Channel, request: v1::PurgeDeadLettersRequest) -> Tried<u64> {
    let response = controller(channel)
        .purge_dead_letters(request)
        .await?
        .into_inner();
    match response.rejection {
        Some(rejection) => refused(rejection),
        None => Ok(Ok(response.purged)),
    }
}

fn read_letter(letter: v1::DeadLetter) -> Result<DeadLetter, InvalidMessage> {
    let status = letter.status().try_into()?;
    Ok(DeadLetter {
        id: activation_id(&letter.id)?,
        key: required(letter.key, "dead_letter.key")?.try_into()?,
        runs: letter.runs.max(1),
        ended: moment(letter.ended_ms),
        status,
        error: letter.error,
        payload_len: ByteSize::bytes(letter.payload_len),
    })
}

fn read_redriven(redriven: v1::Redriven) -> Result<Redriven, InvalidMessage> {
    let outcome = match redriven.new_id.is_empty() {
        true => Err(redriven.error),
        false => Ok(activation_id(&redriven.new_id)?),
    };
    Ok(Redriven {
        id: activation_id(&redriven.id)?,
        outcome,
    })
}

fn controller(channel: Channel) -> ControllerClient<Channel> {
    ControllerClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX)
}

fn refused<T>(rejection: v1::Rejection) -> Tried<T> {
    Ok(Err(Rejection::try_from(rejection).map_err(unreadable)?))
}

/// An answer that cannot be read is final: the same scheduler would say the same again.
fn unreadable(error: InvalidMessage) -> tonic::Status {
    tonic::Status::data_loss(error.to_string())
}
