//! Operator service: what this scheduler sees of the cluster, and joining it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use whiskraft_proto::v1::{self, operator_server::Operator};
use whiskraft_proto::{identity, required};
use whiskraft_raft::{MembershipError, RaftStatus, Role};
use whiskraft_state::{ContainerState, State};
use whiskraft_types::{QueueKey, Rejection, SchedulerId};

use crate::context::Context;
use crate::message::Request as ShardRequest;
use crate::shard::ShardsHandle;
use crate::wire;

/// Queues in one answer, the longest first.
const QUEUES_MAX: usize = 1000;

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct OperatorService {
    context: Context,
    shards: ShardsHandle,
}

impl OperatorService {
    pub(crate) const fn new(context: Context, shards: ShardsHandle) -> Self {
        Self { context, shards }
    }

    async fn local_queues(&self) -> Vec<v1::QueueStatus> {
        let mut queues = Vec::new();
        for shard in 0..self.shards.len() {
            let (answer, status) = oneshot::channel();
            self.shards.send(shard, ShardRequest::Status { answer }).await;
            queues.extend(status.await.unwrap_or_default());
        }
        queues
    }

    /// Local queues first, with what only their leader knows; then those of others as the tables have them.
    fn all_queues(&self, local: Vec<v1::QueueStatus>) -> (Vec<v1::QueueStatus>, u64) {
        let mut queues = local;
        queues.sort_by_key(|queue| std::cmp::Reverse(queue.waiting));
        queues.truncate(QUEUES_MAX);
        let listed: BTreeSet<QueueKey> = queues
            .iter()
            .filter_map(|queue| queue.queue.clone()?.key?.try_into().ok())
            .collect();
        let room = QUEUES_MAX - queues.len();
        let (others, total): (Vec<_>, usize) = self.context.node.read(|state| {
            let others = state.queues().filter(|(key, _)| !listed.contains(*key));
            let status = others.take(room).map(|(key, queue)| {
                let counts = state.queue_counts(key);
                v1::QueueStatus {
                    queue: Some(wire::queue(key, Some(queue))),
                    containers_in_progress: counts.in_progress,
                    containers_running: counts.running,
                    containers_warm: counts.warm,
                    ..Default::default()
                }
            });
            (status.collect(), state.queues_len())
        });
        queues.extend(others);
        (queues, total as u64)
    }

    async fn status(&self) -> v1::StatusResponse {
        let (queues, queues_total) = self.all_queues(self.local_queues().await);
        let raft = self.context.node.status();
        let node = &self.context.node;
        let (nodes, invokers, sessions, version, counts) = node.read(|state| {
            let invokers: Vec<_> = state
                .invokers()
                .map(|(id, row)| wire::invoker(id, Some(row)))
                .collect();
            let version = state
                .member(node.id())
                .map(|member| member.version.clone())
                .unwrap_or_default();
            (
                nodes(state, &raft),
                invokers,
                state.sessions().count() as u64,
                version,
                containers(state),
            )
        });
        let count = |state| counts.get(&state).copied().unwrap_or(0);
        v1::StatusResponse {
            cluster_id: node.cluster_id().to_owned(),
            scheduler: node.id().0,
            version,
            raft: Some(raft_status(&raft)),
            nodes,
            queues,
            queues_total,
            invokers,
            containers_in_progress: count(0),
            containers_running: count(1),
            containers_warm: count(2),
            fenced: !self.context.fence.allows(self.context.clock.now()),
            sessions,
        }
    }

    async fn join(&self, request: v1::JoinRequest) -> Result<v1::Joined, Rejection> {
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
            .add_member(request.peer_address, request.client_address, incarnation)
            .await;
        let id = added.map_err(|error| match error {
            MembershipError::Refused(reason) => Rejection::Invalid { reason },
            MembershipError::Unavailable(reason) => Rejection::Unavailable { reason },
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

fn nodes(state: &State, raft: &RaftStatus) -> Vec<v1::NodeStatus> {
    let ids: BTreeSet<SchedulerId> = state
        .members()
        .map(|(id, _)| id)
        .chain(raft.peers.keys().copied())
        .collect();
    let node = |id: SchedulerId| {
        let (peer, session) = (raft.peers.get(&id), state.scheduler_session(id));
        let mut member = wire::member(id, state.member(id));
        if let (true, Some(peer)) = (member.removed, peer) {
            // In the Raft membership, and has not announced itself yet.
            (member.removed, member.peer_address) = (false, peer.address.clone());
        }
        v1::NodeStatus {
            member: Some(member),
            voter: peer.is_some_and(|peer| peer.voter),
            reachable: peer.is_some_and(|peer| peer.reachable),
            matched: peer.and_then(|peer| peer.matched).map(|matched| matched.0),
            queues: session.map_or(0, |session| u64::from(state.queues_led(session))),
            session: session.map_or(0, |session| session.0),
        }
    };
    ids.into_iter().map(node).collect()
}

/// Containers by state: 0 in progress, 1 running, 2 warm.
fn containers(state: &State) -> BTreeMap<u8, u64> {
    let mut counts = BTreeMap::new();
    for (_, row) in state.containers() {
        let state = match row.state {
            ContainerState::InProgress => 0,
            ContainerState::Running => 1,
            ContainerState::Warm => 2,
        };
        *counts.entry(state).or_default() += 1;
    }
    counts
}

fn raft_status(raft: &RaftStatus) -> v1::RaftStatus {
    let role = match raft.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    };
    v1::RaftStatus {
        role: role.to_owned(),
        leader: raft.leader.map_or(0, |id| id.0),
        term: raft.term,
        last_log: raft.last_log.0,
        applied: raft.applied.0,
        snapshot: raft.snapshot.0,
        purged: raft.purged.0,
    }
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.status().await))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        use v1::join_response::Outcome;

        let outcome = match self.join(request.into_inner()).await {
            Ok(joined) => Outcome::Joined(joined),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::JoinResponse {
            outcome: Some(outcome),
        }))
    }

    async fn reclaim(
        &self,
        request: Request<v1::ReclaimRequest>,
    ) -> Result<Response<v1::ReclaimResponse>, Status> {
        let starved = required(request.into_inner().starved, "starved").and_then(QueueKey::try_from);
        let starved = starved.map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.shards.try_send_all(|| ShardRequest::Reclaim {
            starved: starved.clone(),
        });
        Ok(Response::new(v1::ReclaimResponse {}))
    }
}
