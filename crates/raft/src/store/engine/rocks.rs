//! The engine on RocksDB: a column family per table, one write-ahead log for all.

use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rocksdb::compaction_filter::Decision;
use rocksdb::properties::NUM_IMMUTABLE_MEM_TABLE;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    Direction, IteratorMode, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch,
};

use super::{Scan, Table, Write};
use crate::identity::DirLock;
use crate::store::retention::Retention;
use crate::store::seal;
use crate::store::watchdog::Calls;

/// Opening replays the write-ahead log; this keeps that under a second.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// Memory for writes of all tables together that are not being flushed: at seven eighths of it the oldest buffer is.
const WRITE_BUFFERS_BYTES: usize = 16 << 20;
/// Memory for writes of one table that are not being flushed.
const WRITE_BUFFER_BYTES: usize = 8 << 20;
/// What a write buffer grows by: half of it is not used yet, in each table. RocksDB would take four times as much.
const WRITE_BUFFER_STEP: usize = 256 << 10;
/// Full write buffers of a table that wait for their flush, at which all writes of all tables stop. The lanes wait at
/// two of one table, so that many are there only if group 0 alone fills them, or no flush ends.
const WRITE_BUFFERS_MAX: i32 = 6;
/// Blocks of table files kept in memory, all tables together.
const CACHE_BYTES: usize = 16 << 20;
/// Flushes at a time: a long one of a journal's table does not hold up that of the log.
const FLUSHES_MAX: i32 = 2;
/// Compactions at a time; the machine's cores belong to the scheduler.
const COMPACTIONS_MAX: i32 = 1;
/// Bits per key of the filters that tell that a table file does not have it.
const BLOOM_BITS: f64 = 10.0;
/// Share of a write buffer for the filter that tells that the buffer does not have a key.
const MEMTABLE_BLOOM_RATIO: f64 = 0.05;
/// Name of the filter that drops what has expired, in the diary.
const FILTER: &CStr = c"whiskraft-expired";
/// A table file is compacted when it is that old, so that what has expired leaves the disk without traffic: a day.
const PERIODIC_COMPACTION_SECONDS: u64 = 24 * 60 * 60;
/// RocksDB's own diary files kept.
const DIARIES: usize = 4;
/// Size of one diary file.
const DIARY_BYTES: usize = 4 << 20;

/// RocksDB, open.
pub(crate) struct Engine {
    db: DB,
    calls: Arc<Calls>,
    /// Let go after the database is closed.
    _lock: DirLock,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("path", &self.db.path()).finish()
    }
}

fn failed(error: rocksdb::Error) -> io::Error {
    let text = error.into_string();
    let kind = if text.contains("No space left on device") {
        io::ErrorKind::StorageFull
    } else if text.contains("Corruption") {
        io::ErrorKind::InvalidData
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, text)
}

impl Table {
    /// All of them.
    const ALL: [Self; 9] = [
        Self::Log,
        Self::Meta,
        Self::Documents,
        Self::Blobs,
        Self::JournalRows,
        Self::JournalPayloads,
        Self::JournalRecords,
        Self::JournalIndex,
        Self::JournalFences,
    ];

    /// Whether its values start with the time at which they expire.
    const fn expires(self) -> bool {
        match self {
            Self::Log | Self::Meta | Self::Documents | Self::Blobs => false,
            Self::JournalRows
            | Self::JournalPayloads
            | Self::JournalRecords
            | Self::JournalIndex
            | Self::JournalFences => true,
        }
    }
}

#[expect(
    deprecated,
    reason = "max_background_jobs gives a flush a second thread only together with six compactions"
)]
fn set_threads(options: &mut Options) {
    options.set_max_background_flushes(FLUSHES_MAX);
    options.set_max_background_compactions(COMPACTIONS_MAX);
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail is what a power cut leaves; damage before it must stop the node. The default would silently forget
    // acknowledged votes and entries after the first damaged byte.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_recycle_log_file_num(0);
    options.set_wal_compression_type(DBCompressionType::None);
    options.set_manual_wal_flush(false);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_paranoid_checks(true);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    set_threads(&mut options);
    options.set_keep_log_file_num(DIARIES);
    options.set_max_log_file_size(DIARY_BYTES);
    options
}

fn families(retention: &Retention) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let family = |table: Table| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        let mut options = Options::default();
        if table.expires() {
            // Ids are looked up in every lane, and most lanes do not have them.
            blocks.set_bloom_filter(BLOOM_BITS, false);
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
            let retention = retention.clone();
            let filter = move |_level: u32, key: &[u8], value: &[u8]| {
                if retention.drops(table, key, value) {
                    Decision::Remove
                } else {
                    Decision::Keep
                }
            };
            options.set_compaction_filter(FILTER, filter);
            options.set_periodic_compaction_seconds(PERIODIC_COMPACTION_SECONDS);
        }
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_arena_block_size(WRITE_BUFFER_STEP);
        options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
        options.set_compression_type(DBCompressionType::Lz4);
        ColumnFamilyDescriptor::new(table.name(), options)
    };
    Table::ALL.into_iter().map(family).collect()
}

impl Engine {
    /// Opens or creates the database in a directory.
    pub(crate) fn open(dir: &Path, lock: DirLock, retention: &Retention) -> io::Result<Self> {
        let db = DB::open_cf_descriptors(&options(), dir, families(retention)).map_err(failed)?;
        Ok(Self::new(db, lock))
    }

