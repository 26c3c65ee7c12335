//! Receives a snapshot: into a temporary file, checked byte by byte, and only then handed to the consensus core.
//!
//! Until all of it is there it ends with the call, and nothing is left of it. Then it is put in place whatever becomes of
//! the caller: the next one would send the same.

use std::path::PathBuf;
use std::time::Duration;

use futures::stream::{Stream, StreamExt};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tonic::{Status, Streaming};
use whiskraft_proto::v1;

use super::{PeerService, invalid, stopped};
use crate::codec;
use crate::core::Group;
use crate::disk::DiskSpace;
use crate::store::{SnapshotFile, SnapshotHeader, SnapshotSource, Temporary};
use crate::types::{LogIdRecord, META_GROUP, Types, Vote};
use crate::wire;
use crate::witness::Witness;

/// Longest wait for the first message.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotSource>;

impl PeerService {
    /// Receives and installs.
    pub(super) async fn receive_snapshot(
        &self,
        mut frames: Streaming<v1::SnapshotChunk>,
    ) -> Result<v1::SnapshotResponse, Status> {
        let head = next(&mut frames, HEAD_WAIT_MAX).await?;
        let head = head.ok_or_else(|| invalid("the snapshot has no first message"))?;
        let served = self.admit_group(head.envelope.as_ref())?;
        let permit = served.receiving.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("other snapshots are being received; send this one again later")
        })?;
        let vote = wire::parse_vote(head.vote).map_err(invalid)?;
        let header: SnapshotHeader = codec::decode(&head.meta).map_err(invalid)?;
        if header.group != served.group.group {
            return Err(invalid("the snapshot is of another group"));
        }
        let incoming = Incoming {
            pause: served.group.settings.snapshot_timeout,
            // The tables of group 0 are small, and what makes room on the disk is in them.
            disk: (header.group != META_GROUP).then(|| served.group.disk.clone()),
            temporary: served.snapshots.temporary(),
        };
        // Aborted when this call is dropped.
        let mut receiving = JoinSet::new();
        receiving.spawn_on(incoming.receive(frames), &served.runtime);
        let received = receiving.join_next().await;
        let temporary = received
            .ok_or_else(|| stopped("the node stops"))?
            .map_err(stopped)??;
        let (group, witness) = (served.group.clone(), self.inner.peers.witness().clone());
        let installing = served
            .runtime
            .spawn(install(group, witness, vote, header, temporary, permit));
        installing.await.map_err(stopped)?
    }
}

/// The next message, if it comes in time.
async fn next<S>(frames: &mut S, pause: Duration) -> Result<Option<v1::SnapshotChunk>, Status>
where
    S: Stream<Item = Result<v1::SnapshotChunk, Status>> + Unpin,
{
    let next = tokio::time::timeout(pause, frames.next()).await;
    let late = |_| Status::deadline_exceeded(format!("nothing of the snapshot came for {pause:?}"));
    next.map_err(late)?.transpose()
}

/// A snapshot whose bytes come.
pub(super) struct Incoming {
    /// Longest wait for the next message.
    pub(super) pause: Duration,
    /// The disk, if it must have room.
    pub(super) disk: Option<DiskSpace>,
    /// Where it goes.
    pub(super) temporary: Temporary,
}

impl Incoming {
    /// Writes and syncs what comes.
    pub(super) async fn receive<S>(self, mut frames: S) -> Result<Temporary, Status>
    where
        S: Stream<Item = Result<v1::SnapshotChunk, Status>> + Unpin,
    {
        let failed = |error: std::io::Error| Status::internal(format!("snapshot cannot be stored: {error}"));
        self.check_disk()?;
        let mut file = File::create(self.temporary.path()).await.map_err(failed)?;
        while let Some(frame) = next(&mut frames, self.pause).await? {
            self.check_disk()?;
            file.write_all(&frame.data).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        Ok(self.temporary)
    }

    fn check_disk(&self) -> Result<(), Status> {
        let checked = self.disk.as_ref().map_or(Ok(()), DiskSpace::check_rows);
        checked.map_err(Status::resource_exhausted)
    }
}

/// Checks a file and puts it in place; others are received when this has ended.
async fn install(
    group: Group,
    witness: Witness,
    vote: Vote,
    header: SnapshotHeader,
    temporary: Temporary,
    _permit: OwnedSemaphorePermit,
) -> Result<v1::SnapshotResponse, Status> {
    let snapshot = check(temporary.path().to_owned(), &header).await?;
    let meta = snapshot.header.meta().map_err(invalid)?;
    witness.receives(header.group, meta.last_log_id.map(LogIdRecord::from));
    let snapshot = SnapshotSource::File(snapshot);
    let installed = group
        .raft
        .install_full_snapshot(vote, Snapshot { meta, snapshot })
        .await;
    // An older snapshot than this node needs is not installed, and not renamed.
    drop(temporary);
    let reply = installed.map_err(stopped)?;
    Ok(v1::SnapshotResponse {
        vote: Some(wire::vote(reply.vote)),
    })
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
