//! `Explain`: where an activation is, and why it is there.

use tonic::Status;
use whiskraft_proto::{activation_id, v1};
use whiskraft_raft::Lookup;
use whiskraft_types::{ActivationId, NameError, NamespaceName};

use super::OperatorService;
use crate::cluster::{answer_of, found_response};
use crate::shard::{Explained, Search};

impl OperatorService {
    /// What this scheduler's queues know of an activation.
    pub(super) async fn look_for(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, Status> {
        let id = activation_id(&request.id).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let namespace = (!request.namespace.is_empty()).then(|| request.namespace.parse());
        let namespace: Option<NamespaceName> = namespace
            .transpose()
            .map_err(|error: NameError| Status::invalid_argument(error.to_string()))?;
        let search = self.walk(Search::new(id, namespace.clone())).await?;
        let scheduler = self.context.node.id().0;
        let Some(explained) = search.explained else {
            return Ok(v1::ExplainResponse {
                scheduler,
                found: Some(self.look_up(id, namespace.as_ref())?),
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

    /// What this node's copy of the journal says.
    fn look_up(
        &self,
        id: ActivationId,
        namespace: Option<&NamespaceName>,
    ) -> Result<v1::FindActivationResponse, Status> {
        let journal = self.context.node.journal();
        let found = journal.find(id);
        let mut lookup = found.map_err(|error| Status::internal(error.to_string()))?;
        if let Lookup::Found(journaled) = &lookup
            && namespace.is_some_and(|namespace| journaled.row.key.namespace != *namespace)
        {
            lookup = Lookup::Missing;
        }
        answer_of(journal, lookup)
    }
}
