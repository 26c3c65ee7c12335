//! What a lane keeps on disk: rows, payloads, records, lists and fences of the journal, and how far it has applied.
//!
//! Changes are readable at once and written in layers (see `lane_layers`), each in one piece with the log id it leads to. So
//! a restart goes on where the last layer ended, with what the log has after it, and nothing is applied twice.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use whiskraft_state::journal::{Fence, JournalRow, JournalRows, LaneMillis, RowChange, UnixMillis};
use whiskraft_types::{ActivationId, Epoch, NamespaceName, QueueKey};

use super::engine::{Engine, Scan, Table, View, Write};
use super::keys::{self, Meta};
use super::lane_layers::{Expiring, Layer, Layers, Slot};
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
    layers: Arc<RwLock<Layers>>,
    /// Held while a layer is written.
    flushing: Arc<Mutex<()>>,
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
            layers: Arc::default(),
            flushing: Arc::default(),
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

    /// Makes changes, with how far they bring the lane and, if they changed, its marks. Readable when it returns; on disk
    /// with the next [flush](Self::flush), and until then only in the lane's log.
    pub(crate) fn apply(
        &self,
        changes: Vec<RowChange>,
        state: &LaneState,
        marks: Option<&[(u64, u64)]>,
    ) -> io::Result<()> {
        let since = {
            let mut layers = self.write_layers();
            for change in changes {
                self.change(&mut layers, change)?;
            }
            layers.reach(state, marks, self.clock())
        };
        // What has expired by a clock may leave the disk a margin later, and what would be applied again must still find it.
        if state.clock.since(since) >= self.retention.margin / 2 {
            return self.flush();
        }
        Ok(())
    }

    fn change(&self, layers: &mut Layers, change: RowChange) -> io::Result<()> {
        let group = self.group;
        match change {
            RowChange::PutRow(row) => layers.put_row(row),
            RowChange::PutPayload { id, payload } => layers.put_new_payload(id, payload),
            RowChange::KeepPayload { id, expires } => {
                let payload = match layers.payload(id) {
                    Some(slot) => slot.value().map(|(_, payload)| payload.clone()),
                    None => self
                        .stored(Table::JournalPayloads, id)?
                        .map(|(_, payload)| payload),
                };
                if let Some(payload) = payload {
                    layers.put_payload(id, expires, payload);
                }
            }
            RowChange::DeletePayload(id) => layers.delete_payload(id),
            RowChange::PutRecord { id, expires, record } => layers.put_record(id, expires, record),
            RowChange::DeleteRecord(id) => layers.delete_record(id),
            RowChange::Open { key, id } => layers.list(keys::open(group, &key, id), None),
            RowChange::Close { key, id } => layers.unlist(keys::open(group, &key, id)),
            RowChange::List {
                namespace,
                at,
                id,
                expires,
            } => layers.list(keys::dead(group, &namespace, at, id), Some(expires)),
            RowChange::Unlist { namespace, at, id } => layers.unlist(keys::dead(group, &namespace, at, id)),
            RowChange::PutFence { key, fence } => layers.put_fence(key, fence),
        }
        Ok(())
    }

    /// Whether so much is applied and not on disk that it should be written.
    pub(crate) fn is_full(&self) -> bool {
        self.layers().open.is_full()
    }

    /// Writes everything that was applied before the call.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let _held = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        // The first may be one that could not be written before.
        for _ in 0..2 {
            let Some(layer) = self.write_layers().begin_write() else {
                return Ok(());
            };
            self.engine.write(self.writes(&layer)?)?;
            self.write_layers().written();
        }
        Ok(())
    }

    fn writes(&self, layer: &Layer) -> io::Result<Vec<Write>> {
        let values = [
            (Table::JournalPayloads, &layer.payloads),
            (Table::JournalRecords, &layer.records),
        ];
        let len = layer.rows.len() + layer.payloads.len() + layer.records.len() + layer.index.len() + 2;
        let mut writes = Vec::with_capacity(len + layer.fences.len());
        for (id, row) in &layer.rows {
            let key = keys::activation(self.group, *id).to_vec();
            let value = prefix(row.expires(), &codec::encode(row)?);
            writes.push(Write::Put(Table::JournalRows, key, value));
        }
        for (table, slots) in values {
            writes.extend(slots.iter().map(|(id, slot)| {
                let key = keys::activation(self.group, *id).to_vec();
                match slot.value() {
                    Some((expires, value)) => Write::Put(table, key, prefix(*expires, value)),
                    None => Write::Delete(table, key),
                }
            }));
        }
        writes.extend(layer.index.iter().map(|(key, slot)| match slot.value() {
            Some(expires) => Write::Put(Table::JournalIndex, key.clone(), prefix(*expires, &[])),
            None => Write::Delete(Table::JournalIndex, key.clone()),
        }));
        for (key, fence) in &layer.fences {
            let record = codec::encode(&(fence.epoch.0, fence.at.0))?;
            let value = prefix(Some(fence.expires()), &record);
            writes.push(Write::Put(
                Table::JournalFences,
                keys::fence(self.group, key),
                value,
            ));
        }
        if let Some(state) = &layer.reached {
            writes.push(self.state_write(state)?);
        }
        if let Some(marks) = &layer.marks {
            let key = keys::meta(self.group, Meta::Marks).to_vec();
            writes.push(Write::Put(Table::Meta, key, codec::encode(marks)?));
        }
        Ok(writes)
    }

    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_layers(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
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

    /// The row of an activation that has not expired, if it is not on disk yet.
    pub(crate) fn find_unwritten(&self, id: ActivationId) -> Option<JournalRow> {
        let clock = self.clock();
        let layers = self.layers();
        layers.row(id).filter(|row| !row.is_expired(clock)).cloned()
    }

    /// Whether there may be a row of an activation, as far as can be told without reading from the disk.
    pub(crate) fn may_have(&self, id: ActivationId) -> io::Result<bool> {
        if self.layers().row(id).is_some() {
            return Ok(true);
        }
        self.engine
            .may_have(Table::JournalRows, &keys::activation(self.group, id))
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
        let layered = self.layers().payload(id).cloned();
        self.unexpired(Table::JournalPayloads, id, layered)
    }

    /// A record that has not expired.
    pub(crate) fn record(&self, id: ActivationId) -> io::Result<Option<Bytes>> {
        let layered = self.layers().record(id).cloned();
        self.unexpired(Table::JournalRecords, id, layered)
    }

    fn unexpired(
        &self,
        table: Table,
        id: ActivationId,
        layered: Option<Slot<Expiring>>,
    ) -> io::Result<Option<Bytes>> {
        let found = match layered {
            Some(slot) => slot.value().cloned(),
            None => self.stored(table, id)?,
        };
        let clock = self.clock();
        let found = found.filter(|(expires, _)| expires.is_none_or(|expires| expires > clock));
        Ok(found.map(|(_, value)| value))
    }

    /// What the engine has.
    fn stored(&self, table: Table, id: ActivationId) -> io::Result<Option<Expiring>> {
        let Some(stored) = self.engine.get(table, &keys::activation(self.group, id))? else {
            return Ok(None);
        };
        let (expires, value) = split(&stored).ok_or_else(|| damaged("a value"))?;
        let from = stored.len() - value.len();
        Ok(Some((expires, Bytes::from(stored).slice(from..))))
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
        self.places(from, end, |key| {
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

    /// Visits the places in a part of the index, in order.
    fn places(
        &self,
        from: &[u8],
        end: &[u8],
        visit: impl FnMut(&[u8]) -> io::Result<Scan>,
    ) -> io::Result<()> {
        // In this order: what is written meanwhile is seen twice rather than not at all.
        let layered = self.layers().listed(from, end);
        self.places_beside(&layered, from, end, visit)
    }

    /// The same with what the layers have, which was read before and begins no later.
    fn places_beside(
        &self,
        layered: &[(Vec<u8>, bool)],
        from: &[u8],
        end: &[u8],
        mut visit: impl FnMut(&[u8]) -> io::Result<Scan>,
    ) -> io::Result<()> {
        let skipped = layered.partition_point(|(key, _)| key.as_slice() < from);
        let mut layered = layered[skipped..].iter().peekable();
        let mut is_stopped = false;
        self.engine.scan(Table::JournalIndex, from, end, |key, _| {
            while let Some((before, is_there)) = layered.next_if(|(layered, _)| layered.as_slice() < key) {
                if *is_there && visit(before)? == Scan::Stop {
                    is_stopped = true;
                    return Ok(Scan::Stop);
                }
            }
            let is_there = match layered.next_if(|(layered, _)| layered == key) {
                Some((_, is_there)) => *is_there,
                None => true,
            };
            let go_on = if is_there { visit(key)? } else { Scan::Continue };
            is_stopped = go_on == Scan::Stop;
            Ok(go_on)
        })?;
        for (key, is_there) in layered {
            if is_stopped || (*is_there && visit(key)? == Scan::Stop) {
                break;
            }
        }
        Ok(())
    }

    /// Queues that have open activations.
    pub(crate) fn open_queues(&self) -> io::Result<Vec<QueueKey>> {
        let mut queues = Vec::new();
        let mut from = keys::open_start(self.group, None);
        let end = keys::after_all(from.clone());
        let layered = self.layers().listed(&from, &end);
        loop {
            let mut next = None;
            self.places_beside(&layered, &from, &end, |key| {
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
        let _held = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_layers().clear();
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
        if let Some(row) = self.layers().row(id) {
            return Ok(Some(row.clone()));
        }
        let key = keys::activation(self.group, id);
        let Some(stored) = self.engine.get(Table::JournalRows, &key)? else {
            return Ok(None);
        };
        let (_, row) = split(&stored).ok_or_else(|| damaged("a row"))?;
        Ok(Some(codec::decode(row)?))
    }

    fn fence(&self, key: &QueueKey) -> io::Result<Option<Fence>> {
        if let Some(fence) = self.layers().fence(key) {
            return Ok(Some(fence));
        }
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
