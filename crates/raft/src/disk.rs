//! Space left on the disk of the data directory.
//!
//! Below a reserve the leader takes no documents, blobs and durable activations, so that sessions, slots, ends,
//! deletions and membership changes still find room.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use whiskraft_state::Command;
use whiskraft_state::journal::{JournalBatch, JournalCommand};

use crate::clock;
use crate::types::Proposal;

/// How old a reading may be.
const READING_AGE_MAX: Duration = Duration::from_secs(1);

/// The disk; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskSpace {
    path: Arc<PathBuf>,
    reserve: u64,
    reading: Arc<Mutex<Option<(Instant, u64)>>>,
}

impl DiskSpace {
    /// The disk that holds a directory.
    pub(crate) fn new(path: &Path, reserve: u64) -> Self {
        Self {
            path: Arc::new(path.to_owned()),
            reserve,
            reading: Arc::default(),
        }
    }

    /// Refuses bulk while the disk is almost full.
    pub(crate) fn check(&self, proposal: &Proposal) -> Result<(), String> {
        let bulk = match proposal {
            Proposal::Command(Command::PutDocument(_) | Command::PutBlobChunk(_)) => "documents and blobs",
            Proposal::Journal(batch) if accepts(batch) => "durable activations",
            Proposal::Command(_) | Proposal::Journal(_) => return Ok(()),
        };
        match self.free() {
            Some(free) if free < self.reserve => Err(format!(
                "the disk of {} has {free} bytes left; {bulk} are refused below {} (disk-reserve)",
                self.path.display(),
                self.reserve
            )),
            // A disk that does not say is not full for all we know; a failing write is still noticed.
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses the rows of a lane, sent by its leader, while the disk is almost full.
    pub(crate) fn check_rows(&self) -> Result<(), String> {
        match self.free() {
            Some(free) if free < self.reserve => Err(format!(
                "the disk of {} has {free} bytes left; the rows of a lane are not received below {} (disk-reserve)",
                self.path.display(),
                self.reserve
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether so little is left that nothing should be kept that need not be: twice the reserve.
    pub(crate) fn is_tight(&self) -> bool {
        let limit = self.reserve.saturating_mul(2);
        self.free().is_some_and(|free| free < limit)
    }

    fn free(&self) -> Option<u64> {
        let now = clock::now();
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, free)) = *reading
            && now.duration_since(at) < READING_AGE_MAX
        {
            return Some(free);
        }
        let space = rustix::fs::statvfs(self.path.as_path()).ok()?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        *reading = Some((now, free));
        Some(free)
    }
}

/// Whether a batch takes anything new. What ends what is there goes on: it makes room.
fn accepts(batch: &JournalBatch) -> bool {
    let is_new = |command: &JournalCommand| matches!(command, JournalCommand::Accept(_));
    batch.commands.iter().any(is_new)
}

#[cfg(test)]
mod tests {
    use whiskraft_state::BlobChunk;

    use super::*;

    #[test]
    fn bulk_is_refused_below_the_reserve_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = BlobChunk {
            hash: whiskraft_state::BlobHash([0; 32]),
            len: 1,
            index: 0,
            data: vec![1],
        };
        let bulk = Proposal::Command(Command::PutBlobChunk(chunk));
        let small = Proposal::Command(Command::RenewSessions { sessions: Vec::new() });
        let full = DiskSpace::new(dir.path(), u64::MAX);
        assert!(full.check(&bulk).unwrap_err().contains("disk-reserve"));
        assert_eq!(full.check(&small), Ok(()));
        assert!(full.check_rows().unwrap_err().contains("disk-reserve"));
        assert!(full.is_tight());
        let empty = DiskSpace::new(dir.path(), 0);
        assert_eq!(empty.check(&bulk), Ok(()));
        assert_eq!(empty.check_rows(), Ok(()));
        assert!(!empty.is_tight());
    }
}
