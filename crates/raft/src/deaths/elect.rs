//! A group whose leader is known to be dead gets another one, without the wait for its silence.
//!
//! Each voter stops honouring the dead one's lease and asks whether it would be elected (a pre-vote), one after the other. Who
//! lacks entries is refused, and has disturbed nobody: the next one asks.

use std::time::Duration;

use openraft::raft::TransferLeaderRequest;

use crate::core::Group;

/// Pause before the first turn: who has not heard of the death yet would refuse.
const HEARD: Duration = Duration::from_millis(10);
/// Pause between the turns of two voters: a pre-vote, a vote and its sync on a healthy disk.
const TURN: Duration = Duration::from_millis(50);
/// Turns of one voter; after them the election timeout decides.
const TURNS_MAX: u32 = 3;

/// Takes part in the succession of a dead leader until its vote is none any more, or the turns are over. Does nothing if this
/// node does not follow it.
pub(super) async fn succeed(group: &Group, dead: u64) {
    let voters = group.metrics(|metrics| {
        let voters = metrics.membership_config.voter_ids();
        voters.filter(|voter| *voter != dead).collect::<Vec<_>>()
    });
    let Some(place) = place(&voters, group.id(), group.group) else {
        return;
    };
    let vote = group.metrics(|metrics| (metrics.current_leader == Some(dead)).then_some(metrics.vote));
    let Some(vote) = vote else {
        return;
    };
    tracing::info!(
        group = group.group,
        leader = dead,
        "leader is dead, another is elected"
    );
    // As if the dead one had handed over, to nobody. The core looks itself whether this vote is its own still.
    let handed_over = TransferLeaderRequest::new(vote, dead, None);
    if group.raft.handle_transfer_leader(handed_over).await.is_err() {
        return; // The node has stopped.
    }
    let mut pause = HEARD + TURN * place;
    for _ in 0..TURNS_MAX {
        let waiting = group.raft.wait(Some(pause));
        let changed = waiting.metrics(|metrics| metrics.vote != vote, "another vote");
        if changed.await.is_ok() || group.raft.trigger().elect(true).await.is_err() {
            return;
        }
        pause = TURN * u32::try_from(voters.len()).unwrap_or(1);
    }
}

/// When it is this voter's turn, from 0; `None` if it has no vote. Each group begins with another one, so that not all of them
/// come to the same node.
fn place(voters: &[u64], id: u64, group: u32) -> Option<u32> {
    let at = voters.iter().position(|voter| *voter == id)?;
    let first = usize::try_from(group).ok()? % voters.len();
    u32::try_from((at + voters.len() - first) % voters.len()).ok()
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn every_voter_has_a_turn_of_its_own_and_groups_begin_with_different_ones() {
        let voters = [1, 4, 9];
        let places = |group| voters.map(|voter| place(&voters, voter, group).unwrap());
        assert_eq!(places(0), [0, 1, 2]);
        assert_eq!(places(1), [2, 0, 1]);
        assert_eq!(places(5), [1, 2, 0]);
        assert_eq!(place(&voters, 2, 0), None, "a learner is not elected");
        assert_eq!(place(&[], 2, 0), None);
    }
}
