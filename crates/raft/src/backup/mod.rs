//! Backup and restore: everything the cluster agrees on, in one file, and a new cluster made from it.
//!
//! A backup is taken of a scheduler that runs ([`Node::backup`](crate::Node::backup)). Everything that was acknowledged
//! before it began is in it. The lanes of the journal are cut first, the tables after them, so whatever a lane holds is
//! about queues and actions that the tables know, unless they were deleted.
//!
//! [`restore`] prepares the data directory of one scheduler of a new cluster. The new cluster has another identity, no
//! sessions, containers, invokers or members of the old one, and goes on at log revisions far beyond any that the old one
//! can have reached since; so nobody of the old cluster can act in it, and no epoch or id is given twice.

mod format;
mod read;
mod restore;
mod take;

use std::io;
use std::path::Path;

use whiskraft_state::journal::UnixMillis;
use whiskraft_types::LogRevision;

pub use self::restore::{Restore, RestoreError, Restored, restore};
pub use self::take::BackupStream;
pub(crate) use self::take::take;

/// Why a file is not a backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is cut off, altered or something else.
    #[error("the backup is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where, in bytes from the start.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// It cannot be read.
    #[error("the backup cannot be read at byte {offset}")]
    Read {
        /// Where, in bytes from the start.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl BackupError {
    fn damaged(offset: u64, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Damaged { offset, what }
    }
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Cluster that it was taken of.
    pub cluster_id: String,
    /// Its name.
    pub cluster_name: String,
    /// Release of the scheduler that wrote it.
    pub version: String,
    /// When, by the clock of that scheduler.
    pub taken: UnixMillis,
    /// Everything in the tables up to this revision is in it.
    pub revision: LogRevision,
    /// The same of each lane of the journal, from lane 1.
    pub lanes: Vec<LogRevision>,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of everything in the file but itself.
    pub digest: [u8; 32],
    /// Documents that are actions.
    pub actions: u64,
    /// All documents.
    pub documents: u64,
    /// Blobs.
    pub blobs: u64,
    /// Namespaces with limits of their own.
    pub namespaces: u64,
    /// Queues.
    pub queues: u64,
    /// Durable activations that have not ended: a restored cluster runs them.
    pub open: u64,
    /// Records of activations that have ended, expired ones included.
    pub records: u64,
}

/// Checks every byte of a backup and says what is in it.
///
/// # Errors
/// Says where the file is damaged, and how.
pub fn verify(file: &Path) -> Result<Backup, BackupError> {
    read::read(file, &mut |_| Ok(()))
}
