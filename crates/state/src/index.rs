//! What can be computed from the tables and is asked for often: kept in step with every write, rebuilt after a
//! snapshot was read, never serialised.
//!
//! Invariant: equals `Index::of(tables)` after every command.

use std::collections::BTreeSet;

use whiskraft_types::{
    ActionName, ByteSize, ContainerId, InvokerId, NamespaceName, QueueKey, SchedulerId, SessionId,
};

use crate::command::SessionOwner;
use crate::counts::Counts;
use crate::record::{ContainerRecord, ContainerState, QueueRecord, SessionRecord};
use crate::rows::Rows;
use crate::tables::Tables;

/// Derived lookups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Live session of each scheduler.
    scheduler_sessions: Rows<SchedulerId, SessionId>,
    /// Queues by the session that leads them; `None` first: the orphans.
    queues_by_leader: Rows<(Option<SessionId>, QueueKey), ()>,
    /// How many queues a session leads; no row is none.
    queues_led: Rows<SessionId, u32>,
    /// Queues by action, for a new revision of it.
    queues_by_action: Rows<(ActionName, NamespaceName), ()>,
    containers_by_queue: Rows<(QueueKey, ContainerId), ()>,
    containers_by_invoker: Rows<(InvokerId, ContainerId), ()>,
    /// Memory of containers in progress and running on an invoker; no row is none.
    promised_on: Rows<InvokerId, ByteSize>,
    /// The same with paused ones: of all containers there that have not ended.
    held_on: Rows<InvokerId, ByteSize>,
    /// Paused containers, for reuse.
    warm_by_queue: Rows<(QueueKey, ContainerId), ()>,
    counts_by_queue: Rows<QueueKey, Counts>,
    counts_by_namespace: Rows<NamespaceName, Counts>,
    /// Namespaces at their limit.
    throttled: Rows<NamespaceName, ()>,
}

impl Index {
    /// Computes everything anew.
    pub(crate) fn of(tables: &Tables) -> Self {
        let mut index = Self::default();
        tables
            .sessions
            .iter()
            .for_each(|(id, session)| index.add_session(*id, session));
        tables
            .queues
            .iter()
            .for_each(|(key, queue)| index.add_queue(key, queue));
        tables
            .containers
            .iter()
            .for_each(|(id, container)| index.add_container(*id, container));
        let counted = index.counts_by_namespace.iter().map(|(name, _)| name.clone());
        let limited = tables.namespaces.iter().map(|(name, _)| name.clone());
        let names: BTreeSet<NamespaceName> = counted.chain(limited).collect();
        for name in names {
            index.judge_namespace(&name, tables.slots_over_max(&name));
        }
        index
    }

    pub(crate) fn add_session(&mut self, id: SessionId, session: &SessionRecord) {
        if let SessionOwner::Scheduler(scheduler) = session.owner {
            self.scheduler_sessions.insert(scheduler, id);
        }
    }

    /// Forgets a session, unless its scheduler has a newer one.
    pub(crate) fn remove_session(&mut self, id: SessionId, session: &SessionRecord) {
        if let SessionOwner::Scheduler(scheduler) = session.owner
            && self.scheduler_sessions.get(&scheduler) == Some(&id)
        {
            self.scheduler_sessions.remove(&scheduler);
        }
    }

    pub(crate) fn add_queue(&mut self, key: &QueueKey, queue: &QueueRecord) {
        let leader = queue.leader.map(|(_, session)| session);
        self.queues_by_leader.insert((leader, key.clone()), ());
        self.queues_by_action
            .insert((key.action.clone(), key.namespace.clone()), ());
        if let Some(session) = leader {
            let led = self.queues_led(session);
            self.queues_led.insert(session, led.saturating_add(1));
        }
    }

    pub(crate) fn remove_queue(&mut self, key: &QueueKey, queue: &QueueRecord) {
        let leader = queue.leader.map(|(_, session)| session);
        self.queues_by_leader.remove(&(leader, key.clone()));
        self.queues_by_action
            .remove(&(key.action.clone(), key.namespace.clone()));
        if let Some(session) = leader {
            match self.queues_led(session) {
                0 | 1 => drop(self.queues_led.remove(&session)),
                led => drop(self.queues_led.insert(session, led - 1)),
            }
        }
    }

    pub(crate) fn add_container(&mut self, id: ContainerId, container: &ContainerRecord) {
        self.containers_by_queue.insert((container.key.clone(), id), ());
        if let Some((invoker, _)) = container.invoker {
            self.containers_by_invoker.insert((invoker, id), ());
            if container.state.holds_slot() {
                add_memory(&mut self.promised_on, invoker, container.memory);
            }
            if container.state != ContainerState::Ended {
                add_memory(&mut self.held_on, invoker, container.memory);
            }
        }
        if container.state == ContainerState::Warm {
            self.warm_by_queue.insert((container.key.clone(), id), ());
        }
        self.recount(&container.key, |counts| counts.add(container));
    }

    pub(crate) fn remove_container(&mut self, id: ContainerId, container: &ContainerRecord) {
        self.containers_by_queue.remove(&(container.key.clone(), id));
        if let Some((invoker, _)) = container.invoker {
            self.containers_by_invoker.remove(&(invoker, id));
            if container.state.holds_slot() {
                subtract_memory(&mut self.promised_on, invoker, container.memory);
            }
            if container.state != ContainerState::Ended {
                subtract_memory(&mut self.held_on, invoker, container.memory);
            }
        }
        self.warm_by_queue.remove(&(container.key.clone(), id));
        self.recount(&container.key, |counts| counts.subtract(container));
    }

