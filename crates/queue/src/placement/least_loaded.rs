//! The policy that evens out: the invoker with the largest part of its memory left.

use std::cmp::Reverse;

use whiskraft_types::InvokerId;

use crate::Random;
use crate::placement::built_in::{random_best, zone_load};
use crate::placement::{Candidate, Placement, PlacementRequest, PlacementSettings};

/// The one of which the largest part is free once the container is there; of equals the zone with the fewest containers
/// of the queue, then by chance.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastLoaded {
    /// How the invokers are divided.
    pub settings: PlacementSettings,
}

impl Placement for LeastLoaded {
    fn settings(&self) -> &PlacementSettings {
        &self.settings
    }

    fn choose(
        &self,
        request: &PlacementRequest,
        fitting: &[&Candidate],
        random: &mut Random,
    ) -> Option<InvokerId> {
        let rank = |candidate: &Candidate| (Reverse(left(request, candidate)), zone_load(request, candidate));
        random_best(fitting, rank, random)
    }
}

/// Part of the memory that will be free, in units of 1 / 2^32: finer than a byte of any invoker that matters, and whole,
/// so that equals are equal.
fn left(request: &PlacementRequest, candidate: &Candidate) -> u128 {
    let free = candidate.free.saturating_sub(request.memory).as_bytes();
    (u128::from(free) << 32) / u128::from(candidate.total.as_bytes().max(1))
}
