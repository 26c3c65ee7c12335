//! A scheduler joins: it is given a number, follows the log, and votes once it has caught up.

use openraft::BasicNode;
use whiskraft_state::{Command, MemberRecord, Response};
use whiskraft_types::{MemberOrder, MembershipError, SchedulerId};

use super::{ChangeRefusal, Guard, STEP_TIMEOUT, carry_out, later, refused, within};
use crate::bootstrap::{self, Newcomer};
use crate::core::Core;

/// Adds a scheduler, or takes the one with this incarnation a step further.
pub(super) async fn add(core: &Core, newcomer: &Newcomer, guard: &Guard) -> Result<u64, ChangeRefusal> {
    let id = match number(core, newcomer) {
        Some(id) => id,
        // It was a member; under another number it would answer for two.
        None if newcomer.id != 0 => {
            return Err(MembershipError::NotMember(SchedulerId(newcomer.id)).into());
        }
        None => register(core, newcomer).await?,
    };
    let node = core.metrics(|metrics| metrics.membership_config.get_node(&id).cloned());
    if node.is_none() {
        let addr = newcomer.peer_address.clone();
        let raft = core.raft.clone();
        let add = async move { raft.add_learner(id, BasicNode { addr }, false).await };
        within(core, guard, add).await?;
        tracing::info!(scheduler = id, "scheduler joins as a learner");
        return Ok(id);
    }
    if newcomer.learner {
        return Ok(id);
    }
    carry_out(core, MemberOrder::Promote(SchedulerId(id)), guard).await
}

/// The number that a scheduler has already, if it has one; nobody is taken for two.
fn number(core: &Core, newcomer: &Newcomer) -> Option<u64> {
    core.shared.read(|state| {
        let mut own = state
            .members()
            .filter(|(_, member)| member.incarnation == newcomer.incarnation)
            .map(|(id, _)| id.0);
        own.find(|id| newcomer.id == 0 || *id == newcomer.id)
    })
}

/// Gives a new scheduler its number: the index of an entry, which no other entry ever has.
async fn register(core: &Core, newcomer: &Newcomer) -> Result<u64, ChangeRefusal> {
    check_name(core, newcomer)?;
    check_address(core, newcomer).await?;
    let mut id = write_blank(core).await?;
    // What a leader before this one wrote is applied only now: it may have given this scheduler its number, and died.
    if let Some(given) = number(core, newcomer) {
        return Ok(given);
    }
    // The initial members' numbers are the operator's choice, so an index may meet one.
    while core.shared.read(|state| state.member(SchedulerId(id)).is_some())
        || core.metrics(|metrics| metrics.membership_config.get_node(&id).is_some())
    {
        id = write_blank(core).await?;
    }
    let member = MemberRecord {
        peer_address: newcomer.peer_address.clone(),
        client_address: newcomer.client_address.clone(),
        zone: String::new(),
        version: String::new(),
        incarnation: newcomer.incarnation,
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

fn check_name(core: &Core, newcomer: &Newcomer) -> Result<(), ChangeRefusal> {
    if *newcomer.cluster_name == *core.cluster_name {
        return Ok(());
    }
    Err(refused(format!(
        "this is cluster {:?}, and the scheduler that wants to join is configured for cluster {:?}; correct its cluster \
         name or the address it joins through",
        core.cluster_name, newcomer.cluster_name
    )))
}

/// The address must be free, and lead to the scheduler that gave it: a wrong one would take part in every quorum and
/// never answer.
async fn check_address(core: &Core, newcomer: &Newcomer) -> Result<(), ChangeRefusal> {
    let address = &newcomer.peer_address;
    let holder = core.metrics(|metrics| {
        let mut nodes = metrics.membership_config.nodes();
        nodes.find(|(_, node)| node.addr == *address).map(|(id, _)| *id)
    });
    if let Some(holder) = holder {
        return Err(refused(format!(
            "{address} is the address of scheduler {holder}; remove that one first, or join under another address"
        )));
    }
    match bootstrap::identify(&core.peers, address, 0).await {
        Ok(answer) if answer.incarnation == newcomer.incarnation => Ok(()),
        Ok(_) => Err(refused(format!(
            "another scheduler answers at {address}; correct the peer address that the new one announces"
        ))),
        Err(error) => Err(later(format!(
            "the new scheduler does not answer the leader at {address}, the peer address that it announces: {error}"
        ))),
    }
}

async fn write_blank(core: &Core) -> Result<u64, ChangeRefusal> {
    let written = tokio::time::timeout(STEP_TIMEOUT, core.raft.write_blank()).await;
    let written = written.map_err(|_| later("no quorum confirmed the new number in time"))?;
    written.map(|done| done.log_id.index).map_err(super::raft_refusal)
}
