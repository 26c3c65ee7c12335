//! The log of a scheduler that is stopped, replayed entry by entry: for audits, and to see what happened.
//!
//! Reads a data directory and changes nothing in it; holds its lock meanwhile, so that no scheduler starts on it. It
//! begins as early as it can: with empty tables if nothing was purged from the log yet, else with the oldest whole
//! snapshot that the log continues. Newer snapshots on the way must be what the replay has arrived at.

use std::io;
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use whiskraft_state::{Applied, Command, State};
use whiskraft_types::{LogRevision, SchedulerId};

use crate::codec;
use crate::error::StartError;
use crate::identity::DataDir;
use crate::start::{SNAPSHOTS_DIR, STORE_DIR};
use crate::store::{Engine, LogView, SnapshotDir, SnapshotFile};
use crate::types::{Entry, META_GROUP, Proposal};

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The directory is not there, not one of a scheduler, or in use ([`StartError::Locked`]).
    #[error(transparent)]
    Directory(#[from] StartError),
    /// Log or snapshots cannot be read.
    #[error("data directory {dir}: {what}")]
    Read {
        /// The directory.
        dir: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log begins after a revision that no whole snapshot reaches.
    #[error(
        "data directory {dir}: the log begins after revision {purged} and no whole snapshot reaches that"
    )]
    Incomplete {
        /// The directory.
        dir: PathBuf,
        /// Last revision that is not in the log.
        purged: LogRevision,
    },
    /// Entries are missing in the middle.
    #[error("the log continues with revision {found} after revision {after}")]
    Gap {
        /// The last entry before it.
        after: LogRevision,
        /// The first one behind it.
        found: LogRevision,
    },
}

/// An entry, and what applying it caused.
#[derive(Debug)]
pub struct Step {
    /// Where it is in the log.
    pub revision: LogRevision,
    /// Raft term of the leader that proposed it.
    pub term: u64,
    /// The leader that proposed it.
    pub leader: SchedulerId,
    /// Whether this node knew that it was committed. One that is not may have been replaced elsewhere.
    pub committed: bool,
    /// What it is.
    pub content: Content,
}

/// What an entry carries.
#[derive(Debug)]
pub enum Content {
    /// Nothing: a leader begins its term.
    Blank,
    /// Who votes.
    Membership {
        /// The members with a vote.
        voters: Vec<SchedulerId>,
    },
    /// A change of the tables.
    Command {
        /// What was proposed.
        command: Box<Command>,
        /// What came of it.
        applied: Box<Applied>,
    },
}

/// What a replay has come to.
#[derive(Debug)]
pub struct Replayed {
    /// The tables after the last entry.
    pub state: State,
    /// Revisions of snapshots that hold something else than the replay had arrived at.
    pub differing_snapshots: Vec<LogRevision>,
}

/// A log that can be replayed.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    log: LogView,
    base: State,
    /// First entry to apply.
    next: u64,
    last: u64,
    committed: Option<u64>,
    /// Snapshots behind the base, oldest first.
    checkpoints: Vec<SnapshotFile>,
}

impl History {
    /// Opens the data directory of a scheduler that is stopped.
    ///
    /// # Errors
    /// [`HistoryError`]; a directory in use is [`StartError::Locked`].
    pub fn open(data_dir: &Path) -> Result<Self, HistoryError> {
        let data = DataDir::open_existing(data_dir)?;
        if data.identity()?.is_none() {
            let what = "it is empty: no scheduler has started with it";
            return Err(data.error(what, io::ErrorKind::NotFound.into()).into());
        }
        let (store, snapshots) = (data.join(STORE_DIR), data.join(SNAPSHOTS_DIR));
        let failed = |what| {
            let dir = data_dir.to_owned();
            move |source| HistoryError::Read { dir, what, source }
        };
        let engine =
            Engine::open_read_only(&store, data.into_lock()).map_err(failed("its log cannot be opened"))?;
        let log = LogView::new(engine, META_GROUP);
        let purged = log.purged().map_err(failed("its log cannot be read"))?;
        let last = log.last().map_err(failed("the end of its log cannot be read"))?;
        let committed = log.committed().map_err(failed("its log cannot be read"))?;
        let whole = whole_snapshots(&snapshots).map_err(failed("its snapshots cannot be listed"))?;
        let mut usable = whole
            .into_iter()
            .filter(|file| purged.is_none_or(|purged| purged <= file.index()));
        let (base, next) = match purged {
            None => (State::default(), 0),
            Some(purged) => {
                let file = usable.next().ok_or_else(|| HistoryError::Incomplete {
                    dir: data_dir.to_owned(),
                    purged: LogRevision(purged),
                })?;
                let base = state_of(&file).map_err(failed("a snapshot cannot be read"))?;
                (base, file.index() + 1)
            }
        };
        Ok(Self {
            dir: data_dir.to_owned(),
            checkpoints: usable.collect(),
            last: last.unwrap_or(0),
            log,
            base,
            next,
            committed,
        })
    }

