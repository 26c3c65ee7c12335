//! Turns within a namespace that has its share of the memory: a queue with work and not one container gets a place from
//! another queue of the namespace, which may then wait for its own turn. Without it the queues that came first would keep
//! all places for as long as they have work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_queue::{Candidates, Holding, HoldingKind, PlacementRequest};
use whiskraft_state::{ContainerState, State};
use whiskraft_types::{ByteSize, ContainerId, Instant, InvokerId, NamespaceName, QueueKey};

use crate::creation::place::Placer;
use crate::creation::pools::{Placeless, Pool};
use crate::shard::rotation::{Held, victims};

/// Time that a container has its place before it goes to another queue, when each place changes hands in turn.
const TENURE: Duration = Duration::from_secs(1);

/// Containers that would be the first ones of their queues.
#[derive(Debug, Default)]
pub(super) struct Starving {
    /// One per queue, the oldest.
    containers: BTreeSet<ContainerId>,
    /// What they need, by namespace.
    memory: BTreeMap<NamespaceName, ByteSize>,
}

impl Starving {
    /// Picks them from containers without a place that count.
    pub(super) fn of(state: &State, placeless: &Placeless, counts: impl Fn(&QueueKey) -> bool) -> Self {
        let mut queues = BTreeMap::<&QueueKey, (Instant, ContainerId, ByteSize)>::new();
        for (id, row) in placeless.iter().filter(|(_, row)| counts(&row.key)) {
            let own = (row.since, *id, row.memory);
            let first = queues.entry(&row.key).or_insert(own);
            *first = own.min(*first);
        }
        queues.retain(|key, _| !has_place(state, key));
        let mut starving = Self::default();
        for (key, (_, id, memory)) in queues {
            starving.containers.insert(id);
            let sum = starving.memory.entry(key.namespace.clone()).or_default();
            *sum = sum.saturating_add(memory);
        }
        starving
    }

    pub(super) fn contains(&self, container: ContainerId) -> bool {
        self.containers.contains(&container)
    }

    /// Memory that others of the namespace leave for them.
    pub(super) fn kept(&self, namespace: &NamespaceName) -> ByteSize {
        self.memory.get(namespace).copied().unwrap_or_default()
    }

    /// One of them has its place.
    pub(super) fn serve(&mut self, container: ContainerId, namespace: &NamespaceName, memory: ByteSize) {
        if self.containers.remove(&container)
            && let Some(sum) = self.memory.get_mut(namespace)
        {
            *sum = sum.saturating_sub(memory);
        }
    }
}

/// Whether a queue has a container that runs or is being created.
fn has_place(state: &State, key: &QueueKey) -> bool {
    let mut rows = state.containers_of(key);
    rows.any(|(_, row)| row.state != ContainerState::Warm && row.invoker.is_some())
}

/// When each namespace may take the next place from a queue of its own.
#[derive(Debug, Default)]
pub(super) struct Turns {
    next: BTreeMap<NamespaceName, Instant>,
}

impl Turns {
    pub(super) fn prune(&mut self, now: Instant) {
        self.next.retain(|_, next| *next > now);
    }

    /// Containers of the namespace's other queues, all on one invoker, whose end makes room for a first container; none while
    /// its places changed hands too recently. `planned` is what is free when all that was told to end has.
    pub(super) fn take(
        &mut self,
        now: Instant,
        state: &State,
        (placer, pool, planned): (&mut Placer, &Pool, &Candidates),
        request: &PlacementRequest,
        is_leaving: impl Fn(ContainerId) -> bool,
    ) -> Vec<Holding> {
        if self.next.contains_key(&request.namespace) {
            return Vec::new();
        }
        let running: Vec<_> = state
            .containers_in(&request.namespace)
            .filter(|(id, row)| row.state == ContainerState::Running && !is_leaving(*id))
            .collect();
        let held: Vec<_> = running
            .iter()
            .map(|(container, row)| Held {
                container: *container,
                key: row.key.clone(),
                since: row.since,
                invoker: row.invoker.map(|(invoker, _)| invoker),
            })
            .collect();
        let able = |invoker: &InvokerId| pool.invokers.contains(invoker);
        let mut on = BTreeMap::<InvokerId, Vec<Holding>>::new();
        for id in victims(&held, held.len()) {
            let Some((container, row)) = running.iter().find(|(container, _)| *container == id) else {
                continue;
            };
            let Some(invoker) = row.invoker.map(|(invoker, _)| invoker).filter(able) else {
                continue;
            };
            let victims = on.entry(invoker).or_default();
            victims.push(Holding {
                container: *container,
                namespace: request.namespace.clone(),
                invoker,
                memory: row.memory,
                kind: HoldingKind::Busy,
                since: now,
            });
            let missing = request
                .memory
                .saturating_sub(planned.left(invoker).unwrap_or_default());
            if sum(victims) >= missing {
                if !placer.could_place(request, planned, invoker) {
                    continue;
                }
                let places = u32::try_from(held.len()).unwrap_or(u32::MAX).max(1);
                self.next.insert(request.namespace.clone(), now + TENURE / places);
                return spare(on.remove(&invoker).unwrap_or_default(), missing);
            }
        }
        Vec::new()
    }
}

fn sum(victims: &[Holding]) -> ByteSize {
    victims
        .iter()
        .fold(ByteSize::ZERO, |sum, victim| sum.saturating_add(victim.memory))
}

/// Leaves out those without whom there is enough, the last chosen first.
fn spare(mut victims: Vec<Holding>, missing: ByteSize) -> Vec<Holding> {
    for at in (0..victims.len()).rev() {
        if sum(&victims).saturating_sub(victims[at].memory) >= missing {
            victims.remove(at);
        }
    }
    victims
}
