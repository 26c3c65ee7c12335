//! Changes of the membership: who joins, votes, leads, goes.
//!
//! Any node takes a change and finds the leader; the leader makes one change at a time, step by step, each planned from
//! how the cluster looks then ([`plan`]). So every step can be repeated, and a change that a failure cut in half is
//! completed by asking again; one that stands between two sets of voters is completed by whoever leads.
//! Invariant: a change is answered within [`ORDER_MAX`] and a hop.

mod join;
mod plan;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use whiskraft_proto::v1;
use whiskraft_state::Command;
use whiskraft_types::{MemberOrder, MembershipError, SchedulerId};

use self::plan::{Step, View};
pub(crate) use self::wire::{parse, to_wire};
use crate::bootstrap::Newcomer;
use crate::clock;
use crate::core::{Core, Group, NotDone};
use crate::peers::Class;
use crate::types::Types;

/// Longest time that an order is worked on.
const ORDER_MAX: Duration = Duration::from_secs(8);
/// The same for a step of joining, which the newcomer asks for again and again.
const JOIN_MAX: Duration = Duration::from_secs(4);
/// Longest wait for one step of a change.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for another leader after one was told to take over.
const TRANSFER_MAX: Duration = Duration::from_secs(2);
/// Pause before a leader is looked for again, or a change that is under way is waited for.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Steps of one order: settle, two for the voter, one for the row, and as many again if somebody interferes.
const STEPS_MAX: usize = 8;

/// A wanted change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Add a scheduler, or take the one with this incarnation a step further.
    Add(Newcomer),
    /// What an operator wants.
    Order(MemberOrder),
}

/// A scheduler that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// Name of the cluster that it is configured for.
    pub cluster_name: String,
    /// `host:port` of its peer listener.
    pub peer_address: String,
    /// `host:port` of its client listener.
    pub client_address: String,
    /// Identity of its data directory.
    pub incarnation: [u8; 16],
    /// Whether it shall not vote until an operator says so.
    pub learner: bool,
}

/// Who may be asked instead, or why the change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeRefusal {
    /// This node does not lead.
    NotLeader(Option<u64>),
    /// Final, or worth trying again.
    Failed(MembershipError),
}

impl From<MembershipError> for ChangeRefusal {
    fn from(error: MembershipError) -> Self {
        Self::Failed(error)
    }
}

impl From<NotDone> for ChangeRefusal {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::NotLeader(leader) => Self::NotLeader(leader),
            NotDone::Busy(reason) | NotDone::Full(reason) | NotDone::Unknown(reason) => later(reason),
        }
    }
}

fn later(reason: impl Into<String>) -> ChangeRefusal {
    ChangeRefusal::Failed(MembershipError::Unavailable(reason.into()))
}

fn refused(reason: impl Into<String>) -> ChangeRefusal {
    ChangeRefusal::Failed(MembershipError::Refused(reason.into()))
}

/// The right to change the membership on this node; shared with the change under way, which may outlast its asker.
type Guard = Arc<OwnedMutexGuard<()>>;

