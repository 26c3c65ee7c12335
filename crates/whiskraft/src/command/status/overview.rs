//! The answers of all schedulers put together; what `status --json` prints.

use std::collections::BTreeMap;

use serde::Serialize;
use whiskraft_client::{LaneStatus, NodeStatus, QueueStatus, Status};
use whiskraft_types::{QueueKey, SchedulerId};

use super::super::shown::{Containers, Queue};

/// The cluster as its members describe it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Overview {
    pub(super) cluster: String,
    /// Raft leader by the newest term anybody reported.
    pub(super) leader: Option<u64>,
    pub(super) term: u64,
    pub(super) quorum: Quorum,
    pub(super) nodes: Vec<Node>,
    pub(super) queues: Vec<Queue>,
    pub(super) queues_total: u64,
    pub(super) invokers: Vec<Invoker>,
    pub(super) containers: Containers,
    pub(super) sessions: u64,
    /// Lanes of the journal.
    pub(super) lanes: Vec<Lane>,
}

/// A lane of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Lane {
    pub(super) lane: u32,
    /// As most of those that answered have it.
    pub(super) leader: Option<u64>,
    /// Entries by which the slowest copy that answered is behind the longest log.
    pub(super) behind: u64,
}

/// Whether the schedulers that answered can decide anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Quorum {
    /// A majority of the voters answered.
    pub(super) answered: bool,
    /// Voters that answered.
    pub(super) voters_answered: usize,
    pub(super) voters: usize,
    /// Who has applied most of the log: the tables are as it knows them.
    pub(super) tables_of: u64,
}

/// A scheduler; what it alone knows is `None` if it did not answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) answered: bool,
    /// Whether the others reach it.
    pub(super) reachable: bool,
    pub(super) role: Option<String>,
    pub(super) term: Option<u64>,
    pub(super) last_log: Option<u64>,
    pub(super) applied: Option<u64>,
    pub(super) snapshot: Option<u64>,
    pub(super) purged: Option<u64>,
    pub(super) fenced: Option<bool>,
    pub(super) voter: bool,
    pub(super) draining: bool,
    /// Log index that the Raft leader has replicated to it.
    pub(super) matched: Option<u64>,
    pub(super) queues: u64,
    pub(super) session: Option<u64>,
    pub(super) peer_address: String,
    pub(super) client_address: Option<String>,
    pub(super) zone: String,
    pub(super) version: String,
}

/// An invoker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Invoker {
    pub(super) id: u64,
    pub(super) healthy: bool,
    pub(super) session: Option<u64>,
    pub(super) memory_total_bytes: u64,
    pub(super) memory_busy_bytes: u64,
    pub(super) zone: String,
    pub(super) tags: Vec<String>,
}

impl Overview {
    /// Puts the answer of `first` and those of all members together. The tables are those of whoever has applied
    /// most.
    pub(super) fn new(first: Status, all: Vec<Status>) -> Self {
        let answers: BTreeMap<SchedulerId, Status> = [first]
            .into_iter()
            .chain(all)
            .map(|status| (status.scheduler, status))
            .collect();
        let newest = answers
            .values()
            .max_by_key(|status| status.raft.applied)
            .expect("the first one answered");
        let (term, leader) = answers
            .values()
            .map(|status| (status.raft.term, status.raft.leader))
            .max()
            .expect("the first one answered");
        let containers = Containers {
            in_progress: newest.containers_in_progress,
            running: newest.containers_running,
            warm: newest.containers_warm,
        };
        Self {
            cluster: newest.cluster_id.clone(),
            leader: leader.map(|id| id.0),
            term,
            quorum: Quorum::new(newest, &answers),
            nodes: newest
                .nodes
                .iter()
                .map(|node| Node::new(node, &answers))
                .collect(),
            queues: queues(newest, &answers),
            queues_total: newest.queues_total,
            invokers: newest.invokers.iter().map(Invoker::new).collect(),
            containers,
            sessions: newest.sessions,
            lanes: lanes(&answers),
        }
    }
}

