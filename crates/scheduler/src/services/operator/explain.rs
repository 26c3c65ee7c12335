//! `Explain`: where an activation is, and why it is there.

use tonic::Status;
use whiskraft_proto::{activation_id, v1};
use whiskraft_types::{NameError, NamespaceName};

use super::OperatorService;
use crate::services::controller::found_response;
use crate::shard::{Explained, Search};

impl OperatorService {
    /// What this scheduler's queues know of an activation.
    pub(super) async fn look_for(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Status> {
        let id = activation_id(&request.id).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let namespace = (!request.namespace.is_empty()).then(|| request.namespace.parse());
        let namespace: Option<NamespaceName> = namespace
            .transpose()
            .map_err(|error: NameError| Status::invalid_argument(error.to_string()))?;
        let search = self.walk(Search::new(id, namespace)).await?;
        let scheduler = self.context.node.id().0;
        let Some(explained) = search.explained else {
            let state = v1::find_activation_response::State::Unknown.into();
            let unknown = v1::FindActivationResponse {
                state,
                ..Default::default()
            };
            return Ok(v1::ExplainResponse {
                scheduler,
                found: Some(unknown),
                ..Default::default()
            });
        };
        let Explained {
            found,
            position,
            waited_ms,
            attempt,
            container,
            invoker,
            queue,
        } = explained;
        Ok(v1::ExplainResponse {
            scheduler,
            found: Some(found_response(id, found)),
            position: position.map(|position| position as u64),
            waited_ms,
            attempt,
            container: container.map(Into::into),
            invoker,
            queue: Some(queue),
        })
    }
}
