//! Keys of the engine. Every key starts with the group (4 bytes, big endian), so that groups share one engine and
//! one sync, and order within a group is order of keys.

use whiskraft_state::journal::UnixMillis;
use whiskraft_state::{BlobHash, DocumentKey};
use whiskraft_types::{ActivationId, NamespaceName, QueueKey};

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
    /// Name of the snapshot whose rows are being put in place.
    Installing = 5,
    /// How far a lane has applied.
    Lane = 6,
    /// Where in a lane's log how many bytes were applied.
    Marks = 7,
    /// What the other members have shown to be on their disks, in all groups.
    Seen = 8,
}

/// A small record: group, tag.
pub(crate) fn meta(group: u32, tag: Meta) -> [u8; 5] {
    let mut key = [0; 5];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4] = tag as u8;
    key
}

/// The record of how far a lane has applied.
pub(crate) fn lane_state(group: u32) -> [u8; 5] {
    meta(group, Meta::Lane)
}

/// The record of a snapshot that is being put in place.
pub(crate) fn installing(group: u32) -> [u8; 5] {
    meta(group, Meta::Installing)
}

/// First and last (exclusive) key of a group, in every table.
pub(crate) fn group_range(group: u32) -> ([u8; 4], [u8; 4]) {
    (group_start(group), group_end(group))
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

/// A row, payload or record of the journal: group, activation.
pub(crate) fn activation(group: u32, id: ActivationId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4..].copy_from_slice(id.as_bytes());
    key
}

/// A fence of the journal: group, queue.
pub(crate) fn fence(group: u32, queue: &QueueKey) -> Vec<u8> {
    let mut bytes = group.to_be_bytes().to_vec();
    push_queue(&mut bytes, queue);
    bytes
}

/// Tags of the lists in the index of the journal.
const OPEN: u8 = 1;
const DEAD: u8 = 2;

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn push_queue(bytes: &mut Vec<u8>, queue: &QueueKey) {
    push_text(bytes, queue.namespace.as_str());
    push_text(bytes, queue.action.as_str());
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

/// First key of the open activations of a group, and of a queue's if one is given.
pub(crate) fn open_start(group: u32, queue: Option<&QueueKey>) -> Vec<u8> {
    let mut bytes = group.to_be_bytes().to_vec();
    bytes.push(OPEN);
    if let Some(queue) = queue {
        push_queue(&mut bytes, queue);
    }
    bytes
}

/// An open activation: group, tag, queue, activation.
pub(crate) fn open(group: u32, queue: &QueueKey, id: ActivationId) -> Vec<u8> {
    let mut bytes = open_start(group, Some(queue));
    bytes.extend(id.as_bytes());
    bytes
}

/// Queue and activation of the key of an open one.
pub(crate) fn parse_open(key: &[u8]) -> Option<(QueueKey, ActivationId)> {
    let mut rest = key.get(4..)?.strip_prefix(&[OPEN])?;
    let namespace = take_text(&mut rest)?.parse().ok()?;
    let action = take_text(&mut rest)?.parse().ok()?;
    let id = ActivationId::from_bytes(rest.try_into().ok()?);
    Some((QueueKey { namespace, action }, id))
}

/// First key of the dead letters of a namespace.
pub(crate) fn dead_start(group: u32, namespace: &NamespaceName) -> Vec<u8> {
    let mut bytes = group.to_be_bytes().to_vec();
    bytes.push(DEAD);
    push_text(&mut bytes, namespace.as_str());
    bytes
}

/// A dead letter: group, tag, namespace, when it ended, activation.
pub(crate) fn dead(group: u32, namespace: &NamespaceName, at: UnixMillis, id: ActivationId) -> Vec<u8> {
    let mut bytes = dead_start(group, namespace);
    bytes.extend(at.0.to_be_bytes());
    bytes.extend(id.as_bytes());
    bytes
}

/// The activation at the end of a key.
pub(crate) fn last_activation(key: &[u8]) -> Option<ActivationId> {
    key.last_chunk::<16>().copied().map(ActivationId::from_bytes)
}

/// First key after all that start like this.
pub(crate) fn after_all(mut start: Vec<u8>) -> Vec<u8> {
    while let Some(last) = start.pop() {
        if last < u8::MAX {
            start.push(last + 1);
            break;
        }
    }
    start
}
