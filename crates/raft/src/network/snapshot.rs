//! A snapshot as messages: the first names what comes, the others carry its bytes.
//!
//! It may be of any length, so what has a deadline is each step: the next bytes are taken, or what has arrived is put in
//! place.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError};
use tokio::sync::watch;
use whiskraft_proto::v1;

use crate::codec;
use crate::store::SnapshotSource;
use crate::types::{Types, Vote};
use crate::wire;

/// Bytes per second that a receiver checks, writes into its store and syncs at least.
const INSTALL_RATE_MIN: u64 = 4 << 20;

/// How many bytes of a snapshot were taken; closed when there are no more.
pub(super) type Taken = watch::Receiver<u64>;

/// The messages of a snapshot, and how far they are. Its bytes are made as they are taken.
pub(super) fn frames(
    envelope: v1::Envelope,
    vote: Vote,
    snapshot: SnapshotSource,
) -> Result<(impl Stream<Item = v1::SnapshotChunk> + Send + 'static, Taken), RPCError<Types>> {
    let failed = |error: io::Error| {
        RPCError::Network(NetworkError::from_string(format!(
            "snapshot cannot be read: {error}"
        )))
    };
    let (header, pieces) = snapshot.into_pieces().map_err(failed)?;
    let meta = codec::encode(&header).map_err(|error| failed(error.into()))?;
    let head = v1::SnapshotChunk {
        envelope: Some(envelope),
        vote: Some(wire::vote(vote)),
        meta: meta.into(),
        data: Bytes::new(),
    };
    let (progress, taken) = watch::channel(0);
    let chunks = stream::unfold((pieces, progress), |(mut pieces, progress)| async move {
        // The receiver sees a snapshot without trailer and refuses it.
        let data = pieces.next().await?;
        let data = data.inspect_err(|error| tracing::warn!(%error, "snapshot cannot be read any further"));
        let data = data.ok()?;
        progress.send_modify(|bytes| *bytes += data.len() as u64);
        let chunk = v1::SnapshotChunk {
            data,
            ..v1::SnapshotChunk::default()
        };
        Some((chunk, (pieces, progress)))
    });
    Ok((stream::iter([head]).chain(chunks), taken))
}

/// Waits for the answer to a snapshot for as long as its bytes are taken, none of them later than a pause after those
/// before; after the last ones, for as long as it takes to put them in place.
pub(super) async fn while_taken<T>(
    pause: Duration,
    mut taken: Taken,
    answer: impl Future<Output = T>,
) -> Result<T, String> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let is_more = taken.has_changed().is_ok();
        let bytes = *taken.borrow_and_update();
        let wait = if is_more {
            pause
        } else {
            pause + Duration::from_secs(bytes / INSTALL_RATE_MIN)
        };
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            _ = taken.changed(), if is_more => {}
            () = tokio::time::sleep(wait) => return Err(if is_more {
                format!("nothing was taken for {wait:?} after {bytes} bytes")
            } else {
                format!("{bytes} bytes were not put in place within {wait:?}")
            }),
        }
    }
}
