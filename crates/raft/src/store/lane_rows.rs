//! What a lane keeps on disk: rows, payloads, records, lists and fences of the journal, and how far it has applied.
//!
//! Everything that one turn changes is written in one piece with the log id it belongs to, so a restart goes on where
//! the lane was, and nothing is applied twice.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use whiskraft_state::journal::{Fence, JournalRow, JournalRows, LaneMillis, RowChange, UnixMillis};
use whiskraft_types::{ActivationId, Epoch, NamespaceName, QueueKey};

use super::engine::{Engine, Scan, Table, View, Write};
use super::keys::{self, Meta};
use super::pressure::Pressure;
use super::retention::{Retention, prefix, split};
use crate::codec;
use crate::types::{LogIdRecord, MembershipRecord};

/// Tables whose rows a snapshot of a lane carries.
pub(crate) const LANE_TABLES: [Table; 5] = [
    Table::JournalRows,
    Table::JournalPayloads,
    Table::JournalRecords,
    Table::JournalIndex,
    Table::JournalFences,
];

/// How far a lane has applied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct LaneState {
    /// Last entry.
    pub(crate) last: Option<LogIdRecord>,
    /// Membership as of it.
    pub(crate) membership: MembershipRecord,
    /// The lane's clock.
    pub(crate) clock: LaneMillis,
}

impl LaneState {
    /// Index of the last entry; zero if there is none.
    pub(crate) fn index(&self) -> u64 {
        self.last.map_or(0, |last| last.index)
    }
}

/// Notes that the rows of a lane are those of a snapshot, which are not in place.
pub(crate) fn installing_write(group: u32, snapshot: &str) -> io::Result<Write> {
    let key = keys::meta(group, Meta::Installing).to_vec();
    Ok(Write::Put(Table::Meta, key, codec::encode(snapshot)?))
}

/// What is known of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Missing,
    /// It has expired.
    Gone,
    /// Its row.
    Row(JournalRow),
}

/// The rows of one lane; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LaneRows {
    engine: Arc<Engine>,
    group: u32,
    retention: Retention,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("{what} of the journal is damaged"),
    )
}

impl LaneRows {
    /// The rows of a group in an engine.
    pub(crate) fn new(engine: Arc<Engine>, group: u32, retention: Retention) -> Self {
        Self {
            engine,
            group,
            retention,
        }
    }

    /// Where to ask before much is written.
    pub(crate) fn pressure(&self) -> Pressure {
        Pressure::new(Arc::clone(&self.engine))
    }

    /// How far the lane has applied; nothing if it is new.
    pub(crate) fn state(&self) -> io::Result<Option<LaneState>> {
        let bytes = self
            .engine
            .get(Table::Meta, &keys::meta(self.group, Meta::Lane))?;
        Ok(bytes.map(|bytes| codec::decode(&bytes)).transpose()?)
    }

    /// Where in the log how many bytes were applied.
    pub(crate) fn marks(&self) -> io::Result<Vec<(u64, u64)>> {
        let bytes = self
            .engine
            .get(Table::Meta, &keys::meta(self.group, Meta::Marks))?;
        Ok(bytes
            .map(|bytes| codec::decode(&bytes))
            .transpose()?
            .unwrap_or_default())
    }

    /// Makes changes, with how far they bring the lane and, if they changed, its marks.
    pub(crate) fn apply(
        &self,
        changes: Vec<RowChange>,
        state: &LaneState,
        marks: Option<&[(u64, u64)]>,
    ) -> io::Result<()> {
        let mut writes = Vec::with_capacity(changes.len() + 2);
        // Payloads that this turn has put, by their place: the engine does not show them yet.
        let mut payloads = BTreeMap::new();
        for change in changes {
            match &change {
                RowChange::PutPayload { id, .. } => drop(payloads.insert(*id, writes.len())),
                RowChange::DeletePayload(id) => drop(payloads.remove(id)),
                _ => {}
            }
            if let RowChange::KeepPayload { id, expires } = change {
                if let Some(payload) = self.payload_of_turn(&writes, payloads.get(&id).copied(), id)? {
                    payloads.insert(id, writes.len());
                    writes.push(self.put(Table::JournalPayloads, id, Some(expires), &payload));
                }
            } else {
                writes.push(self.write_of(change)?);
            }
        }
        writes.push(self.state_write(state)?);
        if let Some(marks) = marks {
            let key = keys::meta(self.group, Meta::Marks).to_vec();
            writes.push(Write::Put(Table::Meta, key, codec::encode(marks)?));
        }
        self.engine.write(writes)
    }

