//! Where a container is created: a pure choice over the invokers that have a session.
//!
//! The scheduler builds [`Candidates`] from its local tables, already lowered by every promise that the invokers have
//! not reported yet, and places a whole batch over them: each placement is debited at once, so a batch never promises
//! memory twice. The invoker may still refuse. Who may be chosen, and in which order of groups, is the same for every
//! policy (`eligible.rs`); a policy chooses among equals.

mod built_in;
mod candidate;
mod eligible;
mod least_loaded;
mod policy;
mod shortage;
mod warm;

#[cfg(test)]
mod placement_test;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use whiskraft_types::{ByteSize, InvokerId, NamespaceName};

pub use built_in::BuiltInPlacement;
pub use candidate::{Candidate, Candidates};
pub use eligible::partition;
pub use least_loaded::LeastLoaded;
pub use policy::{ParsePolicyError, PlacementPolicy};
pub use shortage::Shortage;
pub use warm::{WarmContainer, match_warm};

use crate::Random;
use eligible::Eligible;

/// What one container needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementRequest {
    /// Namespace that invokes.
    pub namespace: NamespaceName,
    /// Kind of the action.
    pub kind: String,
    /// Memory of the container.
    pub memory: ByteSize,
    /// Resources it asks for.
    pub tags: Vec<String>,
    /// Whether it cannot do without them.
    pub strict: bool,
    /// Whether its image must be pulled.
    pub blackbox: bool,
    /// Containers of the same queue per zone; zones with fewer are preferred among the invokers that fit.
    pub zones: BTreeMap<String, u32>,
    /// Invokers that failed this creation before; used again only if nothing else fits.
    pub failed: Vec<InvokerId>,
    /// Invokers that have said that they have no memory for it: they may run it, and do not fit.
    pub refused: Vec<InvokerId>,
}

/// How untagged invokers are divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacementSettings {
    /// Part of the untagged invokers, from the lowest id, for actions of managed kinds. Default 0.9.
    pub managed_fraction: f64,
    /// Part, from the highest id, for actions with images of their own. Default 0.1.
    pub blackbox_fraction: f64,
    /// Smallest container there is: an invoker with less left takes part no more. Default 128 MiB.
    pub memory_min: ByteSize,
}

impl Default for PlacementSettings {
    fn default() -> Self {
        Self {
            managed_fraction: 0.9,
            blackbox_fraction: 0.1,
            memory_min: ByteSize::mib(128),
        }
    }
}

/// Chooses invokers. A policy says how it chooses among those that have the memory; who those are is the same for all.
pub trait Placement: fmt::Debug + Send + Sync {
    /// How the invokers are divided.
    fn settings(&self) -> &PlacementSettings;

    /// Chooses one of `fitting`: equally eligible, each with the memory. `None` only if there is none.
    fn choose(
        &self,
        request: &PlacementRequest,
        fitting: &[&Candidate],
        random: &mut Random,
    ) -> Option<InvokerId>;

    /// Chooses an invoker for one container and debits it.
    ///
    /// # Errors
    /// What there is too little of.
    fn place(
        &self,
        request: &PlacementRequest,
        candidates: &mut Candidates,
        random: &mut Random,
    ) -> Result<InvokerId, Shortage> {
        let eligible = Eligible::of(self.settings(), request, candidates)?;
        let chosen = eligible
            .turns(request)
            .find_map(|fitting| self.choose(request, &fitting, random));
        let invoker = chosen.ok_or(Shortage::Memory)?;
        candidates.give(invoker, request.memory, self.settings().memory_min);
        Ok(invoker)
    }

    /// The invokers that could run the container if they were empty. If there are none it waits for something other than
    /// memory.
    fn able(&self, request: &PlacementRequest, candidates: &Candidates) -> BTreeSet<InvokerId> {
        let Ok(eligible) = Eligible::of(self.settings(), request, candidates) else {
            return BTreeSet::new();
        };
        let large_enough = eligible.all().filter(|one| one.total >= request.memory);
        large_enough.map(|one| one.invoker).collect()
    }

    /// Why the container gets no place, for people, with the numbers that say so.
    fn explain(&self, request: &PlacementRequest, candidates: &Candidates) -> String {
        shortage::explain(self.settings(), request, candidates)
    }
}
