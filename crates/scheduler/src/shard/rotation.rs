//! Which containers of a full namespace make room for queues that have none.
//!
//! Every scheduler answers the same from the same tables, so each ends its own and nobody has to agree on anything. What
//! was chosen stays chosen while it ends: it is the first choice again, until its slot is free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{ContainerId, InvokerId, LogRevision, QueueKey};

/// A container that holds a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) container: ContainerId,
    pub(crate) key: QueueKey,
    /// When it was reserved.
    pub(crate) since: LogRevision,
    /// Where it runs; `None` while it is on its way.
    pub(crate) invoker: Option<InvokerId>,
}

/// Up to `wanted` running containers: each time the oldest one of the queue that then holds the most slots, of several
/// such queues the one that has held on the longest.
pub(crate) fn victims(held: &[Held], wanted: usize) -> Vec<ContainerId> {
    let mut queues: BTreeMap<&QueueKey, Part> = BTreeMap::new();
    for one in held {
        let part = queues.entry(&one.key).or_default();
        part.slots += 1;
        if one.invoker.is_some() {
            part.running.insert((one.since, one.container));
        }
    }
    let mut victims = Vec::new();
    while victims.len() < wanted {
        let most = queues
            .values_mut()
            .filter(|part| !part.running.is_empty())
            .max_by_key(|part| (part.slots, Reverse(part.running.first().copied())));
        let Some(part) = most else { break };
        victims.extend(part.running.pop_first().map(|(_, container)| container));
        part.slots -= 1;
    }
    victims
}

/// What one queue holds.
#[derive(Debug, Default)]
struct Part {
    slots: usize,
    /// By age.
    running: BTreeSet<(LogRevision, ContainerId)>,
}

#[cfg(test)]
mod tests {
    use whiskraft_types::SessionId;

    use super::*;

    fn held(seq: u64, action: &str, runs: bool) -> Held {
        Held {
            container: ContainerId {
                session: SessionId(1),
                seq,
            },
            key: QueueKey {
                namespace: "guest".parse().unwrap(),
                action: action.parse().unwrap(),
            },
            since: LogRevision(seq),
            invoker: runs.then_some(InvokerId(7)),
        }
    }

    fn chosen(held: &[Held], wanted: usize) -> Vec<u64> {
        victims(held, wanted)
            .into_iter()
            .map(|container| container.seq)
            .collect()
    }

    #[test]
    fn the_queue_with_most_slots_gives_first_and_its_oldest() {
        let all = [
            held(1, "guest/few", true),
            held(2, "guest/many", true),
            held(3, "guest/many", true),
            held(4, "guest/many", true),
        ];
        assert_eq!(chosen(&all, 1), [2]);
        assert_eq!(chosen(&all, 2), [2, 3]);
        // Then both hold one: who has held on the longest.
        assert_eq!(chosen(&all, 3), [2, 3, 1]);
        assert_eq!(chosen(&all, 9).len(), 4);
    }

    #[test]
    fn what_was_chosen_is_chosen_again_when_others_have_gone() {
        let all: Vec<_> = (1..=6).map(|seq| held(seq, "guest/many", true)).collect();
        let first = chosen(&all, 3);
        let left: Vec<_> = all
            .into_iter()
            .filter(|one| one.container.seq != first[0])
            .collect();
        assert_eq!(chosen(&left, 2), first[1..]);
    }

    #[test]
    fn what_is_on_its_way_holds_a_slot_and_cannot_go() {
        let all = [
            held(1, "guest/a", true),
            held(2, "guest/b", true),
            held(3, "guest/b", false),
        ];
        assert_eq!(chosen(&all, 1), [2]);
    }
}
