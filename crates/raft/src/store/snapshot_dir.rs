//! The directory of snapshots: the newest, the one before it, and files that are being written.
//!
//! A snapshot gets its name by a rename after it is synced; whatever still has a temporary name at start is deleted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::snapshot_file::SnapshotFile;
use crate::types::LogIdRecord;

/// Snapshots kept: the newest, and one to fall back to if that is damaged.
const KEPT: usize = 2;
const EXTENSION: &str = "snapshot";
const TEMPORARY: &str = "tmp";
const DAMAGED: &str = "damaged";

/// The place of a file that is being written. Dropped, it removes the file, unless that has got its name.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It is removed at the next start.
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "snapshot not removed"),
        }
    }
}

/// A directory of snapshot files; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotDir {
    dir: Arc<Path>,
    temporaries: Arc<AtomicU64>,
}

impl SnapshotDir {
    /// Opens or creates the directory and clears it of unfinished files.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == TEMPORARY) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            dir: dir.into(),
            temporaries: Arc::default(),
        })
    }

    /// A directory of a node that is stopped: nothing in it is changed.
    pub(crate) fn read_only(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            temporaries: Arc::default(),
        }
    }

    /// A name for a file that is being written.
    pub(crate) fn temporary(&self) -> Temporary {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        Temporary {
            path: self.dir.join(format!("{number}.{TEMPORARY}")),
        }
    }

    /// Name of the file of a snapshot; order of names is order of snapshots.
    pub(crate) fn name(last: Option<LogIdRecord>) -> String {
        let last = last.unwrap_or(LogIdRecord {
            term: 0,
            node: 0,
            index: 0,
        });
        format!(
            "{:020}-{:020}-{:020}.{EXTENSION}",
            last.index, last.term, last.node
        )
    }

    /// Path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Gives a synced file its name, durably.
    pub(crate) fn adopt(&self, file: SnapshotFile) -> io::Result<SnapshotFile> {
        let path = self.path(&Self::name(file.header.last));
        if file.path != path {
            fs::rename(&file.path, &path)?;
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(SnapshotFile {
            path,
            header: file.header,
        })
    }

    /// Paths of all snapshots, newest first.
    pub(crate) fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                paths.push(path);
            }
        }
        paths.sort_unstable_by(|a, b| b.cmp(a));
        Ok(paths)
    }

    /// Deletes all but the newest ones.
    pub(crate) fn prune(&self) -> io::Result<()> {
        self.list()?.into_iter().skip(KEPT).try_for_each(fs::remove_file)
    }

    /// The newest snapshot that is whole; damaged ones are set aside.
    pub(crate) fn newest(&self) -> io::Result<Option<SnapshotFile>> {
        for path in self.list()? {
            match SnapshotFile::check(&path) {
                Ok(file) => return Ok(Some(file)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "damaged snapshot set aside");
                    fs::rename(&path, path.with_extension(DAMAGED))?;
                }
            }
        }
        Ok(None)
    }
}
