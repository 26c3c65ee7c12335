//! `Join`: a scheduler asks to be added to the cluster.

use whiskraft_proto::{identity, v1};
use whiskraft_raft::NewMember;
use whiskraft_types::Rejection;

use super::OperatorService;
use crate::wire;

impl OperatorService {
    pub(super) async fn add_member(&self, request: v1::JoinRequest) -> Result<v1::Joined, Rejection> {
        let node = &self.context.node;
        if !request.cluster_id.is_empty() && request.cluster_id != node.cluster_id() {
            let reason = format!(
                "this is cluster {}, not {}",
                node.cluster_id(),
                request.cluster_id
            );
            return Err(Rejection::Invalid { reason });
        }
        let incarnation = identity(&request.incarnation, "incarnation");
        let incarnation = incarnation.map_err(|error| Rejection::Invalid {
            reason: error.to_string(),
        })?;
        let added = node
            .add_member(NewMember {
                cluster_name: request.cluster_name,
                peer_address: request.peer_address,
                client_address: request.client_address,
                incarnation,
                learner: request.learner,
            })
            .await;
        let id = added.map_err(|error| {
            let reason = error.to_string();
            if error.is_passing() {
                Rejection::Unavailable { reason }
            } else {
                Rejection::Invalid { reason }
            }
        })?;
        let members = node.read(|state| {
            state
                .members()
                .map(|(id, row)| wire::member(id, Some(row)))
                .collect()
        });
        Ok(v1::Joined {
            scheduler: id.0,
            cluster_id: node.cluster_id().to_owned(),
            members,
        })
    }
}
