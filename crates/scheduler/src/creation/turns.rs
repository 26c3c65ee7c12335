//! Turns at places of which there are too few: a queue with work and not one container gets one from another queue of its
//! namespace, and a namespace without any from another one above its share, even its last. Who gave may then wait for
//! its own turn. Without it those that came first would keep all places for as long as they have work, or until their
//! idle containers are paused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_queue::{Candidates, Holding, HoldingKind, PlacementRequest};
use whiskraft_state::{ContainerRecord, ContainerState, State};
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
    rows.any(|(_, row)| row.state.holds_slot() && row.invoker.is_some())
}

/// Turns that nobody could take for so long are lost; within it several are taken at once.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Who takes turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// The queues of one namespace.
    Queues,
    /// The namespaces above their share, of which there are more than places.
    Namespaces,
}

/// When places may change hands next.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Among the queues of a namespace; `None` is among namespaces.
    next: BTreeMap<Option<NamespaceName>, Instant>,
}

impl Turns {
    /// Forgets the turns that nobody has taken for a while.
    pub(super) fn prune(&mut self, now: Instant) {
        self.next.retain(|_, next| *next + CATCH_UP > now);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.values().copied().min()
    }

    /// Containers, all on one invoker, whose end makes room for a first container; none while places changed hands too
    /// recently. Among queues the one with most containers gives, among namespaces the one that holds its place the longest, be
    /// it its last. `planned` is what is free when all that was told to end has.
    pub(super) fn take(
        &mut self,
        now: Instant,
        state: &State,
        among: Among,
        (placer, pool, planned): (&mut Placer, &Pool, &Candidates),
        request: &PlacementRequest,
        is_leaving: impl Fn(ContainerId) -> bool,
    ) -> Vec<Holding> {
        let turn = (among == Among::Queues).then(|| request.namespace.clone());
        let due = self.next.get(&turn).copied();
        if due.is_some_and(|due| due > now) {
            return Vec::new();
        }
        let givers = match among {
            Among::Queues => vec![request.namespace.clone()],
            Among::Namespaces => pool.shares.surplus().into_iter().map(|(name, _)| name).collect(),
        };
        let rows = givers.iter().flat_map(|namespace| state.containers_in(namespace));
        let running: BTreeMap<ContainerId, &ContainerRecord> = rows
            .filter(|(id, row)| row.state == ContainerState::Running && !is_leaving(*id))
            .filter(|(_, row)| row.invoker.is_some_and(|(on, _)| pool.invokers.contains(&on)))
            .collect();
        let places = u32::try_from(running.len()).unwrap_or(u32::MAX).max(1);
        let order = match among {
            Among::Queues => by_queue(&running),
            Among::Namespaces => {
                let mut all: Vec<_> = running.iter().map(|(id, row)| (row.since, *id)).collect();
                all.sort_unstable();
                all.into_iter().map(|(_, id)| id).collect()
            }
        };
        let mut on = BTreeMap::<InvokerId, Vec<Holding>>::new();
        for container in order {
            let Some((row, (invoker, _))) = running.get(&container).and_then(|row| Some((row, row.invoker?)))
            else {
                continue;
            };
            let victims = on.entry(invoker).or_default();
            victims.push(Holding {
                container,
                namespace: row.key.namespace.clone(),
                invoker,
                memory: row.memory,
                kind: HoldingKind::Busy,
                since: now,
            });
            let free = planned.left(invoker).unwrap_or_default();
            let missing = request.memory.saturating_sub(free);
            if sum(victims) >= missing && placer.could_place(request, planned, invoker) {
                self.next.insert(turn, due.unwrap_or(now) + TENURE / places);
                return spare(on.remove(&invoker).unwrap_or_default(), missing);
            }
        }
        Vec::new()
    }
}

/// From the queue with most containers first, its oldest.
fn by_queue(running: &BTreeMap<ContainerId, &ContainerRecord>) -> Vec<ContainerId> {
    let held: Vec<_> = running
        .iter()
        .map(|(container, row)| Held {
            container: *container,
            key: row.key.clone(),
            since: row.since,
            invoker: row.invoker.map(|(invoker, _)| invoker),
        })
        .collect();
    victims(&held, held.len())
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
