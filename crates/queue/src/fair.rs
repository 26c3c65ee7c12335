//! Fair shares: who gets memory, and who gives some back, when there is too little for all.
//!
//! The creation actor builds [`FairShares`] from the replicated tables for each batch of placements. The resource is the
//! memory that containers hold, in progress and running; paused ones hold nothing, their memory is free. This is
//! weighted deficit round robin with the deficit computed from what is held instead of remembered, so a new leader goes on
//! by the same numbers as the old one, and so do the other schedulers.
//!
//! Invariant: a namespace at or below its entitlement loses no container. By a loss none falls below it, but for the first
//! container of another; then it keeps at least one.
//! Invariant: no memory lies idle for somebody who could not be next: among those who want some, the one with the least
//! per weight may always take it.

mod reclaim;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use whiskraft_types::{ByteSize, Instant, NamespaceName};

pub use reclaim::{Holding, HoldingKind, Room};

/// What one namespace holds and waits for, over all schedulers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceUse {
    /// Which.
    pub namespace: NamespaceName,
    /// Its share relative to the others; zero counts as one.
    pub weight: u32,
    /// Memory of its containers in progress and running that have a place.
    pub held: ByteSize,
    /// Memory of its containers that are reserved and have no place yet. One that waits for something else than memory
    /// (no invoker may run it) should not be counted: others would keep memory free for it.
    pub wanted: ByteSize,
    /// Since when it has waited without getting any: the later of when the oldest of those was reserved, and when one of
    /// its containers last got a place. Of those that hold the same, the one that waits longest comes first.
    pub waits_since: Instant,
}

/// Entitlements of all namespaces to the memory of the cluster.
#[derive(Debug, Clone)]
pub struct FairShares {
    uses: BTreeMap<NamespaceName, Share>,
    /// Who took memory last: of those that hold the same and have waited as long, names after it come before those up to
    /// it.
    last: Option<NamespaceName>,
}

#[derive(Debug, Clone, Copy)]
struct Share {
    weight: u32,
    held: ByteSize,
    wanted: ByteSize,
    entitled: ByteSize,
    /// Places taken since the shares were made: whoever has got one waits behind its equals.
    taken: u32,
    waits_since: Instant,
}

impl FairShares {
    /// Weighted max-min shares of `total`: who wants less than its share leaves the rest to the others, by their
    /// weights. Several entries of one namespace are added up; the last weight counts.
    #[must_use]
    pub fn new(total: ByteSize, uses: Vec<NamespaceUse>) -> Self {
        let mut shares = BTreeMap::new();
        for one in uses {
            let since = one.waits_since;
            let share = shares.entry(one.namespace).or_insert(Share::nothing(since));
            share.weight = one.weight.max(1);
            share.waits_since = share.waits_since.min(since);
            share.held = share.held.saturating_add(one.held);
            share.wanted = share.wanted.saturating_add(one.wanted);
        }
        divide(total, &mut shares);
        Self {
            uses: shares,
            last: None,
        }
    }

    /// Goes on with the round in which `last` was served; without it those that hold the same and have waited as long would
    /// be served by name in every batch.
    #[must_use]
    pub fn after(mut self, last: Option<NamespaceName>) -> Self {
        self.last = last;
        self
    }

    /// Notes that a container of the namespace got its place.
    pub fn take(&mut self, namespace: &NamespaceName, memory: ByteSize) {
        if let Some(share) = self.uses.get_mut(namespace) {
            share.held = share.held.saturating_add(memory);
            share.wanted = share.wanted.saturating_sub(memory);
            share.taken = share.taken.saturating_add(1);
        }
        self.last = Some(namespace.clone());
    }

    /// Who took memory last.
    #[must_use]
    pub const fn last(&self) -> Option<&NamespaceName> {
        self.last.as_ref()
    }

    /// Memory that the namespace may hold when all want theirs; zero if it is unknown.
    #[must_use]
    pub fn entitled(&self, namespace: &NamespaceName) -> ByteSize {
        self.uses
            .get(namespace)
            .map_or(ByteSize::ZERO, |share| share.entitled)
    }

    /// Whether others have to make room for the namespace: it waits below its entitlement, or for its first container.
    #[must_use]
    pub fn may_reclaim(&self, namespace: &NamespaceName) -> bool {
        self.uses.get(namespace).is_some_and(|share| {
            share.wanted > ByteSize::ZERO && (share.held == ByteSize::ZERO || share.held < share.entitled)
        })
    }

    /// Whether the namespace has nothing at all.
    #[must_use]
    pub fn holds_nothing(&self, namespace: &NamespaceName) -> bool {
        let share = self.uses.get(namespace);
        share.is_none_or(|share| share.held == ByteSize::ZERO)
    }

