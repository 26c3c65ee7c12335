//! The throttle view itself: flags of queues and namespaces, and who has containers, from the watched tables.
//!
//! Rule (spec A10): the action's value decides if there is one, then the namespace's; no value means no limit. The
//! action's value is `full` while its queue refuses, and `free` while it has containers: then it may wait for them
//! however full the namespace is.
//!
//! - **Invariant:** a flag of an action ends with its epoch, its queue, its namespace, or when a snapshot lacks it.
//! - **Invariant:** what was learned from a refusal ends by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_types::{ContainerId, Epoch, Instant, NamespaceName, QueueKey, ThrottleScope};

use super::changes::Subject;
use crate::watch::{Container, ContainerState, Namespace, Queue, Throttle, WatchEvent};

/// When trying again makes sense unless a scheduler has said so: its own advice.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Flags by namespace and by queue.
#[derive(Debug, Default)]
pub(crate) struct ThrottleView {
    namespaces: BTreeMap<NamespaceName, Flag>,
    actions: BTreeMap<QueueKey, Flag>,
    /// Namespaces that have used their invocations per minute; over at `until`.
    rates: BTreeMap<NamespaceName, Spent>,
    /// Epoch of each queue: an action's flag is gone with it.
    epochs: BTreeMap<QueueKey, Epoch>,
    containers: BTreeMap<ContainerId, QueueKey>,
    /// How many of them a queue has; no entry for none.
    served: BTreeMap<QueueKey, usize>,
    /// Flags that came or went so far.
    changes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Flag {
    since: Instant,
    /// Value of the limit, if a refusal has told it.
    limit: Option<u32>,
    retry_after: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    since: Instant,
    limit: Option<u32>,
    until: Instant,
}

/// A limit that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) scope: ThrottleScope,
    pub(crate) limit: Option<u32>,
    pub(crate) retry_after: Duration,
    pub(crate) since: Instant,
}

impl Flag {
    const fn found(self, scope: ThrottleScope) -> Found {
        Found {
            scope,
            limit: self.limit,
            retry_after: self.retry_after,
            since: self.since,
        }
    }
}

impl ThrottleView {
    /// Takes one change of the watched tables.
    pub(crate) fn apply(&mut self, now: Instant, event: &WatchEvent) {
        match event {
            WatchEvent::Throttle(throttle) => self.on_throttle(now, throttle),
            WatchEvent::Queue(queue) => self.on_queue(queue),
            WatchEvent::Container(container) => self.on_container(container),
            WatchEvent::Namespace(namespace) => self.on_namespace(namespace),
            WatchEvent::Member(_)
            | WatchEvent::Invoker(_)
            | WatchEvent::Document(_)
            | WatchEvent::Session(_) => {}
        }
    }

    /// Takes a complete snapshot in place of everything the tables said before. What is on still is on since then;
    /// what a refusal said of the rate is not in the tables, so it stays until it ends.
    pub(crate) fn replace(&mut self, snapshot: Self) {
        let old = std::mem::replace(self, snapshot);
        for (name, flag) in &mut self.namespaces {
            if let Some(known) = old.namespaces.get(name) {
                *flag = *known;
            }
        }
        for (key, flag) in &mut self.actions {
            if let Some(known) = old
                .actions
                .get(key)
                .filter(|_| old.epochs.get(key) == self.epochs.get(key))
            {
                *flag = *known;
            }
        }
        self.rates = old.rates;
        self.changes = old.changes + 1;
    }

    /// Takes a scheduler's refusal: it says when to come back and how large the limit is, and it is the only one to tell
    /// of a rate.
    pub(crate) fn on_refusal(
        &mut self,
        now: Instant,
        key: &QueueKey,
        scope: ThrottleScope,
        limit: Option<u32>,
        retry_after: Duration,
    ) {
        match scope {
            ThrottleScope::Action => {
                if let Some(flag) = self.actions.get_mut(key) {
                    (flag.limit, flag.retry_after) = (limit, retry_after);
                }
            }
            ThrottleScope::Namespace => {
                if let Some(flag) = self.namespaces.get_mut(&key.namespace) {
                    (flag.limit, flag.retry_after) = (limit, retry_after);
                }
            }
            ThrottleScope::Rate => {
                self.rates.retain(|_, spent| spent.until > now);
                let until = now + retry_after;
                let spent = self.rates.entry(key.namespace.clone());
                let spent = spent.or_insert(Spent {
                    since: now,
                    limit,
                    until,
                });
                spent.limit = limit;
                spent.until = spent.until.max(until);
            }
            // It says nothing of the next one: the window moves, and results may be fetched, at any time.
            ThrottleScope::Stream | ThrottleScope::Results => {}
        }
    }

