//! Whose containers make room for a namespace below its entitlement.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use whiskraft_types::{ByteSize, ContainerId, Instant, InvokerId, NamespaceName};

use crate::fair::{FairShares, Share};

/// A container that may have to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub container: ContainerId,
    /// Whose.
    pub namespace: NamespaceName,
    /// Where it is.
    pub invoker: InvokerId,
    /// What its end sets free.
    pub memory: ByteSize,
    /// What would be lost with it.
    pub kind: HoldingKind,
    /// Since when it is of this kind.
    pub since: Instant,
}

/// How much the loss of a container costs, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldingKind {
    /// Paused. It holds nothing of its namespace's share.
    Warm,
    /// Running, with nothing to do.
    Idle,
    /// At work: it ends after its current activation.
    Busy,
}

/// Where room is made, and by whose end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The invoker that will have the memory.
    pub invoker: InvokerId,
    /// What the victims set free there.
    pub freed: ByteSize,
    /// Who has to end, the cheapest first. Empty if the memory is there already.
    pub victims: Vec<Holding>,
}

/// How much namespaces above their entitlement have to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// What they have above it.
    Share,
    /// For the first container of a namespace: also the one with which they fall below it, but not their last.
    First,
}

impl FairShares {
    /// Containers whose end makes `needed` free on one invoker for a container of `whom`, on top of what is free there
    /// already. `None` if no invoker can be helped.
    ///
    /// `free` is what each invoker has left with all of `of` in place. Victims of earlier calls that are still there
    /// belong into neither: they are told by [`lose`](Self::lose), and their memory is free for those they end for. Both
    /// name invokers only that may run the container.
    ///
    /// Victims belong to namespaces above their entitlement and leave them at it or above. If there are none and `whom`
    /// holds nothing, they may leave them below it, with at least one container: what is above an entitlement may be less
    /// than a container for each of many, and nobody would ever give any. On an invoker paused ones go first, then idle,
    /// then busy ones, of each kind those of the namespace that is the most above, the oldest first. Of the invokers the
    /// one with the cheapest victims is taken.
    #[must_use]
    pub fn room(
        &self,
        whom: &NamespaceName,
        needed: ByteSize,
        free: &BTreeMap<InvokerId, ByteSize>,
        of: impl IntoIterator<Item = Holding>,
    ) -> Option<Room> {
        let mut on: BTreeMap<InvokerId, Vec<Ranked>> =
            free.keys().map(|invoker| (*invoker, Vec::new())).collect();
        let surplus = self.surplus();
        for holding in of {
            let rank = surplus.iter().position(|(name, _)| *name == holding.namespace);
            if let Some(rank) = rank {
                on.entry(holding.invoker)
                    .or_default()
                    .push(Ranked { rank, holding });
            }
        }
        let missing =
            |invoker: &InvokerId| needed.saturating_sub(free.get(invoker).copied().unwrap_or_default());
        let holds_nothing = self
            .uses
            .get(whom)
            .is_none_or(|share| share.held == ByteSize::ZERO);
        self.cheapest(Claim::Share, &mut on, missing)
            .or_else(|| holds_nothing.then(|| self.cheapest(Claim::First, &mut on, missing))?)
    }

    /// The same as [`room`](Self::room), and the victims count as lost from then on.
    pub fn reclaim(
        &mut self,
        whom: &NamespaceName,
        needed: ByteSize,
        free: &BTreeMap<InvokerId, ByteSize>,
        of: impl IntoIterator<Item = Holding>,
    ) -> Option<Room> {
        let room = self.room(whom, needed, free, of)?;
        for victim in &room.victims {
            self.lose(&victim.namespace, victim.loss());
        }
        Some(room)
    }

    fn cheapest(
        &self,
        claim: Claim,
        on: &mut BTreeMap<InvokerId, Vec<Ranked>>,
        missing: impl Fn(&InvokerId) -> ByteSize,
    ) -> Option<Room> {
        let rooms = on.iter_mut().filter_map(|(invoker, holdings)| {
            let victims = self.victims(claim, missing(invoker), holdings)?;
            let cost = cost(&victims);
            let victims: Vec<_> = victims.into_iter().map(|victim| victim.holding.clone()).collect();
            let freed = sum(&victims);
            let room = Room {
                invoker: *invoker,
                freed,
                victims,
            };
            Some((cost, room))
        });
        rooms.min_by_key(|(cost, _)| *cost).map(|(_, room)| room)
    }