    /// The tables before the first entry that is replayed.
    #[must_use]
    pub fn base(&self) -> &State {
        &self.base
    }

    /// First entry that is replayed, and the last one in the log; the first may be behind the last if there is none.
    #[must_use]
    pub fn range(&self) -> (LogRevision, LogRevision) {
        (LogRevision(self.next), LogRevision(self.last))
    }

    /// Applies every entry, in order, and shows each.
    ///
    /// # Errors
    /// If the log cannot be read to its end.
    pub fn replay(self, mut visit: impl FnMut(Step)) -> Result<Replayed, HistoryError> {
        let mut replayed = Replayed {
            state: self.base.clone(),
            differing_snapshots: Vec::new(),
        };
        let mut checkpoints = self.checkpoints.iter().peekable();
        let mut next = self.next;
        loop {
            let page = self
                .log
                .page(next)
                .map_err(|source| self.failed("its log cannot be read", source))?;
            if page.is_empty() {
                return Ok(replayed);
            }
            for entry in page {
                let index = entry.log_id.index;
                if index != next {
                    return Err(HistoryError::Gap {
                        after: LogRevision(next.saturating_sub(1)),
                        found: LogRevision(index),
                    });
                }
                next = index + 1;
                visit(self.step(&mut replayed.state, entry));
                while let Some(file) = checkpoints.next_if(|file| file.index() <= index) {
                    self.compare(file, index, &mut replayed)?;
                }
            }
        }
    }

    fn step(&self, state: &mut State, entry: Entry) -> Step {
        let index = entry.log_id.index;
        let revision = LogRevision(index);
        let content = match entry.payload {
            EntryPayload::Blank => Content::Blank,
            EntryPayload::Membership(membership) => Content::Membership {
                voters: membership.voter_ids().map(SchedulerId).collect(),
            },
            EntryPayload::Normal(packed) => match packed.get() {
                // This is the log of group 0, which holds nothing of the journal.
                Proposal::Journal(_) => Content::Blank,
                Proposal::Command(command) => Content::Command {
                    applied: Box::new(state.apply(revision, command)),
                    command: Box::new(command.clone()),
                },
            },
        };
        Step {
            revision,
            term: entry.log_id.leader_id.term,
            leader: SchedulerId(entry.log_id.leader_id.node_id),
            committed: self.committed.is_some_and(|committed| index <= committed),
            content,
        }
    }

    fn compare(&self, file: &SnapshotFile, index: u64, replayed: &mut Replayed) -> Result<(), HistoryError> {
        // One that ends before the entry can only be from before the log; there is nothing to hold it against.
        if file.index() == index {
            let theirs = state_of(file).map_err(|source| self.failed("a snapshot cannot be read", source))?;
            if theirs != replayed.state {
                replayed.differing_snapshots.push(LogRevision(index));
            }
        }
        Ok(())
    }

    fn failed(&self, what: &'static str, source: io::Error) -> HistoryError {
        let dir = self.dir.clone();
        HistoryError::Read { dir, what, source }
    }
}

/// The snapshots that are whole, oldest first. Damaged ones are left where they are.
fn whole_snapshots(dir: &Path) -> io::Result<Vec<SnapshotFile>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for path in SnapshotDir::read_only(dir).list()? {
        match SnapshotFile::check(&path) {
            Ok(file) => files.push(file),
            Err(error) => tracing::warn!(path = %path.display(), %error, "damaged snapshot left out"),
        }
    }
    files.reverse();
    Ok(files)
}

fn state_of(file: &SnapshotFile) -> io::Result<State> {
    Ok(codec::decode(&file.state()?)?)
}
