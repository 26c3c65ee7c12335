//! What waits for each lane, and what is under way there. Acceptances and other entries travel apart: a full disk
//! refuses the first only.

use std::collections::{BTreeMap, VecDeque};

use whiskraft_raft::LaneId;

use crate::journal::prepare::Write;

/// Commands of one batch.
const BATCH_MAX: usize = 1000;
/// Bytes at which a batch is full; one longer command travels alone.
const BATCH_LEN: usize = 1 << 20;
/// Batches of one kind under way per lane: while one is synced the next is on its way; more only split the groups.
const FLIGHTS_MAX: usize = 4;

/// The two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// New activations.
    Accept,
    /// What happens to them.
    Change,
}

/// A batch to be appended.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) lane: LaneId,
    pub(crate) class: Class,
    pub(crate) writes: Vec<Write>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Write>,
    flights: usize,
}

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lines: BTreeMap<(LaneId, Class), Line>,
}

impl Lanes {
    pub(crate) fn push(&mut self, lane: LaneId, write: Write) {
        let class = if write.place.is_some() {
            Class::Accept
        } else {
            Class::Change
        };
        let line = self.lines.entry((lane, class)).or_default();
        line.waiting.push_back(write);
    }

    /// The next batch that may leave; writes that nobody wants any more are dropped on the way.
    pub(crate) fn next(&mut self, mut is_wanted: impl FnMut(&Write) -> bool) -> Option<Batch> {
        for ((lane, class), line) in &mut self.lines {
            if line.flights >= FLIGHTS_MAX {
                continue;
            }
            let mut writes = Vec::new();
            let mut len = 0;
            while writes.len() < BATCH_MAX
                && let Some(write) = line.waiting.pop_front()
            {
                if !is_wanted(&write) {
                    continue;
                }
                if !writes.is_empty() && len + write.len() > BATCH_LEN {
                    line.waiting.push_front(write);
                    break;
                }
                len += write.len();
                writes.push(write);
            }
            if !writes.is_empty() {
                line.flights += 1;
                let (lane, class) = (*lane, *class);
                return Some(Batch { lane, class, writes });
            }
        }
        None
    }

    /// A batch has its answer.
    pub(crate) fn landed(&mut self, lane: LaneId, class: Class) {
        if let Some(line) = self.lines.get_mut(&(lane, class)) {
            line.flights = line.flights.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use whiskraft_state::journal::{JournalCommand, Retry};
    use whiskraft_types::{ActivationId, Epoch, QueueKey};

    use super::*;

    fn write(n: u8, epoch: u64) -> Write {
        let key = QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/a".parse().unwrap(),
        };
        let id = ActivationId::from_bytes([n; 16]);
        Write {
            key: key.clone(),
            epoch: Epoch(epoch),
            id,
            lane: Some(LaneId(1)),
            command: JournalCommand::Retry(Retry {
                id,
                key,
                epoch: Epoch(epoch),
                run: 2,
                pause: Duration::ZERO,
            }),
            place: None,
            made_up: None,
            failures: 0,
        }
    }

    #[test]
    fn whatever_waits_leaves_together_and_what_nobody_wants_stays_behind() {
        let mut lanes = Lanes::default();
        for n in 0..3 {
            lanes.push(LaneId(1), write(n, u64::from(n)));
        }
        lanes.push(LaneId(2), write(9, 9));
        let batch = lanes.next(|write| write.epoch != Epoch(1)).unwrap();
        assert_eq!((batch.lane, batch.writes.len()), (LaneId(1), 2));
        assert_eq!(lanes.next(|_| true).unwrap().lane, LaneId(2));
        assert!(lanes.next(|_| true).is_none());
    }

    #[test]
    fn only_so_many_batches_are_under_way() {
        let mut lanes = Lanes::default();
        for _ in 0..FLIGHTS_MAX {
            lanes.push(LaneId(1), write(1, 1));
            assert!(lanes.next(|_| true).is_some());
        }
        lanes.push(LaneId(1), write(1, 1));
        assert!(lanes.next(|_| true).is_none());
        lanes.landed(LaneId(1), Class::Change);
        assert!(lanes.next(|_| true).is_some());
    }
}
