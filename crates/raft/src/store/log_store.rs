//! The log, the vote and the marks of one Raft group.
//!
//! The consensus core calls one method after the other; each writes before it returns, so the engine's order is the
//! core's order. `append` is acknowledged after the next sync, `save_vote` returns after it; purge and truncation need
//! no sync of their own, because nothing can become durable before them that was written after them.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use tokio::time::Instant;

use super::engine::{Engine, Scan, Table, Write};
use super::keys::{self, Meta};
use super::pressure::Pressure;
use super::seal::SEAL_LEN;
use super::sync::{SyncHandle, Unsynced};
use super::tail::Tail;
use crate::types::{self, Ballot, Entry, LogId, LogIdRecord, META_GROUP, Types, Vote, VoteRecord};
use crate::witness::{Held, OwnDisk};
use crate::{clock, codec};

/// Entries in one read for replication; a message holds that many at most.
pub(super) const READ_ENTRIES_MAX: usize = 1000;
/// Bytes in one read for replication; one entry is read however long it is.
pub(super) const READ_BYTES_MAX: usize = 1 << 20;
/// Pause between two times that what is committed is written by itself.
const COMMITTED_PAUSE: Duration = Duration::from_millis(100);

/// Log storage of one group; clones read the same log.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    engine: Arc<Engine>,
    sync: SyncHandle,
    group: u32,
    pressure: Pressure,
    disk: Arc<OwnDisk>,
    tail: Arc<Tail>,
    unwritten: Arc<Mutex<Unwritten>>,
}

/// What is committed, between two times that it was written.
#[derive(Debug)]
struct Unwritten {
    committed: Option<Option<LogId>>,
    at: Instant,
}

impl LogStore {
    /// The log of a group in an engine.
    pub(crate) fn new(engine: Arc<Engine>, sync: SyncHandle, group: u32) -> Self {
        let pressure = Pressure::new(Arc::clone(&engine));
        Self {
            engine,
            sync,
            group,
            pressure,
            disk: Arc::default(),
            tail: Arc::new(Tail::new(group)),
            unwritten: Arc::new(Mutex::new(Unwritten {
                committed: None,
                at: clock::now(),
            })),
        }
    }

    /// What the disk has confirmed of this log.
    pub(crate) fn disk(&self) -> Arc<OwnDisk> {
        Arc::clone(&self.disk)
    }

    /// Notes what is there at the start; rows or a snapshot may be ahead of the log.
    pub(crate) fn note_opened(&self, applied: Option<LogId>) -> io::Result<()> {
        let (_, last) = self.ends()?;
        let last = last.max(applied).map(LogIdRecord::from);
        let vote = self.vote()?.map(Ballot::from).unwrap_or_default();
        self.disk.opened(Held { vote, last });
        Ok(())
    }

    /// Last purged and last log id.
    fn ends(&self) -> io::Result<(Option<LogId>, Option<LogId>)> {
        let purged = self.purged()?;
        let from = keys::log(self.group, purged.map_or(0, |id| id.index + 1));
        let last = self
            .engine
            .last(Table::Log, &from, &keys::group_end(self.group))?;
        let last = last.map(|(key, value)| decode_stored(&key, &value)).transpose()?;
        Ok((purged, last.map(|entry| entry.log_id).or(purged)))
    }

    /// Last purged log id.
    pub(crate) fn purged(&self) -> io::Result<Option<LogId>> {
        Ok(self.meta::<LogIdRecord>(Meta::Purged)?.map(LogId::from))
    }

