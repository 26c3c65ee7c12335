//! A namespace that has more containers than it may, because its limit was lowered, lets some go as they finish.
//!
//! Each leader ends its own. Which ones follows from the tables, so nothing is coordinated: the newest of the namespace.
//! No slot is granted meanwhile, so the choice does not move while they finish.

use std::collections::BTreeSet;
use std::time::Duration;

use whiskraft_state::{ContainerState, State};
use whiskraft_types::{ContainerId, Instant, InvokerId, LogRevision, NamespaceName, QueueKey};

use crate::shard::actor::Shard;

/// Time between two looks while a namespace has too many: those on their way come to run.
const PAUSE: Duration = Duration::from_millis(100);

/// Namespaces that have too many.
#[derive(Debug, Default)]
pub(crate) struct Surplus {
    namespaces: BTreeSet<NamespaceName>,
    next: Option<Instant>,
}

impl Surplus {
    /// When to look again.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// A container that holds a slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    since: LogRevision,
    container: ContainerId,
    /// Where it runs, and for which queue; `None` while it is on its way.
    runs: Option<(InvokerId, QueueKey)>,
}

impl Shard {
    /// The limit of a namespace may have changed, or a queue of it is led here now.
    pub(crate) fn note_limit(&mut self, namespace: &NamespaceName) {
        let has_surplus = self
            .parts
            .context
            .node
            .read(|state| surplus(state, namespace) > 0);
        if has_surplus && self.surplus.namespaces.insert(namespace.clone()) {
            self.surplus.next = Some(self.now);
        }
    }

    /// Ends what is too much, if it is time to.
    pub(crate) fn shrink(&mut self) {
        if self.surplus.next.is_none_or(|next| next > self.now) {
            return;
        }
        let node = self.parts.context.node.clone();
        self.told
            .prune(self.now, |id| node.read(|state| state.container(id).is_some()));
        let mut namespaces = std::mem::take(&mut self.surplus.namespaces);
        namespaces.retain(|namespace| {
            let (count, held) = node.read(|state| match surplus(state, namespace) {
                0 => (0, Vec::new()),
                count => (count, held(state, namespace)),
            });
            for (container, (invoker, key)) in newest(held, count) {
                if self.queues.slot(&key).is_some() && !self.told.contains(container) {
                    self.end_container(container, invoker, "the namespace has more than its limit");
                }
            }
            count > 0 && !self.queues.in_namespace(namespace).is_empty()
        });
        self.surplus.next = (!namespaces.is_empty()).then(|| self.now + PAUSE);
        self.surplus.namespaces = namespaces;
    }
}

/// Slots above what the namespace may have.
fn surplus(state: &State, namespace: &NamespaceName) -> usize {
    let max = state.namespace_limits(namespace).containers_over();
    let slots = state.namespace_counts(namespace).slots();
    usize::try_from(slots.saturating_sub(max)).unwrap_or(usize::MAX)
}

fn held(state: &State, namespace: &NamespaceName) -> Vec<Held> {
    let rows = state.containers_in(namespace);
    rows.filter(|(_, row)| row.state.holds_slot())
        .map(|(container, row)| {
            let on = row.invoker.filter(|_| row.state == ContainerState::Running);
            Held {
                since: row.since,
                container,
                runs: on.map(|(invoker, _)| (invoker, row.key.clone())),
            }
        })
        .collect()
}

/// The `count` newest ones, as far as they run; one on its way is told when it does.
fn newest(mut held: Vec<Held>, count: usize) -> Vec<(ContainerId, (InvokerId, QueueKey))> {
    held.sort_by(|a, b| b.cmp(a));
    held.truncate(count);
    held.into_iter()
        .filter_map(|held| Some((held.container, held.runs?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use whiskraft_types::SessionId;

    use super::*;

    fn held(seq: u64, runs: bool) -> Held {
        let key = QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/hello".parse().unwrap(),
        };
        Held {
            since: LogRevision(100 + seq),
            container: ContainerId {
                session: SessionId(1),
                seq,
            },
            runs: runs.then_some((InvokerId(7), key)),
        }
    }

    #[test]
    fn the_newest_go_and_those_on_their_way_count() {
        let all = vec![held(1, true), held(4, false), held(2, true), held(3, true)];
        let chosen: Vec<_> = newest(all, 2).into_iter().map(|(id, _)| id.seq).collect();
        assert_eq!(chosen, [3]);
    }
}
