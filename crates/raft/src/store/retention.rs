//! When rows of the journal leave the disk: the lanes' clocks, and what a compaction may drop.
//!
//! Values in tables that expire start with the time at which they do. A lane reads what has expired as absent, so it
//! makes no difference to any decision when it leaves the disk; nodes may differ in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use whiskraft_state::journal::LaneMillis;

use super::engine::Table;
use crate::types::LANES_MAX;

/// In place of the time at which a value expires: it does not.
const NEVER: u64 = 0;
/// Length of that time.
const PREFIX_LEN: usize = 8;

/// The clocks of the lanes; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clocks {
    by_group: Arc<[AtomicU64; LANES_MAX as usize + 1]>,
}

impl Clocks {
    /// Sets the clock of a group to what it has applied.
    pub(crate) fn set(&self, group: u32, clock: LaneMillis) {
        if let Some(slot) = self.slot(group) {
            slot.store(clock.0, Ordering::Relaxed);
        }
    }

    /// The clock of a group; zero if it has none.
    pub(crate) fn get(&self, group: u32) -> LaneMillis {
        LaneMillis(self.slot(group).map_or(0, |slot| slot.load(Ordering::Relaxed)))
    }

    fn slot(&self, group: u32) -> Option<&AtomicU64> {
        self.by_group.get(usize::try_from(group).ok()?)
    }
}

/// What stays how long.
#[derive(Debug, Clone)]
pub(crate) struct Retention {
    /// By which it is decided.
    pub(crate) clocks: Clocks,
    /// How long anything stays after it has expired.
    pub(crate) margin: Duration,
    /// How much longer a row stays that says that there was something.
    pub(crate) gone: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            clocks: Clocks::default(),
            margin: Duration::from_secs(60 * 60),
            gone: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// Puts in front of a value when it expires.
pub(super) fn prefix(expires: Option<LaneMillis>, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_LEN + value.len() + 4);
    bytes.extend(expires.map_or(NEVER, |at| at.0.max(1)).to_le_bytes());
    bytes.extend(value);
    bytes
}

/// When a value expires, and the value behind that.
pub(crate) fn split(value: &[u8]) -> Option<(Option<LaneMillis>, &[u8])> {
    let (expires, value) = value.split_first_chunk::<PREFIX_LEN>()?;
    let expires = u64::from_le_bytes(*expires);
    Some(((expires != NEVER).then_some(LaneMillis(expires)), value))
}

impl Retention {
    /// How long a row says that its activation is gone, after it has expired.
    pub(crate) fn gone_until(&self, expires: LaneMillis) -> LaneMillis {
        expires.after(self.gone)
    }

    /// Whether a compaction drops this.
    pub(super) fn drops(&self, table: Table, key: &[u8], value: &[u8]) -> bool {
        let extra = match table {
            Table::JournalRows => self.gone,
            Table::JournalPayloads | Table::JournalRecords | Table::JournalIndex | Table::JournalFences => {
                Duration::ZERO
            }
            Table::Log | Table::Meta | Table::Documents | Table::Blobs => return false,
        };
        let Some((group, _)) = key.split_first_chunk::<4>() else {
            return false;
        };
        let Some((Some(expires), _)) = split(value) else {
            return false;
        };
        let until = millis(self.margin.saturating_add(extra)).saturating_add(expires.0);
        until <= self.clocks.get(u32::from_be_bytes(*group)).0
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys;

    fn retention(clock: u64) -> Retention {
        let retention = Retention {
            clocks: Clocks::default(),
            margin: Duration::from_millis(10),
            gone: Duration::from_millis(100),
        };
        retention.clocks.set(2, LaneMillis(clock));
        retention
    }

    #[test]
    fn a_value_is_dropped_a_margin_after_it_has_expired_by_the_clock_of_its_own_lane() {
        let value = prefix(Some(LaneMillis(1000)), b"x");
        let key = keys::group_start(2);
        for (clock, table, drops) in [
            (1009, Table::JournalRecords, false),
            (1010, Table::JournalRecords, true),
            (1010, Table::JournalPayloads, true),
            (1010, Table::JournalRows, false),
            (1109, Table::JournalRows, false),
            (1110, Table::JournalRows, true),
            (u64::MAX, Table::Documents, false),
        ] {
            assert_eq!(
                retention(clock).drops(table, &key, &value),
                drops,
                "{table:?} at {clock}"
            );
        }
        let other = keys::group_start(3);
        assert!(!retention(u64::MAX).drops(Table::JournalRecords, &other, &value));
    }

    #[test]
    fn what_does_not_expire_stays() {
        let key = keys::group_start(2);
        assert!(!retention(u64::MAX).drops(Table::JournalRows, &key, &prefix(None, b"x")));
        assert!(!retention(u64::MAX).drops(Table::JournalRows, &key, b"short"));
    }
}
