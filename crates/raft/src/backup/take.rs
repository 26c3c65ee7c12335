//! Takes a backup of a node that runs, piece by piece, as fast as it is read.

use std::io::{self, Write};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use whiskraft_state::State;
use whiskraft_state::journal::UnixMillis;
use whiskraft_types::LogRevision;

use super::format::{Header, Writer};
use crate::codec;
use crate::core::Core;
use crate::fatal::Fatal;
use crate::node::Node;
use crate::store::{self, BODY_TABLES, Bodies, LANE_TABLES, LaneState, Scan, Table, View};
use crate::types::META_GROUP;
use crate::{StoreError, Unavailable};

/// Bytes in a piece.
const PIECE_LEN: usize = 256 << 10;
/// Pieces written ahead of whoever reads them.
const PIECES_MAX: usize = 8;

/// The bytes of a backup file. Dropped, it ends the backup.
#[derive(Debug)]
pub struct BackupStream {
    pieces: mpsc::Receiver<Bytes>,
    /// What became of it, once there are no more pieces; taken when it was told.
    ended: Option<oneshot::Receiver<io::Result<()>>>,
}

impl BackupStream {
    /// The next piece; `None` after the last one.
    ///
    /// # Errors
    /// If the store cannot be read, or the node stops.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        if let Some(piece) = self.pieces.recv().await {
            return Some(Ok(piece));
        }
        let reason = match self.ended.take()?.await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the node has stopped".to_owned(),
        };
        let what = "a backup".to_owned();
        Some(Err(StoreError { what, reason }))
    }
}

/// Cuts the lanes, then the tables, and begins to write them; see [`Node::backup`].
pub(crate) async fn take(node: &Node, taken: UnixMillis) -> Result<BackupStream, Unavailable> {
    let (bodies, runtime) = node.parts_for_backup()?;
    // What was acknowledged before this call is in the cut of the lanes.
    node.journal().catch_up().await?;
    node.journal().flush().await?;
    let source = Source {
        bodies,
        core: node.core().clone(),
        lanes: node.journal().lanes().iter().map(|lane| lane.0).collect(),
        cluster_id: node.cluster_id().to_owned(),
        taken,
        runtime: runtime.clone(),
    };
    let (viewed, is_viewed) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let (end, ended) = oneshot::channel();
    // Views belong to the thread that took them. The node's own runtime waits for it before the store is closed.
    drop(runtime.spawn_blocking(move || {
        let written = source.run(viewed, may_go, sender);
        let _ = end.send(written.inspect_err(|error| tracing::warn!(%error, "backup not completed")));
    }));
    let stopped = |_| Unavailable("the node has stopped".to_owned());
    is_viewed.await.map_err(stopped)?;
    // The tables must know every queue of which the lanes hold something.
    node.read_index().await?;
    go.send(())
        .map_err(|()| Unavailable("the node has stopped".to_owned()))?;
    let ended = Some(ended);
    Ok(BackupStream { pieces, ended })
}

/// What a backup is made of.
struct Source {
    bodies: Bodies,
    core: Core,
    lanes: Vec<u32>,
    cluster_id: String,
    taken: UnixMillis,
    runtime: Handle,
}

impl Source {
    fn run(
        self,
        viewed: oneshot::Sender<()>,
        may_go: oneshot::Receiver<()>,
        sender: mpsc::Sender<Bytes>,
    ) -> io::Result<()> {
        let of_lanes = self.bodies.view();
        let _ = viewed.send(());
        let given_up = |_| io::Error::other("no leader confirmed the tables");
        may_go.blocking_recv().map_err(given_up)?;
        let shared = &self.core.shared;
        // Bodies are written under the lock of the tables, so the two agree, unless a snapshot is being put in place.
        let (state, revision, of_meta) =
            shared.read(|state| (state.clone(), shared.ring.applied(), self.bodies.whole_view()));
        let of_meta = of_meta?;
        let pieces = Pieces {
            sender,
            fatal: self.core.fatal.clone(),
            runtime: self.runtime.clone(),
            piece: Vec::with_capacity(PIECE_LEN),
        };
        self.write(pieces, &state, revision, &of_meta, &of_lanes)
    }

