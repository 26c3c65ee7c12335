//! Receives a snapshot: into a temporary file, checked byte by byte, and only then handed to the consensus core.

use std::path::{Path, PathBuf};

use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tonic::{Status, Streaming};
use whiskraft_proto::v1;

use super::{PeerService, invalid, stopped};
use crate::codec;
use crate::store::{SnapshotFile, SnapshotHeader, SnapshotSource};
use crate::types::{LogIdRecord, Types};
use crate::wire;

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotSource>;

impl PeerService {
    /// Receives and installs.
    pub(super) async fn receive_snapshot(
        &self,
        mut frames: Streaming<v1::SnapshotChunk>,
    ) -> Result<v1::SnapshotResponse, Status> {
        let head = frames
            .message()
            .await?
            .ok_or_else(|| invalid("the snapshot has no first message"))?;
        let served = self.admit_group(head.envelope.as_ref())?;
        let _permit = served.receiving.try_acquire().map_err(|_| {
            Status::resource_exhausted("other snapshots are being received; send this one again later")
        })?;
        let vote = wire::parse_vote(head.vote).map_err(invalid)?;
        let header: SnapshotHeader = codec::decode(&head.meta).map_err(invalid)?;
        if header.group != served.group.group {
            return Err(invalid("the snapshot is of another group"));
        }
        let path = served.snapshots.temporary();
        let received = receive(&path, frames).await;
        let checked = match received {
            Ok(()) => check(path.clone(), &header).await,
            Err(status) => Err(status),
        };
        let snapshot = match checked {
            Ok(snapshot) => snapshot,
            Err(status) => {
                // What is left is removed at the next start if it cannot be removed now.
                drop(fs::remove_file(&path).await);
                return Err(status);
            }
        };
        let meta = snapshot.header.meta().map_err(invalid)?;
        let witness = self.inner.peers.witness();
        witness.receives(header.group, meta.last_log_id.map(LogIdRecord::from));
        let snapshot = SnapshotSource::File(snapshot);
        let installed = served
            .group
            .raft
            .install_full_snapshot(vote, Snapshot { meta, snapshot })
            .await;
        // An older snapshot than this node needs is not installed, and not renamed.
        drop(fs::remove_file(&path).await);
        let reply = installed.map_err(stopped)?;
        Ok(v1::SnapshotResponse {
            vote: Some(wire::vote(reply.vote)),
        })
    }
}

async fn receive(path: &Path, mut frames: Streaming<v1::SnapshotChunk>) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::internal(format!("snapshot cannot be stored: {error}"));
    let mut file = File::create(path).await.map_err(failed)?;
    while let Some(frame) = frames.message().await? {
        file.write_all(&frame.data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)
}

async fn check(path: PathBuf, header: &SnapshotHeader) -> Result<SnapshotFile, Status> {
    let checked = tokio::task::spawn_blocking(move || SnapshotFile::check(&path)).await;
    let snapshot = checked.map_err(stopped)?.map_err(invalid)?;
    if snapshot.header == *header {
        Ok(snapshot)
    } else {
        Err(invalid("the snapshot is not the one that was announced"))
    }
}
