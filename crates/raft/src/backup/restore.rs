//! Prepares a data directory of a new cluster from a backup.
//!
//! What is written is what a scheduler has that was sent a snapshot: a snapshot file per group, which the first start puts
//! in place. The identity comes last; without it no scheduler starts on the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use whiskraft_types::{LogRevision, SchedulerId};

use super::read::{self, Content};
use super::{Backup, BackupError, verify};
use crate::codec;
use crate::error::StartError;
use crate::identity::{self, DataDir, Identity};
use crate::start::{SNAPSHOTS_DIR, STORE_DIR, lane_snapshots};
use crate::store::{
    Engine, LaneState, Retention, SnapshotDir, SnapshotFile, SnapshotHeader, SnapshotWriter, Temporary,
    Write, installing_write, purged_write,
};
use crate::types::{LogIdRecord, META_GROUP, MembershipRecord};

/// By how much log revisions go on behind those of the backup: more entries than the old cluster can have written since
/// then, so that no epoch, session or number of a scheduler of one is ever one of the other.
const REVISIONS_SKIPPED: u64 = 1 << 32;

/// What shall become of a backup.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The backup.
    pub file: PathBuf,
    /// Directory that is made; empty if it is there.
    pub data_dir: PathBuf,
    /// The scheduler that starts on it.
    pub id: SchedulerId,
    /// Peer addresses of all schedulers of the new cluster.
    pub initial_cluster: BTreeMap<SchedulerId, String>,
    /// Name of the new cluster.
    pub cluster_name: String,
    /// Tells this restore from others of the same file to the same addresses; the same for all schedulers of the new
    /// cluster. May be empty.
    pub token: String,
}

/// What a restore has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Identity of the new cluster.
    pub cluster_id: String,
    /// Revision that it goes on behind.
    pub revision: LogRevision,
    /// What it was made from.
    pub backup: Backup,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file cannot be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The new cluster or the directory cannot be as it is wanted.
    #[error(transparent)]
    Target(#[from] StartError),
}

/// Checks a backup and prepares a data directory from it. Run once for every scheduler of the new cluster, each with its
/// own number and directory, and otherwise the same; then they are started as an initial cluster.
///
/// # Errors
/// See [`RestoreError`]. A directory that a failed restore leaves behind is refused by every start.
pub fn restore(wanted: &Restore) -> Result<Restored, RestoreError> {
    check(wanted)?;
    let backup = verify(&wanted.file)?;
    let origin = origin(&backup, &wanted.token);
    let cluster_id = identity::restored_cluster_id(&wanted.cluster_name, &wanted.initial_cluster, &origin);
    let data = DataDir::open(&wanted.data_dir)?;
    if data.identity()?.is_some() {
        return Err(StartError::Identity(format!(
            "data directory {} is in use by a scheduler already; choose an empty one",
            wanted.data_dir.display()
        ))
        .into());
    }
    let lanes = u32::try_from(backup.lanes.len()).unwrap_or(u32::MAX);
    let made = Identity::new(&wanted.cluster_name, cluster_id.clone(), wanted.id.0, lanes);
    let mut identity = made.map_err(|error| data.error("no random bytes for its identity", error))?;
    identity.origin = Some(origin);
    let dir = data.path().to_owned();
    let failed = |source: io::Error| StartError::Storage {
        dir: dir.clone(),
        what: "the backup cannot be put into it; empty it and try again".to_owned(),
        source,
    };
    write(wanted, &backup, data).map_err(failed)?;
    identity.save(&dir).map_err(failed)?;
    Ok(Restored {
        cluster_id,
        revision: skipped_to(backup.revision.0),
        backup,
    })
}

fn check(wanted: &Restore) -> Result<(), StartError> {
    let refuse = |text: String| Err(StartError::Config(text));
    if wanted.initial_cluster.contains_key(&SchedulerId(0)) {
        return refuse("0 is not a scheduler number; numbers start at 1".to_owned());
    }
    if !wanted.initial_cluster.contains_key(&wanted.id) {
        let members: Vec<String> = wanted.initial_cluster.keys().map(ToString::to_string).collect();
        return refuse(format!(
            "scheduler {} is not in the initial cluster, which has the numbers {}",
            wanted.id,
            members.join(", ")
        ));
    }
    Ok(())
}