    fn write(
        &self,
        pieces: Pieces,
        state: &State,
        revision: LogRevision,
        of_meta: &View<'_>,
        of_lanes: &View<'_>,
    ) -> io::Result<()> {
        let lanes = self
            .lanes
            .iter()
            .map(|lane| Ok((*lane, lane_state(of_lanes, *lane)?)))
            .collect::<io::Result<Vec<_>>>()?;
        let header = Header {
            cluster_id: self.cluster_id.clone(),
            cluster_name: self.core.cluster_name.as_ref().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            taken: self.taken.0,
            meta: revision.0,
            lanes: lanes.iter().map(|(_, state)| state.index()).collect(),
        };
        let mut writer = Writer::new(pieces, &header)?;
        writer.group(META_GROUP, &codec::encode(state)?)?;
        rows(&mut writer, of_meta, META_GROUP, &BODY_TABLES)?;
        for (lane, state) in lanes {
            writer.group(lane, &codec::encode(&state)?)?;
            rows(&mut writer, of_lanes, lane, &LANE_TABLES)?;
        }
        writer.finish()?;
        tracing::info!(%revision, "backup written");
        Ok(())
    }
}

fn lane_state(view: &View<'_>, lane: u32) -> io::Result<LaneState> {
    if record::<String>(view, store::installing_key(lane))?.is_some() {
        let text =
            format!("rows of lane {lane} are being replaced by those of its leader; try again in a moment");
        return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
    }
    // A lane that has applied nothing has none.
    Ok(record(view, store::lane_key(lane))?.unwrap_or_default())
}

/// A small record.
fn record<T: DeserializeOwned>(view: &View<'_>, key: [u8; 5]) -> io::Result<Option<T>> {
    let mut end = key.to_vec();
    end.push(0);
    let mut found = None;
    view.scan(Table::Meta, &key, &end, |_, value| {
        found = Some(codec::decode(value)?);
        Ok(Scan::Stop)
    })?;
    Ok(found)
}

fn rows(writer: &mut Writer<Pieces>, view: &View<'_>, group: u32, tables: &[Table]) -> io::Result<()> {
    let (from, to) = store::group_range(group);
    for table in tables {
        view.scan(*table, &from, &to, |key, value| {
            writer.row(*table, key, value)?;
            Ok(Scan::Continue)
        })?;
    }
    Ok(())
}

/// Cuts what is written into pieces, and waits while nobody takes them.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    fatal: Fatal,
    runtime: Handle,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_LEN));
        // A node that stops must not wait for a slow reader.
        let sent = self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = self.fatal.wait() => Err("the node stops"),
                sent = self.sender.send(piece.into()) => sent.map_err(|_| "nobody reads it any more"),
            }
        });
        sent.map_err(io::Error::other)
    }
}

impl Write for Pieces {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::DataDir;
    use crate::store::{Engine, LaneRows, Retention};

    #[test]
    fn a_lane_that_is_half_in_place_is_in_no_backup() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataDir::open(dir.path()).unwrap().into_lock();
        let retention = Retention::default();
        let engine = Engine::open(&dir.path().join("store"), lock, &retention).unwrap();
        let rows = LaneRows::new(std::sync::Arc::new(engine), 2, retention);
        let state = LaneState::default();
        rows.apply(Vec::new(), &state, None).unwrap();
        assert_eq!(lane_state(&rows.view(), 2).unwrap(), state);
        rows.begin_replace("name").unwrap();
        assert_eq!(lane_state(&rows.view(), 1).unwrap(), state, "another lane");
        let refused = lane_state(&rows.view(), 2).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "{refused}");
        rows.end_replace(&state).unwrap();
        assert_eq!(lane_state(&rows.view(), 2).unwrap(), state);
    }
}
