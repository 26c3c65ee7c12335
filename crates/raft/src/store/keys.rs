//! Keys of the engine. Every key starts with the group (4 bytes, big endian), so that groups share one engine and
//! one sync, and order within a group is order of keys.

use whiskraft_state::{BlobHash, DocumentKey};

/// A log entry: group, index.
pub(crate) fn log(group: u32, index: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index in a log key.
pub(crate) fn log_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(4..12)?.try_into().ok()?))
}

/// Small records of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    /// The vote.
    Vote = 1,
    /// Last purged log id.
    Purged = 2,
    /// Last committed log id.
    Committed = 3,
    /// Log index up to which document and blob bytes are written.
    Bodies = 4,
    /// Log id of the snapshot whose document and blob bytes are being put in place.
    Installing = 5,
}

/// A small record: group, tag.
pub(crate) fn meta(group: u32, tag: Meta) -> [u8; 5] {
    let mut key = [0; 5];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4] = tag as u8;
    key
}

/// First key of a group, in every table.
pub(crate) fn group_start(group: u32) -> [u8; 4] {
    group.to_be_bytes()
}

/// First key after a group.
pub(crate) fn group_end(group: u32) -> [u8; 4] {
    group.saturating_add(1).to_be_bytes()
}

/// A document body: group, kind, namespace, name, each text after its length, so that no two names share a key.
pub(crate) fn document(group: u32, key: &DocumentKey) -> Vec<u8> {
    let mut bytes = group.to_be_bytes().to_vec();
    for text in [key.kind.as_str(), key.namespace.as_str(), key.name.as_str()] {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A blob chunk: group, hash, chunk number.
pub(crate) fn blob(group: u32, hash: &BlobHash, index: u32) -> Vec<u8> {
    let mut bytes = group.to_be_bytes().to_vec();
    bytes.extend(hash.0);
    bytes.extend(index.to_be_bytes());
    bytes
}
