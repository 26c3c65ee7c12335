//! Ending an activation at its caller's wish.

use tonic::transport::Channel;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::{activation_id_bytes, v1};
use whiskraft_types::{ActivationId, NamespaceName, Rejection};

use crate::calls::{Call, Tried};
use crate::{CallError, Client};

/// What became of the wish to end an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// Nobody knows the activation, or it is of another namespace.
    Unknown,
    /// It had not begun, and never does.
    BeforeStart,
    /// It may have begun: it ends as cancelled, and its container is stopped if nothing else runs there.
    Stopping,
    /// It had ended before. If this very call had to be repeated because an answer was lost, the first time may have
    /// ended it: the record says whether it was [`cancelled`](crate::ActivationRecord::cancelled).
    Ended,
}

impl Client {
    /// Ends an activation wherever it is; harmless to repeat. Whoever waits for it hears its record, which says that it
    /// was cancelled.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler could carry it out; it may then have happened all the same, so ask again.
    pub async fn cancel(
        &self,
        namespace: &NamespaceName,
        id: ActivationId,
    ) -> Result<CancelOutcome, CallError> {
        let request = v1::CancelActivationRequest {
            id: activation_id_bytes(id),
            namespace: namespace.to_string(),
        };
        let shared = self.shared();
        let call = Call::logged(shared, "cancel");
        Ok(call
            .ask(shared, |channel| cancel(channel, request.clone()))
            .await?
            .value)
    }
}

async fn cancel(channel: Channel, request: v1::CancelActivationRequest) -> Tried<CancelOutcome> {
    use v1::cancel_activation_response::Outcome;

    let response = ControllerClient::new(channel)
        .cancel_activation(request)
        .await?
        .into_inner();
    let outcome = response.outcome();
    if let Some(rejection) = response.rejection {
        let rejection = Rejection::try_from(rejection);
        return Ok(Err(
            rejection.map_err(|error| tonic::Status::data_loss(error.to_string()))?
        ));
    }
    Ok(Ok(match outcome {
        Outcome::Unknown => CancelOutcome::Unknown,
        Outcome::BeforeStart => CancelOutcome::BeforeStart,
        Outcome::Stopping => CancelOutcome::Stopping,
        Outcome::Ended => CancelOutcome::Ended,
        Outcome::Unspecified => return Err(tonic::Status::data_loss("cancel.outcome is missing")),
    }))
}
