//! Bodies of documents and chunks of blobs: the part of the replicated state that lives on disk.
//!
//! Written by apply, with the log index they belong to in the same batch. After a restart the log is applied again from
//! the last snapshot on; writes at or below that index are there already and are skipped.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use whiskraft_state::{BlobHash, DocumentKey, Effect};
use whiskraft_types::Revision;

use super::engine::{Engine, Table, View, Write};
use super::keys::{self, Meta};
use crate::codec;

/// Tables whose rows a snapshot carries.
pub(crate) const TABLES: [Table; 2] = [Table::Documents, Table::Blobs];

/// Document and blob bytes of one group.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    engine: Arc<Engine>,
    group: u32,
    /// Set while a snapshot replaces them under readers. Locked only to set it, and while one is read.
    hidden: Arc<RwLock<bool>>,
}

impl Bodies {
    /// The bodies of a group in an engine.
    pub(crate) fn new(engine: Arc<Engine>, group: u32) -> Self {
        let hidden = Arc::default();
        Self {
            engine,
            group,
            hidden,
        }
    }

    /// Log index up to which bodies are written; zero if there is none.
    pub(crate) fn mark(&self) -> io::Result<u64> {
        let bytes = self
            .engine
            .get(Table::Meta, &keys::meta(self.group, Meta::Bodies))?;
        Ok(bytes
            .map(|bytes| codec::decode(&bytes))
            .transpose()?
            .unwrap_or_default())
    }

    /// Writes the effects of log entries and the index of the last of them.
    pub(crate) fn apply(&self, effects: Vec<Effect>, index: u64) -> io::Result<()> {
        let mut writes: Vec<Write> = effects.into_iter().map(|effect| self.write_of(effect)).collect();
        writes.push(self.mark_write(index)?);
        self.engine.write(writes)
    }

    /// Notes that there were no bodies to write up to an index, beyond those that are written.
    pub(crate) fn note(&self, index: u64) -> io::Result<()> {
        self.engine.write(vec![self.mark_write(index)?])
    }

    fn mark_write(&self, index: u64) -> io::Result<Write> {
        Ok(Write::Put(
            Table::Meta,
            keys::meta(self.group, Meta::Bodies).to_vec(),
            codec::encode(&index)?,
        ))
    }

    fn write_of(&self, effect: Effect) -> Write {
        match effect {
            Effect::PutDocument { key, revision, body } => {
                let mut value = revision.0.to_le_bytes().to_vec();
                value.extend(body);
                Write::Put(Table::Documents, keys::document(self.group, &key), value)
            }
            Effect::DeleteDocument { key } => {
                Write::Delete(Table::Documents, keys::document(self.group, &key))
            }
            Effect::PutBlobChunk(chunk) => Write::Put(
                Table::Blobs,
                keys::blob(self.group, &chunk.hash, chunk.index),
                chunk.data,
            ),
            Effect::DeleteBlob { hash } => {
                let mut end = keys::blob(self.group, &hash, u32::MAX);
                end.push(0);
                Write::DeleteRange(Table::Blobs, keys::blob(self.group, &hash, 0), end)
            }
        }
    }

    /// Says that readers find nothing for a while; waits for those that read.
    pub(crate) fn hide(&self) {
        *self.hidden.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Says that bodies and tables belong together again.
    pub(crate) fn show(&self) {
        *self.hidden.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Reads, unless what is there is half of a snapshot.
    fn whole<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let hidden = self.hidden.read().unwrap_or_else(PoisonError::into_inner);
        if *hidden {
            let text = "a snapshot of the leader is being put in place; ask again in a moment";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        read()
    }

    /// A document's body and its revision.
    pub(crate) fn document(&self, key: &DocumentKey) -> io::Result<Option<(Revision, Bytes)>> {
        let key = keys::document(self.group, key);
        let value = self.whole(|| self.engine.get(Table::Documents, &key))?;
        let Some(value) = value.map(Bytes::from) else {
            return Ok(None);
        };
        let (revision, _) = value.split_first_chunk::<8>().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "document body is cut off".to_owned())
        })?;
        Ok(Some((Revision(u64::from_le_bytes(*revision)), value.slice(8..))))
    }

    /// A chunk of a blob.
    pub(crate) fn blob_chunk(&self, hash: &BlobHash, index: u32) -> io::Result<Option<Bytes>> {
        let key = keys::blob(self.group, hash, index);
        let chunk = self.whole(|| self.engine.get(Table::Blobs, &key))?;
        Ok(chunk.map(Bytes::from))
    }

    /// The bodies as they are now, whatever is written later.
    pub(crate) fn view(&self) -> View<'_> {
        self.engine.view()
    }

    /// The same for readers; whoever holds the lock of the tables gets what belongs to them.
    pub(crate) fn whole_view(&self) -> io::Result<View<'_>> {
        self.whole(|| Ok(self.engine.view()))
    }

    /// First and last (exclusive) key of the group, in every table.
    pub(crate) fn range(&self) -> ([u8; 4], [u8; 4]) {
        (keys::group_start(self.group), keys::group_end(self.group))
    }

    /// Name of the snapshot file whose bodies were being put in place when the process ended.
    pub(crate) fn installing(&self) -> io::Result<Option<String>> {
        let bytes = self
            .engine
            .get(Table::Meta, &keys::meta(self.group, Meta::Installing))?;
        Ok(bytes.map(|bytes| codec::decode(&bytes)).transpose()?)
    }

    /// Removes all bodies, after noting durably which snapshot brings the new ones.
    pub(crate) fn begin_replace(&self, snapshot: &str) -> io::Result<()> {
        let (from, to) = self.range();
        let mark = keys::meta(self.group, Meta::Installing).to_vec();
        let mut writes = vec![Write::Put(Table::Meta, mark, codec::encode(snapshot)?)];
        writes.extend(TABLES.map(|table| Write::DeleteRange(table, from.to_vec(), to.to_vec())));
        self.engine.write(writes)?;
        self.engine.sync()
    }

    /// Adds rows of the snapshot.
    pub(crate) fn replace(&self, rows: Vec<(Table, Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        self.engine.write(
            rows.into_iter()
                .map(|(table, key, value)| Write::Put(table, key, value))
                .collect(),
        )
    }

    /// Ends the replacement: the bodies are those of the snapshot at `index`.
    pub(crate) fn end_replace(&self, index: u64) -> io::Result<()> {
        let installing = keys::meta(self.group, Meta::Installing).to_vec();
        self.engine.write(vec![
            self.mark_write(index)?,
            Write::Delete(Table::Meta, installing),
        ])?;
        self.engine.sync()
    }
}
