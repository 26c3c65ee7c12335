//! The newest entries of a log, as they are on disk: followers and the state machine want them moments after they were
//! written, and neither has to read or decode them again.
//!
//! Invariant: what is here is what the engine has, without a gap; what is not here is read from there.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;

use crate::types::{Entry, META_GROUP};

/// What is kept of one log.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes that they take, about; the newest entry stays however long it is.
    memory: usize,
    /// Entries: short ones cost more than their records.
    entries: usize,
}

/// Of group 0: short commands, of which a follower is seldom more than a few behind.
const META_LIMITS: Limits = Limits {
    memory: 1 << 20,
    entries: 1024,
};
/// Of a lane: a batch has the arguments of many activations. Of long ones it is what a follower reads at once, of short ones
/// half of that and some thousand; with much less, most of a lane's load would be read back from the disk as soon as one falls
/// behind a little.
const LANE_LIMITS: Limits = Limits {
    memory: 2 << 20,
    entries: 4096,
};
/// What a name in a batch takes beside its part of the record, about: the command's fields and the texts of its queue.
const NAME_BYTES: usize = 256;

/// The tail of one log.
#[derive(Debug)]
pub(super) struct Tail {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Kept>,
    /// What they take.
    memory: usize,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    /// Length of its record.
    len: usize,
    /// What it takes.
    memory: usize,
}

