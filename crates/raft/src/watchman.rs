//! Background duties of a member: asks the others now and then who they are (so that reachability is known and a
//! mistaken identity or a disk that has lost something is found), announces itself in the members table, becomes a voter, completes what a former
//! leader began, notices a dead core.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use openraft::errors::Fatal as CoreStopped;
use whiskraft_state::{Command, MemberRecord};
use whiskraft_types::SchedulerId;

use crate::bootstrap::{self, Newcomer, Reporter};
use crate::core::{Core, Group};
use crate::error::StopReason;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::lanes;
use crate::membership;
use crate::propose::Proposer;
use crate::store::SeenStore;
use crate::types::Proposal;

/// Pause between rounds of questions to the other members.
const ROUND_PAUSE: Duration = Duration::from_millis(400);
/// Pause between looks at the consensus core.
const CORE_PAUSE: Duration = Duration::from_millis(200);
/// Pause between looks for a change of the membership that was left half-way.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// Pause between two times at which it is kept what others have shown: what a start of the whole cluster may not know.
const KEEP_PAUSE: Duration = Duration::from_secs(1);
/// Pause before an announcement or a step of joining is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Asks all members who they are, again and again.
pub(crate) async fn ask_around(core: Core, journal: Journal, identity: Identity) {
    let mut reached = BTreeSet::new();
    loop {
        let members: Vec<(u64, String)> = core.metrics(|metrics| {
            metrics
                .membership_config
                .nodes()
                .map(|(id, node)| (*id, node.addr.clone()))
                .collect()
        });
        let others = members.iter().filter(|(id, _)| *id != identity.id);
        let rounds = others.map(|(id, address)| ask(&core, &journal, &identity, *id, address));
        futures::future::join_all(rounds).await;
        let others = members.iter().filter(|(id, _)| *id != identity.id);
        others.for_each(|(id, address)| tell_change(&core, &mut reached, *id, address));
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// Says once that another member has gone or come.
fn tell_change(core: &Core, reached: &mut BTreeSet<u64>, id: u64, address: &str) {
    if core.peers.is_reachable(id) {
        if reached.insert(id) {
            tracing::info!(scheduler = id, address, "scheduler reached");
        }
    } else if reached.remove(&id) {
        tracing::warn!(scheduler = id, address, "scheduler does not answer");
    }
}

async fn ask(core: &Core, journal: &Journal, identity: &Identity, id: u64, address: &str) {
    let Ok(answer) = bootstrap::identify(&core.peers, address, id).await else {
        return;
    };
    if answer.cluster_id != identity.cluster_id || answer.id != id {
        tracing::warn!(
            scheduler = id,
            address,
            found = answer.id,
            cluster = answer.cluster_id,
            "another scheduler answers at the address of a member"
        );
        return;
    }
    core.peers.answered(id);
    let loss = answer.loss(&core.peers, address);
    match answer.ours {
        Some(ours) if ours != identity.incarnation => {
            core.fatal.stop(StopReason::Identity(bootstrap::other_directory(
                identity.id,
                id,
                address,
            )));
        }
        None if answer.leads => {
            lanes::leave(journal).await;
            core.fatal.stop(StopReason::Removed(SchedulerId(identity.id)));
        }
        Some(_) | None => {
            if let Some(refusal) = loss {
                core.fatal.stop(StopReason::Identity(refusal));
            }
        }
    }
}

/// Keeps what the others have shown for the next start, again and again.
pub(crate) async fn keep_seen(core: Core, store: SeenStore) {
    loop {
        tokio::time::sleep(KEEP_PAUSE).await;
        keep_once(&core, &store);
    }
}

/// Keeps what the others have shown, if it has changed.
pub(crate) fn keep_once(core: &Core, store: &SeenStore) {
    let members: BTreeSet<u64> = core.metrics(|metrics| {
        let nodes = metrics.membership_config.nodes();
        nodes.map(|(id, _)| *id).collect()
    });
    // A node that has no log yet does not know who is a member.
    let is_member = |id| members.is_empty() || members.contains(&id);
    let Some(seen) = core.peers.witness().to_keep(is_member) else {
        return;
    };
    if let Err(error) = store.save(&seen) {
        tracing::warn!(%error, "what other members have shown is not kept for the next start");
    }
}

/// Notices a consensus core that has stopped or panicked: the process would live on and answer nothing.
pub(crate) async fn watch_core(core: Group) {
    loop {
        let probe = tokio::time::timeout(CORE_PAUSE * 5, core.raft.is_initialized()).await;
        if let Ok(Err(stopped)) = probe {
            let reason = match stopped {
                CoreStopped::StorageError(error) => {
                    core.fatal.storage(&error.to_string());
                    return;
                }
                CoreStopped::Panicked => StopReason::Raft("it panicked; start again".to_owned()),
                CoreStopped::Stopped => StopReason::Raft("it stopped".to_owned()),
            };
            core.fatal.stop(reason);
            return;
        }
        tokio::time::sleep(CORE_PAUSE).await;
    }
}

/// Puts this scheduler's addresses into the members table, until they are there.
pub(crate) async fn announce(core: &Core, proposer: &Proposer, member: MemberRecord) {
    let id = SchedulerId(core.id());
    loop {
        let known = core.shared.read(|state| state.member(id).cloned());
        // Draining is the operator's word, not ours.
        let draining = known.as_ref().is_some_and(|known| known.draining);
        let wanted = MemberRecord {
            draining,
            ..member.clone()
        };
        if known.as_ref() == Some(&wanted) {
            return;
        }
        match proposer
            .propose(Proposal::Command(Command::PutMember { id, member: wanted }))
            .await
        {
            Ok((revision, _)) => {
                tracing::info!(scheduler = %id, "scheduler announced");
                let mut applied = core.shared.applied.subscribe();
                drop(applied.wait_for(|applied| applied.revision >= revision).await);
                return;
            }
            Err(error) => tracing::debug!(%error, "announcement will be tried again"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Asks to become a voter until this scheduler is one, and notes that it was: from then on operators decide.
pub(crate) async fn become_voter(core: Core, newcomer: Newcomer, mut identity: Identity, data_dir: PathBuf) {
    let newcomer = Newcomer {
        learner: false,
        ..newcomer
    };
    let mut reporter = Reporter::new();
    while !votes(&core) {
        for address in addresses_of_others(&core) {
            match newcomer.ask(&core.peers, &address).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => tracing::debug!(%error, "not a voter yet"),
                Err(error) if reporter.is_due() => tracing::warn!(%error, "not accepted as a voter"),
                Err(error) => tracing::debug!(%error, "not accepted as a voter"),
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    identity.asks_vote = false;
    if let Err(error) = identity.save(&data_dir) {
        core.fatal.storage(&format!("write of the identity: {error}"));
    }
}

fn votes(core: &Core) -> bool {
    let id = core.id();
    core.metrics(|metrics| metrics.membership_config.voter_ids().any(|voter| voter == id))
}

fn addresses_of_others(core: &Core) -> Vec<String> {
    let id = core.id();
    core.metrics(|metrics| {
        let others = metrics
            .membership_config
            .nodes()
            .filter(|(other, _)| **other != id);
        others.map(|(_, node)| node.addr.clone()).collect()
    })
}

/// Completes a change of the membership that a former leader left half-way.
pub(crate) async fn settle_membership(core: Core) {
    loop {
        tokio::time::sleep(SETTLE_PAUSE).await;
        membership::settle(&core).await;
    }
}
