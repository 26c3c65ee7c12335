//! Blobs: content-addressed bytes that arrive in chunks. Chunks leave as effects; here is which of them are
//! stored and which documents need them. Whether the content matches its hash is for its readers to check.

use whiskraft_types::LogRevision;

use crate::bounds::BLOB_LEN_MAX;
use crate::command::BlobChunk;
use crate::event::{Effect, Refusal, Response};
use crate::record::{BlobHash, BlobRecord};
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_put_blob_chunk(
        &mut self,
        chunk: &BlobChunk,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let chunks = check_chunk(chunk)?;
        let known = self.blob(&chunk.hash).cloned();
        let mut row = known.unwrap_or_else(|| BlobRecord {
            len: chunk.len,
            missing: (0..chunks).collect(),
            references: 0,
            touched: turn.revision,
        });
        if row.len != chunk.len {
            let reason = format!(
                "the blob has {} bytes, this chunk of it says {}",
                row.len, chunk.len
            );
            return Err(Refusal::Invalid { reason });
        }
        // A chunk that is stored already is not written again, but shows that somebody wants the blob.
        row.touched = turn.revision;
        if let Ok(at) = row.missing.binary_search(&chunk.index) {
            row.missing.remove(at);
            turn.effect(Effect::PutBlobChunk(chunk.clone()));
        }
        let missing = row.missing.clone();
        self.tables.blobs.insert(chunk.hash, row);
        Ok(Response::Missing(missing))
    }

    pub(crate) fn apply_sweep_blobs(&mut self, before: LogRevision, turn: &mut Turn) -> Response {
        let unneeded = self
            .blobs()
            .filter(|(_, row)| row.references == 0 && row.touched < before);
        let hashes: Vec<BlobHash> = unneeded.map(|(hash, _)| hash).collect();
        for hash in hashes {
            self.tables.blobs.remove(&hash);
            turn.effect(Effect::DeleteBlob { hash });
        }
        Response::Done
    }

    /// Counts the references of a document that was written.
    pub(crate) fn add_references(&mut self, blobs: &[BlobHash], revision: LogRevision) {
        self.change_references(blobs, revision, |references| references.saturating_add(1));
    }

    /// Takes back the references of a document that is gone. Its blobs count as touched now, so that an invoker that is
    /// about to fetch one still finds it.
    pub(crate) fn drop_references(&mut self, blobs: &[BlobHash], revision: LogRevision) {
        self.change_references(blobs, revision, |references| references.saturating_sub(1));
    }

    fn change_references(&mut self, blobs: &[BlobHash], revision: LogRevision, change: impl Fn(u32) -> u32) {
        for hash in blobs {
            if let Some(row) = self.tables.blobs.get_mut(hash) {
                row.references = change(row.references);
                row.touched = revision;
            }
        }
    }
}

/// Checks that a chunk fits the blob it names; gives back how many chunks that has.
fn check_chunk(chunk: &BlobChunk) -> Result<u32, Refusal> {
    let BlobChunk { len, index, data, .. } = chunk;
    let invalid = |reason| Err(Refusal::Invalid { reason });
    if !(1..=BLOB_LEN_MAX).contains(len) {
        return invalid(format!("a blob of {len} bytes; 1 to {BLOB_LEN_MAX} are allowed"));
    }
    let chunk_len = BlobChunk::LEN as u64;
    let start = u64::from(*index) * chunk_len;
    if start >= *len {
        return invalid(format!("a blob of {len} bytes has no chunk {index}"));
    }
    let wanted = chunk_len.min(len - start);
    if data.len() as u64 != wanted {
        return invalid(format!(
            "chunk {index} of a blob of {len} bytes has {wanted} bytes, not {}",
            data.len()
        ));
    }
    u32::try_from(len.div_ceil(chunk_len))
        .or_else(|_| invalid(format!("a blob of {len} bytes has too many chunks")))
}

#[cfg(test)]
#[path = "blobs_test.rs"]
mod tests;
