//! Every lane is led where it belongs, so that each scheduler leads one, or as many as any other.

use std::time::Duration;

use tokio::time::Instant;
use whiskraft_types::SchedulerId;

use super::ROUND_PAUSE;
use crate::clock;
use crate::core::{Core, Group};

/// Pause after a lane was moved, or could not be.
const MOVE_PAUSE: Duration = Duration::from_secs(2);
/// Entries that the next leader may lack: few enough to be there in a moment.
const LAG_MAX: u64 = 100;

/// The voter that should lead a lane: those of group 0 that do not drain take turns.
pub(crate) fn preferred(core: &Core, lane: u32) -> Option<u64> {
    let voters: Vec<u64> = core.metrics(|metrics| metrics.membership_config.voter_ids().collect());
    let draining = core.shared.read(|state| {
        let members = state.members().filter(|(_, member)| member.draining);
        members.map(|(id, _)| id.0).collect::<Vec<_>>()
    });
    let staying: Vec<u64> = voters
        .iter()
        .copied()
        .filter(|voter| !draining.contains(voter))
        .collect();
    turn(if staying.is_empty() { &voters } else { &staying }, lane)
}

/// Whose turn a lane is.
fn turn(voters: &[u64], lane: u32) -> Option<u64> {
    let turn = usize::try_from(lane.checked_sub(1)?).ok()?;
    voters.get(turn.checked_rem(voters.len())?).copied()
}

/// Moves a lane that this node leads to where it belongs, when that node has been well for a while.
pub(super) async fn place(core: Core, group: Group) {
    let mut well: Option<(u64, Instant)> = None;
    loop {
        clock::beat(ROUND_PAUSE).await;
        let wanted = preferred(&core, group.group).filter(|wanted| *wanted != group.id());
        let wanted = wanted.filter(|wanted| group.lease().is_some() && is_ready(&group, *wanted));
        let now = clock::now();
        well = match (wanted, well) {
            (Some(wanted), Some((known, since))) if wanted == known => Some((wanted, since)),
            (Some(wanted), _) => Some((wanted, now)),
            (None, _) => None,
        };
        if let Some((wanted, since)) = well
            && now.duration_since(since) >= group.settings.lane_calm
        {
            tracing::info!(lane = group.group, to = %SchedulerId(wanted), "lane moves to where it belongs");
            if let Err(error) = group.raft.trigger().transfer_leader(wanted).await {
                tracing::warn!(lane = group.group, %error, "leadership not handed over");
            }
            well = None;
            tokio::time::sleep(MOVE_PAUSE).await;
        }
    }
}

/// Whether a node could take over at once.
fn is_ready(group: &Group, id: u64) -> bool {
    let has_log = group.metrics(|metrics| {
        let is_voter = metrics.membership_config.voter_ids().any(|voter| voter == id);
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|replication| *replication.get(&id)?);
        let last = metrics.last_log_index.unwrap_or_default();
        is_voter && matched.is_some_and(|matched| matched.index + LAG_MAX >= last)
    });
    has_log && group.peers.is_reachable(id)
}

#[cfg(test)]
mod tests {
    use super::turn;

    #[test]
    fn lanes_are_spread_evenly() {
        let voters = [1, 4, 9];
        let turns: Vec<_> = (1..=7).filter_map(|lane| turn(&voters, lane)).collect();
        assert_eq!(turns, [1, 4, 9, 1, 4, 9, 1]);
        assert_eq!(turn(&[], 1), None);
        assert_eq!(turn(&voters, 0), None);
    }
}
