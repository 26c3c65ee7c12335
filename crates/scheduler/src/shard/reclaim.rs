//! Makes room in a full namespace, so that a queue which has work and not one container gets a slot. Chained calls would
//! otherwise wait for each other for ever, and few of many actions would keep all slots.
//!
//! The shard of a queue that starves says so, again and again while it does, to all shards here and to the schedulers
//! that lead other queues of the namespace. Whoever leads an idle container ends it; if that does not help, containers
//! at work end after their current activation, chosen by all in the same way from the tables (`rotation.rs`).
//! A queue whose containers all work for callers that wait for it is one without a container.
//! Who gets a slot that comes free is a matter of turns: the queue that was without one the longest comes first, the
//! others hold their wishes back.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_state::{ContainerState, State};
use whiskraft_types::{ContainerId, Instant, InvokerId, NamespaceName, QueueKey};

use crate::message::Request;
use crate::shard::actor::Shard;
use crate::shard::local::Slot;
use crate::shard::rotation::{Held, victims};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(25);
/// Time after which a queue says again that it starves.
const REPEAT: Duration = Duration::from_millis(200);
/// Time after which a queue that has not said so again does not starve any more.
const WISH_AGE_MAX: Duration = Duration::from_millis(500);
/// Time that idle containers have to make room before one at work has to.
const IDLE_FIRST: Duration = Duration::from_millis(100);
/// Time that a container serves its queue before it has to go for another one.
const TENURE_MIN: Duration = Duration::from_millis(350);
/// Time that a container has for its first activation before it has to go after that one.
const START_MAX: Duration = Duration::from_millis(700);
/// Unserved time of a queue whose last container nobody remembers: longer than that of any other.
const UNSERVED_LONG: Duration = Duration::from_secs(60);
/// Time after which a container that should have gone is told again: the command may have been lost.
const TOLD_AGE_MAX: Duration = Duration::from_secs(5);
/// Starving queues that one shard knows of; one more has to say so again later.
const WISHES_MAX: usize = 4096;

/// A queue that starves, here or elsewhere.
#[derive(Debug, Clone, Copy)]
struct Wish {
    heard_first: Instant,
    heard_last: Instant,
    /// Milliseconds since the clock's origin, below zero if before it: when it last had a container.
    served_at: i128,
    /// Containers that it has, none of which comes free: with one more it does not starve.
    held: u32,
}

/// Queues that starve.
#[derive(Debug, Default)]
pub(crate) struct Reclaims {
    wishes: BTreeMap<NamespaceName, BTreeMap<QueueKey, Wish>>,
    /// Those led by this shard, since when they starve, and with how many containers.
    own: BTreeMap<QueueKey, (Instant, u32)>,
    next: Option<Instant>,
    repeat: Option<Instant>,
}

impl Reclaims {
    /// When to look again.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.repeat).min()
    }

    fn note(&mut self, now: Instant, starved: QueueKey, unserved: Duration, held: u32) {
        let len: usize = self.wishes.values().map(BTreeMap::len).sum();
        let queues = self.wishes.entry(starved.namespace.clone()).or_default();
        if len >= WISHES_MAX && !queues.contains_key(&starved) {
            return;
        }
        let served_at = millis(now.since_origin()) - millis(unserved);
        let wish = queues.entry(starved).or_insert(Wish {
            heard_first: now,
            heard_last: now,
            served_at,
            held,
        });
        (wish.heard_last, wish.served_at, wish.held) = (now, served_at, held);
        self.next.get_or_insert(now);
    }

    /// How many queues of a namespace were without a container for longer than this one.
    fn ahead_of(&self, key: &QueueKey) -> usize {
        let Some(queues) = self.wishes.get(&key.namespace) else {
            return 0;
        };
        match queues.get(key) {
            None => queues.len(),
            Some(own) => {
                let earlier =
                    |(other, wish): &(&QueueKey, &Wish)| (wish.served_at, *other) < (own.served_at, key);
                queues.iter().filter(earlier).count()
            }
        }
    }
}

/// Containers that this shard has told to go, or may tell.
#[derive(Debug, Default)]
pub(crate) struct Told {
    at: BTreeMap<ContainerId, Instant>,
    /// Those that may have to go, with when they were seen to have their code loaded.
    warmed: BTreeMap<ContainerId, Instant>,
}

impl Told {
    pub(crate) fn contains(&self, container: ContainerId) -> bool {
        self.at.contains_key(&container)
    }

    /// Forgets those that are gone, and those that have to be told again.
    pub(crate) fn prune(&mut self, now: Instant, is_there: impl Fn(ContainerId) -> bool) {
        self.at
            .retain(|id, at| now.saturating_since(*at) < TOLD_AGE_MAX && is_there(*id));
        self.warmed.retain(|id, _| is_there(*id));
    }
}

