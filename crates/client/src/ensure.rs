//! One question to one scheduler: who leads this queue?

use std::time::Duration;

use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::ensure_queue_response::Outcome;
use whiskraft_proto::{required, v1};
use whiskraft_types::{Epoch, QueueKey, Rejection, SchedulerId};

use crate::core::EnsureAnswer;
use crate::directory::{Class, Directory};
use crate::stream::describe;

/// Asks the best candidate once. Who asks again, and when, is the router's business; the next question goes to
/// another scheduler.
pub(crate) async fn ensure_queue(
    directory: &Directory,
    key: &QueueKey,
    resubmits: bool,
    deadline: Duration,
) -> EnsureAnswer {
    let Some(candidate) = directory.candidates().into_iter().next() else {
        return EnsureAnswer::Failed("no scheduler is known".to_owned());
    };
    let channel = match directory.channel(&candidate.address, Class::Quick) {
        Ok(channel) => channel,
        Err(error) => return EnsureAnswer::Failed(error.to_string()),
    };
    let request = v1::EnsureQueueRequest {
        key: Some(key.into()),
        resubmits,
    };
    match tokio::time::timeout(deadline, ControllerClient::new(channel).ensure_queue(request)).await {
        Err(_) => EnsureAnswer::Failed(format!(
            "{} did not answer within {deadline:?}",
            candidate.address
        )),
        Ok(Err(status)) => EnsureAnswer::Failed(format!("{}: {}", candidate.address, describe(&status))),
        Ok(Ok(response)) => read(response.into_inner()),
    }
}

fn read(response: v1::EnsureQueueResponse) -> EnsureAnswer {
    match required(response.outcome, "ensure_queue.outcome") {
        Ok(Outcome::Leadership(leadership)) if leadership.leader != 0 => EnsureAnswer::Leadership {
            leader: SchedulerId(leadership.leader),
            epoch: Epoch(leadership.epoch),
            address: Some(leadership.client_address).filter(|address| !address.is_empty()),
        },
        Ok(Outcome::Leadership(_)) => EnsureAnswer::Failed("nobody leads the queue now".to_owned()),
        Ok(Outcome::Rejection(rejection)) => match Rejection::try_from(rejection) {
            Ok(rejection) => EnsureAnswer::Rejected(rejection),
            Err(error) => EnsureAnswer::Failed(error.to_string()),
        },
        Err(error) => EnsureAnswer::Failed(error.to_string()),
    }
}
