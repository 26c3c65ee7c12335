//! What an operator asks: which queues wait and why, where one activation is, who leads no queues.
//!
//! A queue is known in full to its leader only, so most questions go to every scheduler at once and the answers are put
//! together. Nobody is left out silently: an answer names the schedulers that gave none.

mod backup;
mod explain;
mod members;
mod queues;

use std::time::Duration;

use tonic::transport::Channel;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_proto::{InvalidMessage, MESSAGE_LEN_MAX, required, v1};
use whiskraft_types::{Epoch, QueueKey, Rejection, SchedulerId};

pub use self::backup::BackupPieces;
pub use self::explain::{Explained, Explanation};
pub use self::members::MemberChangeError;
pub use self::queues::{QueueFilter, QueuesSnapshot, QueuesWatch};
use crate::calls::{Call, Tried};
use crate::{CallError, Client};

/// Questions and orders of operators; see [`Client::operator`].
#[derive(Debug, Clone)]
pub struct Operator {
    client: Client,
}

impl Client {
    /// Questions and orders of operators.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator { client: self.clone() }
    }
}

impl Operator {
    /// Orders that a scheduler leads no queues; they move to the others. Says how many it leads still: ask again until
    /// there are none. Harmless to repeat; it stands until [`undrain`](Self::undrain), also over a restart.
    ///
    /// # Errors
    /// [`CallError::Rejected`]: there is no such scheduler, or no other one could take its queues.
    pub async fn drain(&self, scheduler: SchedulerId) -> Result<u64, CallError> {
        self.set_draining(scheduler, false).await
    }

    /// Takes the order back: the scheduler is given queues again, as they are made or move.
    ///
    /// # Errors
    /// [`CallError::Rejected`] if there is no such scheduler.
    pub async fn undrain(&self, scheduler: SchedulerId) -> Result<(), CallError> {
        self.set_draining(scheduler, true).await.map(|_| ())
    }

    /// Gives a queue, with everything in it, to a scheduler.
    ///
    /// # Errors
    /// [`CallError::Rejected`]: there is no such queue, or that scheduler leads it already, drains, is not live, or did not take
    /// it in time; the queue goes on where it is.
    pub async fn move_queue(&self, key: &QueueKey, to: SchedulerId) -> Result<MovedQueue, CallError> {
        let shared = self.client.shared();
        let call = Call::bulk(shared, "move queue");
        let ask = |channel| {
            let request = v1::MoveQueueRequest {
                key: Some(key.into()),
                to: to.0,
                passed_on: false,
            };
            move_queue(channel, request)
        };
        Ok(call.ask(shared, ask).await?.value)
    }

    async fn set_draining(&self, scheduler: SchedulerId, undo: bool) -> Result<u64, CallError> {
        let request = v1::DrainRequest {
            scheduler: scheduler.0,
            undo,
        };
        let shared = self.client.shared();
        // It goes through the log, so a try gets longer than a look at memory does.
        let call = Call::bulk(shared, if undo { "undrain" } else { "drain" });
        Ok(call.ask(shared, |channel| drain(channel, request)).await?.value)
    }
}

/// A queue that was given to another scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedQueue {
    /// Epoch of its new leadership.
    pub epoch: Epoch,
    /// Activations that went with it.
    pub activations: u64,
    /// Time from the order until the change was known.
    pub took: Duration,
}

async fn move_queue(channel: Channel, request: v1::MoveQueueRequest) -> Tried<MovedQueue> {
    use v1::move_queue_response::Outcome;

    let response = operator(channel).move_queue(request).await?.into_inner();
    Ok(
        match required(response.outcome, "move_queue.outcome").map_err(unreadable)? {
            Outcome::Moved(moved) => Ok(MovedQueue {
                epoch: Epoch(moved.epoch),
                activations: moved.activations,
                took: Duration::from_micros(moved.took_us.into()),
            }),
            Outcome::Rejection(rejection) => Err(Rejection::try_from(rejection).map_err(unreadable)?),
        },
    )
}

async fn drain(channel: Channel, request: v1::DrainRequest) -> Tried<u64> {
    use v1::drain_response::Outcome;

    let response = operator(channel).drain(request).await?.into_inner();
    Ok(
        match required(response.outcome, "drain.outcome").map_err(unreadable)? {
            Outcome::Drained(drained) => Ok(drained.queues_left),
            Outcome::Rejection(rejection) => Err(Rejection::try_from(rejection).map_err(unreadable)?),
        },
    )
}

fn operator(channel: Channel) -> OperatorClient<Channel> {
    OperatorClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX)
}

/// An answer that cannot be read is final: the same scheduler would say the same again.
fn unreadable(error: InvalidMessage) -> tonic::Status {
    tonic::Status::data_loss(error.to_string())
}

/// Milliseconds of the wire.
const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