    /// The vote, if one was ever given.
    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        Ok(self.meta::<VoteRecord>(Meta::Vote)?.map(Vote::from))
    }

    fn meta<T: serde::de::DeserializeOwned>(&self, tag: Meta) -> io::Result<Option<T>> {
        let bytes = self.engine.get(Table::Meta, &keys::meta(self.group, tag))?;
        Ok(bytes.map(|bytes| codec::decode(&bytes)).transpose()?)
    }

    fn committed_write(&self, committed: Option<LogId>) -> io::Result<Write> {
        match committed {
            Some(id) => self.put_meta(Meta::Committed, &LogIdRecord::from(id)),
            None => Ok(Write::Delete(
                Table::Meta,
                keys::meta(self.group, Meta::Committed).to_vec(),
            )),
        }
    }

    /// What is committed, if that was not written yet.
    fn take_committed(&self) -> io::Result<Option<Write>> {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = unwritten.committed.take();
        committed
            .map(|committed| self.committed_write(committed))
            .transpose()
    }

    fn put_meta<T: serde::Serialize>(&self, tag: Meta, value: &T) -> io::Result<Write> {
        Ok(Write::Put(
            Table::Meta,
            keys::meta(self.group, tag).to_vec(),
            codec::encode(value)?,
        ))
    }

    fn read(&self, from: u64, to: u64, entries_max: usize, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if let Some(entries) = self.tail.read((from, to), entries_max, bytes_max) {
            return Ok(entries);
        }
        read_entries(&self.engine, self.group, (from, to), entries_max, bytes_max)
    }

    /// Reads page by page, so that a node that is far behind does not take its whole log into memory at once.
    fn pages(&self, from: u64, to: u64) -> impl Stream<Item = io::Result<Vec<Entry>>> + Send + use<> {
        let store = self.clone();
        stream::unfold((store, from), move |(store, from)| async move {
            if from >= to {
                return None;
            }
            let page = store.read(from, to, READ_ENTRIES_MAX, READ_BYTES_MAX);
            let next = match page.as_deref() {
                Ok([.., last]) => last.log_id.index + 1,
                // A gap or an error ends the stream; the reader checks that it got the last entry.
                Ok([]) | Err(_) => to,
            };
            Some((page, (store, next)))
        })
    }
}

/// Says that the log of a group begins behind an entry.
pub(crate) fn purged_write(group: u32, last: LogIdRecord) -> io::Result<Write> {
    let key = keys::meta(group, Meta::Purged).to_vec();
    Ok(Write::Put(Table::Meta, key, codec::encode(&last)?))
}

/// Entries from an index (inclusive) to another (exclusive); at least one, if there is one.
pub(super) fn read_entries(
    engine: &Engine,
    group: u32,
    (from, to): (u64, u64),
    entries_max: usize,
    bytes_max: usize,
) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    if from >= to {
        return Ok(entries);
    }
    let (first, end) = (keys::log(group, from), keys::log(group, to));
    engine.scan(Table::Log, &first, &end, |key, value| {
        if !entries.is_empty() && bytes + value.len() > bytes_max {
            return Ok(Scan::Stop);
        }
        entries.push(decode_stored(key, value)?);
        bytes += value.len();
        Ok(if entries.len() >= entries_max {
            Scan::Stop
        } else {
            Scan::Continue
        })
    })?;
    Ok(entries)
}

fn encode_stored(entry: &Entry) -> io::Result<Vec<u8>> {
    let payload = types::encode_payload(entry)?;
    let mut bytes = Vec::with_capacity(16 + payload.len() + SEAL_LEN);
    bytes.extend(entry.log_id.leader_id.term.to_le_bytes());
    bytes.extend(entry.log_id.leader_id.node_id.to_le_bytes());
    bytes.extend(&payload);
    Ok(bytes)
}

/// Bytes of values that are written, about.
fn bytes(writes: &[Write]) -> u64 {
    let sizes = writes.iter().map(|write| match write {
        Write::Put(_, _, value) => value.len() as u64,
        Write::Delete(..) | Write::DeleteRange(..) => 0,
    });
    sizes.sum()
}

