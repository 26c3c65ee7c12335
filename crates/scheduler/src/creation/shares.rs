//! Fair shares of the memory, from the tables: who may take some, and which containers of others make room.
//!
//! Every scheduler computes the same from the same tables for its own creations; one of them makes room (`room.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_queue::{Candidates, FairShares, Holding, HoldingKind, NamespaceUse, PlacementRequest};
use whiskraft_state::{ContainerRecord, ContainerState, State};
use whiskraft_types::{ByteSize, ContainerId, Instant, InvokerId, NamespaceName};

use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::in_progress::Demand;
use crate::creation::place::Placer;

/// Time after which a container that should have gone is told again: the command may have been lost.
const ASKED_AGE_MAX: Duration = Duration::from_secs(10);
/// Invokers looked at for one creation that needs room.
const INVOKERS_MAX: usize = 8;
/// Paused containers named in one creation.
const EVICT_MAX: usize = 16;

/// A container that was told to end, so that its memory comes free.
#[derive(Debug)]
struct Asked {
    invoker: InvokerId,
    namespace: NamespaceName,
    memory: ByteSize,
    at: Instant,
}

/// What was asked for and is not free yet.
#[derive(Debug, Default)]
pub(crate) struct Reclaiming {
    asked: BTreeMap<ContainerId, Asked>,
}

/// What namespaces hold and want, as the tables have it; `wanted` is the part without a place.
pub(crate) fn shares(
    state: &State,
    wanted: &BTreeMap<NamespaceName, Demand>,
    reclaiming: &Reclaiming,
) -> FairShares {
    let healthy = state.invokers().filter(|(_, row)| row.healthy);
    let total = healthy.fold(ByteSize::ZERO, |sum, (_, row)| {
        sum.saturating_add(row.profile.memory)
    });
    let uses = state.namespaces_counted().map(|(namespace, counts)| {
        let demand = wanted.get(namespace);
        let wanted = demand.map_or(ByteSize::ZERO, |demand| demand.memory);
        let leaving = wanted.saturating_add(reclaiming.of(namespace));
        NamespaceUse {
            namespace: namespace.clone(),
            weight: state.namespace_limits(namespace).weight,
            held: counts.memory.saturating_sub(leaving),
            wanted,
            waits_since: demand.map_or_else(Instant::default, |demand| demand.since),
        }
    });
    FairShares::new(total, uses.collect())
}

impl Reclaiming {
    /// Forgets what is free, and what has to be asked for again.
    pub(crate) fn prune(&mut self, now: Instant, state: &State) {
        self.asked.retain(|id, asked| {
            now.saturating_since(asked.at) < ASKED_AGE_MAX && state.container(*id).is_some()
        });
    }

    /// Memory of a namespace that is about to come free.
    fn of(&self, namespace: &NamespaceName) -> ByteSize {
        let asked = self.asked.values().filter(|asked| asked.namespace == *namespace);
        asked.fold(ByteSize::ZERO, |sum, asked| sum.saturating_add(asked.memory))
    }

    /// The candidates as they will be when everything asked for is free.
    pub(crate) fn planned(&self, candidates: &Candidates) -> Candidates {
        let mut coming = BTreeMap::<InvokerId, ByteSize>::new();
        for asked in self.asked.values() {
            let sum = coming.entry(asked.invoker).or_default();
            *sum = sum.saturating_add(asked.memory);
        }
        Candidates::new(candidates.iter().cloned().map(|mut candidate| {
            let coming = coming.get(&candidate.invoker).copied().unwrap_or_default();
            candidate.free = candidate.free.saturating_add(coming);
            candidate
        }))
    }

