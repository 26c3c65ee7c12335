//! What the consensus core passes around as a snapshot: a file, or a view that becomes bytes when they are wanted.
//!
//! A lane's state is on disk already, so building its snapshot only means to say how far it is; the bytes are made when
//! a follower takes them, as fast as it does, and are never on this disk twice. A view belongs to a thread of its own,
//! which waits until it is asked or let go.

use std::fs::File;
use std::io::{self, Read, Write};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::engine::{Scan, View};
use super::lane_rows::{LANE_TABLES, LaneRows, LaneState};
use super::snapshot_dir::{SnapshotDir, Temporary};
use super::snapshot_file::{SnapshotFile, SnapshotHeader, SnapshotWriter};
use crate::codec;

/// Bytes in a piece.
const PIECE_LEN: usize = 1 << 20;
/// Pieces made ahead of whoever takes them.
const PIECES_MAX: usize = 2;

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
    header: SnapshotHeader,
    wanted: oneshot::Sender<Wanted>,
}

/// What is to become of a view.
#[derive(Debug)]
enum Wanted {
    File(oneshot::Sender<io::Result<(SnapshotFile, Temporary)>>),
    Pieces(mpsc::Sender<io::Result<Bytes>>),
}

/// The bytes of a snapshot; they end early after an error. Dropped, they let go of the view.
pub(crate) type Pieces = BoxStream<'static, io::Result<Bytes>>;

impl SnapshotSource {
    /// The file; one that was written for the caller is there as long as its place is held.
    pub(crate) async fn into_file(self) -> io::Result<(SnapshotFile, Option<Temporary>)> {
        match self {
            Self::File(file) => Ok((file, None)),
            Self::View(view) => view.into_file().await.map(|(file, held)| (file, Some(held))),
        }
    }

    /// What it covers, and its bytes. A file is opened at once, so that it can be deleted while it is sent.
    pub(crate) fn into_pieces(self) -> io::Result<(SnapshotHeader, Pieces)> {
        match self {
            Self::File(file) => {
                let open = File::open(&file.path)?;
                Ok((file.header, pieces_of(open)))
            }
            Self::View(view) => Ok(view.into_pieces()),
        }
    }
}

fn read_piece(mut file: File) -> (io::Result<Vec<u8>>, File) {
    let mut bytes = Vec::new();
    let read = Read::by_ref(&mut file)
        .take(PIECE_LEN as u64)
        .read_to_end(&mut bytes);
    (read.map(|_| bytes), file)
}

fn pieces_of(file: File) -> Pieces {
    let next = |file: Option<File>| async move {
        let file = file?;
        match tokio::task::spawn_blocking(|| read_piece(file)).await {
            Ok((Ok(bytes), file)) if !bytes.is_empty() => Some((Ok(bytes.into()), Some(file))),
            Ok((Ok(_), _)) => None,
            Ok((Err(error), _)) => Some((Err(error), None)),
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    };
    stream::unfold(Some(file), next).boxed()
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
        let covers = header.clone();
        // The view cannot leave the thread that took it.
        drop(tokio::task::spawn_blocking(move || {
            let view = rows.view();
            let _ = viewed.send(());
            let snapshot = LaneSnapshot {
                rows: &rows,
                view: &view,
                header: &header,
                state: &state,
            };
            match is_wanted.blocking_recv() {
                Ok(Wanted::File(done)) => {
                    let _ = done.send(snapshot.write_file(&dir));
                }
                Ok(Wanted::Pieces(pieces)) => snapshot.write_pieces(&pieces),
                Err(_) => {}
            }
        }));
        is_viewed.await.map_err(io::Error::other)?;
        Ok(Self {
            header: covers,
            wanted,
        })
    }

    async fn into_file(self) -> io::Result<(SnapshotFile, Temporary)> {
        let (done, written) = oneshot::channel();
        let _ = self.wanted.send(Wanted::File(done));
        written.await.map_err(io::Error::other)?
    }

    fn into_pieces(self) -> (SnapshotHeader, Pieces) {
        let (pieces, taken) = mpsc::channel(PIECES_MAX);
        let _ = self.wanted.send(Wanted::Pieces(pieces));
        let next = |mut taken: mpsc::Receiver<_>| async move { Some((taken.recv().await?, taken)) };
        (self.header, stream::unfold(taken, next).boxed())
    }
}

/// What a snapshot of a lane is made of.
struct LaneSnapshot<'a> {
    rows: &'a LaneRows,
    view: &'a View<'a>,
    header: &'a SnapshotHeader,
    state: &'a LaneState,
}

impl LaneSnapshot<'_> {
    fn write_file(&self, dir: &SnapshotDir) -> io::Result<(SnapshotFile, Temporary)> {
        let temporary = dir.temporary();
        let mut writer = SnapshotWriter::create(temporary.path(), self.header)?;
        self.write(&mut writer)?;
        writer.finish()?;
        let file = SnapshotFile {
            path: temporary.path().to_owned(),
            header: self.header.clone(),
        };
        Ok((file, temporary))
    }

    fn write_pieces(&self, pieces: &mpsc::Sender<io::Result<Bytes>>) {
        let cut = Cut {
            pieces,
            piece: Vec::with_capacity(PIECE_LEN),
        };
        let written = SnapshotWriter::new(cut, self.header).and_then(|mut writer| {
            self.write(&mut writer)?;
            writer.end().map(drop)
        });
        if let Err(error) = written {
            // Nobody may take them any more, and then nobody asks why they end.
            let _ = pieces.blocking_send(Err(error));
        }
    }

    fn write<W: Write>(&self, writer: &mut SnapshotWriter<W>) -> io::Result<()> {
        writer.state(&codec::encode(self.state)?)?;
        let (from, to) = self.rows.range();
        for table in LANE_TABLES {
            self.view.scan(table, &from, &to, |key, value| {
                writer.row(table, key, value)?;
                Ok(Scan::Continue)
            })?;
        }
        Ok(())
    }
}

/// Cuts what is written into pieces, and waits while nobody takes them.
struct Cut<'a> {
    pieces: &'a mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Cut<'_> {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_LEN));
        let sent = self.pieces.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::other("nobody takes the snapshot any more"))
    }
}

impl Write for Cut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE_LEN - self.piece.len());
        self.piece.extend(bytes.iter().take(len));
        if self.piece.len() >= PIECE_LEN {
            self.send()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.send()
    }
}