    /// Compares the slots of a namespace with its limit, excess included; says whether the answer is another one now.
    pub(crate) fn judge_namespace(&mut self, name: &NamespaceName, slots_max: u32) -> Option<bool> {
        let is_throttled = self.namespace_counts(name).slots() >= slots_max;
        let was_throttled = self.is_throttled(name);
        if is_throttled {
            self.throttled.insert(name.clone(), ());
        } else {
            self.throttled.remove(name);
        }
        (is_throttled != was_throttled).then_some(is_throttled)
    }

    pub(crate) fn scheduler_session(&self, scheduler: SchedulerId) -> Option<SessionId> {
        self.scheduler_sessions.get(&scheduler).copied()
    }

    pub(crate) fn queues_led(&self, session: SessionId) -> u32 {
        self.queues_led.get(&session).copied().unwrap_or_default()
    }

    /// Queues that a session leads; `None`: that nobody leads.
    pub(crate) fn queues_of(&self, leader: Option<SessionId>) -> impl Iterator<Item = &QueueKey> + use<'_> {
        self.queues_by_leader
            .range(move |(session, _)| session.cmp(&leader))
            .map(|((_, key), ())| key)
    }

    pub(crate) fn queues_of_action(&self, action: &ActionName) -> impl Iterator<Item = QueueKey> {
        self.queues_by_action
            .range(move |(name, _)| name.cmp(action))
            .map(|((action, namespace), ())| QueueKey {
                namespace: namespace.clone(),
                action: action.clone(),
            })
    }

    /// The name of an action that has queues, as their keys have it.
    pub(crate) fn shared_action(&self, action: &ActionName) -> Option<&ActionName> {
        let mut queues = self.queues_by_action.range(move |(name, _)| name.cmp(action));
        queues.next().map(|((name, _), ())| name)
    }

    pub(crate) fn containers_of(&self, key: &QueueKey) -> impl Iterator<Item = ContainerId> {
        self.containers_by_queue
            .range(move |(queue, _)| queue.cmp(key))
            .map(|((_, id), ())| *id)
    }

    pub(crate) fn containers_in(&self, name: &NamespaceName) -> impl Iterator<Item = ContainerId> {
        self.containers_by_queue
            .range(move |(queue, _)| queue.namespace.cmp(name))
            .map(|((_, id), ())| *id)
    }

    /// Queues of a namespace that have containers, with their counts.
    pub(crate) fn warm_of(&self, key: &QueueKey) -> impl Iterator<Item = ContainerId> {
        self.warm_by_queue
            .range(move |(queue, _)| queue.cmp(key))
            .map(|((_, id), ())| *id)
    }

    pub(crate) fn containers_on(&self, invoker: InvokerId) -> impl Iterator<Item = ContainerId> + use<'_> {
        self.containers_by_invoker
            .range(move |(on, _)| on.cmp(&invoker))
            .map(|((_, id), ())| *id)
    }

    pub(crate) fn promised_on(&self, invoker: InvokerId) -> ByteSize {
        self.promised_on.get(&invoker).copied().unwrap_or_default()
    }

    pub(crate) fn held_on(&self, invoker: InvokerId) -> ByteSize {
        self.held_on.get(&invoker).copied().unwrap_or_default()
    }

    pub(crate) fn queue_counts(&self, key: &QueueKey) -> Counts {
        self.counts_by_queue.get(key).copied().unwrap_or_default()
    }

    pub(crate) fn namespace_counts(&self, name: &NamespaceName) -> Counts {
        self.counts_by_namespace.get(name).copied().unwrap_or_default()
    }

    /// Namespaces that have containers, with their counts.
    pub(crate) fn namespaces_counted(&self) -> impl Iterator<Item = (&NamespaceName, &Counts)> {
        self.counts_by_namespace.iter()
    }

    pub(crate) fn is_throttled(&self, name: &NamespaceName) -> bool {
        self.throttled.contains(name)
    }

    pub(crate) fn throttled(&self) -> impl Iterator<Item = &NamespaceName> {
        self.throttled.iter().map(|(name, ())| name)
    }

    fn recount(&mut self, key: &QueueKey, change: impl Fn(&mut Counts)) {
        let mut counts = self.queue_counts(key);
        change(&mut counts);
        match counts.is_empty() {
            true => drop(self.counts_by_queue.remove(key)),
            false => drop(self.counts_by_queue.insert(key.clone(), counts)),
        }
        let mut counts = self.namespace_counts(&key.namespace);
        change(&mut counts);
        match counts.is_empty() {
            true => drop(self.counts_by_namespace.remove(&key.namespace)),
            false => drop(self.counts_by_namespace.insert(key.namespace.clone(), counts)),
        }
    }
}

fn add_memory(sums: &mut Rows<InvokerId, ByteSize>, invoker: InvokerId, memory: ByteSize) {
    let before = sums.get(&invoker).copied().unwrap_or_default();
    sums.insert(invoker, before.saturating_add(memory));
}

/// No row is none.
fn subtract_memory(sums: &mut Rows<InvokerId, ByteSize>, invoker: InvokerId, memory: ByteSize) {
    let before = sums.get(&invoker).copied().unwrap_or_default();
    match before.saturating_sub(memory) {
        ByteSize::ZERO => drop(sums.remove(&invoker)),
        left => drop(sums.insert(invoker, left)),
    }
}
