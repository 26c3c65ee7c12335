//! Ends an activation at its caller's wish, wherever it is.

use tokio::sync::oneshot;
use tonic::Status;
use whiskraft_proto::v1;
use whiskraft_proto::v1::cancel_activation_response::Outcome;
use whiskraft_queue::CancelAnswer;
use whiskraft_raft::{Journaled, Lookup};
use whiskraft_state::journal::RowState;
use whiskraft_types::{ActivationId, NamespaceName, QueueKey, Rejection, SchedulerId};

use super::{ASK_WAIT_MAX, Cluster, named};
use crate::message::Request;

impl Cluster {
    /// Ends an activation.
    ///
    /// # Errors
    /// If the request is none, or nothing can be said for sure.
    pub(crate) async fn cancel(
        &self,
        request: v1::CancelActivationRequest,
    ) -> Result<v1::CancelActivationResponse, Status> {
        let (id, namespace) = named(&request.id, &request.namespace)?;
        if let Some(answer) = known(self.cancel_in_queues(id, &namespace).await) {
            return Ok(answer);
        }
        let mut lookup = self.look_up(id, &namespace)?;
        if matches!(lookup, Lookup::Missing) {
            self.catch_up().await?;
            lookup = self.look_up(id, &namespace)?;
        }
        match lookup {
            Lookup::Gone => Ok(outcome(Outcome::Ended)),
            Lookup::Found(Journaled { row, .. }) => match row.state {
                RowState::Ended { .. } => Ok(outcome(Outcome::Ended)),
                RowState::Open { .. } => Ok(self.cancel_at_leader(&request, &row.key).await),
            },
            Lookup::Missing => Ok(self.cancel_anywhere(&request).await),
        }
    }

    /// The same in the queues that are led here.
    ///
    /// # Errors
    /// If the request is none.
    pub(crate) async fn cancel_here(
        &self,
        request: v1::CancelActivationRequest,
    ) -> Result<v1::CancelActivationResponse, Status> {
        let (id, namespace) = named(&request.id, &request.namespace)?;
        let answer = self.cancel_in_queues(id, &namespace).await;
        Ok(known(answer).unwrap_or_else(|| outcome(Outcome::Unknown)))
    }

    async fn cancel_in_queues(&self, id: ActivationId, namespace: &NamespaceName) -> CancelAnswer {
        for shard in 0..self.shards.len() {
            let (answer, answered) = oneshot::channel();
            let namespace = namespace.clone();
            let cancel = Request::Cancel {
                id,
                namespace,
                answer,
            };
            self.shards.send(shard, cancel).await;
            match answered.await {
                Ok(CancelAnswer::Unknown) => {}
                // A queue that is given up answers nobody: its next leader does.
                Err(_) => return CancelAnswer::Unavailable,
                Ok(answer) => return answer,
            }
        }
        CancelAnswer::Unknown
    }

    /// An open one is in the queue of its leader, or about to be.
    async fn cancel_at_leader(
        &self,
        request: &v1::CancelActivationRequest,
        key: &QueueKey,
    ) -> v1::CancelActivationResponse {
        let me = self.context.node.id();
        if let Some(leader) = self.leader(key).filter(|leader| *leader != me)
            && let Some(answer) = self.ask(leader, request).await
            && answer.outcome() != Outcome::Unknown
        {
            return answer;
        }
        unavailable(format!(
            "nobody leads queue {key} now, or its leader does not know the activation yet"
        ))
    }

    /// One that is in memory only is in some queue of the namespace, whoever leads it.
    async fn cancel_anywhere(&self, request: &v1::CancelActivationRequest) -> v1::CancelActivationResponse {
        let mut is_sure = true;
        for other in self.peers.others() {
            match self.ask(other, request).await {
                Some(answer) if answer.outcome() != Outcome::Unknown => return answer,
                Some(_) => {}
                None => is_sure = false,
            }
        }
        if is_sure {
            return outcome(Outcome::Unknown);
        }
        unavailable("a scheduler that may know the activation does not answer".to_owned())
    }

    async fn ask(
        &self,
        scheduler: SchedulerId,
        request: &v1::CancelActivationRequest,
    ) -> Option<v1::CancelActivationResponse> {
        let mut client = self.peers.client(scheduler)?;
        let answer = client.cancel_here(request.clone());
        let answer = tokio::time::timeout(ASK_WAIT_MAX, answer).await.ok()?.ok()?;
        Some(answer.into_inner())
    }
}

fn known(answer: CancelAnswer) -> Option<v1::CancelActivationResponse> {
    match answer {
        CancelAnswer::Unknown => None,
        CancelAnswer::BeforeStart => Some(outcome(Outcome::BeforeStart)),
        CancelAnswer::Stopping => Some(outcome(Outcome::Stopping)),
        CancelAnswer::Unavailable => Some(unavailable(
            "the queue of the activation cannot say now".to_owned(),
        )),
        CancelAnswer::Ended => Some(outcome(Outcome::Ended)),
    }
}

fn outcome(outcome: Outcome) -> v1::CancelActivationResponse {
    v1::CancelActivationResponse {
        outcome: outcome.into(),
        rejection: None,
    }
}

fn unavailable(reason: String) -> v1::CancelActivationResponse {
    let rejection = Rejection::Unavailable {
        reason: format!("{reason}; try again"),
    };
    v1::CancelActivationResponse {
        outcome: Outcome::Unspecified.into(),
        rejection: Some(rejection.into()),
    }
}
