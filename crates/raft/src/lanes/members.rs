//! The members of a lane are those of group 0: its leader brings them there step by step.
//!
//! Who comes is added before who goes is removed, and nothing is done while a change of either is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers, RaftMetrics};

use super::ROUND_PAUSE;
use crate::clock;
use crate::core::{Core, Group};
use crate::journal::Journal;
use crate::membership;
use crate::types::Types;

/// Log entries that a learner may lack when it becomes a voter: few enough to be there in a moment.
const LAG_MAX: u64 = 500;

/// How long a scheduler that was removed waits for the lanes at most.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// Members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Members {
    voters: BTreeSet<u64>,
    addresses: BTreeMap<u64, String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Somebody that follows and does not vote.
    Learner(u64, String),
    /// It votes.
    Voter(u64),
    /// It moved.
    Address(u64, String),
    /// It does not vote any more.
    Unvoter(u64),
    /// It is no member any more.
    Remove(u64),
    /// Another must lead before it can go.
    HandOver,
    /// Completes the change that stands.
    Settle,
}

/// The step that brings a lane nearer to its aim.
fn next_step(
    lane: &Members,
    aim: &Members,
    leader: u64,
    has_caught_up: impl Fn(u64) -> bool,
) -> Option<Step> {
    for (id, address) in &aim.addresses {
        match lane.addresses.get(id) {
            None => return Some(Step::Learner(*id, address.clone())),
            Some(known) if known != address => return Some(Step::Address(*id, address.clone())),
            Some(_) => {}
        }
    }
    let mut joining = aim.voters.difference(&lane.voters);
    if let Some(id) = joining.clone().find(|id| has_caught_up(**id)) {
        return Some(Step::Voter(*id));
    }
    // As long as one could still join, nobody's vote is given up.
    if joining.next().is_some() {
        return None;
    }
    let mut leaving: Vec<u64> = lane.voters.difference(&aim.voters).copied().collect();
    leaving.sort_by_key(|id| *id == leader);
    if let Some(id) = leaving.first() {
        return Some(if *id == leader {
            Step::HandOver
        } else {
            Step::Unvoter(*id)
        });
    }
    let gone = lane.addresses.keys().find(|id| !aim.addresses.contains_key(id));
    gone.copied().map(Step::Remove)
}

/// Members of a group that is in the middle of no change.
fn settled(metrics: &RaftMetrics<Types>) -> Option<Members> {
    let stored = &metrics.membership_config;
    let [voters] = stored.membership().get_joint_config().as_slice() else {
        return None;
    };
    Some(Members {
        voters: voters.clone(),
        addresses: stored
            .nodes()
            .map(|(id, node)| (*id, node.addr.clone()))
            .collect(),
    })
}

/// Takes a lane that this node leads to the members of group 0, again and again.
pub(super) async fn follow(core: Core, group: Group) {
    loop {
        clock::beat(ROUND_PAUSE).await;
        if group.lease().is_none() {
            continue;
        }
        let step = match group.metrics(settled) {
            Some(lane) => core
                .metrics(settled)
                .filter(|aim| !aim.voters.is_empty())
                .and_then(|aim| next_step(&lane, &aim, group.id(), |id| has_caught_up(&group, id))),
            // A leader before this one left a change between its two entries.
            None => Some(Step::Settle),
        };
        let Some(step) = step else { continue };
        tracing::info!(lane = group.group, ?step, "members of the lane change");
        if let Err(error) = take(&group, step).await {
            tracing::warn!(lane = group.group, %error, "members of the lane have not changed; tried again");
        }
    }
}

fn has_caught_up(group: &Group, id: u64) -> bool {
    group.metrics(|metrics| {
        let replication = metrics.replication.as_ref();
        let matched = replication.and_then(|replication| *replication.get(&id)?);
        let last = metrics.last_log_index.unwrap_or_default();
        matched.is_some_and(|matched| matched.index + LAG_MAX >= last)
    })
}

