//! The state machine: applies the log to the tables, publishes what changed, builds and installs snapshots.
//!
//! Driven by the consensus core's worker, one call after the other. The tables are in memory; what makes them durable is
//! the log and the newest snapshot. Bodies of documents and blobs are on disk and may be ahead of the tables for a
//! moment after a restart, never behind what was acknowledged.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use whiskraft_state::{Effect, Response, State};
use whiskraft_types::LogRevision;

use super::bodies::{Bodies, TABLES};
use super::engine::{Scan, View};
use super::ring::Ring;
use super::snapshot_dir::SnapshotDir;
use super::snapshot_file::{SnapshotFile, SnapshotHeader, SnapshotWriter};
use crate::codec;
use crate::types::{
    Answer, Entry, LogId, LogIdRecord, MembershipRecord, Proposal, SnapshotMeta, Stored, Types,
};
use crate::watch::Batch;

/// Entries applied under one lock of the tables; readers wait that long at most.
const APPLY_MAX: usize = 128;

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotFile>;

/// How far this node has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    /// Index of the last applied entry.
    pub(crate) revision: LogRevision,
    /// Term of that entry.
    pub(crate) term: u64,
}

/// The part of the state machine that the rest of the node reads.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) applied: watch::Sender<Applied>,
}

impl Shared {
    /// Reads the tables.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the tables if nobody writes or waits to write them.
    pub(crate) fn try_read<T>(&self, read: impl FnOnce(&State) -> T) -> Option<T> {
        match self.state.try_read() {
            Ok(state) => Some(read(&state)),
            Err(TryLockError::Poisoned(state)) => Some(read(&state.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The tables, and the revision they are complete to.
    pub(crate) fn clone_state(&self) -> (State, LogRevision) {
        // The ring is written under the lock of the tables, so the two agree.
        self.read(|state| (state.clone(), self.ring.applied()))
    }
}

/// The state machine of one group.
#[derive(Debug)]
pub(crate) struct Machine {
    shared: Arc<Shared>,
    bodies: Bodies,
    dir: SnapshotDir,
    group: u32,
    last: Option<LogId>,
    membership: Stored,
    /// Bodies up to this index are on disk.
    bodies_mark: u64,
    current: Arc<Mutex<Option<SnapshotFile>>>,
}

impl Machine {
    /// Opens the state machine as of its newest whole snapshot; the log brings it further.
    pub(crate) fn open(bodies: Bodies, snapshots: &Path, group: u32, ring: Ring) -> io::Result<Self> {
        let dir = SnapshotDir::open(snapshots)?;
        let newest = match bodies.installing()? {
            // The process ended while bodies were being replaced: only that snapshot can complete them.
            Some(name) => Some(SnapshotFile::check(&dir.path(&name))?),
            None => dir.newest()?,
        };
        let shared = Shared {
            state: RwLock::default(),
            ring: Arc::new(ring),
            applied: watch::Sender::new(Applied::default()),
        };
        let mut machine = Self {
            shared: Arc::new(shared),
            bodies_mark: bodies.mark()?,
            bodies,
            dir,
            group,
            last: None,
            membership: Stored::default(),
            current: Arc::default(),
        };
        if let Some(file) = newest {
            machine.load(file)?;
        }
        Ok(machine)
    }

    /// What the rest of the node reads.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Where snapshots are received.
    pub(crate) fn dir(&self) -> SnapshotDir {
        self.dir.clone()
    }

    /// Last entry covered by the snapshot the machine was opened from.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Takes a checked snapshot at start.
    fn load(&mut self, file: SnapshotFile) -> io::Result<()> {
        let unfinished = self.bodies.installing()?.is_some();
        if unfinished || self.bodies_mark < file.index() {
            replace_bodies(&self.bodies, &file)?;
        }
        let state = codec::decode(&file.state()?)?;
        self.take(file, state)
    }

    /// Makes a snapshot the state of this machine; its bodies are in place.
    fn take(&mut self, file: SnapshotFile, state: State) -> io::Result<()> {
        let meta = file.header.meta()?;
        self.bodies_mark = self.bodies_mark.max(file.index());
        self.last = meta.last_log_id;
        self.membership = meta.last_membership;
        let applied = Applied::of(self.last);
        {
            let mut tables = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            *tables = state;
            self.shared.ring.reset(applied.revision);
        }
        self.shared.applied.send_replace(applied);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Applies entries under one lock and returns what to answer.
    fn apply_entries(&mut self, entries: Vec<EntryResponder<Types>>) -> io::Result<Vec<Answered>> {
        let mut answers = Vec::with_capacity(entries.len());
        let mut batches = Vec::new();
        let mut effects = Vec::new();
        let shared = Arc::clone(&self.shared);
        let mut tables = shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for (entry, responder) in entries {
            let response = self.apply_entry(&mut tables, entry, &mut batches, &mut effects)?;
            answers.extend(responder.map(|responder| (responder, Answer::Response(response))));
        }
        let applied = Applied::of(self.last);
        if !effects.is_empty() {
            // Before the tables are readable again: whoever sees a document's record finds its body.
            self.bodies.apply(effects, applied.revision.0)?;
            self.bodies_mark = applied.revision.0;
        }
        shared.ring.publish(batches, applied.revision);
        drop(tables);
        shared.applied.send_replace(applied);
        Ok(answers)
    }

    fn apply_entry(
        &mut self,
        tables: &mut State,
        entry: Entry,
        batches: &mut Vec<Batch>,
        effects: &mut Vec<Effect>,
    ) -> io::Result<Response> {
        let revision = LogRevision(entry.log_id.index);
        self.last = Some(entry.log_id);
        Ok(match entry.payload {
            EntryPayload::Blank => Response::Done,
            EntryPayload::Membership(membership) => {
                self.membership = Stored::new(self.last, membership);
                Response::Done
            }
            EntryPayload::Normal(packed) => {
                let Proposal::Command(command) = packed.get() else {
                    let text = format!("entry {revision} of group {} is of the journal", self.group);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                };
                let applied = tables.apply(revision, command);
                if !applied.events.is_empty() {
                    batches.push(Batch {
                        revision,
                        events: applied.events,
                    });
                }
                if revision.0 > self.bodies_mark {
                    effects.extend(applied.effects);
                }
                applied.response
            }
        })
    }
}

type Answered = (ApplyResponder<Types>, Answer);

impl Applied {
    /// As of an entry.
    pub(super) fn of(last: Option<LogId>) -> Self {
        last.map_or_else(Self::default, |last| Self {
            revision: LogRevision(last.index),
            term: last.leader_id.term,
        })
    }
}

/// Replaces all bodies by those of a snapshot that has its final name; begun twice, it ends the same.
fn replace_bodies(bodies: &Bodies, file: &SnapshotFile) -> io::Result<()> {
    bodies.begin_replace(&SnapshotDir::name(file.header.last))?;
    file.rows(|rows| bodies.replace(rows))?;
    bodies.end_replace(file.index())
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Stored)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_MAX);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.into_iter().collect::<io::Result<Vec<_>>>()?;
            for (responder, response) in self.apply_entries(chunk)? {
                responder.send(response);
            }
            // A long log is applied without ever waiting for anything; heartbeats need the thread now and then.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let header = SnapshotHeader {
            group: self.group,
            last: self.last.map(LogIdRecord::from),
            membership: MembershipRecord::from(&self.membership),
        };
        let (state, _) = self.shared.clone_state();
        let (bodies, dir) = (self.bodies.clone(), self.dir.clone());
        let (viewed, is_viewed) = oneshot::channel();
        let index = self.last.map_or(0, |last| last.index);
        let is_behind = self.bodies_mark < index;
        // The view of the bodies belongs to the blocking thread that reads it; nothing is applied until it is taken.
        let build = tokio::task::spawn_blocking(move || {
            // Or a start from this snapshot would take bodies for missing whose mark is only that of the last change.
            let noted = if is_behind { bodies.note(index) } else { Ok(()) };
            let view = bodies.view();
            let _ = viewed.send(());
            noted?;
            build(&dir, &header, &state, &bodies, &view)
        });
        let _ = is_viewed.await;
        self.bodies_mark = self.bodies_mark.max(index);
        Builder {
            build: Some(build),
            current: Arc::clone(&self.current),
            dir: self.dir.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (bodies, dir) = (self.bodies.clone(), self.dir.clone());
        let install = move || {
            let state: State = codec::decode(&snapshot.state()?)?;
            let file = dir.adopt(snapshot)?;
            // Until the tables are those of the snapshot too: they know documents that may be gone.
            bodies.hide();
            replace_bodies(&bodies, &file)?;
            Ok::<_, io::Error>((file, state))
        };
        let (file, state) = tokio::task::spawn_blocking(install)
            .await
            .map_err(io::Error::other)??;
        tracing::info!(last = ?meta.last_log_id.map(|id| id.index), "snapshot installed");
        // Bodies written for entries of our own log are gone: what the snapshot does not cover is applied again.
        self.bodies_mark = 0;
        self.take(file, state)?;
        self.bodies.show();
        self.dir.prune()
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        current
            .map(|file| {
                Ok(Snapshot {
                    meta: file.header.meta()?,
                    snapshot: file,
                })
            })
            .transpose()
    }
}

/// A snapshot that is being written on a blocking thread.
#[derive(Debug)]
pub(crate) struct Builder {
    build: Option<JoinHandle<io::Result<SnapshotFile>>>,
    current: Arc<Mutex<Option<SnapshotFile>>>,
    dir: SnapshotDir,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let build = self
            .build
            .take()
            .ok_or_else(|| io::Error::other("the snapshot was built already"))?;
        let file = build.await.map_err(io::Error::other)??;
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was installed meanwhile may be newer.
            if current.as_ref().is_none_or(|known| known.index() <= file.index()) {
                *current = Some(file.clone());
            }
        }
        self.dir.prune()?;
        tracing::info!(last = file.index(), "snapshot built");
        Ok(Snapshot {
            meta: file.header.meta()?,
            snapshot: file,
        })
    }
}

fn build(
    dir: &SnapshotDir,
    header: &SnapshotHeader,
    state: &State,
    bodies: &Bodies,
    view: &View<'_>,
) -> io::Result<SnapshotFile> {
    let temporary = dir.temporary();
    let mut writer = SnapshotWriter::create(temporary.path(), header)?;
    writer.state(&codec::encode(state)?)?;
    let (from, to) = bodies.range();
    for table in TABLES {
        view.scan(table, &from, &to, |key, value| {
            writer.row(table, key, value)?;
            Ok(Scan::Continue)
        })?;
    }
    writer.finish()?;
    dir.adopt(SnapshotFile {
        path: temporary.path().to_owned(),
        header: header.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_not_wait_reads_only_while_nobody_writes() {
        let shared = Shared {
            state: RwLock::default(),
            ring: Arc::new(Ring::new(1, 1)),
            applied: watch::Sender::default(),
        };
        assert_eq!(shared.read(|_| shared.try_read(|_| 7)), Some(7));
        let writer = shared.state.write().unwrap();
        assert_eq!(shared.try_read(|_| 7), None);
        drop(writer);
        assert_eq!(shared.try_read(|_| 7), Some(7));
    }
}
