//! `Status`: the cluster as this scheduler's tables have it, and its own queues.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;
use whiskraft_proto::v1;
use whiskraft_raft::{LaneStatus, RaftStatus, Role};
use whiskraft_state::{ContainerState, State};
use whiskraft_types::{QueueKey, SchedulerId};

use super::OperatorService;
use crate::shard::{Listing, Order};
use crate::wire;

/// Queues in one answer, the longest first.
const QUEUES_MAX: usize = 1000;

impl OperatorService {
    /// Local queues first, with what only their leader knows; then those of others as the tables have them.
    fn all_queues(&self, local: Vec<v1::QueueStatus>) -> (Vec<v1::QueueStatus>, u64) {
        let mut queues = local;
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

    pub(super) async fn overview(&self) -> Result<v1::StatusResponse, Status> {
        let listed = self.walk(Listing::new(Order::MostWaiting, QUEUES_MAX)).await?;
        let (queues, queues_total) = self.all_queues(listed.into_queues());
        let raft = self.context.node.status();
        let node = &self.context.node;
        let suspects = self.creation.suspects();
        let (nodes, invokers, sessions, version, counts) = node.read(|state| {
            let invokers: Vec<_> = state
                .invokers()
                .map(|(id, row)| {
                    let suspicion = suspects.get(&id).map(|suspicion| suspicion.reason.name());
                    v1::InvokerInfo {
                        suspicion: suspicion.unwrap_or_default().to_owned(),
                        ..wire::invoker(id, Some(row))
                    }
                })
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
        Ok(v1::StatusResponse {
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
            ContainerState::Ended => continue,
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
        lanes: raft.lanes.iter().map(lane_status).collect(),
    }
}

fn lane_status(lane: &LaneStatus) -> v1::LaneStatus {
    v1::LaneStatus {
        lane: lane.lane.0,
        leader: lane.leader.map_or(0, |id| id.0),
        term: lane.term,
        last_log: lane.last_log.0,
        applied: lane.applied.0,
        purged: lane.purged.0,
    }
}