/// The lanes, put together from all copies.
fn lanes(answers: &BTreeMap<SchedulerId, Status>) -> Vec<Lane> {
    let mut copies: BTreeMap<u32, Vec<LaneStatus>> = BTreeMap::new();
    for lane in answers.values().flat_map(|status| &status.raft.lanes) {
        copies.entry(lane.lane).or_default().push(*lane);
    }
    let lane = |(lane, copies): (u32, Vec<LaneStatus>)| {
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for leader in copies.iter().filter_map(|copy| copy.leader) {
            *votes.entry(leader.0).or_default() += 1;
        }
        let longest = copies.iter().map(|copy| copy.last_log).max().unwrap_or(0);
        let slowest = copies.iter().map(|copy| copy.applied).min().unwrap_or(0);
        Lane {
            lane,
            leader: votes
                .into_iter()
                .max_by_key(|(_, votes)| *votes)
                .map(|(id, _)| id),
            behind: longest.saturating_sub(slowest),
        }
    };
    copies.into_iter().map(lane).collect()
}

impl Quorum {
    fn new(newest: &Status, answers: &BTreeMap<SchedulerId, Status>) -> Self {
        let voters = newest.nodes.iter().filter(|node| node.voter);
        let answered = voters
            .clone()
            .filter(|node| answers.contains_key(&node.member.scheduler));
        let (voters, voters_answered) = (voters.count(), answered.count());
        Self {
            answered: voters_answered * 2 > voters,
            voters_answered,
            voters,
            tables_of: newest.scheduler.0,
        }
    }
}

/// Each queue as its leader describes it, or as the tables do where the leader did not answer.
fn queues(newest: &Status, answers: &BTreeMap<SchedulerId, Status>) -> Vec<Queue> {
    let mut queues: BTreeMap<&QueueKey, &QueueStatus> = newest
        .queues
        .iter()
        .map(|status| (&status.queue.key, status))
        .collect();
    for (id, answer) in answers {
        for status in answer
            .queues
            .iter()
            .filter(|status| status.queue.leader == Some(*id))
        {
            let known = queues.entry(&status.queue.key).or_insert(status);
            // An answer from before a move of the queue must not hide the new leader.
            if known.queue.epoch <= status.queue.epoch {
                *known = status;
            }
        }
    }
    let mut queues: Vec<Queue> = queues.into_values().map(Queue::new).collect();
    queues.sort_by_key(|queue| std::cmp::Reverse(queue.waiting + queue.delivered + queue.started));
    queues
}

impl Node {
    fn new(node: &NodeStatus, answers: &BTreeMap<SchedulerId, Status>) -> Self {
        let member = &node.member;
        let own = answers.get(&member.scheduler);
        let seen = answers
            .values()
            .flat_map(|status| &status.nodes)
            .filter(|seen| seen.member.scheduler == member.scheduler);
        Self {
            id: member.scheduler.0,
            answered: own.is_some(),
            reachable: seen.clone().any(|seen| seen.reachable),
            role: own.map(|status| status.raft.role.clone()),
            term: own.map(|status| status.raft.term),
            last_log: own.map(|status| status.raft.last_log),
            applied: own.map(|status| status.raft.applied),
            snapshot: own.map(|status| status.raft.snapshot),
            purged: own.map(|status| status.raft.purged),
            fenced: own.map(|status| status.fenced),
            voter: node.voter,
            draining: member.draining,
            matched: seen.filter_map(|seen| seen.matched).max(),
            queues: node.queues,
            session: node.session.map(|session| session.0),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            zone: member.zone.clone(),
            version: member.version.clone(),
        }
    }
}

