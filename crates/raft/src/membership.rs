//! Changes of the membership: a scheduler joins as a learner, becomes a voter once it has caught up, is removed.
//!
//! Every step can be repeated: a member is found again by the incarnation of its data directory, so a change that a
//! failure cut in half is completed by asking again.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers};
use whiskraft_proto::v1;
use whiskraft_state::{Command, MemberRecord, Response};
use whiskraft_types::SchedulerId;

use crate::core::{Core, Group, NotDone};
use crate::error::MembershipError;
use crate::peers::Class;
use crate::types::Types;

/// Log entries that a learner may lack when it becomes a voter: few enough to be there in a moment.
const LAG_MAX: u64 = 500;
/// Longest wait for one step of a change.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// A wanted change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Add a scheduler, or take the one with this incarnation a step further.
    Add {
        /// `host:port` of its peer listener.
        peer_address: String,
        /// `host:port` of its client listener.
        client_address: String,
        /// Identity of its data directory.
        incarnation: [u8; 16],
    },
    /// Remove a scheduler.
    Remove(u64),
}

/// Who may be asked instead, or why the change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeRefusal {
    /// This node does not lead.
    NotLeader(Option<u64>),
    /// Final, or worth trying again.
    Failed(MembershipError),
}

impl From<NotDone> for ChangeRefusal {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::NotLeader(leader) => Self::NotLeader(leader),
            NotDone::Busy(reason) | NotDone::Full(reason) | NotDone::Unknown(reason) => {
                Self::Failed(MembershipError::Unavailable(reason))
            }
        }
    }
}

fn later(reason: impl Into<String>) -> ChangeRefusal {
    ChangeRefusal::Failed(MembershipError::Unavailable(reason.into()))
}

fn refused(reason: impl Into<String>) -> ChangeRefusal {
    ChangeRefusal::Failed(MembershipError::Refused(reason.into()))
}

/// Makes the change, here or through the leader.
pub(crate) async fn change(core: &Core, change: Change) -> Result<u64, MembershipError> {
    let leader = match lead(core, change.clone()).await {
        Ok(id) => return Ok(id),
        Err(ChangeRefusal::Failed(error)) => return Err(error),
        Err(ChangeRefusal::NotLeader(leader)) => leader,
    };
    let leader = leader.filter(|leader| *leader != core.id());
    let leader = leader.ok_or_else(|| MembershipError::Unavailable("no leader is known".to_owned()))?;
    forward(core, leader, change).await
}

async fn forward(core: &Core, leader: u64, change: Change) -> Result<u64, MembershipError> {
    use v1::change_membership_request::Change as Wire;
    use v1::change_membership_response::Outcome;

    let unavailable = MembershipError::Unavailable;
    let address = core.address(leader);
    let address =
        address.ok_or_else(|| unavailable(format!("address of scheduler {leader} is not known")))?;
    let mut client = core.peers.client(&address, Class::Forward).map_err(unavailable)?;
    let change = match change {
        Change::Add {
            peer_address,
            client_address,
            incarnation,
        } => {
            let incarnation = incarnation.to_vec().into();
            Wire::Add(v1::AddMember {
                peer_address,
                client_address,
                incarnation,
            })
        }
        Change::Remove(id) => Wire::Remove(id),
    };
    let envelope = Some(core.peers.envelope(leader));
    let request = v1::ChangeMembershipRequest {
        envelope,
        change: Some(change),
    };
    let reply = tokio::time::timeout(STEP_TIMEOUT * 4, client.change_membership(request)).await;
    let reply = reply.map_err(|_| unavailable(format!("scheduler {leader} did not answer")))?;
    let reply = reply.map_err(|status| unavailable(format!("scheduler {leader}: {}", status.message())))?;
    match reply.into_inner().outcome {
        Some(Outcome::Scheduler(id)) => Ok(id),
        Some(Outcome::NotLeader(_)) => Err(unavailable(format!("scheduler {leader} does not lead any more"))),
        Some(Outcome::Refused(reason)) => Err(MembershipError::Refused(reason)),
        Some(Outcome::Unavailable(reason)) => Err(unavailable(reason)),
        None => Err(unavailable(format!("scheduler {leader} answered nothing"))),
    }
}

/// Makes the change if this node leads.
pub(crate) async fn lead(core: &Core, change: Change) -> Result<u64, ChangeRefusal> {
    if core.leader() != Some(core.id()) {
        return Err(ChangeRefusal::NotLeader(core.leader()));
    }
    match change {
        Change::Add {
            peer_address,
            client_address,
            incarnation,
        } => add(core, peer_address, client_address, incarnation).await,
        Change::Remove(id) => remove(core, id).await.map(|()| id),
    }
}

