//! The operator service of a fake scheduler: answers as scripted.

use tonic::{Request, Response, Status};
use whiskraft_proto::v1;
use whiskraft_proto::v1::operator_server::Operator;

use super::services::Frames;
use super::{Fake, Seen};

/// What the operator service answers.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    pub nodes: Vec<v1::NodeStatus>,
    pub invokers: Vec<v1::InvokerInfo>,
    /// The scheduler's number is filled in.
    pub queues: v1::QueuesResponse,
    /// The scheduler's number is filled in.
    pub explain: v1::ExplainResponse,
    /// One answer after the other; the last one stays.
    pub drain: Vec<v1::drain_response::Outcome>,
    pub move_queue: Option<v1::move_queue_response::Outcome>,
    /// One answer after the other; the last one stays.
    pub members: Vec<v1::change_members_response::Outcome>,
    /// The bytes of a backup, a piece each.
    pub backup: Vec<Vec<u8>>,
}

#[tonic::async_trait]
impl Operator for Fake {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.check_up()?;
        Ok(Response::new(self.with(|state| v1::StatusResponse {
            cluster_id: state.cluster_id.clone(),
            scheduler: state.id,
            raft: Some(v1::RaftStatus {
                role: "follower".to_owned(),
                leader: 1,
                ..Default::default()
            }),
            nodes: state.operations.nodes.clone(),
            invokers: state.operations.invokers.clone(),
            ..Default::default()
        })))
    }

    type QueuesStream = Frames<v1::QueuesResponse>;

    async fn queues(
        &self,
        request: Request<v1::QueuesRequest>,
    ) -> Result<Response<Self::QueuesStream>, Status> {
        self.check_up()?;
        self.see(Seen::Queues(request.into_inner()));
        let answer = self.with(|state| v1::QueuesResponse {
            scheduler: state.id,
            ..state.operations.queues.clone()
        });
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(answer)]))))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.check_up()?;
        self.see(Seen::Explain(request.into_inner()));
        Ok(Response::new(self.with(|state| v1::ExplainResponse {
            scheduler: state.id,
            ..state.operations.explain.clone()
        })))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        self.check_up()?;
        self.see(Seen::Drain(request.into_inner()));
        let outcome = self.with(|state| {
            let script = &mut state.operations.drain;
            match script.len() {
                0 | 1 => script.first().cloned(),
                _ => Some(script.remove(0)),
            }
        });
        Ok(Response::new(v1::DrainResponse { outcome }))
    }

    async fn move_queue(
        &self,
        request: Request<v1::MoveQueueRequest>,
    ) -> Result<Response<v1::MoveQueueResponse>, Status> {
        self.check_up()?;
        self.see(Seen::MoveQueue(request.into_inner()));
        let outcome = self.with(|state| state.operations.move_queue.clone());
        Ok(Response::new(v1::MoveQueueResponse { outcome }))
    }

    async fn change_members(
        &self,
        request: Request<v1::MemberOrder>,
    ) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        self.check_up()?;
        self.see(Seen::Members(request.into_inner()));
        let outcome = self.with(|state| {
            let script = &mut state.operations.members;
            match script.len() {
                0 | 1 => script.first().cloned(),
                _ => Some(script.remove(0)),
            }
        });
        Ok(Response::new(v1::ChangeMembersResponse { outcome }))
    }

    type BackupStream = Frames<v1::BackupPiece>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.check_up()?;
        let mut offset = 0;
        let pieces = self.with(|state| state.operations.backup.clone()).into_iter();
        let pieces: Vec<_> = pieces
            .map(|data| {
                let piece = v1::BackupPiece {
                    offset,
                    data: data.into(),
                };
                offset += piece.data.len() as u64;
                Ok(piece)
            })
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(pieces))))
    }

    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("no client calls this"))
    }

    async fn reclaim(&self, _: Request<v1::ReclaimRequest>) -> Result<Response<v1::ReclaimResponse>, Status> {
        Err(Status::unimplemented("no client calls this"))
    }

    async fn calls(&self, _: Request<v1::CallsRequest>) -> Result<Response<v1::CallsResponse>, Status> {
        Err(Status::unimplemented("no client calls this"))
    }

    async fn take_rate(
        &self,
        _: Request<v1::TakeRateRequest>,
    ) -> Result<Response<v1::TakeRateResponse>, Status> {
        Err(Status::unimplemented("no client calls this"))
    }
}
