//! The state machine of a lane: applies batches of the journal to its rows on disk.
//!
//! Driven by the consensus core's worker, one call after the other. What is applied gets on disk with the log id it leads to, so
//! there is no snapshot file to keep: a snapshot is built by saying how far the rows are, and written when a follower needs it.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};

use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use whiskraft_state::Response;
use whiskraft_state::journal::{JournalBatch, JournalCommand, LaneMillis, Turn};

use super::lane_rows::{LaneRows, LaneState};
use super::lane_time::LaneTime;
use super::machine::Applied;
use super::pressure::Pressure;
use super::snapshot_dir::SnapshotDir;
use super::snapshot_file::{SnapshotFile, SnapshotHeader};
use super::snapshot_source::{LaneView, SnapshotSource};
use crate::codec;
use crate::types::{Answer, LogId, LogIdRecord, MembershipRecord, Proposal, SnapshotMeta, Stored, Types};

/// Entries applied in one write at most.
const APPLY_MAX: usize = 256;
/// Bytes of payloads and records after which a write takes no further entry: group 0's writes wait behind one.
const APPLY_BYTES_MAX: usize = 1 << 20;
/// Bytes of log between two marks.
const MARK_BYTES: u64 = 8 << 20;
/// Marks kept: what they cover is more than a log ever has.
const MARKS_MAX: usize = 256;
/// What an entry takes beside payloads and records, about.
const ENTRY_BYTES: usize = 64;
/// What a command takes beside payload and record, about.
const COMMAND_BYTES: usize = 96;

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotSource>;
type Answered = (ApplyResponder<Types>, Answer);

/// The part of a lane that the rest of the node reads.
#[derive(Debug)]
pub(crate) struct LaneShared {
    /// `None` once the node has stopped. Write-locked while a snapshot replaces the rows.
    rows: RwLock<Option<LaneRows>>,
    /// Its clock, as this node sees it.
    pub(crate) time: Arc<LaneTime>,
    /// How far the lane has applied.
    pub(crate) applied: watch::Sender<Applied>,
    /// Bytes of log applied since the start, about.
    pub(crate) bytes: AtomicU64,
    /// Index in the log after which that many bytes were applied, ascending.
    marks: RwLock<Vec<(u64, u64)>>,
}