impl Shard {
    /// A queue led here has work, no container that comes free, and no room in its namespace, or none that is not for others.
    pub(crate) fn on_starved(&mut self, slot: Slot) {
        if let Some(local) = self.queues.get(slot) {
            let key = local.key().clone();
            let held = self
                .parts
                .context
                .node
                .read(|state| state.queue_counts(&key).slots());
            let own = self.reclaims.own.entry(key.clone()).or_insert((self.now, held));
            own.1 = held;
            self.cry(key);
            self.reclaims.repeat.get_or_insert(self.now + REPEAT);
        }
    }

    /// A queue led here leaves what is free to others. Without a container it takes its place in the line behind them: it may
    /// never see a namespace without room, and would never say that it starves.
    pub(crate) fn on_yielded(&mut self, slot: Slot) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        let node = &self.parts.context.node;
        let has_none = node.read(|state| state.queue_counts(local.key()).slots() == 0);
        // One whose creations fail is served by nothing that others leave to it.
        if has_none && local.queue.could_use_a_container() && !self.reclaims.own.contains_key(local.key()) {
            self.on_starved(slot);
        }
    }

    /// A queue starves, led by this shard or another one; `unserved` is its time without a container.
    pub(crate) fn on_reclaim(&mut self, starved: QueueKey, unserved: Duration, held: u32) {
        self.reclaims.note(self.now, starved, unserved, held);
    }

    /// Whether slots that are free, or come free, are for other queues of the namespace first.
    pub(crate) fn must_yield(&self, key: &QueueKey) -> bool {
        let ahead = self.reclaims.ahead_of(key);
        if ahead == 0 {
            return false;
        }
        let free = self.parts.context.node.read(|state| {
            let max = state.namespace_limits(&key.namespace).containers_over();
            max.saturating_sub(state.namespace_counts(&key.namespace).slots())
        });
        usize::try_from(free).is_ok_and(|free| ahead >= free)
    }

    /// Looks for room, and says again what still starves, if it is time to.
    pub(crate) fn reclaim(&mut self) {
        if self.reclaims.repeat.is_some_and(|repeat| repeat <= self.now) {
            self.repeat();
        }
        if self.reclaims.next.is_none_or(|next| next > self.now) {
            return;
        }
        let node = self.parts.context.node.clone();
        self.told
            .prune(self.now, |id| node.read(|state| state.container(id).is_some()));
        let mut wishes = std::mem::take(&mut self.reclaims.wishes);
        wishes.retain(|namespace, queues| {
            let now = self.now;
            node.read(|state| {
                queues.retain(|key, wish| {
                    now.saturating_since(wish.heard_last) < WISH_AGE_MAX
                        && state.queue_counts(key).slots() <= wish.held
                });
            });
            if !queues.is_empty() && node.read(|state| state.is_namespace_throttled(namespace)) {
                self.make_room(namespace, queues);
            }
            !queues.is_empty()
        });
        self.reclaims.next = (!wishes.is_empty()).then(|| self.now + PAUSE);
        self.reclaims.wishes = wishes;
    }

    /// Says again which queues led here starve.
    fn repeat(&mut self) {
        let own = self.reclaims.own.iter();
        let own: Vec<_> = own.map(|(key, (_, held))| (key.clone(), *held)).collect();
        for (key, held) in own {
            if self.is_starving(&key, held) {
                self.cry(key);
            } else {
                self.reclaims.own.remove(&key);
            }
        }
        self.reclaims.repeat = (!self.reclaims.own.is_empty()).then(|| self.now + REPEAT);
    }

    fn cry(&self, starved: QueueKey) {
        let own = self.reclaims.own.get(&starved).copied();
        let held = own.map_or(0, |(_, held)| held);
        let unserved = match (self.mirror.left_at(&starved), own) {
            // Its containers serve nobody since it says so.
            (_, Some((since, _))) if held > 0 => self.now.saturating_since(since),
            (Some(at), _) => self.now.saturating_since(at),
            (None, Some((since, _))) => UNSERVED_LONG + self.now.saturating_since(since),
            (None, None) => UNSERVED_LONG,
        };
        self.parts.neighbours.ask(starved.clone(), unserved, held);
        self.parts.shards.try_send_all(|| Request::Reclaim {
            starved: starved.clone(),
            unserved,
            held,
        });
    }

    /// Whether a queue led here that has starved still has work and no container but the `held` that do not come free. Room
    /// in its namespace changes nothing: until it has its slot, others would take it.
    fn is_starving(&self, key: &QueueKey, held: u32) -> bool {
        let local = self.queues.slot(key).and_then(|slot| self.queues.get(slot));
        let waits = local
            .is_some_and(|local| (held == 0 || local.queue.starves()) && local.queue.could_use_a_container());
        waits
            && !self.fenced
            && self
                .parts
                .context
                .node
                .read(|state| state.queue_counts(key).slots() <= held)
    }

    /// Ends containers led by this shard for queues that starve: idle ones first, then, for those that starve longer,
    /// ones at work.
    fn make_room(&mut self, namespace: &NamespaceName, starving: &BTreeMap<QueueKey, Wish>) {
        for (container, invoker) in self.idle(namespace, starving) {
            self.end_container(container, invoker, "idle container makes room");
        }
        let is_patient = |wish: &&Wish| self.now.saturating_since(wish.heard_first) >= IDLE_FIRST;
        let wanted = starving.values().filter(is_patient).count();
        if wanted == 0 {
            return;
        }
        for (container, key, invoker) in self.chosen(namespace, wanted, starving) {
            if self.has_served(&key, container)
                && self.queues.slot(&key).is_some()
                && !self.told.contains(container)
            {
                self.end_container(container, invoker, "container at work makes room");
            }
        }
    }

    /// Whether a container has served its queue long enough: from when its code was loaded on, as far as a look has seen
    /// that; one that takes its time to start would serve one activation only. One whose first activation is long goes after that.
    fn has_served(&mut self, key: &QueueKey, container: ContainerId) -> bool {
        let Some(since) = self.mirror.running_since(key, container) else {
            return false;
        };
        let local = self.queues.slot(key).and_then(|slot| self.queues.get(slot));
        if local.is_some_and(|local| local.queue.is_warmed(container)) {
            let warmed_at = *self.told.warmed.entry(container).or_insert(self.now);
            return self.now.saturating_since(warmed_at) >= TENURE_MIN;
        }
        self.now.saturating_since(since) >= START_MAX
    }

    /// Tells a container to end after what runs in it, and remembers that.
    pub(crate) fn end_container(&mut self, container: ContainerId, invoker: InvokerId, why: &'static str) {
        if self.parts.streams.remove(invoker, container, false) {
            tracing::debug!(%container, why, "container told to end");
            self.told.at.insert(container, self.now);
        }
    }

    /// One idle container for each queue that starves, as far as there are some here.
    fn idle(
        &self,
        namespace: &NamespaceName,
        starving: &BTreeMap<QueueKey, Wish>,
    ) -> Vec<(ContainerId, InvokerId)> {
        let slots = self.queues.in_namespace(namespace).into_iter();
        let idle = slots.filter_map(|slot| self.queues.get(slot)).filter(|local| {
            let view = local.queue.view();
            view.waiting == 0 && view.credits > 0 && !starving.contains_key(local.key())
        });
        // The queue knows how many of its containers idle, not the shard which; the invoker lets what runs finish, so a
        // wrong guess costs time and nothing else.
        let last = idle.filter_map(|local| self.mirror.running(local.key()).last());
        let (told, new): (Vec<_>, Vec<_>) = last.partition(|(container, _)| self.told.contains(*container));
        let left = starving.len().saturating_sub(told.len());
        new.into_iter().take(left).collect()
    }

    /// The containers of a namespace that have to make room for `wanted` queues, wherever they are led. One that was
    /// told to go here for another reason counts.
    fn chosen(
        &self,
        namespace: &NamespaceName,
        wanted: usize,
        starving: &BTreeMap<QueueKey, Wish>,
    ) -> Vec<(ContainerId, QueueKey, InvokerId)> {
        let held = self.parts.context.node.read(|state| {
            let over = state.namespace_limits(namespace).containers_over();
            // While it has more than it may, what comes free is for nobody.
            (state.namespace_counts(namespace).slots() <= over).then(|| held(state, namespace))
        });
        let mut held = held.unwrap_or_default();
        // What none of its containers gives it, one fewer does not give it either.
        held.retain(|held| !starving.contains_key(&held.key));
        let mut chosen = victims(&held, wanted);
        let others = held
            .iter()
            .filter(|held| self.told.contains(held.container) && !chosen.contains(&held.container));
        chosen.truncate(wanted.saturating_sub(others.count()));
        let rows = held.into_iter().filter(|held| chosen.contains(&held.container));
        rows.filter_map(|held| Some((held.container, held.key, held.invoker?)))
            .collect()
    }
}

