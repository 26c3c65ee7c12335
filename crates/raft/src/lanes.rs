//! Which lane is led where.

use crate::core::Core;
use crate::journal::Lane;

/// The voter that should lead a lane: the voters of group 0 take turns.
pub(crate) fn preferred(core: &Core, lane: &Lane) -> Option<u64> {
    let voters: Vec<u64> = core.metrics(|metrics| metrics.membership_config.voter_ids().collect());
    let turn = u64::from(lane.group.group).checked_sub(1)?;
    let count = u64::try_from(voters.len()).ok()?;
    voters
        .get(usize::try_from(turn.checked_rem(count)?).ok()?)
        .copied()
}