    /// The cheapest of one invoker's containers that together make `missing`; `None` if they do not. The oldest first
    /// can miss a sum that the surplus allows. Then other orders are tried; the last one sets free all that a share claims,
    /// if each size divides the next larger one.
    fn victims<'a>(
        &self,
        claim: Claim,
        missing: ByteSize,
        holdings: &'a mut [Ranked],
    ) -> Option<Vec<&'a Ranked>> {
        type Sort = fn(&mut [Ranked]);
        let orders: [Sort; 4] = [
            |of| of.sort_by_key(Ranked::order),
            |of| of.sort_by_key(|ranked| (ranked.holding.kind, Reverse(ranked.holding.memory))),
            |of| of.sort_by_key(|ranked| (ranked.holding.kind, ranked.holding.memory)),
            |of| of.sort_by_key(|ranked| Reverse(ranked.holding.memory)),
        ];
        let fits = orders.into_iter().any(|sort| {
            sort(holdings);
            self.victims_in_order(claim, missing, holdings).is_some()
        });
        fits.then(|| self.victims_in_order(claim, missing, holdings))?
    }

    fn victims_in_order<'a>(
        &self,
        claim: Claim,
        missing: ByteSize,
        holdings: &'a [Ranked],
    ) -> Option<Vec<&'a Ranked>> {
        let mut lost: BTreeMap<usize, ByteSize> = BTreeMap::new();
        let (mut victims, mut freed) = (Vec::new(), ByteSize::ZERO);
        for ranked @ Ranked { rank, holding } in holdings {
            if freed >= missing {
                break;
            }
            let lost = lost.entry(*rank).or_default();
            let share = self.uses.get(&holding.namespace);
            if share.is_some_and(|share| share.may_lose(claim, *lost, holding.loss())) {
                *lost = lost.saturating_add(holding.loss());
                freed = freed.saturating_add(holding.memory);
                victims.push(ranked);
            }
        }
        (freed >= missing).then(|| spare(victims, missing))
    }
}

impl Share {
    /// Whether one more container may go after others that held `lost`.
    fn may_lose(&self, claim: Claim, lost: ByteSize, more: ByteSize) -> bool {
        let both = lost.saturating_add(more);
        match claim {
            Claim::Share => both <= self.surplus(),
            Claim::First => lost < self.surplus() && both < self.held,
        }
    }
}

/// A container of a namespace with a surplus.
struct Ranked {
    /// Place of its namespace among those above their entitlement.
    rank: usize,
    holding: Holding,
}

impl Ranked {
    /// The cheapest first.
    const fn order(&self) -> (HoldingKind, usize, Instant, ContainerId) {
        let Holding {
            kind,
            since,
            container,
            ..
        } = self.holding;
        (kind, self.rank, since, container)
    }
}

impl Holding {
    /// What its namespace's share loses with it.
    #[must_use]
    pub const fn loss(&self) -> ByteSize {
        match self.kind {
            HoldingKind::Warm => ByteSize::ZERO,
            HoldingKind::Idle | HoldingKind::Busy => self.memory,
        }
    }
}

/// Drops the dearest victims that the others make superfluous.
fn spare(mut victims: Vec<&Ranked>, missing: ByteSize) -> Vec<&Ranked> {
    victims.sort_by_key(|victim| victim.order());
    let mut freed = sum(victims.iter().map(|victim| &victim.holding));
    for at in (0..victims.len()).rev() {
        let without = freed.saturating_sub(victims[at].holding.memory);
        if without >= missing {
            freed = without;
            victims.remove(at);
        }
    }
    victims
}

fn sum<'a>(of: impl IntoIterator<Item = &'a Holding>) -> ByteSize {
    of.into_iter()
        .fold(ByteSize::ZERO, |sum, holding| sum.saturating_add(holding.memory))
}

/// Memory of the busy ones, of those that are not paused, of all; of equals whose namespaces are the most above, then the
/// oldest.
fn cost(victims: &[&Ranked]) -> (ByteSize, ByteSize, ByteSize, usize, Instant) {
    let of = |kind: HoldingKind| {
        let those = victims.iter().filter(|victim| victim.holding.kind >= kind);
        sum(those.map(|victim| &victim.holding))
    };
    let rank = victims.iter().map(|victim| victim.rank).max();
    let oldest = victims.iter().map(|victim| victim.holding.since).min();
    (
        of(HoldingKind::Busy),
        of(HoldingKind::Idle),
        of(HoldingKind::Warm),
        rank.unwrap_or_default(),
        oldest.unwrap_or_default(),
    )
}
