//! A snapshot as messages: the first names what comes, the others carry its bytes.

use std::io;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError};
use whiskraft_proto::v1;

use crate::codec;
use crate::store::SnapshotSource;
use crate::types::{Types, Vote};
use crate::wire;

/// The messages of a snapshot. Its bytes are made as they are taken.
pub(super) fn frames(
    envelope: v1::Envelope,
    vote: Vote,
    snapshot: SnapshotSource,
) -> Result<impl Stream<Item = v1::SnapshotChunk> + Send + 'static, RPCError<Types>> {
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
    let chunks = pieces.scan((), |_, piece| {
        // The receiver sees a snapshot without trailer and refuses it.
        let piece = piece.inspect_err(|error| tracing::warn!(%error, "snapshot cannot be read any further"));
        std::future::ready(piece.ok())
    });
    let chunks = chunks.map(|data| v1::SnapshotChunk {
        data,
        ..v1::SnapshotChunk::default()
    });
    Ok(stream::iter([head]).chain(chunks))
}
