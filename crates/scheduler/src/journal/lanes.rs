//! What waits for each lane, and what is under way there: acceptances and what becomes of activations, together in one
//! batch. Only while a disk takes no acceptances do they travel apart, so that what makes room is not refused with them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use whiskraft_raft::LaneId;
use whiskraft_types::Instant;

use crate::journal::prepare::Write;

/// Commands of one batch.
const BATCH_MAX: usize = 1000;
/// Bytes at which a batch is full; one longer command travels alone.
const BATCH_LEN: usize = 1 << 20;
/// Batches under way per lane. What comes meanwhile waits for the next one: an entry of the log costs all nodes far more than
/// one more command in it.
const FLIGHTS_MAX: usize = 1;
/// How long acceptances travel apart after a disk was full.
const APART: Duration = Duration::from_secs(1);

/// A batch to be appended.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) lane: LaneId,
    pub(crate) writes: Vec<Write>,
}

#[derive(Debug, Default)]
struct Line {
    /// Acceptances.
    fresh: VecDeque<Write>,
    /// All else, which goes first: it makes room.
    changes: VecDeque<Write>,
    flights: usize,
    apart_until: Option<Instant>,
}

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lines: BTreeMap<LaneId, Line>,
}

impl Lanes {
    pub(crate) fn push(&mut self, lane: LaneId, write: Write) {
        let line = self.lines.entry(lane).or_default();
        if write.is_acceptance() {
            line.fresh.push_back(write);
        } else {
            line.changes.push_back(write);
        }
    }

    /// The next batch that may leave; writes that nobody wants any more are dropped on the way.
    pub(crate) fn next(&mut self, now: Instant, is_wanted: impl Fn(&Write) -> bool) -> Option<Batch> {
        for (lane, line) in &mut self.lines {
            if line.flights >= FLIGHTS_MAX {
                continue;
            }
            let is_apart = line.apart_until.is_some_and(|until| now < until);
            let mut load = Load::default();
            load.take(&mut line.changes, &is_wanted);
            if !is_apart || load.writes.is_empty() {
                load.take(&mut line.fresh, &is_wanted);
            }
            if !load.writes.is_empty() {
                line.flights += 1;
                let (lane, writes) = (*lane, load.writes);
                return Some(Batch { lane, writes });
            }
        }
        None
    }

    /// A batch has its answer.
    pub(crate) fn landed(&mut self, lane: LaneId) {
        if let Some(line) = self.lines.get_mut(&lane) {
            line.flights = line.flights.saturating_sub(1);
        }
    }

    /// A disk took no acceptances.
    pub(crate) fn part(&mut self, now: Instant, lane: LaneId) {
        if let Some(line) = self.lines.get_mut(&lane) {
            line.apart_until = Some(now + APART);
        }
    }
}

#[derive(Debug, Default)]
struct Load {
    writes: Vec<Write>,
    len: usize,
}

impl Load {
    /// Takes what fits.
    fn take(&mut self, from: &mut VecDeque<Write>, is_wanted: impl Fn(&Write) -> bool) {
        while self.writes.len() < BATCH_MAX
            && let Some(write) = from.pop_front()
        {
            if !is_wanted(&write) {
                continue;
            }
            if !self.writes.is_empty() && self.len + write.len() > BATCH_LEN {
                from.push_front(write);
                return;
            }
            self.len += write.len();
            self.writes.push(write);
        }
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_state::journal::{JournalCommand, Retry};
    use whiskraft_types::{ActivationId, Epoch, QueueKey};

    use super::*;

    const NOW: Instant = Instant::ORIGIN;

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
        let batch = lanes.next(NOW, |write| write.epoch != Epoch(1)).unwrap();
        assert_eq!((batch.lane, batch.writes.len()), (LaneId(1), 2));
        assert_eq!(lanes.next(NOW, |_| true).unwrap().lane, LaneId(2));
        assert!(lanes.next(NOW, |_| true).is_none());
    }

    #[test]
    fn only_so_many_batches_are_under_way() {
        let mut lanes = Lanes::default();
        for _ in 0..FLIGHTS_MAX {
            lanes.push(LaneId(1), write(1, 1));
            assert!(lanes.next(NOW, |_| true).is_some());
        }
        lanes.push(LaneId(1), write(1, 1));
        assert!(lanes.next(NOW, |_| true).is_none());
        lanes.landed(LaneId(1));
        assert!(lanes.next(NOW, |_| true).is_some());
    }
}