impl Invoker {
    fn new(invoker: &whiskraft_client::watch::Invoker) -> Self {
        Self {
            id: invoker.invoker.0,
            healthy: invoker.healthy,
            session: invoker.session.map(|session| session.0),
            memory_total_bytes: invoker.memory_total.as_bytes(),
            memory_busy_bytes: invoker.memory_busy.as_bytes(),
            zone: invoker.zone.clone(),
            tags: invoker.tags.clone(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use whiskraft_client::RaftStatus;
    use whiskraft_client::watch::Member;
    use whiskraft_types::{ByteSize, InvokerId, SessionId};

    use super::super::super::shown::tests::queue;
    use super::*;

    /// The answer of scheduler `id` of three, of which the third cannot be reached.
    pub(in super::super::super) fn status(
        id: u64,
        term: u64,
        leader: u64,
        queues: Vec<QueueStatus>,
    ) -> Status {
        let node = |id: u64| NodeStatus {
            member: Member {
                scheduler: SchedulerId(id),
                peer_address: format!("10.0.0.{id}:7400"),
                client_address: Some(format!("10.0.0.{id}:7401")),
                zone: "z".to_owned(),
                version: "0.1.0".to_owned(),
                draining: false,
                removed: false,
            },
            voter: true,
            reachable: id < 3,
            matched: None,
            queues: 1,
            session: Some(SessionId(id)),
        };
        Status {
            cluster_id: "c1".to_owned(),
            scheduler: SchedulerId(id),
            version: "0.1.0".to_owned(),
            raft: RaftStatus {
                role: if id == leader { "leader" } else { "follower" }.to_owned(),
                leader: Some(SchedulerId(leader)),
                term,
                last_log: 10 * term,
                applied: 10 * term,
                snapshot: 0,
                purged: 0,
                lanes: vec![LaneStatus {
                    lane: 1,
                    leader: Some(SchedulerId(leader)),
                    last_log: 10 * term,
                    applied: 9 * term,
                    purged: 0,
                }],
            },
            nodes: (1..=3).map(node).collect(),
            queues_total: queues.len() as u64,
            queues,
            invokers: vec![whiskraft_client::watch::Invoker {
                invoker: InvokerId(1),
                session: Some(SessionId(9)),
                healthy: true,
                memory_total: ByteSize::mib(1024),
                memory_busy: ByteSize::mib(256),
                tags: vec![],
                zone: String::new(),
                removed: false,
            }],
            containers_in_progress: 0,
            containers_running: 1,
            containers_warm: 0,
            fenced: false,
            sessions: 4,
        }
    }

    /// An overview of a cluster of three in which scheduler 3 is dead and 2 leads the only queue.
    pub(in super::super) fn overview() -> Overview {
        let first = status(1, 5, 2, vec![queue(2, 7, 0)]);
        Overview::new(first, vec![status(2, 5, 2, vec![queue(2, 7, 12)])])
    }

    #[test]
    fn queue_is_described_by_its_leader() {
        let overview = overview();
        assert_eq!(overview.queues.len(), 1);
        assert_eq!(
            (overview.queues[0].leader, overview.queues[0].waiting),
            (Some(2), 12)
        );
    }

    #[test]
    fn old_leader_does_not_hide_a_newer_epoch() {
        let stale = status(1, 5, 2, vec![queue(1, 6, 99)]);
        let overview = Overview::new(stale, vec![status(2, 6, 2, vec![queue(2, 7, 0)])]);
        assert_eq!(
            (overview.queues[0].leader, overview.queues[0].epoch),
            (Some(2), 7)
        );
        assert_eq!((overview.leader, overview.term), (Some(2), 6));
    }

    #[test]
    fn silent_node_is_shown_without_what_only_it_knows() {
        let node = overview().nodes.remove(2);
        assert_eq!(
            (node.id, node.answered, node.reachable, node.role),
            (3, false, false, None)
        );
    }

    #[test]
    fn a_minority_is_told_from_a_quorum() {
        let quorum = overview().quorum;
        assert!(quorum.answered && (quorum.voters_answered, quorum.voters) == (2, 3));
        let alone = Overview::new(status(1, 5, 2, vec![]), vec![]).quorum;
        assert!(!alone.answered && alone.tables_of == 1);
    }
}
