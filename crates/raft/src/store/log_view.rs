//! The log of one group in an engine that nobody writes to.

use std::io;

use super::engine::{Engine, Table};
use super::keys::{self, Meta};
use super::log_store::{READ_BYTES_MAX, READ_ENTRIES_MAX, decode_stored, read_entries};
use crate::codec;
use crate::types::{Entry, LogIdRecord};

/// See the module.
#[derive(Debug)]
pub(crate) struct LogView {
    engine: Engine,
    group: u32,
}

impl LogView {
    /// The log of a group.
    pub(crate) fn new(engine: Engine, group: u32) -> Self {
        Self { engine, group }
    }

    /// Index of the last purged entry.
    pub(crate) fn purged(&self) -> io::Result<Option<u64>> {
        self.mark(Meta::Purged)
    }

    /// Index of the last entry that was known to be committed.
    pub(crate) fn committed(&self) -> io::Result<Option<u64>> {
        self.mark(Meta::Committed)
    }

    /// Index of the last entry.
    pub(crate) fn last(&self) -> io::Result<Option<u64>> {
        let (from, to) = (keys::group_start(self.group), keys::group_end(self.group));
        let last = self.engine.last(Table::Log, &from, &to)?;
        last.map(|(key, value)| decode_stored(&key, &value).map(|entry| entry.log_id.index))
            .transpose()
    }

    /// Some entries from an index on; none at the end of the log.
    pub(crate) fn page(&self, from: u64) -> io::Result<Vec<Entry>> {
        read_entries(
            &self.engine,
            self.group,
            (from, u64::MAX),
            READ_ENTRIES_MAX,
            READ_BYTES_MAX,
        )
    }

    fn mark(&self, tag: Meta) -> io::Result<Option<u64>> {
        let bytes = self.engine.get(Table::Meta, &keys::meta(self.group, tag))?;
        let record: Option<LogIdRecord> = bytes.map(|bytes| codec::decode(&bytes)).transpose()?;
        Ok(record.map(|record| record.index))
    }
}
