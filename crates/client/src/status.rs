//! What a scheduler says about itself and the cluster.

use std::time::Duration;

use futures::future::join_all;
use tonic::transport::Channel;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_proto::{InvalidMessage, MESSAGE_LEN_MAX, required, v1};
use whiskraft_types::{SchedulerId, SessionId, WaitReason};

use crate::calls::{Call, Tried};
use crate::watch::{Invoker, Member, Queue};
use crate::{CallError, Client};

/// Shown in errors.
const OPERATION: &str = "status";

/// Answer of one scheduler; what it says of others is its own view.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The cluster.
    pub cluster_id: String,
    /// Who answers.
    pub scheduler: SchedulerId,
    /// Its release.
    pub version: String,
    /// Its place in the Raft group.
    pub raft: RaftStatus,
    /// All schedulers.
    pub nodes: Vec<NodeStatus>,
    /// At most 1000 queues, longest first.
    pub queues: Vec<QueueStatus>,
    /// How many queues there are.
    pub queues_total: u64,
    /// All invokers.
    pub invokers: Vec<Invoker>,
    /// Containers being created, in the whole cluster.
    pub containers_in_progress: u64,
    /// Containers that ask for or run activations.
    pub containers_running: u64,
    /// Idle containers that are kept.
    pub containers_warm: u64,
    /// Whether the answering scheduler may not act.
    pub fenced: bool,
    /// Live sessions.
    pub sessions: u64,
}

/// Place of a scheduler in the Raft group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// `leader`, `follower`, `candidate`, `learner`.
    pub role: String,
    /// Raft leader, if it knows one.
    pub leader: Option<SchedulerId>,
    /// Term.
    pub term: u64,
    /// Newest log index.
    pub last_log: u64,
    /// Applied up to here.
    pub applied: u64,
    /// Snapshot up to here.
    pub snapshot: u64,
    /// Log deleted up to here.
    pub purged: u64,
    /// The lanes of the journal, as this scheduler sees them.
    pub lanes: Vec<LaneStatus>,
}

/// A lane of the journal: a Raft group beside the main one, for durable activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStatus {
    /// Its number, from 1.
    pub lane: u32,
    /// Who leads it, if known.
    pub leader: Option<SchedulerId>,
    /// Last entry in the log.
    pub last_log: u64,
    /// Last applied entry.
    pub applied: u64,
    /// Log deleted up to here.
    pub purged: u64,
}

/// One scheduler as seen by the answering one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The scheduler.
    pub member: Member,
    /// Whether it votes.
    pub voter: bool,
    /// Whether the answering one reaches it.
    pub reachable: bool,
    /// Log index replicated to it; known on the Raft leader only.
    pub matched: Option<u64>,
    /// Queues it leads.
    pub queues: u64,
    /// Its session, if it has a live one.
    pub session: Option<SessionId>,
}

/// One queue. All but `queue` is known to its leader only, and zero elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueStatus {
    /// The queue.
    pub queue: Queue,
    /// State of the memory queue.
    pub state: String,
    /// Activations that wait.
    pub waiting: u64,
    /// Activations handed to a container that has not started them yet.
    pub delivered: u64,
    /// Activations that run.
    pub started: u64,
    /// Resubmitted activations that wait for invokers to report.
    pub held_back: u64,
    /// Containers being created.
    pub containers_in_progress: u32,
    /// Containers that ask or run.
    pub containers_running: u32,
    /// Idle containers.
    pub containers_warm: u32,
    /// Average run time.
    pub duration_avg: Option<Duration>,
    /// Age of the longest waiting activation.
    pub oldest: Duration,
    /// Why it waits; `None` if nothing does.
    pub wait_reason: Option<WaitReason>,
    /// The same for people, with the numbers or the error.
    pub wait_detail: String,
    /// The last scaling decision, for people; empty before the first.
    pub last_decision: String,
    /// How long ago it was made.
    pub decided_ago: Duration,
    /// Whether new activations are refused.
    pub throttled: bool,
    /// Most containers of the action in this namespace; 0: not told.
    pub containers_limit: u32,
    /// Containers of older revisions, which are ending.
    pub containers_old: u32,
}

impl TryFrom<v1::StatusResponse> for Status {
    type Error = InvalidMessage;

    fn try_from(status: v1::StatusResponse) -> Result<Self, InvalidMessage> {
        Ok(Self {
            cluster_id: status.cluster_id,
            scheduler: SchedulerId(status.scheduler),
            version: status.version,
            raft: required(status.raft, "status.raft")?.into(),
            nodes: status
                .nodes
                .into_iter()
                .map(NodeStatus::try_from)
                .collect::<Result<_, _>>()?,
            queues: status
                .queues
                .into_iter()
                .map(QueueStatus::try_from)
                .collect::<Result<_, _>>()?,
            queues_total: status.queues_total,
            invokers: status.invokers.into_iter().map(Invoker::from).collect(),
            containers_in_progress: status.containers_in_progress,
            containers_running: status.containers_running,
            containers_warm: status.containers_warm,
            fenced: status.fenced,
            sessions: status.sessions,
        })
    }
}