/// Makes the change, here or through the leader, whoever that becomes meanwhile.
pub(crate) async fn change(core: &Core, change: Change) -> Result<u64, MembershipError> {
    let wait_max = match change {
        Change::Add(_) => JOIN_MAX,
        Change::Order(_) => ORDER_MAX,
    };
    let deadline = clock::now() + wait_max;
    let mut hint = None;
    // An order of which nobody knows what became may be done when it is repeated.
    let mut may_be_done = false;
    loop {
        let error = match ask(core, hint.take(), &change, deadline).await {
            Ok(id) => return Ok(id),
            Err(ChangeRefusal::NotLeader(leader)) => {
                hint = leader;
                MembershipError::Unavailable("no leader is known".to_owned())
            }
            Err(ChangeRefusal::Failed(MembershipError::NotMember(id)))
                if may_be_done && matches!(change, Change::Order(MemberOrder::Remove { .. })) =>
            {
                return Ok(id.0);
            }
            Err(ChangeRefusal::Failed(error)) => match error {
                MembershipError::InProgress(_) => error,
                MembershipError::Unavailable(_) => {
                    may_be_done = true;
                    error
                }
                error => return Err(error),
            },
        };
        if clock::now() + RETRY_PAUSE >= deadline || core.fatal.reason().is_some() {
            return Err(error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Asks one node that may lead: who the last one asked named, or who this node knows.
async fn ask(
    core: &Core,
    hint: Option<u64>,
    change: &Change,
    deadline: Instant,
) -> Result<u64, ChangeRefusal> {
    match hint.or_else(|| core.leader()) {
        None => Err(ChangeRefusal::NotLeader(None)),
        Some(id) if id == core.id() => tokio::time::timeout_at(deadline, lead(core, change.clone()))
            .await
            .unwrap_or_else(|_| Err(later("the change took too long; it may still be made"))),
        Some(id) => forward(core, id, change, deadline).await,
    }
}

async fn forward(core: &Core, leader: u64, change: &Change, deadline: Instant) -> Result<u64, ChangeRefusal> {
    use v1::change_membership_response::Outcome;

    let address = core.address(leader);
    let address = address.ok_or_else(|| later(format!("address of scheduler {leader} is not known")))?;
    let mut client = core.peers.client(&address, Class::Forward).map_err(later)?;
    let request = v1::ChangeMembershipRequest {
        envelope: Some(core.peers.envelope(leader)),
        change: Some(to_wire(change)),
    };
    let reply = tokio::time::timeout_at(deadline, client.change_membership(request)).await;
    let reply = reply.map_err(|_| later(format!("scheduler {leader} did not answer in time")))?;
    let reply = reply.map_err(|status| later(format!("scheduler {leader}: {}", status.message())))?;
    match reply.into_inner().outcome {
        Some(Outcome::Scheduler(id)) => Ok(id),
        Some(Outcome::NotLeader(other)) => Err(ChangeRefusal::NotLeader(
            (other.leader != 0).then_some(other.leader),
        )),
        Some(Outcome::Refusal(refusal)) => Err(MembershipError::from(refusal).into()),
        None => Err(later(format!("scheduler {leader} answered nothing"))),
    }
}

/// Makes the change if this node leads.
pub(crate) async fn lead(core: &Core, change: Change) -> Result<u64, ChangeRefusal> {
    check_leads(core)?;
    let guard = begin(core).ok_or_else(|| {
        MembershipError::InProgress("the leader has not completed the one before".to_owned())
    })?;
    match change {
        Change::Add(newcomer) => join::add(core, &newcomer, &guard).await,
        Change::Order(order) => carry_out(core, order, &guard).await,
    }
}

fn begin(core: &Core) -> Option<Guard> {
    Arc::clone(&core.changing).try_lock_owned().ok().map(Arc::new)
}

fn check_leads(core: &Core) -> Result<(), ChangeRefusal> {
    match core.leader() {
        Some(id) if id == core.id() => Ok(()),
        other => Err(ChangeRefusal::NotLeader(other)),
    }
}

/// Makes one step after the other until nothing is left to do.
async fn carry_out(core: &Core, order: MemberOrder, guard: &Guard) -> Result<u64, ChangeRefusal> {
    let about = match order {
        MemberOrder::Promote(id) | MemberOrder::Demote { id, .. } | MemberOrder::Remove { id, .. } => id.0,
        MemberOrder::TransferLeader(_) => core.id(),
    };
    let mut has_begun = false;
    for _ in 0..STEPS_MAX {
        check_leads(core)?;
        match plan::next(&view(core), order, has_begun)? {
            Step::Done => return Ok(about),
            Step::HandOver(to) => {
                let leader = hand_over_to(core, to).await?;
                return match order {
                    MemberOrder::TransferLeader(wanted) if wanted.is_none_or(|id| id.0 == leader) => {
                        Ok(leader)
                    }
                    // Whoever leads now makes the change.
                    _ => Err(ChangeRefusal::NotLeader(Some(leader))),
                };
            }
            step => make(core, step, guard).await?,
        }
        has_begun = true;
    }
    Err(later("the membership keeps changing under this order"))
}

async fn make(core: &Core, step: Step, guard: &Guard) -> Result<(), ChangeRefusal> {
    let only = |id: u64| BTreeSet::from([id]);
    let (changes, retain) = match step {
        Step::Done | Step::HandOver(_) => return Ok(()),
        Step::RemoveRow(id) => {
            let id = SchedulerId(id);
            core.write(Command::RemoveMember { id }, STEP_TIMEOUT).await?;
            tracing::info!(scheduler = %id, "scheduler removed from the cluster");
            return Ok(());
        }
        // Completes the change that stands, and takes out nobody who is not out already.
        Step::Settle => (ChangeMembers::AddVoterIds(BTreeSet::new()), true),
        Step::AddVoter(id) => (ChangeMembers::AddVoterIds(only(id)), true),
        Step::RemoveVoter { id, stays } => (ChangeMembers::RemoveVoters(only(id)), stays),
        Step::RemoveLearner(id) => (ChangeMembers::RemoveNodes(only(id)), false),
    };
    let raft = core.raft.clone();
    let change = async move { raft.change_membership(changes, retain).await };
    within(core, guard, change).await?;
    tracing::info!(?step, "membership changed");
    Ok(())
}

/// Waits for a change that goes on behind its asker's back: cut off between its two entries, it would leave the cluster
/// with two sets of voters. Returns when this node's view shows it.
async fn within(
    core: &Core,
    guard: &Guard,
    change: impl Future<Output = Written> + Send + 'static,
) -> Result<(), ChangeRefusal> {
    let guard = Arc::clone(guard);
    let change = tokio::spawn(async move {
        let written = change.await;
        drop(guard);
        written
    });
    let written = tokio::time::timeout(STEP_TIMEOUT, change).await;
    let written = written.map_err(|_| {
        later(format!(
            "no quorum confirmed the change within {STEP_TIMEOUT:?}; it takes effect when one does"
        ))
    })?;
    let written = written.map_err(|error| later(format!("the change ended early: {error}")))?;
    let at = Some(written.map_err(raft_refusal)?.log_id);
    let seen = core.raft.wait(Some(STEP_TIMEOUT));
    let seen = seen.metrics(|metrics| *metrics.membership_config.log_id() >= at, "change seen");
    seen.await
        .map(|_| ())
        .map_err(|error| later(format!("the change is not seen here: {error}")))
}

type Written = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

fn raft_refusal(error: RaftError<Types, ClientWriteError<Types>>) -> ChangeRefusal {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeRefusal::NotLeader(forward.leader_id)
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ (ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)),
        )) => MembershipError::InProgress(error.to_string()).into(),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => refused(error.to_string()),
        error => later(error.to_string()),
    }
}