/// What holds the slots of a namespace.
fn held(state: &State, namespace: &NamespaceName) -> Vec<Held> {
    let rows = state.containers_in(namespace);
    rows.filter(|(_, row)| row.state.holds_slot())
        .map(|(container, row)| Held {
            container,
            key: row.key.clone(),
            since: row.since,
            invoker: row
                .invoker
                .filter(|_| row.state == ContainerState::Running)
                .map(|(invoker, _)| invoker),
        })
        .collect()
}

fn millis(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).unwrap_or(i128::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(action: &str) -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: action.parse().unwrap(),
        }
    }

    fn at(secs: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn who_was_without_a_container_the_longest_comes_first() {
        let mut reclaims = Reclaims::default();
        let (long, short, sated) = (key("guest/long"), key("guest/short"), key("guest/sated"));
        assert_eq!(reclaims.ahead_of(&sated), 0);
        reclaims.note(at(1), long.clone(), Duration::from_secs(9), 0);
        reclaims.note(at(2), short.clone(), Duration::from_secs(3), 0);
        assert_eq!(reclaims.ahead_of(&long), 0);
        assert_eq!(reclaims.ahead_of(&short), 1);
        assert_eq!(reclaims.ahead_of(&sated), 2);
        let elsewhere = QueueKey {
            namespace: "other".parse().unwrap(),
            ..sated
        };
        assert_eq!(reclaims.ahead_of(&elsewhere), 0);
    }
}