async fn take(group: &Group, step: Step) -> Result<(), String> {
    let node = |addr| BasicNode { addr };
    let (change, keeps) = match step {
        Step::Learner(id, address) => (
            ChangeMembers::AddNodes(BTreeMap::from([(id, node(address))])),
            true,
        ),
        Step::Address(id, address) => (
            ChangeMembers::SetNodes(BTreeMap::from([(id, node(address))])),
            true,
        ),
        Step::Voter(id) => (ChangeMembers::AddVoterIds(BTreeSet::from([id])), true),
        Step::Unvoter(id) => (ChangeMembers::RemoveVoters(BTreeSet::from([id])), true),
        Step::Settle => (ChangeMembers::AddVoterIds(BTreeSet::new()), true),
        Step::Remove(id) => (ChangeMembers::RemoveNodes(BTreeSet::from([id])), false),
        Step::HandOver => {
            membership::hand_over(group).await;
            return Ok(());
        }
    };
    // Without a deadline: cut off between its two entries, it would leave the lane with two sets of voters. It ends when
    // a quorum confirms it or this node leads no longer.
    let changed = group.raft.change_membership(change, keeps).await;
    changed.map(|_| ()).map_err(|error| error.to_string())
}

/// Stays until the lanes have let go of a scheduler that group 0 has removed: while they count its vote, they may need it.
pub(crate) async fn leave(journal: &Journal) {
    let deadline = clock::now() + LEAVE_MAX;
    loop {
        let mut counting = Vec::new();
        for group in journal.groups() {
            let me = group.id();
            if group.metrics(|metrics| metrics.membership_config.voter_ids().any(|voter| voter == me)) {
                counting.push(group.group);
                if group.lease().is_some() {
                    membership::hand_over(group).await;
                }
            }
        }
        if counting.is_empty() {
            return;
        }
        if clock::now() >= deadline {
            tracing::warn!(lanes = ?counting, "lanes have not let go of this scheduler; it stops all the same");
            return;
        }
        clock::beat(ROUND_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        let all = voters.iter().chain(learners);
        Members {
            voters: voters.iter().copied().collect(),
            addresses: all.map(|id| (*id, format!("host-{id}:1"))).collect(),
        }
    }

    /// Steps until there is none, with everybody caught up.
    fn steps(lane: &Members, aim: &Members, leader: u64) -> Vec<Step> {
        let mut lane = lane.clone();
        let mut steps = Vec::new();
        while let Some(step) = next_step(&lane, aim, leader, |_| true) {
            match &step {
                Step::Learner(id, address) | Step::Address(id, address) => {
                    lane.addresses.insert(*id, address.clone());
                }
                Step::Voter(id) => drop(lane.voters.insert(*id)),
                Step::Unvoter(id) => drop(lane.voters.remove(id)),
                Step::Remove(id) => drop(lane.addresses.remove(id)),
                Step::HandOver | Step::Settle => {
                    steps.push(step);
                    return steps;
                }
            }
            steps.push(step);
        }
        assert_eq!(lane, *aim);
        steps
    }

    #[test]
    fn who_comes_is_added_before_who_goes_is_removed() {
        let (lane, aim) = (members(&[1, 2, 3], &[]), members(&[1, 2, 7], &[8]));
        assert_eq!(
            steps(&lane, &aim, 1),
            [
                Step::Learner(7, "host-7:1".to_owned()),
                Step::Learner(8, "host-8:1".to_owned()),
                Step::Voter(7),
                Step::Unvoter(3),
                Step::Remove(3),
            ]
        );
        assert_eq!(steps(&aim, &aim, 1), []);
    }

    #[test]
    fn a_vote_is_not_given_up_while_another_has_not_arrived() {
        let (lane, aim) = (members(&[1, 2, 3], &[7]), members(&[1, 2, 7], &[]));
        assert_eq!(next_step(&lane, &aim, 1, |_| false), None);
        assert_eq!(next_step(&lane, &aim, 1, |_| true), Some(Step::Voter(7)));
    }

    #[test]
    fn a_leader_that_goes_hands_over_first() {
        let (lane, aim) = (members(&[1, 2, 3], &[]), members(&[2, 3], &[]));
        assert_eq!(steps(&lane, &aim, 1), [Step::HandOver]);
        assert_eq!(steps(&lane, &aim, 2), [Step::Unvoter(1), Step::Remove(1)]);
    }

    #[test]
    fn an_address_follows() {
        let lane = members(&[1, 2], &[]);
        let mut aim = lane.clone();
        aim.addresses.insert(2, "other:1".to_owned());
        assert_eq!(steps(&lane, &aim, 1), [Step::Address(2, "other:1".to_owned())]);
    }
}