/// How the membership looks to this node.
fn view(core: &Core) -> View {
    let rows = core
        .shared
        .read(|state| state.members().map(|(id, _)| id.0).collect());
    let lanes = core.lanes.get().into_iter().flatten().map(|lane| {
        let voters = lane.metrics(|metrics| metrics.membership_config.voter_ids().collect());
        (lane.group, voters)
    });
    View {
        rows,
        lanes: lanes.collect(),
        ..view_of(core)
    }
}

/// How the membership of a group looks to this node, without the rows of the members table.
fn view_of(group: &Group) -> View {
    let me = group.id();
    group.metrics(|metrics| {
        let stored = &metrics.membership_config;
        let voters: BTreeSet<u64> = stored.voter_ids().collect();
        let nodes: BTreeSet<u64> = stored.nodes().map(|(id, _)| *id).collect();
        let last = metrics.last_log_index.unwrap_or_default();
        let replication = metrics.replication.iter().flatten();
        let lags = replication.map(|(id, matched)| {
            let matched = matched.map_or(0, |matched| matched.index);
            (*id, last.saturating_sub(matched))
        });
        View {
            me,
            learners: nodes.difference(&voters).copied().collect(),
            rows: BTreeSet::new(),
            lanes: BTreeMap::new(),
            answering: nodes
                .iter()
                .copied()
                .filter(|id| *id == me || group.peers.is_reachable(*id))
                .collect(),
            lags: lags.collect(),
            is_joint: stored.membership().get_joint_config().len() > 1,
            voters,
        }
    })
}

/// Hands leadership to a voter and says who leads then.
async fn hand_over_to(core: &Core, to: u64) -> Result<u64, ChangeRefusal> {
    let id = core.id();
    let transfer = core.raft.trigger().transfer_leader(to).await;
    transfer.map_err(|error| later(error.to_string()))?;
    let leads = core.raft.wait(Some(TRANSFER_MAX));
    let another = leads.metrics(
        |metrics| metrics.current_leader.is_some_and(|leader| leader != id),
        "another leads",
    );
    let metrics = another
        .await
        .map_err(|_| later(format!("scheduler {to} was not elected within {TRANSFER_MAX:?}")))?;
    metrics.current_leader.ok_or_else(|| later("no leader is known"))
}

/// Hands leadership of a group to the voter that has most of the log, if this node leads and there is one that answers.
pub(crate) async fn hand_over(group: &Group) {
    // Never to itself: a leader that is told so refuses proposals until its lease runs out.
    let Some(best) = view_of(group).successor() else {
        return;
    };
    if let Err(error) = group.raft.trigger().transfer_leader(best).await {
        tracing::warn!(%error, "leadership not handed over");
    }
}

/// Completes a change that a former leader left between its two entries; for the leader to call now and then.
pub(crate) async fn settle(core: &Core) {
    if core.lease().is_none() || !view(core).is_joint {
        return;
    }
    let Some(guard) = begin(core) else {
        return; // It is being made.
    };
    if let Err(refusal) = make(core, Step::Settle, &guard).await {
        tracing::debug!(?refusal, "change of the membership not completed yet");
    }
}
