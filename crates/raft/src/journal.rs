//! The journal, as the shells reach it: appends to a lane, and reads of what this node has of all of them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use whiskraft_state::journal::{JournalBatch, JournalOutcome, JournalRow, LaneMillis, UnixMillis};
use whiskraft_types::{ActivationId, LogRevision, NamespaceName, QueueKey, SchedulerId};

use crate::clock;
use crate::core::{Core, Group};
use crate::lanes;
use crate::node::role;
use crate::propose::Proposer;
use crate::store::{Applied, Found, LaneRows, LaneShared, batch_size};
use crate::types::{LogId, Proposal};
use crate::{LaneStatus, ProposeError, Stopped, StoreError, Unavailable};

/// Bytes of payloads and records in one batch at most; a longer one is refused. Far above the longest record, which is a
/// result and 10 MiB of logs: an end that were refused for its length would be repeated for ever.
pub const JOURNAL_BATCH_BYTES_MAX: usize = 32 << 20;
/// Bytes of batches under way to one lane; more wait here, which is back pressure on whoever appends.
const UNDER_WAY_BYTES_MAX: usize = 64 << 20;
/// Bytes that one permit stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// A lane: one of the Raft groups that the journal is made of, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u32);

/// A row, and the lane that has it. Whatever changes it goes to that lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journaled {
    /// Where.
    pub lane: LaneId,
    /// What is known.
    pub row: JournalRow,
}

/// What this node's copies of the lanes say about an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    Missing,
    /// It ended, and its record has expired.
    Gone,
    /// Its row.
    Found(Journaled),
}

/// The journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Core,
    /// By number, from 1.
    lanes: Vec<Lane>,
}

/// A lane on this node.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) group: Group,
    pub(crate) shared: Arc<LaneShared>,
    proposer: Proposer,
    /// Kibibytes that may be on their way.
    room: Semaphore,
}

impl Lane {
    /// A running lane.
    pub(crate) fn new(group: Group, shared: Arc<LaneShared>) -> Self {
        Self {
            proposer: Proposer::new(group.clone()),
            room: Semaphore::new(UNDER_WAY_BYTES_MAX / PERMIT_BYTES),
            group,
            shared,
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> LaneId {
        LaneId(self.group.group)
    }

    fn read<T>(
        &self,
        what: impl std::fmt::Display,
        read: impl FnOnce(&LaneRows) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        self.shared.read(read).map_err(|error| {
            let what = format!("{what} in lane {}", self.group.group);
            // Another node has a whole copy, and leads as soon as this one does not.
            if error.kind() == io::ErrorKind::InvalidData {
                self.group.fatal.storage(&format!("{what}: {error}"));
            }
            let reason = error.to_string();
            StoreError { what, reason }
        })
    }

    /// Waits until this node has applied an entry of the lane.
    async fn wait_applied(&self, revision: LogRevision) -> Result<(), Stopped> {
        let mut applied: watch::Receiver<Applied> = self.group.applied.subscribe();
        tokio::select! {
            biased;
            reached = applied.wait_for(|applied| applied.revision >= revision) => {
                reached.map(|_| ()).map_err(|_| Stopped)
            }
            _ = self.group.fatal.wait() => Err(Stopped),
        }
    }

    fn status(&self) -> LaneStatus {
        let index = |id: Option<LogId>| LogRevision(id.map_or(0, |id| id.index));
        self.group.metrics(|metrics| LaneStatus {
            lane: self.id(),
            role: role(metrics.state),
            term: metrics.current_term,
            leader: metrics.current_leader.map(SchedulerId),
            last_log: LogRevision(metrics.last_log_index.unwrap_or_default()),
            applied: self.group.applied.borrow().revision,
            purged: index(metrics.purged),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        })
    }

    async fn catch_up(&self) -> Result<(), Unavailable> {
        let deadline = clock::now() + self.group.settings.propose_timeout;
        let lane = self.group.group;
        let revision = self.proposer.read_index().await;
        let revision = revision.map_err(|error| Unavailable(format!("lane {lane}: {error}")))?;
        match tokio::time::timeout_at(deadline, self.wait_applied(revision)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(stopped)) => Err(Unavailable(stopped.to_string())),
            Err(_) => Err(Unavailable(format!(
                "revision {revision} of lane {lane} has not reached this scheduler in time"
            ))),
        }
    }
}

/// Lets go of the store when a node stops, although clones of its journal are left.
#[derive(Debug)]
pub(crate) struct OpenJournal(pub(crate) Journal);

impl Drop for OpenJournal {
    fn drop(&mut self) {
        self.0.inner.lanes.iter().for_each(|lane| lane.shared.close());
    }
}

impl Journal {
    /// The journal of running lanes, given by number.
    pub(crate) fn new(core: Core, lanes: Vec<Lane>) -> Self {
        Self {
            inner: Arc::new(Inner { core, lanes }),
        }
    }

