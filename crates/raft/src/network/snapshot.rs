//! A snapshot file as messages: the first names what comes, the others carry the file's bytes.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError};
use whiskraft_proto::v1;

use crate::codec;
use crate::store::SnapshotSource;
use crate::types::{Types, Vote};
use crate::wire;

/// Bytes of the file in one message.
const CHUNK_LEN: u64 = 1 << 20;

fn read_chunk(mut file: File) -> (io::Result<Vec<u8>>, File) {
    let mut bytes = Vec::new();
    let read = Read::by_ref(&mut file).take(CHUNK_LEN).read_to_end(&mut bytes);
    (read.map(|_| bytes), file)
}

/// The messages of a file. It is opened at once, so that it can be deleted while it is sent.
pub(super) async fn frames(
    envelope: v1::Envelope,
    vote: Vote,
    snapshot: SnapshotSource,
) -> Result<impl Stream<Item = v1::SnapshotChunk> + Send + 'static, RPCError<Types>> {
    let failed = |error: io::Error| {
        RPCError::Network(NetworkError::from_string(format!(
            "snapshot cannot be read: {error}"
        )))
    };
    let (snapshot, is_ours) = snapshot.into_file().await.map_err(failed)?;
    let file = File::open(&snapshot.path).map_err(failed)?;
    if is_ours {
        std::fs::remove_file(&snapshot.path).map_err(failed)?;
    }
    let meta = codec::encode(&snapshot.header).map_err(|error| failed(error.into()))?;
    let head = v1::SnapshotChunk {
        envelope: Some(envelope),
        vote: Some(wire::vote(vote)),
        meta: meta.into(),
        data: Bytes::new(),
    };
    let chunks = stream::unfold(Some(file), |file| async move {
        let file = file?;
        match tokio::task::spawn_blocking(|| read_chunk(file)).await {
            Ok((Ok(bytes), file)) if !bytes.is_empty() => Some((
                v1::SnapshotChunk {
                    data: bytes.into(),
                    ..v1::SnapshotChunk::default()
                },
                Some(file),
            )),
            Ok((Err(error), _)) => {
                // The receiver sees a file without trailer and refuses it.
                tracing::warn!(%error, "snapshot cannot be read any further");
                None
            }
            Ok(_) | Err(_) => None,
        }
    });
    Ok(stream::iter([head]).chain(chunks))
}