async fn add(
    core: &Core,
    peer_address: String,
    client_address: String,
    incarnation: [u8; 16],
) -> Result<u64, ChangeRefusal> {
    let known = core.shared.read(|state| {
        let mut members = state.members();
        members
            .find(|(_, member)| member.incarnation == incarnation)
            .map(|(id, _)| id.0)
    });
    let id = match known {
        Some(id) => id,
        None => register(core, &peer_address, client_address, incarnation).await?,
    };
    let node = core.metrics(|metrics| metrics.membership_config.get_node(&id).cloned());
    if node.is_none() {
        let node = BasicNode { addr: peer_address };
        step(core.raft.add_learner(id, node, false)).await?;
        tracing::info!(scheduler = id, "scheduler joins as a learner");
        return Ok(id);
    }
    if !is_voter(core, id) && has_caught_up(core, id) {
        step(
            core.raft
                .change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true),
        )
        .await?;
        tracing::info!(scheduler = id, "scheduler votes");
    }
    Ok(id)
}

/// Gives a new scheduler its id: the index of an entry, which no other entry ever has.
async fn register(
    core: &Core,
    peer_address: &str,
    client_address: String,
    incarnation: [u8; 16],
) -> Result<u64, ChangeRefusal> {
    let holder = core.metrics(|metrics| {
        let mut nodes = metrics.membership_config.nodes();
        nodes
            .find(|(_, node)| node.addr == peer_address)
            .map(|(id, _)| *id)
    });
    if let Some(holder) = holder {
        return Err(refused(format!(
            "{peer_address} is the address of scheduler {holder}; remove that one first, or join under another address"
        )));
    }
    let mut id = write_blank(core).await?;
    // The initial members' numbers are the operator's choice, so an index may meet one.
    while core.shared.read(|state| state.member(SchedulerId(id)).is_some())
        || core.metrics(|metrics| metrics.membership_config.get_node(&id).is_some())
    {
        id = write_blank(core).await?;
    }
    let member = MemberRecord {
        peer_address: peer_address.to_owned(),
        client_address,
        zone: String::new(),
        version: String::new(),
        incarnation,
        draining: false,
    };
    let put = Command::PutMember {
        id: SchedulerId(id),
        member,
    };
    match core.write(put, STEP_TIMEOUT).await? {
        (_, Response::Refused(refusal)) => Err(refused(refusal.to_string())),
        _ => Ok(id),
    }
}

async fn write_blank(core: &Core) -> Result<u64, ChangeRefusal> {
    step(core.raft.write_blank()).await.map(|done| done.log_id.index)
}

async fn step(
    write: impl Future<Output = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>>,
) -> Result<ClientWriteResponse<Types>, ChangeRefusal> {
    let done = tokio::time::timeout(STEP_TIMEOUT, write).await;
    let done = done.map_err(|_| later(format!("no quorum confirmed the change within {STEP_TIMEOUT:?}")))?;
    done.map_err(|error| match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeRefusal::NotLeader(forward.leader_id)
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ (ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)),
        )) => later(error.to_string()),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => refused(error.to_string()),
        error => later(error.to_string()),
    })
}

fn is_voter(core: &Core, id: u64) -> bool {
    core.metrics(|metrics| metrics.membership_config.voter_ids().any(|voter| voter == id))
}

fn has_caught_up(core: &Core, id: u64) -> bool {
    core.metrics(|metrics| {
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|replication| *replication.get(&id)?);
        matched.is_some_and(|matched| matched.index + LAG_MAX >= metrics.last_log_index.unwrap_or_default())
    })
}

async fn remove(core: &Core, id: u64) -> Result<(), ChangeRefusal> {
    let is_row = core.shared.read(|state| state.member(SchedulerId(id)).is_some());
    let is_node = core.metrics(|metrics| metrics.membership_config.get_node(&id).is_some());
    if !is_row && !is_node {
        return Err(refused(format!("scheduler {id} is not a member of the cluster")));
    }
    if is_voter(core, id) {
        if core.metrics(|metrics| metrics.membership_config.voter_ids().all(|voter| voter == id)) {
            return Err(refused(format!(
                "scheduler {id} is the last voter; the cluster would be gone with it"
            )));
        }
        if id == core.id() {
            hand_over(core).await;
            return Err(later(format!(
                "scheduler {id} led and hands leadership over; try again"
            )));
        }
        step(
            core.raft
                .change_membership(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false),
        )
        .await?;
    } else if is_node {
        step(
            core.raft
                .change_membership(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false),
        )
        .await?;
    }
    if is_row {
        core.write(Command::RemoveMember { id: SchedulerId(id) }, STEP_TIMEOUT)
            .await?;
    }
    tracing::info!(scheduler = id, "scheduler removed from the cluster");
    Ok(())
}

/// Hands leadership to the voter that has most of the log, if this node leads and there is one that answers.
pub(crate) async fn hand_over(core: &Group) {
    let id = core.id();
    let best = core.metrics(|metrics| {
        let replication = metrics.replication.as_ref()?;
        let voters = metrics.membership_config.voter_ids().filter(|voter| *voter != id);
        let answering = voters.filter(|voter| core.peers.is_reachable(*voter));
        answering.max_by_key(|voter| {
            replication
                .get(voter)
                .copied()
                .flatten()
                .map(|matched| matched.index)
        })
    });
    // Never to itself: a leader that is told so refuses proposals until its lease runs out.
    let Some(best) = best else { return };
    if let Err(error) = core.raft.trigger().transfer_leader(best).await {
        tracing::warn!(%error, "leadership not handed over");
    }
}
