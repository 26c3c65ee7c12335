//! What the queues of this scheduler hold, summed while they are walked through in pieces.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use whiskraft_types::{NamespaceName, QueueKey, WaitReason};

use super::{OTHER, TOP_MAX};
use crate::shard::{LocalQueue, Shard, Visitor};

/// Work of looking at a queue that is in use.
const VIEW_WORK: usize = 16;

/// Numbers of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct QueueTotals {
    pub(super) waiting: u64,
    pub(super) in_progress: u64,
    pub(super) running: u64,
}

/// Sums over all queues; idle ones leave no trace but in the count.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) queues: u64,
    pub(super) throttled: u64,
    pub(super) waiting: BTreeMap<NamespaceName, u64>,
    pub(super) used: BTreeMap<QueueKey, QueueTotals>,
    pub(super) reasons: BTreeMap<WaitReason, u64>,
}

impl Visitor for Totals {
    fn visit(&mut self, _shard: &Shard, local: &LocalQueue) -> ControlFlow<(), usize> {
        self.queues += 1;
        if local.queue.waiting_len() == 0 && local.dealings.places.is_empty() {
            return ControlFlow::Continue(0);
        }
        let view = local.queue.view();
        let totals = QueueTotals {
            waiting: view.waiting as u64,
            in_progress: view.in_progress as u64,
            running: view.running as u64,
        };
        self.throttled += u64::from(view.is_throttled);
        if totals.waiting > 0 {
            *self.waiting.entry(local.key().namespace.clone()).or_default() += totals.waiting;
        }
        if let Some(wait) = view.wait {
            *self.reasons.entry(wait.reason).or_default() += 1;
        }
        if totals != QueueTotals::default() {
            self.used.insert(local.key().clone(), totals);
        }
        ControlFlow::Continue(VIEW_WORK)
    }
}

/// The largest, by `weight`, with names of their own; the rest summed by `add` under [`OTHER`] in every one of
/// `names` labels.
pub(super) fn top<T>(
    rows: impl IntoIterator<Item = (Vec<String>, T)>,
    weight: impl Fn(&T) -> u64,
    add: impl Fn(&mut T, T),
) -> Vec<(Vec<String>, T)> {
    let mut rows: Vec<_> = rows.into_iter().collect();
    if rows.len() <= TOP_MAX {
        return rows;
    }
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(weight(row)));
    let mut rest = rows.split_off(TOP_MAX).into_iter();
    if let Some((names, mut sum)) = rest.next() {
        rest.for_each(|(_, row)| add(&mut sum, row));
        rows.push((names.iter().map(|_| OTHER.to_owned()).collect(), sum));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_are_summed_when_there_are_too_many() {
        let count = TOP_MAX as u64 + 3;
        let rows = (1..=count).map(|number| (vec![format!("n{number}")], number));
        let kept = top(rows, |number| *number, |sum, number| *sum += number);
        assert_eq!(kept.len(), TOP_MAX + 1);
        assert_eq!(kept[0], (vec![format!("n{count}")], count));
        assert_eq!(kept[TOP_MAX], (vec![OTHER.to_owned()], 1 + 2 + 3));
        let few = top(
            [(vec!["n".to_owned()], 1)],
            |number| *number,
            |sum, number| *sum += number,
        );
        assert_eq!(few, [(vec!["n".to_owned()], 1)]);
    }
}
