//! Fair shares of the memory, from the tables: who may take some, and which containers of others make room.
//!
//! Every scheduler orders its own creations by the same tables, so they agree but for what a table does not have: whose invoker is
//! connected, since when somebody waits, and who was told to go. One of them makes room (`room.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_queue::{Candidates, FairShares, Holding, HoldingKind, NamespaceUse, PlacementRequest};
use whiskraft_state::{ContainerRecord, ContainerState, State};
use whiskraft_types::{ByteSize, ContainerId, Instant, InvokerId, NamespaceName};

use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::in_progress::Demand;
use crate::creation::place::Placer;
use crate::creation::pools::Pool;

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
    memory: ByteSize,
    at: Instant,
}

/// What was asked for and is not free yet.
#[derive(Debug, Default)]
pub(crate) struct Reclaiming {
    asked: BTreeMap<ContainerId, Asked>,
}

/// What namespaces hold on some invokers and want of them, as the tables have it. Whoever was told to end there holds nothing
/// any more.
pub(super) fn shares_of(
    state: &State,
    invokers: &BTreeSet<InvokerId>,
    total: ByteSize,
    wanted: &BTreeMap<NamespaceName, Demand>,
    reclaiming: &Reclaiming,
) -> FairShares {
    let rows = invokers.iter().flat_map(|invoker| state.containers_on(*invoker));
    let mut held = BTreeMap::<&NamespaceName, ByteSize>::new();
    for (_, row) in rows.filter(|(id, row)| row.state.holds_slot() && !reclaiming.has_asked(*id)) {
        let sum = held.entry(&row.key.namespace).or_default();
        *sum = sum.saturating_add(row.memory);
    }
    let names: BTreeSet<&NamespaceName> = held.keys().copied().chain(wanted.keys()).collect();
    let uses = names.into_iter().map(|namespace| {
        let demand = wanted.get(namespace);
        NamespaceUse {
            namespace: namespace.clone(),
            weight: state.namespace_limits(namespace).weight,
            held: held.get(namespace).copied().unwrap_or_default(),
            wanted: demand.map_or(ByteSize::ZERO, |demand| demand.memory),
            waits_since: demand.map_or_else(Instant::default, |demand| demand.since),
        }
    });
    FairShares::new(total, uses.collect())
}

impl Reclaiming {
    /// Forgets what is free, and what has to be asked for again.
    pub(crate) fn prune(&mut self, now: Instant, state: &State) {
        self.asked.retain(|id, asked| {
            let is_there = state.container(*id).is_some_and(|row| row.state.holds_slot());
            is_there && now.saturating_since(asked.at) < ASKED_AGE_MAX
        });
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

    /// Containers of namespaces with more than their share whose end makes one creation fit.
    pub(crate) fn victims(
        &self,
        context: &Context,
        placer: &mut Placer,
        pool: &Pool,
        request: &PlacementRequest,
        planned: &Candidates,
    ) -> Vec<Holding> {
        let shares = &pool.shares;
        let mut free: BTreeMap<_, _> = planned
            .iter()
            .filter(|candidate| pool.invokers.contains(&candidate.invoker))
            .map(|candidate| (candidate.invoker, candidate.free))
            .collect();
        let mut holdings = context.node.read(|state| self.holdings(state, shares));
        for _ in 0..INVOKERS_MAX {
            holdings.retain(|holding| free.contains_key(&holding.invoker));
            let room = shares.room(
                &request.namespace,
                request.memory,
                &free,
                holdings.iter().cloned(),
            );
            let Some(room) = room else { return Vec::new() };
            if !placer.could_place(request, planned, room.invoker) {
                free.remove(&room.invoker);
                continue;
            }
            return room.victims;
        }
        Vec::new()
    }

    /// Whether a container was told to end.
    pub(crate) fn has_asked(&self, container: ContainerId) -> bool {
        self.asked.contains_key(&container)
    }

    /// Tells a container to end after what runs in it; false if its invoker cannot be told now.
    pub(crate) fn ask(&mut self, now: Instant, streams: &ControlStreams, holding: &Holding) -> bool {
        if !streams.remove(holding.invoker, holding.container, false) {
            return false;
        }
        tracing::debug!(container = %holding.container, namespace = %holding.namespace, "container gives its memory to those with less");
        let asked = Asked {
            invoker: holding.invoker,
            memory: holding.memory,
            at: now,
        };
        self.asked.insert(holding.container, asked);
        true
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
    // The new container is among what is held there.
    if state.held_on(invoker).max(row.busy.saturating_add(memory)) <= row.profile.memory {
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