    /// The groups of the lanes.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.inner.lanes.iter().map(|lane| &lane.group)
    }

    /// The lanes.
    pub(crate) fn all(&self) -> &[Lane] {
        &self.inner.lanes
    }

    /// The lanes as this node sees them.
    pub(crate) fn status(&self) -> Vec<LaneStatus> {
        self.inner.lanes.iter().map(Lane::status).collect()
    }

    /// The group whose members the lanes follow.
    pub(crate) fn core(&self) -> &Core {
        &self.inner.core
    }

    fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.inner.lanes.iter().find(|lane| lane.id() == id)
    }

    fn known(&self, id: LaneId) -> Result<&Lane, StoreError> {
        self.lane(id).ok_or_else(|| StoreError {
            what: format!("lane {}", id.0),
            reason: format!("the cluster has lanes 1 to {}", self.inner.lanes.len()),
        })
    }

    /// All lanes, ascending.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneId> {
        self.inner.lanes.iter().map(Lane::id).collect()
    }

    /// The lane for new acceptances: one that this node leads, so that an append needs no hop; else any with a leader.
    #[must_use]
    pub fn home(&self) -> LaneId {
        let lanes = &self.inner.lanes;
        let led = lanes.iter().find(|lane| lane.group.lease().is_some());
        let own = || {
            lanes
                .iter()
                .find(|lane| lanes::preferred(&self.inner.core, lane.group.group) == Some(lane.group.id()))
        };
        let own = || own().filter(|lane| lane.group.leader().is_some());
        let any = || lanes.iter().find(|lane| lane.group.leader().is_some());
        led.or_else(own).or_else(any).map_or(LaneId(1), Lane::id)
    }

    /// Appends a batch to a lane, through its leader, and waits until it is applied there; one outcome per command.
    /// A batch with acceptances is refused while the disk is almost full, here or there, and one of more than
    /// [`JOURNAL_BATCH_BYTES_MAX`] always.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn append(
        &self,
        lane: LaneId,
        batch: JournalBatch,
    ) -> Result<(LogRevision, Vec<JournalOutcome>), ProposeError> {
        let unavailable = ProposeError::Unavailable;
        let lane = self.known(lane).map_err(|error| unavailable(error.to_string()))?;
        let bytes = batch_size(&batch);
        if bytes > JOURNAL_BATCH_BYTES_MAX {
            return Err(unavailable(format!(
                "a batch of {bytes} bytes is longer than {JOURNAL_BATCH_BYTES_MAX}; split it"
            )));
        }
        let proposal = Proposal::Journal(batch);
        lane.group.disk.check(&proposal).map_err(ProposeError::Full)?;
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(
            lane.group.settings.propose_timeout,
            lane.room.acquire_many(permits),
        );
        let Ok(Ok(_room)) = room.await else {
            return Err(unavailable(format!(
                "{UNDER_WAY_BYTES_MAX} bytes are on their way to lane {} already",
                lane.group.group
            )));
        };
        let (revision, answer) = lane.proposer.propose(proposal).await?;
        Ok((revision, answer.outcomes()))
    }

    /// Waits until this node has applied an entry of a lane.
    ///
    /// # Errors
    /// If the node stops first.
    pub async fn wait_applied(&self, lane: LaneId, revision: LogRevision) -> Result<(), Stopped> {
        match self.lane(lane) {
            Some(lane) => lane.wait_applied(revision).await,
            None => Err(Stopped),
        }
    }

    /// Waits until this node has everything of every lane that was acknowledged before the call.
    ///
    /// # Errors
    /// If a lane's leader does not confirm in time.
    pub async fn catch_up(&self) -> Result<(), Unavailable> {
        let all = self.inner.lanes.iter().map(Lane::catch_up);
        futures::future::try_join_all(all).await.map(|_| ())
    }

    /// Writes what this node has applied of every lane into its store, of which a view is to be taken.
    pub(crate) async fn flush(&self) -> Result<(), Unavailable> {
        let journal = self.clone();
        let flush = move || {
            let mut all = journal.inner.lanes.iter();
            all.try_for_each(|lane| lane.read("rows", LaneRows::flush))
        };
        let flushed = tokio::task::spawn_blocking(flush).await;
        let flushed = flushed.map_err(|error| Unavailable(error.to_string()))?;
        flushed.map_err(|error: StoreError| Unavailable(error.to_string()))
    }

    /// The same as [`Journal::find`], if it can be told without reading from the disk: so of one that was accepted or has ended
    /// a moment ago, and of almost all that are new.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn find_in_memory(&self, id: ActivationId) -> Result<Option<Lookup>, StoreError> {
        for lane in &self.inner.lanes {
            let row = lane.read(
                format_args!("activation {id}"),
                |rows| Ok(rows.find_unwritten(id)),
            )?;
            if let Some(row) = row {
                let lane = lane.id();
                return Ok(Some(Lookup::Found(Journaled { lane, row })));
            }
        }
        for lane in &self.inner.lanes {
            if lane.read(format_args!("activation {id}"), |rows| rows.may_have(id))? {
                return Ok(None);
            }
        }
        Ok(Some(Lookup::Missing))
    }

    /// What this node has of an activation, in any lane.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn find(&self, id: ActivationId) -> Result<Lookup, StoreError> {
        if let Some(lookup) = self.find_in_memory(id)? {
            return Ok(lookup);
        }
        let mut lookup = Lookup::Missing;
        for lane in &self.inner.lanes {
            match lane.read(format_args!("activation {id}"), |rows| rows.find(id))? {
                Found::Missing => {}
                Found::Gone => lookup = Lookup::Gone,
                Found::Row(row) => {
                    let lane = lane.id();
                    return Ok(Lookup::Found(Journaled { lane, row }));
                }
            }
        }
        Ok(lookup)
    }

    /// The clock of a lane by now: how long ago was what this node has of it, and how long it is until something is due.
    /// Never more than has really passed.
    #[must_use]
    pub fn clock(&self, lane: LaneId) -> LaneMillis {
        self.lane(lane)
            .map_or(LaneMillis(0), |lane| lane.shared.time.now())
    }

    /// Record of an activation that has ended.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn record(&self, lane: LaneId, id: ActivationId) -> Result<Option<Bytes>, StoreError> {
        self.known(lane)?
            .read(format_args!("record of activation {id}"), |rows| rows.record(id))
    }

    /// Payload of an activation that has not ended, or of a dead letter.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn payload(&self, lane: LaneId, id: ActivationId) -> Result<Option<Bytes>, StoreError> {
        self.known(lane)?
            .read(format_args!("payload of activation {id}"), |rows| {
                rows.payload(id)
            })
    }

    /// Activations of a queue in one lane that have not ended, by id, after one of them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn open(
        &self,
        lane: LaneId,
        key: &QueueKey,
        after: Option<ActivationId>,
        limit: usize,
    ) -> Result<Vec<JournalRow>, StoreError> {
        let what = format!("activations of queue {key}");
        self.known(lane)?.read(what, |rows| rows.open(key, after, limit))
    }

    /// Queues that have activations in any lane that have not ended.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn open_queues(&self) -> Result<Vec<QueueKey>, StoreError> {
        let mut queues = BTreeSet::new();
        for lane in &self.inner.lanes {
            queues.extend(lane.read("open queues", LaneRows::open_queues)?);
        }
        Ok(queues.into_iter().collect())
    }

    /// Dead letters of a namespace, oldest first, after a place in that order.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn dead_letters(
        &self,
        namespace: &NamespaceName,
        after: Option<(UnixMillis, ActivationId)>,
        limit: usize,
    ) -> Result<Vec<Journaled>, StoreError> {
        let mut letters = Vec::new();
        for lane in &self.inner.lanes {
            let rows = lane.read("dead letters", |rows| rows.dead_letters(namespace, after, limit))?;
            let id = lane.id();
            letters.extend(rows.into_iter().map(|row| Journaled { lane: id, row }));
        }
        letters.sort_by_key(|letter| (letter.row.ended_at(), letter.row.id));
        letters.truncate(limit);
        Ok(letters)
    }
}