    /// Tells containers of namespaces with more than their share to end, so that one creation fits; whether there were
    /// some.
    pub(crate) fn make_room(
        &mut self,
        now: Instant,
        (context, streams): (&Context, &ControlStreams),
        placer: &mut Placer,
        shares: &FairShares,
        request: &PlacementRequest,
        planned: &Candidates,
    ) -> bool {
        let mut free: BTreeMap<_, _> = planned
            .iter()
            .filter(|candidate| candidate.usable)
            .map(|candidate| (candidate.invoker, candidate.free))
            .collect();
        let mut holdings = context.node.read(|state| self.holdings(state, shares));
        for _ in 0..INVOKERS_MAX {
            holdings.retain(|holding| free.contains_key(&holding.invoker));
            // Asked of a copy: those that end count as lost from the next look on.
            let room = shares.clone().reclaim(
                &request.namespace,
                request.memory,
                &free,
                holdings.iter().cloned(),
            );
            let Some(room) = room else { return false };
            if !placer.could_place(request, planned, room.invoker) {
                free.remove(&room.invoker);
                continue;
            }
            for holding in &room.victims {
                self.ask(now, streams, holding);
            }
            return !room.victims.is_empty();
        }
        false
    }

    /// Whether a container was told to end.
    pub(crate) fn has_asked(&self, container: ContainerId) -> bool {
        self.asked.contains_key(&container)
    }

    /// Tells a container to end after what runs in it.
    pub(crate) fn ask(&mut self, now: Instant, streams: &ControlStreams, holding: &Holding) {
        if !streams.remove(holding.invoker, holding.container, false) {
            return;
        }
        tracing::debug!(container = %holding.container, namespace = %holding.namespace, "container gives its memory to those with less");
        let asked = Asked {
            invoker: holding.invoker,
            namespace: holding.namespace.clone(),
            memory: holding.memory,
            at: now,
        };
        self.asked.insert(holding.container, asked);
    }

    /// Running containers of namespaces with more than their share. Which of them idle only their leaders know; those
    /// that do are paused in a moment and free then. The tables order them by age, which is all that is compared.
    fn holdings(&self, state: &State, shares: &FairShares) -> Vec<Holding> {
        let over = shares.surplus();
        let rows = over
            .iter()
            .flat_map(|(namespace, _)| state.containers_in(namespace));
        rows.filter(|(id, row)| row.state == ContainerState::Running && !self.asked.contains_key(id))
            .filter_map(|(container, row)| {
                Some(Holding {
                    container,
                    namespace: row.key.namespace.clone(),
                    invoker: row.invoker?.0,
                    memory: row.memory,
                    kind: HoldingKind::Busy,
                    since: age_of(row),
                })
            })
            .collect()
    }
}

/// Older rows have lower moments; nothing else is meant by them.
const fn age_of(row: &ContainerRecord) -> Instant {
    Instant::from_origin(Duration::from_micros(row.since.0))
}

/// Paused containers that an invoker should remove first for a new one of `memory`: those of namespaces with more than
/// their share, then the oldest. None while it has room without.
pub(crate) fn evict_first(
    state: &State,
    invoker: InvokerId,
    memory: ByteSize,
    shares: Option<&FairShares>,
) -> Vec<ContainerId> {
    let Some(row) = state.invoker(invoker) else {
        return Vec::new();
    };
    let held = state.containers_on(invoker);
    let held = held.fold(ByteSize::ZERO, |sum, (_, row)| sum.saturating_add(row.memory));
    // The new container is among them.
    if held.max(row.busy.saturating_add(memory)) <= row.profile.memory {
        return Vec::new();
    }
    let over = shares.map(FairShares::surplus).unwrap_or_default();
    let rank = |row: &ContainerRecord| {
        let at = over
            .iter()
            .position(|(namespace, _)| *namespace == row.key.namespace);
        at.unwrap_or(over.len())
    };
    let mut warm: Vec<_> = state
        .containers_on(invoker)
        .filter(|(_, row)| row.state == ContainerState::Warm)
        .map(|(id, row)| (rank(row), row.since, id))
        .collect();
    warm.sort_unstable();
    warm.truncate(EVICT_MAX);
    warm.into_iter().map(|(_, _, id)| id).collect()
}