    /// Whether the namespace may take `memory` of the `free` one. No only if it would be above its entitlement, and what
    /// is left would not cover what namespaces that hold less per weight still want up to theirs.
    #[must_use]
    pub fn may_take(&self, namespace: &NamespaceName, memory: ByteSize, free: ByteSize) -> bool {
        let Some(own) = self.uses.get(namespace) else {
            return true;
        };
        if own.held.saturating_add(memory) <= own.entitled {
            return true;
        }
        let before = self
            .uses
            .values()
            .filter(|other| by_held(other, own) == Ordering::Less);
        let kept = before.fold(ByteSize::ZERO, |sum, other| sum.saturating_add(other.owed()));
        kept == ByteSize::ZERO || free >= memory.saturating_add(kept)
    }

    /// Whose turn it is: the one that holds the least per weight; of equals the one that waits longest.
    #[must_use]
    pub fn next<'a>(&self, among: impl IntoIterator<Item = &'a NamespaceName>) -> Option<NamespaceName> {
        let last = self.last.as_ref();
        let unknown = Share::nothing(Instant::default());
        let share = |namespace: &NamespaceName| self.uses.get(namespace).unwrap_or(&unknown);
        let turn = |namespace: &'a NamespaceName| {
            let Share {
                taken, waits_since, ..
            } = *share(namespace);
            let is_later = last.is_some_and(|last| namespace <= last);
            (taken, waits_since, is_later, namespace)
        };
        among
            .into_iter()
            .min_by(|a, b| by_held(share(a), share(b)).then_with(|| turn(a).cmp(&turn(b))))
            .cloned()
    }

    /// Namespaces above their entitlement and by how much, the most per weight first.
    #[must_use]
    pub fn surplus(&self) -> Vec<(NamespaceName, ByteSize)> {
        let mut over: Vec<_> = self
            .uses
            .iter()
            .map(|(namespace, share)| (namespace, share.weight, share.surplus()))
            .filter(|(_, _, surplus)| *surplus > ByteSize::ZERO)
            .collect();
        over.sort_by(|(_, weight, surplus), (_, other_weight, other)| {
            per_weight(*other, *other_weight, *surplus, *weight)
        });
        over.into_iter()
            .map(|(namespace, _, surplus)| (namespace.clone(), surplus))
            .collect()
    }

    /// Notes that a container of the namespace is about to end: to make room, or by itself.
    pub fn lose(&mut self, namespace: &NamespaceName, memory: ByteSize) {
        if let Some(share) = self.uses.get_mut(namespace) {
            share.held = share.held.saturating_sub(memory);
        }
    }
}

/// Memory of invokers, each with what is free of it, that containers of at least `smallest` can use: a rest too small for
/// one is nobody's, and counted it would make everybody's entitlement more than there is.
#[must_use]
pub fn useful_memory(
    invokers: impl IntoIterator<Item = (ByteSize, ByteSize)>,
    smallest: ByteSize,
) -> ByteSize {
    let useful = invokers.into_iter().map(|(total, free)| match free < smallest {
        true => total.saturating_sub(free),
        false => total,
    });
    useful.fold(ByteSize::ZERO, ByteSize::saturating_add)
}

impl Share {
    const fn nothing(waits_since: Instant) -> Self {
        Self {
            weight: 1,
            held: ByteSize::ZERO,
            wanted: ByteSize::ZERO,
            entitled: ByteSize::ZERO,
            taken: 0,
            waits_since,
        }
    }

    /// What it still wants up to its entitlement.
    fn owed(&self) -> ByteSize {
        self.wanted.min(self.entitled.saturating_sub(self.held))
    }

    fn surplus(&self) -> ByteSize {
        self.held.saturating_sub(self.entitled)
    }
}

/// Fills the entitlements, from the one that wants the least per weight: each gets what it wants or its part of what the
/// ones before it have left.
fn divide(total: ByteSize, shares: &mut BTreeMap<NamespaceName, Share>) {
    let mut order: Vec<&mut Share> = shares.values_mut().collect();
    let demand = |share: &Share| share.held.saturating_add(share.wanted);
    order.sort_by(|a, b| per_weight(demand(a), a.weight, demand(b), b.weight));
    let mut weights: u128 = order.iter().map(|share| u128::from(share.weight)).sum();
    let mut left = u128::from(total.as_bytes());
    for share in order {
        let part = left * u128::from(share.weight) / weights;
        let entitled = part.min(u128::from(demand(share).as_bytes()));
        // Both are at most what a size holds.
        share.entitled = ByteSize::bytes(u64::try_from(entitled).unwrap_or(u64::MAX));
        left -= entitled;
        weights -= u128::from(share.weight);
    }
}

fn by_held(a: &Share, b: &Share) -> Ordering {
    per_weight(a.held, a.weight, b.held, b.weight)
}

/// Compares `a / a_weight` with `b / b_weight`, exactly.
fn per_weight(a: ByteSize, a_weight: u32, b: ByteSize, b_weight: u32) -> Ordering {
    let crossed = |size: ByteSize, weight: u32| u128::from(size.as_bytes()) * u128::from(weight);
    crossed(a, b_weight).cmp(&crossed(b, a_weight))
}
