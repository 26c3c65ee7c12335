//! The bytes of a backup, from whichever scheduler gives one.

use std::time::Duration;

use bytes::Bytes;
use tonic::Streaming;
use tonic::transport::Channel;
use whiskraft_proto::v1;

use super::{Operator, operator};
use crate::CallError;
use crate::calls::{Call, Tried};
use crate::directory::Class;
use crate::stream::describe;

/// Shown in errors.
const OPERATION: &str = "backup";
/// Longest wait for a scheduler to begin: it waits until it has everything that was acknowledged.
const TRY_DEADLINE: Duration = Duration::from_secs(15);
/// Longest wait for any to begin.
const DEADLINE: Duration = Duration::from_secs(40);
/// Longest wait for the next piece.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(30);

/// A backup file, piece by piece. It is complete when [`next`](Self::next) has given `None`; the file itself says
/// whether it is whole.
#[derive(Debug)]
pub struct BackupPieces {
    frames: Streaming<v1::BackupPiece>,
    len: u64,
}

impl Operator {
    /// Begins a backup of everything that was acknowledged before this call.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler begins one.
    pub async fn backup(&self) -> Result<BackupPieces, CallError> {
        let shared = self.client.shared();
        let call = Call {
            operation: OPERATION,
            class: Class::Bulk,
            try_deadline: TRY_DEADLINE,
            deadline: DEADLINE,
            writes: false,
        };
        let frames = call.ask(shared, begin).await?.value;
        Ok(BackupPieces { frames, len: 0 })
    }
}

async fn begin(channel: Channel) -> Tried<Streaming<v1::BackupPiece>> {
    Ok(Ok(operator(channel)
        .backup(v1::BackupRequest {})
        .await?
        .into_inner()))
}

impl BackupPieces {
    /// Bytes so far.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has come yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next piece; `None` after the last one.
    ///
    /// # Errors
    /// [`CallError::BadAnswer`] if the scheduler gives up, goes away or falls silent: begin another backup.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let failed = |reason: String| CallError::BadAnswer {
            operation: OPERATION,
            reason,
        };
        let frame = tokio::time::timeout(PIECE_WAIT_MAX, self.frames.message()).await;
        let frame = frame.map_err(|_| failed(format!("nothing came for {PIECE_WAIT_MAX:?}")))?;
        let frame = frame.map_err(|status| failed(describe(&status)))?;
        let Some(piece) = frame else { return Ok(None) };
        if piece.offset != self.len {
            return Err(failed(format!(
                "a piece of byte {} came in place of byte {}",
                piece.offset, self.len
            )));
        }
        self.len += piece.data.len() as u64;
        Ok(Some(piece.data))
    }
}
