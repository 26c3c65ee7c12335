//! Upload and download of blobs (code of actions).
//!
//! An upload is held in memory and its hash verified before its first byte enters the log: a chunk that once was
//! stored under a hash is never replaced, so a wrong one would stay for ever. Chunks then go into the log one at a
//! time and at a limited rate, so that keepalives and leadership never wait behind them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};
use whiskraft_proto::v1;
use whiskraft_state::{BlobChunk, BlobHash, Command, Response};
use whiskraft_types::Rejection;

use crate::context::Context;
use crate::services::documents::blob_hash;
use crate::wire;

/// Uploads held in memory at a time: each takes up to `blob-len-max`. Others wait their turn.
const UPLOADS_MAX: usize = 2;
/// Silence after which an upload gives its turn back.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(30);

/// Both directions; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    context: Context,
    turns: Arc<Semaphore>,
}

impl Blobs {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            turns: Arc::new(Semaphore::new(UPLOADS_MAX)),
        }
    }

    /// Stores a blob; gives its length. One that is complete already is not stored again.
    ///
    /// # Errors
    /// A typed no; what entered the log of an upload that did not end is swept later.
    pub(crate) async fn put(&self, mut chunks: Streaming<v1::BlobChunk>) -> Result<u64, Rejection> {
        let first = next(&mut chunks)
            .await?
            .ok_or_else(|| invalid("no chunk; the first names hash and length"))?;
        let (hash, len) = (blob_hash(&first.sha256)?, first.len);
        let len_max = self.context.config.documents.blob_len_max.as_bytes();
        if len > len_max {
            return Err(Rejection::TooLarge { len, len_max });
        }
        if self
            .missing(&hash, len)?
            .is_some_and(|missing| missing.is_empty())
        {
            return Ok(len);
        }
        self.context.available().await?;
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| invalid("the scheduler is shutting down"))?;
        let body = receive(first, &mut chunks, len).await?;
        if Sha256::digest(&body)[..] != hash.0 {
            return Err(invalid(
                "the content does not have the sha256 that its first chunk names",
            ));
        }
        self.store(hash, &body).await?;
        Ok(len)
    }

    /// Chunks the cluster lacks of a blob; `None` if it knows nothing of it.
    fn missing(&self, hash: &BlobHash, len: u64) -> Result<Option<Vec<u32>>, Rejection> {
        let known = self
            .context
            .node
            .read(|state| state.blob(hash).map(|blob| (blob.len, blob.missing.clone())));
        match known {
            Some((known, _)) if known != len => Err(invalid(format!(
                "the blob with this sha256 has {known} bytes, not {len}"
            ))),
            known => Ok(known.map(|(_, missing)| missing)),
        }
    }

    async fn store(&self, hash: BlobHash, body: &Bytes) -> Result<(), Rejection> {
        let len = body.len() as u64;
        let count = u32::try_from(body.len().div_ceil(BlobChunk::LEN).max(1)).unwrap_or(u32::MAX);
        let wanted = self.missing(&hash, len)?.unwrap_or_else(|| (0..count).collect());
        let rate = self.context.config.documents.blob_rate.as_bytes().max(1);
        for index in wanted {
            let start = (index as usize * BlobChunk::LEN).min(body.len());
            let data = body.slice(start..(start + BlobChunk::LEN).min(body.len()));
            let pause = Duration::from_micros(data.len() as u64 * 1_000_000 / rate);
            let chunk = BlobChunk {
                hash,
                len,
                index,
                data: data.into(),
            };
            // Both: the pause bounds the rate on a fast log, the answer bounds what is in flight on a slow one.
            let (proposed, ()) = tokio::join!(
                self.context.propose(Command::PutBlobChunk(chunk)),
                tokio::time::sleep(pause),
            );
            match proposed.map_err(|error| wire::propose_error(&error))? {
                (revision, Response::Missing(missing)) if missing.is_empty() => {
                    // Whoever uploads here can name the blob here.
                    let _ = self.context.node.wait_applied(revision).await;
                    return Ok(());
                }
                (_, Response::Missing(_)) => {}
                (_, Response::Refused(refusal)) => return Err(wire::refusal(refusal)),
                _ => return Err(wire::unexpected("PutBlobChunk")),
            }
        }
        match self.missing(&hash, len)? {
            Some(missing) if missing.is_empty() => Ok(()),
            _ => Err(Rejection::Unavailable {
                reason: "the blob is not complete yet; upload it again".to_owned(),
            }),
        }
    }

    /// The chunks of a blob, read from this node's disk as the receiver takes them.
    pub(crate) fn get(
        &self,
        hash: BlobHash,
    ) -> Result<BoxStream<'static, Result<v1::BlobChunk, Status>>, Status> {
        let known = self
            .context
            .node
            .read(|state| state.blob(&hash).map(|blob| (blob.len, blob.missing.is_empty())));
        let Some((len, true)) = known else {
            return Err(Status::not_found("no complete blob has this sha256"));
        };
        let count = len.div_ceil(BlobChunk::LEN as u64).max(1);
        let node = self.context.node.clone();
        let chunks = (0..u32::try_from(count).unwrap_or(u32::MAX)).map(move |index| {
            let data = node
                .blob_chunk(&hash, index)
                .map_err(|error| Status::internal(error.to_string()))?;
            let data = data.ok_or_else(|| Status::aborted("the blob was deleted while it was read"))?;
            let sha256 = if index == 0 {
                Bytes::copy_from_slice(&hash.0)
            } else {
                Bytes::new()
            };
            Ok(v1::BlobChunk {
                sha256,
                len: if index == 0 { len } else { 0 },
                data,
            })
        });
        Ok(stream::iter(chunks).boxed())
    }
}

async fn next(chunks: &mut Streaming<v1::BlobChunk>) -> Result<Option<v1::BlobChunk>, Rejection> {
    match tokio::time::timeout(CHUNK_WAIT_MAX, chunks.message()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(status)) => Err(invalid(format!("the upload broke off: {}", status.message()))),
        Err(_) => Err(invalid(format!("no chunk for {CHUNK_WAIT_MAX:?}"))),
    }
}

async fn receive(
    first: v1::BlobChunk,
    chunks: &mut Streaming<v1::BlobChunk>,
    len: u64,
) -> Result<Bytes, Rejection> {
    let mut body = BytesMut::new();
    let mut chunk = Some(first);
    while let Some(received) = chunk {
        let total = (body.len() + received.data.len()) as u64;
        if received.data.len() > BlobChunk::LEN {
            let (len, len_max) = (received.data.len() as u64, BlobChunk::LEN as u64);
            return Err(Rejection::TooLarge { len, len_max });
        }
        if total > len {
            return Err(invalid(format!(
                "more than the {len} bytes that the first chunk announced"
            )));
        }
        body.extend_from_slice(&received.data);
        chunk = next(chunks).await?;
    }
    if body.len() as u64 != len {
        return Err(invalid(format!(
            "{} bytes, the first chunk announced {len}",
            body.len()
        )));
    }
    Ok(body.freeze())
}

fn invalid(reason: impl Into<String>) -> Rejection {
    Rejection::Invalid {
        reason: reason.into(),
    }
}
