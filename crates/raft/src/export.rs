//! Copies of what a node holds, one file for each group: for backups.
//!
//! A file is a snapshot of its group as of a log revision, in the form in which a follower is sent one, every chunk with
//! its checksum. The cuts of different groups are taken one after the other.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openraft::errors::RaftError;
use whiskraft_types::LogRevision;

use crate::core::Group;
use crate::journal::{Journal, LaneId};
use crate::types::{META_GROUP, Types};

/// Longest wait for a snapshot of group 0.
const SNAPSHOT_MAX: Duration = Duration::from_secs(60);

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The lane; `None` for group 0, the tables with documents and blobs.
    pub lane: Option<LaneId>,
    /// Last entry in it.
    pub revision: LogRevision,
    /// The file.
    pub path: PathBuf,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// Writes group 0 and all lanes into a directory that is there. A group without an entry has no file.
pub(crate) async fn export(meta: &Group, journal: &Journal, dir: &Path) -> io::Result<Vec<Exported>> {
    let mut files = Vec::new();
    // The journal last: what its rows name is in the tables before.
    for group in std::iter::once(meta).chain(journal.groups()) {
        files.extend(export_group(group, dir).await?);
    }
    tokio::fs::File::open(dir).await?.sync_all().await?;
    Ok(files)
}

async fn export_group(group: &Group, dir: &Path) -> io::Result<Option<Exported>> {
    let lane = (group.group != META_GROUP).then_some(LaneId(group.group));
    if lane.is_none() {
        build(group).await?;
    }
    let snapshot = group.raft.get_snapshot().await;
    let snapshot = snapshot.map_err(|error: RaftError<Types>| failed(error))?;
    let Some(snapshot) = snapshot else { return Ok(None) };
    let (file, _temporary) = snapshot.snapshot.into_file().await?;
    let name = lane.map_or_else(
        || "tables.snapshot".to_owned(),
        |lane| format!("lane-{}.snapshot", lane.0),
    );
    let (revision, path) = (LogRevision(file.index()), dir.join(name));
    tokio::fs::copy(&file.path, &path).await?;
    tokio::fs::File::open(&path).await?.sync_all().await?;
    Ok(Some(Exported { lane, revision, path }))
}

/// Makes sure that group 0 has a snapshot of everything that is applied now.
async fn build(group: &Group) -> io::Result<()> {
    let wanted = group.applied.borrow().revision.0;
    group.raft.trigger().snapshot().await.map_err(failed)?;
    let waiting = group.raft.wait(Some(SNAPSHOT_MAX));
    let built = waiting.metrics(
        |metrics| metrics.snapshot.is_some_and(|id| id.index >= wanted),
        "snapshot built",
    );
    built.await.map(|_| ()).map_err(failed)
}