pub(super) fn decode_stored(key: &[u8], value: &[u8]) -> io::Result<Entry> {
    let damaged = |what: &str| {
        let index = keys::log_index(key).unwrap_or_default();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("log entry {index} is damaged: {what}"),
        )
    };
    let index = keys::log_index(key).ok_or_else(|| damaged("its key is too short"))?;
    let (term, rest) = value
        .split_first_chunk::<8>()
        .ok_or_else(|| damaged("it is cut off"))?;
    let (node, payload) = rest
        .split_first_chunk::<8>()
        .ok_or_else(|| damaged("it is cut off"))?;
    let record = LogIdRecord {
        term: u64::from_le_bytes(*term),
        node: u64::from_le_bytes(*node),
        index,
    };
    types::decode_entry(record.into(), Bytes::copy_from_slice(payload))
}

/// Start (inclusive) and end (exclusive) of a range of indices.
fn indices(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = indices(&range);
        self.read(from, to, usize::MAX, usize::MAX)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        use futures::StreamExt;

        let (from, to) = indices(&range);
        self.pages(from, to).flat_map(|page| {
            let entries = match page {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(entries)
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_ENTRIES_MAX, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let (last_purged_log_id, last_log_id) = self.ends()?;
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.engine
            .write(vec![self.put_meta(Meta::Vote, &VoteRecord::from(*vote))?])?;
        self.sync.wait().await?;
        self.disk.voted(Ballot::from(*vote));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.disk.committed(committed.map_or(0, |id| id.index));
        // Written with the next entries if these come soon: an older one only means that less is applied at the next start,
        // until a leader says more.
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if now.duration_since(unwritten.at) < COMMITTED_PAUSE {
            unwritten.committed = Some(committed);
            return Ok(());
        }
        (unwritten.at, unwritten.committed) = (now, None);
        self.engine.write(vec![self.committed_write(committed)?])
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.meta::<LogIdRecord>(Meta::Committed)?.map(LogId::from))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut last, mut tail) = (None, Vec::new());
        let put = |entry: Entry| {
            last = Some(LogIdRecord::from(entry.log_id));
            let key = keys::log(self.group, entry.log_id.index).to_vec();
            let value = encode_stored(&entry)?;
            tail.push((entry, value.len()));
            Ok(Write::Put(Table::Log, key, value))
        };
        let mut writes = entries.into_iter().map(put).collect::<io::Result<Vec<_>>>()?;
        writes.extend(self.take_committed()?);
        if self.group != META_GROUP {
            self.pressure.wait(bytes(&writes)).await;
        }
        self.engine.write(writes)?;
        self.tail.append(tail);
        let unsynced = Unsynced {
            flushed: callback,
            last: last.map(|last| (self.disk(), last)),
        };
        self.sync.notify(unsynced).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        self.tail.truncate(from);
        let from = keys::log(self.group, from).to_vec();
        self.engine.write(vec![Write::DeleteRange(
            Table::Log,
            from,
            keys::group_end(self.group).to_vec(),
        )])
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.tail.purge(log_id.index);
        let first = self.purged()?.map_or(0, |id| id.index + 1);
        let (from, to) = (
            keys::log(self.group, first),
            keys::log(self.group, log_id.index + 1),
        );
        let mark = self.put_meta(Meta::Purged, &LogIdRecord::from(log_id))?;
        if from >= to {
            return self.engine.write(vec![mark]);
        }
        self.engine.write(vec![
            mark,
            Write::DeleteRange(Table::Log, from.to_vec(), to.to_vec()),
        ])?;
        if self.group != META_GROUP {
            // A lane's log is long: its files go at once, and not when some compaction meets them. After the sync, or a
            // power cut would leave a log that has lost its start and does not know.
            self.sync.wait().await?;
            let (first, last) = (keys::log(self.group, 0), keys::log(self.group, log_id.index));
            // It deletes files and syncs the list of those that are left.
            let engine = Arc::clone(&self.engine);
            let drop_files = move || engine.drop_files(Table::Log, &first, &last);
            return tokio::task::spawn_blocking(drop_files)
                .await
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}
