//! The engine in memory, for builds without RocksDB: same behaviour, nothing survives the process.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Scan, Table, Write};
use crate::identity::DirLock;
use crate::store::retention::Retention;
use crate::store::watchdog::Calls;

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// All tables in one map.
#[derive(Debug)]
pub(crate) struct Engine {
    rows: RwLock<Rows>,
    calls: Arc<Calls>,
    _lock: DirLock,
}

impl Engine {
    /// An empty engine; the directory is not used.
    #[expect(clippy::unnecessary_wraps, reason = "the signature of the engine on disk")]
    pub(crate) fn open(_dir: &Path, lock: DirLock, _retention: &Retention) -> io::Result<Self> {
        Ok(Self {
            rows: RwLock::default(),
            calls: Arc::default(),
            _lock: lock,
        })
    }

    /// An empty engine: no other process can have left anything.
    pub(crate) fn open_read_only(dir: &Path, lock: DirLock) -> io::Result<Self> {
        Self::open(dir, lock, &Retention::default())
    }

    /// Writes all or nothing; readable when it returns.
    #[expect(clippy::unnecessary_wraps, reason = "the signature of the engine on disk")]
    pub(crate) fn write(&self, writes: Vec<Write>) -> io::Result<()> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            match write {
                Write::Put(table, key, value) => {
                    rows.insert((table, key), value);
                }
                Write::Delete(table, key) => {
                    rows.remove(&(table, key));
                }
                Write::DeleteRange(table, from, to) => {
                    rows.retain(|(in_table, key), _| *in_table != table || *key < from || *key >= to);
                }
            }
        }
        Ok(())
    }

    /// Nothing to do.
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the signature of the engine on disk"
    )]
    pub(crate) fn drop_files(&self, _table: Table, _from: &[u8], _to: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Nothing to do.
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the signature of the engine on disk"
    )]
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// What has begun here and not ended.
    pub(crate) fn calls(&self) -> Arc<Calls> {
        Arc::clone(&self.calls)
    }

    /// Nothing waits here.
    #[expect(clippy::unused_self, reason = "the signature of the engine on disk")]
    pub(crate) fn backlog(&self) -> u64 {
        0
    }

    /// The value of a key.
    #[expect(clippy::unnecessary_wraps, reason = "the signature of the engine on disk")]
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(&(table, key.to_vec())).cloned())
    }

    /// Whether a key is there.
    pub(crate) fn may_have(&self, table: Table, key: &[u8]) -> io::Result<bool> {
        Ok(self.get(table, key)?.is_some())
    }

    /// Visits keys from the first (inclusive) to the second (exclusive), in order.
    pub(crate) fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> io::Result<Scan>,
    ) -> io::Result<()> {
        scan(
            &self.rows.read().unwrap_or_else(PoisonError::into_inner),
            table,
            from,
            to,
            visit,
        )
    }

    /// The last key below `to`, not below `from`.
    #[expect(clippy::unnecessary_wraps, reason = "the signature of the engine on disk")]
    pub(crate) fn last(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let last = rows
            .range((table, from.to_vec())..(table, to.to_vec()))
            .next_back();
        Ok(last.map(|((_, key), value)| (key.clone(), value.clone())))
    }

    /// The tables as they are now, whatever is written later.
    pub(crate) fn view(&self) -> View<'_> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner).clone();
        View {
            rows,
            engine: PhantomData,
        }
    }
}

fn scan(
    rows: &Rows,
    table: Table,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> io::Result<Scan>,
) -> io::Result<()> {
    for ((_, key), value) in rows.range((table, from.to_vec())..(table, to.to_vec())) {
        if visit(key, value)? == Scan::Stop {
            break;
        }
    }
    Ok(())
}

/// An unchanging view of the tables.
pub(crate) struct View<'a> {
    rows: Rows,
    engine: PhantomData<&'a Engine>,
}

impl View<'_> {
    /// Like [`Engine::scan`].
    pub(crate) fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> io::Result<Scan>,
    ) -> io::Result<()> {
        scan(&self.rows, table, from, to, visit)
    }
}