/// Where the new cluster comes from; the same on all its schedulers.
fn origin(backup: &Backup, token: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(backup.digest);
    hash.update(token.as_bytes());
    hash.finalize().into()
}

const fn skipped_to(index: u64) -> LogRevision {
    LogRevision(index.saturating_add(REVISIONS_SKIPPED))
}

/// Where a log goes on: no leader of any term has proposed this entry.
const fn last(index: u64) -> LogIdRecord {
    LogIdRecord {
        term: 0,
        node: 0,
        index: skipped_to(index).0,
    }
}

/// The membership of every group of the new cluster.
fn membership(cluster: &BTreeMap<SchedulerId, String>, last: LogIdRecord) -> MembershipRecord {
    let voters: BTreeSet<u64> = cluster.keys().map(|id| id.0).collect();
    let addresses = cluster.iter().map(|(id, address)| (id.0, address.clone()));
    MembershipRecord {
        log: Some(last),
        voters: vec![voters],
        addresses: addresses.collect(),
    }
}

/// Writes the snapshots of all groups, and the marks that have the first start put them in place.
fn write(wanted: &Restore, backup: &Backup, data: DataDir) -> io::Result<()> {
    let (store_dir, snapshots) = (data.join(STORE_DIR), data.join(SNAPSHOTS_DIR));
    let engine = Engine::open(&store_dir, data.into_lock(), &Retention::default())?;
    let mut groups = Snapshots {
        cluster: &wanted.initial_cluster,
        revision: backup.revision,
        dir: snapshots,
        open: None,
        marks: Vec::new(),
    };
    let again = read::read(&wanted.file, &mut |content| groups.take(content));
    again.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    groups.close()?;
    engine.write(groups.marks)?;
    engine.sync()
}

/// The snapshots of the groups, written one after the other.
struct Snapshots<'a> {
    cluster: &'a BTreeMap<SchedulerId, String>,
    /// Of the tables in the backup.
    revision: LogRevision,
    dir: PathBuf,
    open: Option<OpenSnapshot>,
    marks: Vec<Write>,
}

/// The snapshot of the group that has begun.
struct OpenSnapshot {
    writer: SnapshotWriter,
    file: SnapshotFile,
    _temporary: Temporary,
    dir: SnapshotDir,
}

impl Snapshots<'_> {
    fn take(&mut self, content: Content) -> io::Result<()> {
        match content {
            Content::Meta(state) => {
                let last = last(self.revision.0);
                let state = state.restored(LogRevision(last.index));
                let dir = self.dir.clone();
                self.begin(META_GROUP, &dir, last, &codec::encode(&state)?)
            }
            Content::Lane(lane, state) => {
                let last = last(state.index());
                let state = LaneState {
                    last: Some(last),
                    membership: membership(self.cluster, last),
                    clock: state.clock,
                };
                let dir = lane_snapshots(&self.dir, lane);
                self.begin(lane, &dir, last, &codec::encode(&state)?)?;
                let name = SnapshotDir::name(Some(last));
                self.marks.push(installing_write(lane, &name)?);
                Ok(())
            }
            Content::Rows(table, rows) => {
                let open = self
                    .open
                    .as_mut()
                    .ok_or_else(|| io::Error::other("rows of no group"))?;
                rows.iter()
                    .try_for_each(|(key, value)| open.writer.row(table, key, value))
            }
        }
    }

    fn begin(&mut self, group: u32, dir: &Path, last: LogIdRecord, state: &[u8]) -> io::Result<()> {
        self.close()?;
        fs::create_dir_all(dir)?;
        let dir = SnapshotDir::open(dir)?;
        let header = SnapshotHeader {
            group,
            last: Some(last),
            membership: membership(self.cluster, last),
        };
        let temporary = dir.temporary();
        let path = temporary.path().to_owned();
        let mut writer = SnapshotWriter::create(&path, &header)?;
        writer.state(state)?;
        self.marks.push(purged_write(group, last)?);
        self.open = Some(OpenSnapshot {
            writer,
            file: SnapshotFile { path, header },
            _temporary: temporary,
            dir,
        });
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.take() {
            open.writer.finish()?;
            open.dir.adopt(open.file)?;
        }
        Ok(())
    }
}