impl LaneShared {
    /// Reads rows.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&LaneRows) -> io::Result<T>) -> io::Result<T> {
        let rows = match self.rows.try_read() {
            Ok(rows) => rows,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let text = "a snapshot of the leader is being put in place; ask again in a moment";
                return Err(io::Error::new(ErrorKind::WouldBlock, text));
            }
        };
        match &*rows {
            Some(rows) => read(rows),
            None => Err(io::Error::other("the node has stopped")),
        }
    }

    /// Lets go of the store.
    pub(crate) fn close(&self) {
        drop(self.rows.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The last index of the log that has at least that many bytes behind it.
    pub(crate) fn index_with_bytes_behind(&self, bytes: u64) -> Option<u64> {
        let total = self.bytes.load(Ordering::Relaxed);
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        let old_enough = marks
            .iter()
            .rev()
            .find(|(_, at)| total.saturating_sub(*at) >= bytes);
        old_enough.map(|(index, _)| *index)
    }
}

/// The state machine of one lane.
#[derive(Debug)]
pub(crate) struct LaneMachine {
    shared: Arc<LaneShared>,
    rows: LaneRows,
    dir: SnapshotDir,
    group: u32,
    last: Option<LogId>,
    membership: Stored,
    clock: LaneMillis,
    pressure: Pressure,
    /// The writing of what was applied, beside what is applied next.
    flush: Option<JoinHandle<io::Result<()>>>,
}

impl LaneMachine {
    /// Opens a lane where it was.
    pub(crate) fn open(rows: LaneRows, snapshots: &Path, group: u32) -> io::Result<Self> {
        let dir = SnapshotDir::open(snapshots)?;
        if let Some(name) = rows.installing()? {
            // The process ended while rows were being replaced: only that snapshot can complete them.
            replace(&rows, &SnapshotFile::check(&dir.path(&name))?)?;
        }
        dir.list()?.into_iter().try_for_each(std::fs::remove_file)?;
        let marks = rows.marks()?;
        let shared = LaneShared {
            rows: RwLock::new(Some(rows.clone())),
            time: Arc::new(LaneTime::start()),
            applied: watch::Sender::new(Applied::default()),
            bytes: AtomicU64::new(marks.last().map_or(0, |(_, bytes)| *bytes)),
            marks: RwLock::new(marks),
        };
        let mut machine = Self {
            shared: Arc::new(shared),
            dir,
            group,
            last: None,
            membership: Stored::default(),
            clock: LaneMillis(0),
            pressure: rows.pressure(),
            flush: None,
            rows,
        };
        if let Some(state) = machine.rows.state()? {
            machine.take(state)?;
        }
        Ok(machine)
    }

    /// Members of the lane, as far as applied.
    pub(crate) fn membership(&self) -> &Stored {
        &self.membership
    }

    /// What the rest of the node reads.
    pub(crate) fn shared(&self) -> Arc<LaneShared> {
        Arc::clone(&self.shared)
    }

    /// Where snapshots are received.
    pub(crate) fn dir(&self) -> SnapshotDir {
        self.dir.clone()
    }

    /// Last entry applied.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    fn take(&mut self, state: LaneState) -> io::Result<()> {
        self.last = state.last.map(LogId::from);
        self.membership = Stored::try_from(state.membership)?;
        self.clock = state.clock;
        self.rows.set_clock(state.clock);
        self.shared.time.see(state.clock);
        self.shared.applied.send_replace(Applied::of(self.last));
        Ok(())
    }

    fn state(&self) -> LaneState {
        LaneState {
            last: self.last.map(LogIdRecord::from),
            membership: MembershipRecord::from(&self.membership),
            clock: self.clock,
        }
    }

    fn header(&self) -> SnapshotHeader {
        SnapshotHeader {
            group: self.group,
            last: self.last.map(LogIdRecord::from),
            membership: MembershipRecord::from(&self.membership),
        }
    }

    /// Applies entries in one write and returns what to answer.
    fn apply_entries(
        &mut self,
        entries: Vec<EntryResponder<Types>>,
        bytes: u64,
    ) -> io::Result<Vec<Answered>> {
        let mut answers = Vec::with_capacity(entries.len());
        let rows = self.rows.clone();
        let mut turn = Turn::new(&rows, self.clock);
        let mut has_batch = false;
        for (entry, responder) in entries {
            self.last = Some(entry.log_id);
            let answer = match entry.payload {
                EntryPayload::Blank => Answer::Response(Response::Done),
                EntryPayload::Membership(membership) => {
                    self.membership = Stored::new(self.last, membership);
                    Answer::Response(Response::Done)
                }
                EntryPayload::Normal(packed) => {
                    let Proposal::Journal(batch) = packed.get() else {
                        let text = format!(
                            "entry {} of lane {} is not of the journal",
                            entry.log_id.index, self.group
                        );
                        return Err(io::Error::new(ErrorKind::InvalidData, text));
                    };
                    has_batch = true;
                    Answer::Outcomes(turn.apply(batch)?)
                }
            };
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        let (clock, changes) = turn.finish();
        self.clock = clock;
        let total = self.shared.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        let marks = self.marked(total);
        self.rows.apply(changes, &self.state(), marks.as_deref())?;
        if let Some(marks) = marks {
            *self.shared.marks.write().unwrap_or_else(PoisonError::into_inner) = marks;
        }
        self.shared.bytes.store(total, Ordering::Relaxed);
        self.rows.set_clock(clock);
        if has_batch {
            self.shared.time.see(clock);
        }
        self.shared.applied.send_replace(Applied::of(self.last));
        Ok(answers)
    }

    /// The marks with one for the last entry, if it is time for another.
    fn marked(&self, total: u64) -> Option<Vec<(u64, u64)>> {
        let index = self.last?.index;
        let marks = self.shared.marks.read().unwrap_or_else(PoisonError::into_inner);
        let marked = marks.last().map_or(0, |(_, bytes)| *bytes);
        if total.saturating_sub(marked) < MARK_BYTES {
            return None;
        }
        let skipped = (marks.len() + 1).saturating_sub(MARKS_MAX);
        let mut marks: Vec<_> = marks.iter().skip(skipped).copied().collect();
        marks.push((index, total));
        Some(marks)
    }

    /// Has what was applied written, once the writing before has ended.
    async fn begin_flush(&mut self) -> io::Result<()> {
        self.end_flush().await?;
        let rows = self.rows.clone();
        self.flush = Some(tokio::task::spawn_blocking(move || rows.flush()));
        Ok(())
    }

    async fn end_flush(&mut self) -> io::Result<()> {
        match self.flush.take() {
            Some(flush) => flush.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }

    /// The rows as of now. They are written first: what a snapshot covers may leave the log.
    async fn view(&mut self) -> io::Result<Snapshot> {
        self.begin_flush().await?;
        self.end_flush().await?;
        let (rows, dir) = (self.rows.clone(), self.dir.clone());
        let view = LaneView::take(rows, dir, self.header(), self.state()).await?;
        Ok(Snapshot {
            meta: self.header().meta()?,
            snapshot: SnapshotSource::View(view),
        })
    }
}

/// Bytes of an entry in the log, about.
fn size(entry: &EntryResponder<Types>) -> usize {
    match &entry.0.payload {
        EntryPayload::Normal(packed) => match packed.get() {
            Proposal::Journal(batch) => ENTRY_BYTES + batch_size(batch),
            Proposal::Command(_) => ENTRY_BYTES,
        },
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_BYTES,
    }
}

/// Bytes of a batch, about.
pub(crate) fn batch_size(batch: &JournalBatch) -> usize {
    let sizes = batch.commands.iter().map(|command| match command {
        JournalCommand::Accept(accept) => COMMAND_BYTES + accept.payload.len(),
        JournalCommand::End(end) => COMMAND_BYTES + end.record.len(),
        JournalCommand::Archive(archive) => COMMAND_BYTES + archive.record.len(),
        JournalCommand::Retry(_) | JournalCommand::Cancel(_) => COMMAND_BYTES,
        JournalCommand::Fence { queues } => COMMAND_BYTES * queues.len(),
        JournalCommand::Purge { ids } => COMMAND_BYTES + 16 * ids.len(),
    });
    sizes.sum()
}

/// Replaces all rows by those of a snapshot that has its final name; begun twice, it ends the same.
fn replace(rows: &LaneRows, file: &SnapshotFile) -> io::Result<LaneState> {
    let state: LaneState = codec::decode(&file.state()?)?;
    rows.begin_replace(&SnapshotDir::name(file.header.last))?;
    let pressure = rows.pressure();
    file.rows(|some| {
        let sizes = some.iter().map(|(_, _, value)| value.len() as u64);
        pressure.wait_blocking(sizes.sum());
        rows.replace(some)
    })?;
    rows.end_replace(&state)?;
    Ok(state)
}

impl RaftStateMachine<Types> for LaneMachine {
    type SnapshotData = SnapshotSource;
    type SnapshotBuilder = LaneBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Stored)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let first = first?;
            let mut bytes = size(&first);
            let mut chunk = vec![first];
            while chunk.len() < APPLY_MAX
                && bytes < APPLY_BYTES_MAX
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                let next = next?;
                bytes += size(&next);
                chunk.push(next);
            }
            self.pressure.wait(bytes as u64).await;
            if self.rows.is_full() {
                self.begin_flush().await?;
            }
            for (responder, answer) in self.apply_entries(chunk, bytes as u64)? {
                responder.send(answer);
            }
            // A long log is applied without ever waiting for anything; heartbeats need the thread now and then.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<LaneBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> LaneBuilder {
        LaneBuilder {
            snapshot: Some(self.view().await),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotSource) -> io::Result<()> {
        let (file, _temporary) = snapshot.into_file().await?;
        self.end_flush().await?;
        let (rows, dir, shared) = (self.rows.clone(), self.dir.clone(), self.shared());
        let install = move || {
            let file = dir.adopt(file)?;
            // Readers must not take what is half in place for what is there.
            let _held = shared.rows.write().unwrap_or_else(PoisonError::into_inner);
            let state = replace(&rows, &file)?;
            std::fs::remove_file(&file.path)?;
            Ok::<_, io::Error>(state)
        };
        let state = tokio::task::spawn_blocking(install)
            .await
            .map_err(io::Error::other)??;
        tracing::info!(lane = self.group, last = ?meta.last_log_id.map(|id| id.index), "snapshot installed");
        self.shared
            .marks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.shared.bytes.store(0, Ordering::Relaxed);
        self.take(state)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if self.last.is_some() {
            self.view().await.map(Some)
        } else {
            Ok(None)
        }
    }
}

/// A snapshot that is there already.
#[derive(Debug)]
pub(crate) struct LaneBuilder {
    snapshot: Option<io::Result<Snapshot>>,
}

impl RaftSnapshotBuilder<Types> for LaneBuilder {
    type SnapshotData = SnapshotSource;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let built = self.snapshot.take();
        built.unwrap_or_else(|| Err(io::Error::other("the snapshot was built already")))
    }
}
