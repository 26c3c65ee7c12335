//! Neighbour service: what other schedulers ask about activations of the queues that are led here.

use tonic::{Request, Response, Status};
use whiskraft_proto::activation_id;
use whiskraft_proto::v1::{self, find_activation_response::State, neighbour_server::Neighbour};

use crate::cluster::Cluster;
use crate::internal::{self, InternalController};

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct NeighbourService {
    cluster: Cluster,
    internal: InternalController,
}

impl NeighbourService {
    pub(crate) const fn new(cluster: Cluster, internal: InternalController) -> Self {
        Self { cluster, internal }
    }
}

#[tonic::async_trait]
impl Neighbour for NeighbourService {
    async fn find_here(
        &self,
        request: Request<v1::FindActivationRequest>,
    ) -> Result<Response<v1::FindActivationResponse>, Status> {
        let request = request.into_inner();
        let invalid = |error: String| Status::invalid_argument(error);
        let id = activation_id(&request.id).map_err(|error| invalid(error.to_string()))?;
        let namespace = request.namespace.parse();
        let namespace = namespace.map_err(|error: whiskraft_types::NameError| invalid(error.to_string()))?;
        let found = self.cluster.find_here(id, &namespace).await?;
        let unknown = || v1::FindActivationResponse {
            state: State::Unknown.into(),
            ..Default::default()
        };
        Ok(Response::new(found.unwrap_or_else(unknown)))
    }

    async fn cancel_here(
        &self,
        request: Request<v1::CancelActivationRequest>,
    ) -> Result<Response<v1::CancelActivationResponse>, Status> {
        let request = request.into_inner();
        self.cluster.cancel_here(request).await.map(Response::new)
    }

    async fn submit_here(
        &self,
        request: Request<v1::SubmitHereRequest>,
    ) -> Result<Response<v1::SubmitHereResponse>, Status> {
        let parsed = internal::parse(request.into_inner());
        let (internal, epoch) = parsed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let submitted = self.internal.submit_here(internal, epoch).await;
        Ok(Response::new(v1::SubmitHereResponse {
            rejection: submitted.err().map(Into::into),
        }))
    }
}
