//! Background duties of a member: asks the others now and then who they are (so that reachability is known and a
//! mistaken identity or a disk that has lost something is found), announces itself in the members table, becomes a voter, completes what a former
//! leader began, notices a dead core.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use openraft::errors::Fatal as CoreStopped;
use whiskraft_state::{Command, MemberRecord};
use whiskraft_types::SchedulerId;

use crate::bootstrap::{self, Newcomer, Reporter};
use crate::clock;
use crate::core::{Core, Group};
use crate::error::StopReason;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::lanes;
use crate::membership;
use crate::propose::Proposer;
use crate::store::SeenStore;
use crate::types::{Proposal, Types};

/// Pause between rounds of questions to the other members.
const ROUND_PAUSE: Duration = Duration::from_millis(400);
/// Pause between looks at the consensus core.
const CORE_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for the answer of the core to one question.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Questions in a row without an answer after which the node stops.
const SILENT_PROBES_MAX: u32 = 20;
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
        clock::beat(KEEP_PAUSE).await;
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

/// Notices a consensus core that has stopped, panicked or fallen silent: the process would live on and answer nothing.
pub(crate) async fn watch_core(core: Group) {
    let probe = || {
        let raft = core.raft.clone();
        async move { raft.is_initialized().await.map(drop) }
    };
    let reason = match end_of_core(probe, PROBE_MAX).await {
        Some(CoreStopped::StorageError(error)) => {
            core.fatal.storage(&error.to_string());
            return;
        }
        Some(CoreStopped::Panicked) => "it panicked; start again".to_owned(),
        Some(CoreStopped::Stopped) => "it stopped".to_owned(),
        None => format!(
            "that of group {} has not answered for {:?}; start again",
            core.group,
            PROBE_MAX * SILENT_PROBES_MAX
        ),
    };
    core.fatal.stop(StopReason::Raft(reason));
}

/// Asks a core again and again. Returns why it stopped, or nothing if it does not answer any more.
async fn end_of_core<F>(mut probe: impl FnMut() -> F, wait: Duration) -> Option<CoreStopped<Types>>
where
    F: Future<Output = Result<(), CoreStopped<Types>>>,
{
    // Counted: a process that was stopped for a minute has not asked that often.
    let mut silent = 0;
    loop {
        match tokio::time::timeout(wait, probe()).await {
            Ok(Ok(())) => silent = 0,
            Ok(Err(stopped)) => return Some(stopped),
            Err(_) => silent += 1,
        }
        if silent >= SILENT_PROBES_MAX {
            return None;
        }
        if silent == 0 {
            clock::beat(CORE_PAUSE).await;
        }
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
        clock::beat(SETTLE_PAUSE).await;
        membership::settle(&core).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    const WAIT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn a_core_that_does_not_answer_twenty_times_is_given_up() {
        let mut asked = 0;
        let probe = || {
            asked += 1;
            future::pending()
        };
        let end = end_of_core(probe, WAIT).await;
        assert!(end.is_none(), "{end:?}");
        assert_eq!(asked, 20);
        assert_eq!(PROBE_MAX * SILENT_PROBES_MAX, Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_core_that_answers_now_and_then_is_not() {
        let mut asked = 0;
        let probe = || {
            asked += 1;
            let asked = asked;
            async move {
                match asked {
                    50 => Err(CoreStopped::Panicked),
                    20 | 40 => Ok(()),
                    _ => future::pending().await,
                }
            }
        };
        let end = end_of_core(probe, WAIT).await;
        assert!(matches!(end, Some(CoreStopped::Panicked)), "{end:?}");
    }
}
