//! The built-in policy: spread over zones, then by chance.

use std::cmp::Ordering;

use whiskraft_types::InvokerId;

use crate::Random;
use crate::placement::{Candidate, Placement, PlacementRequest, PlacementSettings};

/// A random one of those in the zones where the queue has the fewest containers.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltInPlacement {
    /// How the invokers are divided.
    pub settings: PlacementSettings,
}

impl Placement for BuiltInPlacement {
    fn settings(&self) -> &PlacementSettings {
        &self.settings
    }

    fn choose(
        &self,
        request: &PlacementRequest,
        fitting: &[&Candidate],
        random: &mut Random,
    ) -> Option<InvokerId> {
        random_best(fitting, |candidate| zone_load(request, candidate), random)
    }
}

/// Containers of the queue in the zone of a candidate.
pub(super) fn zone_load(request: &PlacementRequest, candidate: &Candidate) -> u32 {
    request.zones.get(&candidate.zone).copied().unwrap_or(0)
}

/// A random one of those with the lowest rank.
pub(super) fn random_best<R: Ord>(
    fitting: &[&Candidate],
    rank: impl Fn(&Candidate) -> R,
    random: &mut Random,
) -> Option<InvokerId> {
    let (mut best, mut equals) = (None, Vec::new());
    for candidate in fitting {
        let rank = rank(candidate);
        match best.as_ref().map(|best| rank.cmp(best)) {
            Some(Ordering::Greater) => continue,
            Some(Ordering::Equal) => {}
            Some(Ordering::Less) | None => {
                best = Some(rank);
                equals.clear();
            }
        }
        equals.push(candidate);
    }
    equals
        .get(random.below(equals.len()))
        .map(|candidate| candidate.invoker)
}
