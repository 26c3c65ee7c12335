//! `Backup`: everything the cluster agrees on, as fast as it is read.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use whiskraft_proto::v1;
use whiskraft_raft::BackupStream;
use whiskraft_state::journal::UnixMillis;

use super::OperatorService;
use crate::clock::unix_ms;
use crate::context::Context;

/// A backup on its way to whoever asked.
struct Sending {
    pieces: BackupStream,
    offset: u64,
    context: Context,
    _permit: OwnedSemaphorePermit,
}

impl OperatorService {
    /// Begins a backup; it ends with its reader or the process.
    pub(super) async fn open_backup(
        &self,
    ) -> Result<BoxStream<'static, Result<v1::BackupPiece, Status>>, Status> {
        let permit = Arc::clone(&self.backups).try_acquire_owned();
        let permit = permit
            .map_err(|_| Status::resource_exhausted("other backups are being taken of this scheduler"))?;
        let pieces = self.context.node.backup(UnixMillis(unix_ms())).await;
        let pieces = pieces.map_err(|error| Status::unavailable(error.to_string()))?;
        tracing::info!("backup begins");
        let sending = Sending {
            pieces,
            offset: 0,
            context: self.context.clone(),
            _permit: permit,
        };
        Ok(stream::unfold(Some(sending), |sending| async move { next(sending?).await }).boxed())
    }
}

/// The next message; an error is the last one.
async fn next(mut sending: Sending) -> Option<(Result<v1::BackupPiece, Status>, Option<Sending>)> {
    let piece = tokio::select! {
        () = sending.context.stopping() => return Some((Err(Status::unavailable("the scheduler is stopping")), None)),
        piece = sending.pieces.next() => piece?,
    };
    match piece {
        Ok(data) => {
            let offset = sending.offset;
            sending.offset += data.len() as u64;
            Some((Ok(v1::BackupPiece { offset, data }), Some(sending)))
        }
        Err(error) => Some((Err(Status::internal(error.to_string())), None)),
    }
}
