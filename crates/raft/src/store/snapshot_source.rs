//! What the consensus core passes around as a snapshot: a file, or a view that becomes a file when one is wanted.
//!
//! A lane's state is on disk already, so building its snapshot only means to say how far it is; the bytes are written
//! when a follower needs them. A view belongs to a thread of its own, which waits until it is asked or let go.

use std::io;

use tokio::sync::oneshot;

use super::engine::{Scan, View};
use super::lane_rows::{LANE_TABLES, LaneRows, LaneState};
use super::snapshot_dir::SnapshotDir;
use super::snapshot_file::{SnapshotFile, SnapshotHeader, SnapshotWriter};
use crate::codec;

/// See the module.
#[derive(Debug)]
pub(crate) enum SnapshotSource {
    /// A file that is there.
    File(SnapshotFile),
    /// Rows as of a moment.
    View(LaneView),
}

/// The rows of a lane as of a moment, held by a thread.
#[derive(Debug)]
pub(crate) struct LaneView {
    wanted: oneshot::Sender<()>,
    written: oneshot::Receiver<io::Result<SnapshotFile>>,
}

impl SnapshotSource {
    /// The file, and whether it is the caller's to delete.
    pub(crate) async fn into_file(self) -> io::Result<(SnapshotFile, bool)> {
        match self {
            Self::File(file) => Ok((file, false)),
            Self::View(view) => view.into_file().await.map(|file| (file, true)),
        }
    }
}

impl LaneView {
    /// Takes the view; nothing may be applied until this returns.
    pub(crate) async fn take(
        rows: LaneRows,
        dir: SnapshotDir,
        header: SnapshotHeader,
        state: LaneState,
    ) -> io::Result<Self> {
        let (viewed, is_viewed) = oneshot::channel();
        let (wanted, is_wanted) = oneshot::channel();
        let (done, written) = oneshot::channel();
        // The view cannot leave the thread that took it.
        drop(tokio::task::spawn_blocking(move || {
            let view = rows.view();
            let _ = viewed.send(());
            if is_wanted.blocking_recv().is_ok() {
                let _ = done.send(write(&rows, &view, &dir, &header, &state));
            }
        }));
        is_viewed.await.map_err(io::Error::other)?;
        Ok(Self { wanted, written })
    }

    async fn into_file(self) -> io::Result<SnapshotFile> {
        let _ = self.wanted.send(());
        self.written.await.map_err(io::Error::other)?
    }
}

fn write(
    rows: &LaneRows,
    view: &View<'_>,
    dir: &SnapshotDir,
    header: &SnapshotHeader,
    state: &LaneState,
) -> io::Result<SnapshotFile> {
    let path = dir.temporary();
    let mut writer = SnapshotWriter::create(&path, header)?;
    writer.state(&codec::encode(state)?)?;
    let (from, to) = rows.range();
    for table in LANE_TABLES {
        view.scan(table, &from, &to, |key, value| {
            writer.row(table, key, value)?;
            Ok(Scan::Continue)
        })?;
    }
    writer.finish()?;
    Ok(SnapshotFile {
        path,
        header: header.clone(),
    })
}
