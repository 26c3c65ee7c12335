//! The ordered key-value engine under the log store and the bodies: RocksDB, or memory in builds without it.
//!
//! A write is readable when it returns and durable after the next [`Engine::sync`]; writes become durable in the order
//! in which they were made, never a later one without an earlier one. Every value is checked when it is read.

#[cfg(not(feature = "rocks"))]
mod memory;
#[cfg(feature = "rocks")]
mod rocks;

#[cfg(not(feature = "rocks"))]
pub(crate) use memory::{Engine, View};
#[cfg(feature = "rocks")]
pub(crate) use rocks::{Engine, View};

/// Independent key spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Log entries.
    Log,
    /// Votes and other small records.
    Meta,
    /// Document bodies.
    Documents,
    /// Blob chunks.
    Blobs,
    /// Rows of the journal.
    JournalRows,
    /// Payloads of activations.
    JournalPayloads,
    /// Records of activations that have ended.
    JournalRecords,
    /// Open activations by queue, dead letters by namespace.
    JournalIndex,
    /// Newest epochs of queues.
    JournalFences,
}

impl Table {
    /// Name, on disk too.
    pub(in crate::store) const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Meta => "meta",
            Self::Documents => "documents",
            Self::Blobs => "blobs",
            Self::JournalRows => "journal-rows",
            Self::JournalPayloads => "journal-payloads",
            Self::JournalRecords => "journal-records",
            Self::JournalIndex => "journal-index",
            Self::JournalFences => "journal-fences",
        }
    }
}

/// One change of a table.
#[derive(Debug)]
pub(crate) enum Write {
    /// Sets a key.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Table, Vec<u8>),
    /// Removes all keys from the first (inclusive) to the second (exclusive).
    DeleteRange(Table, Vec<u8>, Vec<u8>),
}

/// Whether a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// To the next key.
    Continue,
    /// No further.
    Stop,
}