impl Kept {
    /// Takes as much as the record, and what it says, in which texts and payloads are once more.
    fn new(entry: Entry, len: usize) -> Self {
        let names = match &entry.payload {
            EntryPayload::Normal(packed) => packed.get().names(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        let memory = 2 * len + NAME_BYTES * names;
        Self { entry, len, memory }
    }
}

impl Tail {
    /// An empty one for the log of a group.
    pub(super) fn new(group: u32) -> Self {
        let limits = if group == META_GROUP {
            META_LIMITS
        } else {
            LANE_LIMITS
        };
        Self {
            limits,
            state: Mutex::default(),
        }
    }

    /// Adds entries that the engine has, each with the length of its record.
    pub(super) fn append(&self, entries: impl IntoIterator<Item = (Entry, usize)>) {
        let mut state = self.lock();
        for (entry, len) in entries {
            let next = state.entries.back().map(|last| last.entry.log_id.index + 1);
            if next.is_some_and(|next| next != entry.log_id.index) {
                state.clear();
            }
            let kept = Kept::new(entry, len);
            state.memory += kept.memory;
            state.entries.push_back(kept);
        }
        let Limits { memory, entries } = self.limits;
        while state.entries.len() > entries || (state.memory > memory && state.entries.len() > 1) {
            state.pop_front();
        }
    }

    /// Forgets entries from an index on. To be called before the engine does.
    pub(super) fn truncate(&self, from: u64) {
        let mut state = self.lock();
        while state
            .entries
            .back()
            .is_some_and(|last| last.entry.log_id.index >= from)
        {
            if let Some(last) = state.entries.pop_back() {
                state.memory -= last.memory;
            }
        }
    }

    /// Forgets entries up to an index. To be called before the engine does.
    pub(super) fn purge(&self, upto: u64) {
        let mut state = self.lock();
        while state
            .entries
            .front()
            .is_some_and(|first| first.entry.log_id.index <= upto)
        {
            state.pop_front();
        }
    }

    /// Entries from an index (inclusive) to another (exclusive), at most so many with so many bytes and at least one; `None`
    /// if the first is not here.
    pub(super) fn read(
        &self,
        (from, to): (u64, u64),
        entries_max: usize,
        bytes_max: usize,
    ) -> Option<Vec<Entry>> {
        let state = self.lock();
        let first = state.entries.front()?.entry.log_id.index;
        let skipped = usize::try_from(from.checked_sub(first)?).ok()?;
        if skipped >= state.entries.len() {
            return None;
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for Kept { entry, len, .. } in state.entries.range(skipped..) {
            let is_full = entries.len() >= entries_max || (bytes + len > bytes_max && !entries.is_empty());
            if entry.log_id.index >= to || is_full {
                break;
            }
            bytes += len;
            entries.push(entry.clone());
        }
        Some(entries)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop_front(&mut self) {
        if let Some(first) = self.entries.pop_front() {
            self.memory -= first.memory;
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.memory = 0;
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_state::journal::{JournalBatch, JournalCommand};
    use whiskraft_types::Epoch;

    use super::*;
    use crate::types::{LeaderId, LogId, Proposal};

    fn entry(index: u64) -> Entry {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        Entry {
            log_id: LogId { leader_id, index },
            payload: EntryPayload::Blank,
        }
    }

    fn tail(indices: std::ops::Range<u64>, len: usize) -> Tail {
        let tail = Tail::new(META_GROUP);
        tail.append(indices.map(|index| (entry(index), len)));
        tail
    }

    fn read(tail: &Tail, from: u64, to: u64) -> Option<Vec<u64>> {
        let entries = tail.read((from, to), 1000, 1000)?;
        Some(entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn what_is_there_is_read_and_nothing_else() {
        let tail = tail(5..10, 1);
        assert_eq!(read(&tail, 5, 8), Some(vec![5, 6, 7]));
        assert_eq!(read(&tail, 8, 99), Some(vec![8, 9]));
        assert_eq!(read(&tail, 4, 8), None, "the engine has it");
        assert_eq!(read(&tail, 10, 12), None);
        assert_eq!(read(&Tail::new(META_GROUP), 0, 9), None);
    }

    #[test]
    fn a_read_is_bounded_and_gives_one_entry_however_long() {
        let tail = tail(1..9, 400);
        assert_eq!(read(&tail, 1, 9), Some(vec![1, 2]));
        let long = self::tail(1..3, 5000);
        assert_eq!(read(&long, 1, 3), Some(vec![1]));
        let few = tail.read((1, 9), 1, usize::MAX).unwrap();
        assert_eq!(few.len(), 1);
    }

    #[test]
    fn truncated_and_purged_entries_are_gone() {
        let tail = tail(1..9, 1);
        tail.truncate(6);
        tail.purge(2);
        assert_eq!(read(&tail, 3, 9), Some(vec![3, 4, 5]));
        assert_eq!(read(&tail, 2, 9), None);
        tail.append([(entry(6), 1)]);
        assert_eq!(read(&tail, 5, 9), Some(vec![5, 6]));
        // What a snapshot brings leaves a gap.
        tail.append([(entry(20), 1)]);
        assert_eq!(read(&tail, 6, 9), None);
        assert_eq!(read(&tail, 20, 21), Some(vec![20]));
        tail.truncate(0);
        assert_eq!(tail.lock().memory, 0);
    }

    #[test]
    fn old_entries_make_room() {
        let tail = tail(0..10_000, 1);
        assert_eq!(tail.lock().entries.len(), META_LIMITS.entries);
        let tail = self::tail(0..10, META_LIMITS.memory / 4);
        assert_eq!(read(&tail, 8, 9), Some(vec![8]));
        assert_eq!(read(&tail, 7, 9), None);
        tail.append([(entry(10), META_LIMITS.memory * 2)]);
        assert_eq!(read(&tail, 10, 11), Some(vec![10]));
        assert_eq!(tail.lock().entries.len(), 1);
    }

    #[test]
    fn a_lane_keeps_what_is_read_at_once_of_long_records() {
        let lane = Tail::new(META_GROUP + 1);
        lane.append((0..10_000).map(|index| (entry(index), 1)));
        assert_eq!(lane.lock().entries.len(), LANE_LIMITS.entries);
        lane.append((10_000..20_000).map(|index| (entry(index), 1 << 10)));
        let bytes: usize = lane.lock().entries.iter().map(|kept| kept.len).sum();
        assert_eq!(bytes, super::super::log_store::READ_BYTES_MAX);
    }

    #[test]
    fn what_short_records_name_counts() {
        let key = whiskraft_types::QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/hello".parse().unwrap(),
        };
        let queues = vec![(key, Epoch(1)); 1000];
        let lane = Tail::new(META_GROUP + 1);
        lane.append((0..100).map(|index| {
            let batch = JournalBatch::of(vec![JournalCommand::Fence {
                queues: queues.clone(),
            }]);
            let payload = EntryPayload::Normal(Proposal::Journal(batch).into());
            (
                Entry {
                    payload,
                    ..entry(index)
                },
                30_000,
            )
        }));
        let memory = 2 * 30_000 + 1000 * NAME_BYTES;
        assert_eq!(lane.lock().entries.len(), LANE_LIMITS.memory / memory);
    }
}