    fn payload_of_turn(
        &self,
        writes: &[Write],
        place: Option<usize>,
        id: ActivationId,
    ) -> io::Result<Option<Vec<u8>>> {
        let stored = match place.and_then(|place| writes.get(place)) {
            Some(Write::Put(_, _, value)) => Some(value.clone()),
            Some(Write::Delete(..) | Write::DeleteRange(..)) | None => self
                .engine
                .get(Table::JournalPayloads, &keys::activation(self.group, id))?,
        };
        let Some(stored) = stored else { return Ok(None) };
        let (_, payload) = split(&stored).ok_or_else(|| damaged("a payload"))?;
        Ok(Some(payload.to_vec()))
    }

    fn put(&self, table: Table, id: ActivationId, expires: Option<LaneMillis>, value: &[u8]) -> Write {
        let key = keys::activation(self.group, id).to_vec();
        Write::Put(table, key, prefix(expires, value))
    }

    fn delete(&self, table: Table, id: ActivationId) -> Write {
        Write::Delete(table, keys::activation(self.group, id).to_vec())
    }

    fn write_of(&self, change: RowChange) -> io::Result<Write> {
        let group = self.group;
        Ok(match change {
            RowChange::PutRow(row) => {
                self.put(Table::JournalRows, row.id, row.expires(), &codec::encode(&row)?)
            }
            RowChange::PutPayload { id, payload } => self.put(Table::JournalPayloads, id, None, &payload),
            RowChange::KeepPayload { id, .. } | RowChange::DeletePayload(id) => {
                self.delete(Table::JournalPayloads, id)
            }
            RowChange::PutRecord { id, expires, record } => {
                self.put(Table::JournalRecords, id, Some(expires), &record)
            }
            RowChange::DeleteRecord(id) => self.delete(Table::JournalRecords, id),
            RowChange::Open { key, id } => Write::Put(
                Table::JournalIndex,
                keys::open(group, &key, id),
                prefix(None, &[]),
            ),
            RowChange::Close { key, id } => Write::Delete(Table::JournalIndex, keys::open(group, &key, id)),
            RowChange::List {
                namespace,
                at,
                id,
                expires,
            } => Write::Put(
                Table::JournalIndex,
                keys::dead(group, &namespace, at, id),
                prefix(Some(expires), &[]),
            ),
            RowChange::Unlist { namespace, at, id } => {
                Write::Delete(Table::JournalIndex, keys::dead(group, &namespace, at, id))
            }
            RowChange::PutFence { key, fence } => Write::Put(
                Table::JournalFences,
                keys::fence(group, &key),
                prefix(
                    Some(fence.expires()),
                    &codec::encode(&(fence.epoch.0, fence.at.0))?,
                ),
            ),
        })
    }

    fn state_write(&self, state: &LaneState) -> io::Result<Write> {
        let key = keys::meta(self.group, Meta::Lane).to_vec();
        Ok(Write::Put(Table::Meta, key, codec::encode(state)?))
    }

    /// The lane's clock, as far as it has applied.
    pub(crate) fn clock(&self) -> LaneMillis {
        self.retention.clocks.get(self.group)
    }

    /// Sets the clock for reads and compactions.
    pub(crate) fn set_clock(&self, clock: LaneMillis) {
        self.retention.clocks.set(self.group, clock);
    }

    /// What is known of an activation.
    pub(crate) fn find(&self, id: ActivationId) -> io::Result<Found> {
        let clock = self.clock();
        let Some(row) = self.row(id)? else {
            return Ok(Found::Missing);
        };
        Ok(match row.expires() {
            Some(expires) if self.retention.gone_until(expires) <= clock => Found::Missing,
            Some(expires) if expires <= clock => Found::Gone,
            Some(_) | None => Found::Row(row),
        })
    }

    /// A payload that has not expired.
    pub(crate) fn payload(&self, id: ActivationId) -> io::Result<Option<Bytes>> {
        self.unexpired(Table::JournalPayloads, id)
    }

    /// A record that has not expired.
    pub(crate) fn record(&self, id: ActivationId) -> io::Result<Option<Bytes>> {
        self.unexpired(Table::JournalRecords, id)
    }

    fn unexpired(&self, table: Table, id: ActivationId) -> io::Result<Option<Bytes>> {
        let Some(stored) = self.engine.get(table, &keys::activation(self.group, id))? else {
            return Ok(None);
        };
        let (expires, value) = split(&stored).ok_or_else(|| damaged("a value"))?;
        if expires.is_some_and(|expires| expires <= self.clock()) {
            return Ok(None);
        }
        let from = stored.len() - value.len();
        Ok(Some(Bytes::from(stored).slice(from..)))
    }

    /// Open activations of a queue, by id, after one of them.
    pub(crate) fn open(
        &self,
        queue: &QueueKey,
        after: Option<ActivationId>,
        limit: usize,
    ) -> io::Result<Vec<JournalRow>> {
        let start = keys::open_start(self.group, Some(queue));
        let end = keys::after_all(start.clone());
        let from = match after {
            Some(id) => {
                let mut key = keys::open(self.group, queue, id);
                key.push(0);
                key
            }
            None => start,
        };
        // One may have ended since the list was read.
        self.listed(&from, &end, limit, JournalRow::is_open)
    }