    /// The limit that would refuse a new activation, if any.
    pub(crate) fn check(&self, now: Instant, key: &QueueKey) -> Option<Found> {
        if let Some(flag) = self.actions.get(key) {
            return Some(flag.found(ThrottleScope::Action));
        }
        let full = self.namespaces.get(&key.namespace);
        if let Some(flag) = full.filter(|_| !self.served.contains_key(key)) {
            return Some(flag.found(ThrottleScope::Namespace));
        }
        let spent = self.rates.get(&key.namespace).filter(|spent| spent.until > now)?;
        Some(Found {
            scope: ThrottleScope::Rate,
            limit: spent.limit,
            retry_after: spent.until.saturating_since(now),
            since: spent.since,
        })
    }

    /// Every flag that is on.
    pub(super) fn flags(&self) -> impl Iterator<Item = (Subject, Found)> {
        let namespaces = self
            .namespaces
            .iter()
            .map(|(name, flag)| ((name.clone(), None), flag.found(ThrottleScope::Namespace)));
        let actions = self.actions.iter().map(|(key, flag)| {
            let subject = (key.namespace.clone(), Some(key.action.clone()));
            (subject, flag.found(ThrottleScope::Action))
        });
        namespaces.chain(actions)
    }

    /// Grows whenever a flag may have come or gone.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    fn on_throttle(&mut self, now: Instant, throttle: &Throttle) {
        let flag = Flag {
            since: now,
            limit: None,
            retry_after: RETRY_AFTER,
        };
        let namespace = &throttle.namespace;
        match (&throttle.action, throttle.throttled) {
            (None, true) => {
                self.namespaces.entry(namespace.clone()).or_insert(flag);
            }
            (None, false) => {
                self.namespaces.remove(namespace);
            }
            (Some(action), throttled) => {
                let key = QueueKey {
                    namespace: namespace.clone(),
                    action: action.clone(),
                };
                if throttled {
                    self.actions.entry(key).or_insert(flag);
                } else {
                    self.actions.remove(&key);
                }
            }
        }
        self.changes += 1;
    }

    fn on_queue(&mut self, queue: &Queue) {
        let before = if queue.removed {
            self.epochs.remove(&queue.key);
            None
        } else {
            self.epochs.insert(queue.key.clone(), queue.epoch)
        };
        let is_same = before.is_some_and(|epoch| epoch == queue.epoch);
        // A snapshot may name the flag before the queue.
        let is_first = before.is_none() && !queue.removed;
        if !is_same && !is_first && self.actions.remove(&queue.key).is_some() {
            self.changes += 1;
        }
    }

    fn on_container(&mut self, container: &Container) {
        let is_gone = container.state == ContainerState::Removed;
        let before = if is_gone {
            self.containers.remove(&container.container)
        } else {
            self.containers.insert(container.container, container.key.clone())
        };
        if let Some(key) = before
            && let Some(count) = self.served.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                self.served.remove(&key);
            }
        }
        if !is_gone {
            *self.served.entry(container.key.clone()).or_default() += 1;
        }
    }

    /// With a namespace go its flags; should one be set again, the log says so after this.
    fn on_namespace(&mut self, namespace: &Namespace) {
        if !namespace.removed {
            return;
        }
        self.namespaces.remove(&namespace.name);
        self.rates.remove(&namespace.name);
        self.actions.retain(|key, _| key.namespace != namespace.name);
        self.changes += 1;
    }
}

#[cfg(test)]
#[path = "view_test.rs"]
mod tests;