impl From<v1::RaftStatus> for RaftStatus {
    fn from(raft: v1::RaftStatus) -> Self {
        Self {
            role: raft.role,
            leader: (raft.leader != 0).then_some(SchedulerId(raft.leader)),
            term: raft.term,
            last_log: raft.last_log,
            applied: raft.applied,
            snapshot: raft.snapshot,
            purged: raft.purged,
            lanes: raft.lanes.into_iter().map(LaneStatus::from).collect(),
        }
    }
}

impl From<v1::LaneStatus> for LaneStatus {
    fn from(lane: v1::LaneStatus) -> Self {
        Self {
            lane: lane.lane,
            leader: (lane.leader != 0).then_some(SchedulerId(lane.leader)),
            last_log: lane.last_log,
            applied: lane.applied,
            purged: lane.purged,
        }
    }
}

impl TryFrom<v1::NodeStatus> for NodeStatus {
    type Error = InvalidMessage;

    fn try_from(node: v1::NodeStatus) -> Result<Self, InvalidMessage> {
        Ok(Self {
            member: required(node.member, "node.member")?.into(),
            voter: node.voter,
            reachable: node.reachable,
            matched: node.matched,
            queues: node.queues,
            session: (node.session != 0).then_some(SessionId(node.session)),
        })
    }
}

impl TryFrom<v1::QueueStatus> for QueueStatus {
    type Error = InvalidMessage;

    fn try_from(queue: v1::QueueStatus) -> Result<Self, InvalidMessage> {
        let wait_reason = wait_reason(queue.wait_reason());
        Ok(Self {
            queue: required(queue.queue, "queue_status.queue")?.try_into()?,
            state: queue.state,
            waiting: queue.waiting,
            delivered: queue.delivered,
            started: queue.started,
            held_back: queue.held_back,
            containers_in_progress: queue.containers_in_progress,
            containers_running: queue.containers_running,
            containers_warm: queue.containers_warm,
            duration_avg: queue
                .duration_avg_ms
                .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()),
            oldest: Duration::from_millis(queue.oldest_ms),
            wait_reason,
            wait_detail: queue.wait_detail,
            last_decision: queue.last_decision,
            decided_ago: Duration::from_millis(queue.decided_ago_ms),
            throttled: queue.throttled,
            containers_limit: queue.containers_limit,
            containers_old: queue.containers_old,
        })
    }
}

/// `None` if nothing waits, or for a reason that a newer release added: its detail tells people all the same.
const fn wait_reason(reason: v1::WaitReason) -> Option<WaitReason> {
    use v1::WaitReason as W;

    Some(match reason {
        W::Unspecified => return None,
        W::Fenced => WaitReason::Fenced,
        W::Draining => WaitReason::Draining,
        W::HeldBack => WaitReason::HeldBack,
        W::TakingOver => WaitReason::TakingOver,
        W::ResultsOwed => WaitReason::ResultsOwed,
        W::NamespaceLimitZero => WaitReason::NamespaceLimitZero,
        W::ActionBroken => WaitReason::ActionBroken,
        W::NoInvoker => WaitReason::NoInvoker,
        W::NoMemory => WaitReason::NoMemory,
        W::CreationFailing => WaitReason::CreationFailing,
        W::ContainerStarting => WaitReason::ContainerStarting,
        W::NamespaceLimit => WaitReason::NamespaceLimit,
        W::ActionLimit => WaitReason::ActionLimit,
        W::ContainersBusy => WaitReason::ContainersBusy,
        W::Deciding => WaitReason::Deciding,
    })
}

impl Client {
    /// What one scheduler says about itself and the cluster; a connected one if there is one.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answers.
    pub async fn status(&self) -> Result<Status, CallError> {
        let call = Call::quick(self.shared(), OPERATION);
        Ok(call.ask(self.shared(), ask).await?.value)
    }

    /// What this scheduler says.
    ///
    /// # Errors
    /// [`CallError::NoSuchScheduler`]; [`CallError::Unreachable`] after one try.
    pub async fn status_of(&self, scheduler: SchedulerId) -> Result<Status, CallError> {
        Call::quick(self.shared(), OPERATION)
            .ask_member(self.shared(), scheduler, ask)
            .await
    }

    /// What each scheduler says, asked all at once. Those that do not answer have their error in the list.
    pub async fn status_all(&self) -> Vec<(SchedulerId, Result<Status, CallError>)> {
        let members = self.members().into_iter();
        join_all(members.map(|(scheduler, _)| async move { (scheduler, self.status_of(scheduler).await) }))
            .await
    }
}

async fn ask(channel: Channel) -> Tried<Status> {
    let mut client = OperatorClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    let response = client.status(v1::StatusRequest {}).await?.into_inner();
    Ok(Ok(
        Status::try_from(response).map_err(|error| tonic::Status::data_loss(error.to_string()))?
    ))
}