    /// Opens the database of a node that is stopped, and changes nothing in it.
    pub(crate) fn open_read_only(dir: &Path, lock: DirLock) -> io::Result<Self> {
        let mut options = options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let db = DB::open_cf_descriptors_read_only(&options, dir, families(&Retention::default()), false)
            .map_err(failed)?;
        Ok(Self::new(db, lock))
    }

    fn new(db: DB, lock: DirLock) -> Self {
        Self {
            db,
            calls: Arc::default(),
            _lock: lock,
        }
    }

    /// What has begun here and not ended.
    pub(crate) fn calls(&self) -> Arc<Calls> {
        Arc::clone(&self.calls)
    }

    fn family(&self, table: Table) -> io::Result<&ColumnFamily> {
        self.db.cf_handle(table.name()).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("column family {} is missing", table.name()),
            )
        })
    }

    /// Writes all or nothing; readable when it returns.
    pub(crate) fn write(&self, writes: Vec<Write>) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        let mut last = None;
        for write in writes {
            let table = match &write {
                Write::Put(table, ..) | Write::Delete(table, _) | Write::DeleteRange(table, ..) => *table,
            };
            let family = match last {
                Some((known, family)) if known == table => family,
                _ => self.family(table)?,
            };
            last = Some((table, family));
            match write {
                Write::Put(_, key, value) => batch.put_cf(family, &key, seal::seal(&key, value)),
                Write::Delete(_, key) => batch.delete_cf(family, key),
                Write::DeleteRange(_, from, to) => batch.delete_range_cf(family, from, to),
            }
        }
        let _call = self.calls.begin("a write");
        self.db.write(batch).map_err(failed)
    }

    /// Deletes the files that hold nothing but keys from the first to the last (both inclusive), all of which have been
    /// removed durably. Some of those in other files may come back with it: nobody may read them.
    pub(crate) fn drop_files(&self, table: Table, first: &[u8], last: &[u8]) -> io::Result<()> {
        let family = self.family(table)?;
        self.db
            .delete_file_in_range_cf(family, first, last)
            .map_err(failed)
    }

    /// Makes every write so far durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let _call = self.calls.begin("a sync");
        self.db.flush_wal(true).map_err(failed)
    }

    /// Full write buffers of the table that has most, each of which waits for its flush.
    pub(crate) fn backlog(&self) -> u64 {
        let of_table = |table: Table| {
            let family = self.family(table).ok()?;
            let waiting = self.db.property_int_value_cf(family, NUM_IMMUTABLE_MEM_TABLE);
            waiting.ok().flatten()
        };
        Table::ALL
            .into_iter()
            .filter_map(of_table)
            .max()
            .unwrap_or_default()
    }

    /// The value of a key.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let sealed = self.db.get_cf(self.family(table)?, key).map_err(failed)?;
        sealed
            .map(|sealed| seal::open_owned(table.name(), key, sealed))
            .transpose()
    }

    /// Whether a key may be there, as far as can be told without reading from the disk.
    pub(crate) fn may_have(&self, table: Table, key: &[u8]) -> io::Result<bool> {
        Ok(self.db.key_may_exist_cf(self.family(table)?, key))
    }

    /// Visits keys from the first (inclusive) to the second (exclusive), in order.
    pub(crate) fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> io::Result<Scan>,
    ) -> io::Result<()> {
        let mode = IteratorMode::From(from, Direction::Forward);
        for row in self
            .db
            .iterator_cf_opt(self.family(table)?, bounds(from, to), mode)
        {
            let (key, value) = row.map_err(failed)?;
            let value = seal::open(table.name(), &key, &value)?;
            if visit(&key, value)? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    /// The last key below `to`, not below `from`.
    pub(crate) fn last(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut rows = self
            .db
            .iterator_cf_opt(self.family(table)?, bounds(from, to), IteratorMode::End);
        let Some((key, value)) = rows.next().transpose().map_err(failed)? else {
            return Ok(None);
        };
        let value = seal::open_owned(table.name(), &key, value.into())?;
        Ok(Some((key.into(), value)))
    }

    /// Compacts a range of a table, which drops what has expired in it.
    #[cfg(test)]
    pub(crate) fn compact(&self, table: Table, from: &[u8], to: &[u8]) -> io::Result<()> {
        let family = self.family(table)?;
        self.db.flush_cf(family).map_err(failed)?;
        self.db.compact_range_cf(family, Some(from), Some(to));
        Ok(())
    }

    /// Writes a value without its checksum.
    #[cfg(test)]
    pub(crate) fn write_unsealed(&self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.db.put_cf(self.family(table)?, key, value).map_err(failed)
    }

    /// The tables as they are now, whatever is written later.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            engine: self,
            snapshot: self.db.snapshot(),
        }
    }
}

/// Without an upper bound an iterator walks over the tombstones of everything deleted behind the range.
fn bounds(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}

/// An unchanging view of the tables.
pub(crate) struct View<'a> {
    engine: &'a Engine,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl View<'_> {
    /// Like [`Engine::scan`].
    pub(crate) fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> io::Result<Scan>,
    ) -> io::Result<()> {
        let mode = IteratorMode::From(from, Direction::Forward);
        for row in self
            .snapshot
            .iterator_cf_opt(self.engine.family(table)?, bounds(from, to), mode)
        {
            let (key, value) = row.map_err(failed)?;
            let value = seal::open(table.name(), &key, &value)?;
            if visit(&key, value)? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }
}
