//! Records of activations that were not durable, on their way to the journal: best effort, off the way of every caller.
//!
//! Invariant: what waits is bounded by count and bytes; what does not fit is dropped and counted.

use std::collections::VecDeque;
use std::time::Duration;

use whiskraft_state::journal::{Archive, JournalCommand, UnixMillis};
use whiskraft_types::QueueKey;

use crate::journal::content::encode_record;
use crate::message::Record;

/// Records per batch.
const BATCH_MAX: usize = 1000;
/// Bytes after which a batch is full; its last record may exceed it.
const BATCH_LEN: usize = 1 << 20;

/// One record to keep.
#[derive(Debug)]
pub(crate) struct Archived {
    pub(crate) key: QueueKey,
    pub(crate) record: Record,
    pub(crate) accepted: UnixMillis,
    pub(crate) at: UnixMillis,
    pub(crate) keep: Duration,
}

impl Archived {
    fn len(&self) -> usize {
        let logs: usize = self.record.logs.iter().map(String::len).sum();
        self.record.result.len() + logs + 256
    }

    /// As a lane takes it.
    pub(crate) fn into_command(self) -> JournalCommand {
        JournalCommand::Archive(Archive {
            id: self.record.id,
            record: encode_record(&self.record),
            key: self.key,
            accepted: self.accepted,
            at: self.at,
            keep: self.keep,
        })
    }
}

/// Records that wait.
#[derive(Debug)]
pub(crate) struct Archives {
    waiting: VecDeque<Archived>,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl Archives {
    pub(crate) const fn new(count_max: usize, bytes_max: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            count_max,
            bytes_max,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a record; gives it back if there is no room.
    pub(crate) fn push(&mut self, archived: Archived) -> Result<(), Archived> {
        let len = archived.len();
        if self.waiting.len() >= self.count_max || self.bytes + len > self.bytes_max {
            return Err(archived);
        }
        self.bytes += len;
        self.waiting.push_back(archived);
        Ok(())
    }

    /// The oldest, up to a batch.
    pub(crate) fn take(&mut self) -> Vec<Archived> {
        let mut batch = Vec::new();
        let mut len = 0;
        while batch.len() < BATCH_MAX
            && len < BATCH_LEN
            && let Some(archived) = self.waiting.pop_front()
        {
            len += archived.len();
            batch.push(archived);
        }
        self.bytes -= len;
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use whiskraft_types::{ActivationId, ActivationRecord, ActivationStatus};

    use super::*;

    fn archived(len: usize) -> Archived {
        let record = ActivationRecord {
            id: ActivationId::from_bytes([7; 16]),
            status: ActivationStatus::Success,
            result: vec![b'x'; len].into(),
            logs: Vec::new(),
            start_ms: 1,
            end_ms: 2,
            init_ms: None,
            wait_ms: 0,
            timed_out: false,
            ran_on: None,
            run: 1,
            cancelled: false,
        };
        Archived {
            key: QueueKey {
                namespace: "guest".parse().unwrap(),
                action: "guest/a".parse().unwrap(),
            },
            record: Arc::new(record),
            accepted: UnixMillis(1),
            at: UnixMillis(2),
            keep: Duration::from_millis(3),
        }
    }

    #[test]
    fn what_waits_is_bounded_and_room_comes_back() {
        let mut archives = Archives::new(3, 2000);
        let push = |archives: &mut Archives, len| archives.push(archived(len)).is_ok();
        assert!(push(&mut archives, 1000));
        assert!(!push(&mut archives, 1000), "too many bytes");
        assert!(push(&mut archives, 0) && push(&mut archives, 0));
        assert!(!push(&mut archives, 0), "too many");
        assert_eq!(archives.take().len(), 3);
        assert!(archives.is_empty() && push(&mut archives, 1000));
    }

    #[test]
    fn a_batch_ends_when_it_is_full() {
        let mut archives = Archives::new(10, usize::MAX);
        for _ in 0..3 {
            assert!(archives.push(archived(BATCH_LEN / 2)).is_ok());
        }
        assert_eq!((archives.take().len(), archives.take().len()), (2, 1));
    }
}