    /// Rows of activations in a part of the index, in its order, that are what the caller looks for.
    fn listed(
        &self,
        from: &[u8],
        end: &[u8],
        limit: usize,
        is_wanted: impl Fn(&JournalRow) -> bool,
    ) -> io::Result<Vec<JournalRow>> {
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.engine.scan(Table::JournalIndex, from, end, |key, _| {
            let id = keys::last_activation(key).ok_or_else(|| damaged("a list"))?;
            rows.extend(self.row(id)?.filter(&is_wanted));
            Ok(if rows.len() >= limit {
                Scan::Stop
            } else {
                Scan::Continue
            })
        })?;
        Ok(rows)
    }

    /// Queues that have open activations.
    pub(crate) fn open_queues(&self) -> io::Result<Vec<QueueKey>> {
        let mut queues = Vec::new();
        let mut from = keys::open_start(self.group, None);
        let end = keys::after_all(from.clone());
        loop {
            let mut next = None;
            self.engine.scan(Table::JournalIndex, &from, &end, |key, _| {
                next = Some(keys::parse_open(key).ok_or_else(|| damaged("a list"))?.0);
                Ok(Scan::Stop)
            })?;
            let Some(queue) = next else { return Ok(queues) };
            from = keys::after_all(keys::open_start(self.group, Some(&queue)));
            queues.push(queue);
        }
    }

    /// Dead letters of a namespace, oldest first, after a place in that order.
    pub(crate) fn dead_letters(
        &self,
        namespace: &NamespaceName,
        after: Option<(UnixMillis, ActivationId)>,
        limit: usize,
    ) -> io::Result<Vec<JournalRow>> {
        let mut from = keys::dead_start(self.group, namespace);
        let end = keys::after_all(from.clone());
        if let Some((at, id)) = after {
            from = keys::dead(self.group, namespace, at, id);
            from.push(0);
        }
        let clock = self.clock();
        self.listed(&from, &end, limit, |row| {
            row.is_dead_letter() && !row.is_expired(clock)
        })
    }

    /// The rows as they are now, whatever is written later.
    pub(crate) fn view(&self) -> View<'_> {
        self.engine.view()
    }

    /// First and last (exclusive) key of the group, in every table.
    pub(crate) fn range(&self) -> ([u8; 4], [u8; 4]) {
        (keys::group_start(self.group), keys::group_end(self.group))
    }

    /// Name of the snapshot file whose rows were being put in place when the process ended.
    pub(crate) fn installing(&self) -> io::Result<Option<String>> {
        let bytes = self
            .engine
            .get(Table::Meta, &keys::meta(self.group, Meta::Installing))?;
        Ok(bytes.map(|bytes| codec::decode(&bytes)).transpose()?)
    }

    /// Removes everything, after noting durably which snapshot brings what follows.
    pub(crate) fn begin_replace(&self, snapshot: &str) -> io::Result<()> {
        let (from, to) = self.range();
        let mut writes = vec![installing_write(self.group, snapshot)?];
        writes.extend(LANE_TABLES.map(|table| Write::DeleteRange(table, from.to_vec(), to.to_vec())));
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

    /// Ends the replacement: the lane is where the snapshot was.
    pub(crate) fn end_replace(&self, state: &LaneState) -> io::Result<()> {
        let installing = keys::meta(self.group, Meta::Installing).to_vec();
        let marks = keys::meta(self.group, Meta::Marks).to_vec();
        self.engine.write(vec![
            self.state_write(state)?,
            Write::Delete(Table::Meta, marks),
            Write::Delete(Table::Meta, installing),
        ])?;
        self.engine.sync()
    }
}

impl JournalRows for LaneRows {
    type Error = io::Error;

    fn row(&self, id: ActivationId) -> io::Result<Option<JournalRow>> {
        let key = keys::activation(self.group, id);
        let Some(stored) = self.engine.get(Table::JournalRows, &key)? else {
            return Ok(None);
        };
        let (_, row) = split(&stored).ok_or_else(|| damaged("a row"))?;
        Ok(Some(codec::decode(row)?))
    }

    fn fence(&self, key: &QueueKey) -> io::Result<Option<Fence>> {
        let stored = self
            .engine
            .get(Table::JournalFences, &keys::fence(self.group, key))?;
        let Some(stored) = stored else { return Ok(None) };
        let (_, record) = split(&stored).ok_or_else(|| damaged("a fence"))?;
        let (epoch, at): (u64, u64) = codec::decode(record)?;
        Ok(Some(Fence {
            epoch: Epoch(epoch),
            at: LaneMillis(at),
        }))
    }
}
