//! Pools of invokers: shares are of the memory that a container could have at all. What is dedicated to others, of other kinds or
//! too small a rest is nothing that anybody could give or take.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_queue::{Candidates, FairShares, Holding, useful_memory};
use whiskraft_types::{ByteSize, ContainerId, InvokerId, NamespaceName, QueueKey};

use crate::creation::actor::CreationActor;
use crate::creation::in_progress::OnItsWay;
use crate::creation::shares::shares_of;

/// Queues whose containers are looked at in one go; what more wait come when these are served.
const QUEUES_MAX: usize = 1024;

/// Containers without a place, by id.
pub(super) type Placeless = BTreeMap<ContainerId, OnItsWay>;

/// The invokers that may run some container, and who may have how much of them.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) invokers: BTreeSet<InvokerId>,
    pub(super) shares: FairShares,
}

impl Pool {
    /// What is free for containers of a size; rests that are too small for one are not.
    pub(super) fn free(&self, candidates: &Candidates, memory: ByteSize) -> ByteSize {
        let free = self
            .invokers
            .iter()
            .filter_map(|invoker| candidates.left(*invoker));
        free.filter(|free| *free >= memory)
            .fold(ByteSize::ZERO, ByteSize::saturating_add)
    }
}

/// The pools of everything that waits, and the order of their namespaces over all of them.
#[derive(Debug)]
pub(super) struct Pools {
    pools: Vec<Pool>,
    /// By queue; `None` if no invoker could ever run its containers. They want no memory.
    of: BTreeMap<QueueKey, Option<usize>>,
    pub(super) order: FairShares,
}

impl Pools {
    pub(super) fn of(&self, key: &QueueKey) -> Option<&Pool> {
        self.pools.get((*self.of.get(key)?)?)
    }

    /// The pool of a queue, with its number.
    pub(super) fn numbered(&self, key: &QueueKey) -> Option<(usize, &Pool)> {
        let at = (*self.of.get(key)?)?;
        Some((at, self.pools.get(at)?))
    }

    /// Notes that a container got its place.
    pub(super) fn take(&mut self, key: &QueueKey, memory: ByteSize) {
        self.order.take(&key.namespace, memory);
        if let Some(Some(at)) = self.of.get(key)
            && let Some(pool) = self.pools.get_mut(*at)
        {
            pool.shares.take(&key.namespace, memory);
        }
    }

    /// Notes that a container goes: what it held is nobody's in all pools that have its invoker.
    pub(super) fn lose(&mut self, victim: &Holding) {
        self.order.lose(&victim.namespace, victim.loss());
        let with_it = self
            .pools
            .iter_mut()
            .filter(|pool| pool.invokers.contains(&victim.invoker));
        with_it.for_each(|pool| pool.shares.lose(&victim.namespace, victim.loss()));
    }

    pub(super) fn last(&self) -> Option<NamespaceName> {
        self.order.last().cloned()
    }
}

impl CreationActor {
    /// Containers of all schedulers that have no place and are not given up; of our own those on the list.
    pub(super) fn placeless(&self) -> Placeless {
        let age_max = self.settings.timeout(true);
        let rows = self.parts.in_progress.pick(|id, row| {
            if self.jobs.contains(id) {
                self.waiting.contains(id)
            } else {
                row.invoker.is_none() && self.now.saturating_since(row.since) < age_max
            }
        });
        rows.into_iter().collect()
    }

    /// Divides the memory of each pool.
    pub(super) fn pools(&mut self, placeless: &Placeless, candidates: &Candidates) -> Pools {
        let (of, sets) = self.sort(placeless, candidates);
        let smallest = |on: &dyn Fn(usize) -> bool| {
            let rows = placeless
                .values()
                .filter(|row| matches!(of.get(&row.key), Some(Some(at)) if on(*at)));
            rows.map(|row| row.memory).min().unwrap_or_default()
        };
        let useful = |invokers: &BTreeSet<InvokerId>, smallest| {
            let on = candidates.iter().filter(|one| invokers.contains(&one.invoker));
            useful_memory(on.map(|one| (one.total, one.free)), smallest)
        };
        let demand = |counts: &dyn Fn(usize) -> bool| {
            self.parts.in_progress.wanted(|id, row| {
                placeless.contains_key(&id) && matches!(of.get(&row.key), Some(Some(at)) if counts(*at))
            })
        };
        let all: BTreeSet<InvokerId> = candidates
            .iter()
            .filter(|one| one.usable)
            .map(|one| one.invoker)
            .collect();
        let (now, reclaiming, node) = (self.now, &mut self.reclaiming, &self.parts.context.node);
        node.read(|state| reclaiming.prune(now, state));
        let reclaiming = &*reclaiming;
        let shares = |invokers: &BTreeSet<InvokerId>, counts: &dyn Fn(usize) -> bool| {
            let total = useful(invokers, smallest(counts));
            let wanted = demand(counts);
            node.read(|state| shares_of(state, invokers, total, &wanted, reclaiming))
        };
        let order = shares(&all, &|_| true).after(self.turn.take());
        let pools = sets.iter().map(|invokers| {
            // What may also go elsewhere wants memory here too.
            let overlaps = |at: usize| sets.get(at).is_some_and(|other| !other.is_disjoint(invokers));
            Pool {
                invokers: invokers.clone(),
                shares: shares(invokers, &overlaps),
            }
        });
        let pools = pools.collect();
        Pools { pools, of, order }
    }

    /// Which queue's containers may go to which invokers, each set once.
    fn sort(
        &mut self,
        placeless: &Placeless,
        candidates: &Candidates,
    ) -> (BTreeMap<QueueKey, Option<usize>>, Vec<BTreeSet<InvokerId>>) {
        let (mut of, mut sets) = (BTreeMap::new(), Vec::<BTreeSet<InvokerId>>::new());
        for (id, row) in placeless {
            if of.len() >= QUEUES_MAX {
                break;
            }
            if of.contains_key(&row.key) {
                continue;
            }
            let Some(request) = self.request_of(*id, row) else {
                of.insert(row.key.clone(), None);
                continue;
            };
            let able = self.placer.able(&request, candidates);
            let at = (!able.is_empty()).then(|| {
                sets.iter().position(|set| *set == able).unwrap_or_else(|| {
                    sets.push(able);
                    sets.len() - 1
                })
            });
            of.insert(row.key.clone(), at);
        }
        (of, sets)
    }
}
