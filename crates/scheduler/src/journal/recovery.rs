//! Takes over the open activations of queues that are led here now: fences all lanes, waits until the fences are applied
//! on this node, reads what is open, and passes it to the shards in parts.
//!
//! All queues that moved at once share one fence per lane. A part is bounded, so that a queue with much to recover holds
//! neither a shard nor the memory.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use whiskraft_queue::Recovered;
use whiskraft_raft::{Journal, Journaled, LaneId, StoreError};
use whiskraft_state::journal::{JournalBatch, JournalCommand, JournalRow, RowState, UnixMillis};
use whiskraft_types::{ActivationId, Epoch, QueueKey};

use crate::clock::unix_ms;
use crate::context::Context;
use crate::journal::content::ContentError;
use crate::journal::prepare::later;
use crate::message::{Content, Payload, Request};
use crate::shard::ShardsHandle;

/// Queues in one fence: some 300 KiB at most, a fraction of that as a rule.
pub(crate) const FENCE_MAX: usize = 2048;
/// Queues that are read together.
pub(crate) const READ_MAX: usize = 64;
/// Activations in one part: what a turn of a shard takes in beside its other work.
const PART_MAX: usize = 64;
/// Bytes of payloads after which a part is full.
const PART_LEN: usize = 1 << 20;
/// Pause before a fence is repeated; it doubles up to the longest.
const FENCE_PAUSE: Duration = Duration::from_millis(25);
const FENCE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause before the store is read again after an error.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// A leadership.
pub(crate) type Led = (QueueKey, Epoch);

/// Fences queues in all lanes; back when this node has applied it everywhere.
pub(crate) async fn fence(journal: Journal, queues: Vec<Led>) -> Vec<Led> {
    let lanes = journal.lanes();
    join_all(lanes.into_iter().map(|lane| fence_lane(&journal, lane, &queues))).await;
    queues
}

async fn fence_lane(journal: &Journal, lane: LaneId, queues: &[Led]) {
    let mut pause = FENCE_PAUSE;
    loop {
        let batch = JournalBatch {
            now: UnixMillis(unix_ms()),
            commands: vec![JournalCommand::Fence {
                queues: queues.to_vec(),
            }],
        };
        match journal.append(lane, batch).await {
            // An error is a node that stops, and this task with it.
            Ok((revision, _)) => {
                let _ = journal.wait_applied(lane, revision).await;
                return;
            }
            Err(error) => tracing::debug!(lane = lane.0, %error, "fence not written, tries again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(FENCE_PAUSE_MAX);
    }
}

/// How far the reading of some queues has come.
#[derive(Debug)]
struct Cursor {
    queues: Arc<[Led]>,
    lanes: Arc<[LaneId]>,
    queue: usize,
    lane: usize,
    after: Option<ActivationId>,
}

/// Rows of one queue, with their payloads.
#[derive(Debug)]
struct Part {
    queue: usize,
    rows: Vec<(JournalRow, Payload)>,
    is_last: bool,
}

/// Reads what queues have open and passes it to their shards.
pub(crate) async fn read(
    context: Context,
    shards: ShardsHandle,
    journal: Journal,
    queues: Vec<Led>,
) -> Vec<Led> {
    let of: Arc<[Led]> = queues.into();
    let mut cursor = Cursor {
        queues: Arc::clone(&of),
        lanes: journal.lanes().into(),
        queue: 0,
        lane: 0,
        after: None,
    };
    while cursor.queue < of.len() {
        let journal = journal.clone();
        let read = tokio::task::spawn_blocking(move || {
            let parts = cursor.parts(&journal);
            (cursor, parts)
        });
        let Ok((next, parts)) = read.await else {
            break; // The process stops.
        };
        cursor = next;
        match parts {
            Ok(parts) => {
                for part in parts {
                    pass_on(&context, &shards, &of, part).await;
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "journal not readable, tries again"
                );
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }
    of.to_vec()
}

impl Cursor {
    /// The next parts; after an error the same are read again.
    fn parts(&mut self, journal: &Journal) -> Result<Vec<Part>, StoreError> {
        let mut parts = Vec::new();
        let (mut count, mut len) = (0, 0);
        while self.queue < self.queues.len() && count < PART_MAX && len < PART_LEN {
            let mut rows = Vec::new();
            let is_last = self.rows(journal, &mut rows, PART_MAX - count, &mut len)?;
            count += rows.len();
            parts.push(Part {
                queue: self.queue,
                rows,
                is_last,
            });
            if is_last {
                (self.queue, self.lane, self.after) = (self.queue + 1, 0, None);
            }
        }
        Ok(parts)
    }

    /// Rows of the queue at hand, up to a limit; whether that was all.
    fn rows(
        &mut self,
        journal: &Journal,
        rows: &mut Vec<(JournalRow, Payload)>,
        limit: usize,
        len: &mut usize,
    ) -> Result<bool, StoreError> {
        let (key, _) = &self.queues[self.queue];
        while let Some(lane) = self.lanes.get(self.lane) {
            let page = journal.open(*lane, key, self.after, limit - rows.len())?;
            let is_end = page.is_empty();
            for row in page {
                let id = row.id;
                let payload = journal.payload(*lane, id)?;
                self.after = Some(id);
                match payload.map(Content::decode) {
                    Some(Ok(payload)) => {
                        *len += payload.len();
                        rows.push((row, Arc::new(payload)));
                    }
                    Some(Err(error)) => damaged(id, &error),
                    None => tracing::error!(activation = %id, "payload missing in the journal, cannot run"),
                }
                if *len >= PART_LEN {
                    return Ok(false);
                }
            }
            if is_end {
                (self.lane, self.after) = (self.lane + 1, None);
            } else if rows.len() >= limit {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn pass_on(context: &Context, shards: &ShardsHandle, queues: &[Led], part: Part) {
    let (key, epoch) = queues[part.queue].clone();
    let rows = part.rows.into_iter();
    let request = Request::Recovered {
        key: key.clone(),
        epoch,
        recovered: rows
            .map(|(row, payload)| recovered(context, row, payload))
            .collect(),
        is_last: part.is_last,
    };
    shards.send_to(&key, request).await;
}

/// Passes one activation to its queue that turned out to be accepted.
pub(crate) async fn recover_one(
    context: &Context,
    shards: &ShardsHandle,
    journal: &Journal,
    Journaled { lane, row }: Journaled,
    epoch: Epoch,
) {
    let payload = match journal.payload(lane, row.id) {
        Ok(Some(bytes)) if matches!(row.state, RowState::Open { .. }) => Content::decode(bytes),
        _ => return, // It has ended.
    };
    let (id, key) = (row.id, row.key.clone());
    match payload {
        Ok(payload) => {
            let request = Request::Recovered {
                key: key.clone(),
                epoch,
                recovered: vec![recovered(context, row, Arc::new(payload))],
                is_last: false,
            };
            shards.send_to(&key, request).await;
        }
        Err(error) => damaged(id, &error),
    }
}

fn damaged(id: ActivationId, error: &ContentError) {
    tracing::error!(activation = %id, %error, "payload in the journal is damaged, cannot run");
}

/// As its queue takes it, in the time of this process.
fn recovered(context: &Context, row: JournalRow, payload: Payload) -> Recovered<Payload> {
    let (now, unix) = (context.clock.now(), unix_ms());
    let not_before = match row.state {
        RowState::Open { not_before } => not_before,
        RowState::Ended { .. } => None,
    };
    Recovered {
        id: row.id,
        waited: Duration::from_millis(unix.saturating_sub(row.accepted.0)),
        run: row.run,
        not_before: not_before.and_then(|at| later(now, unix, at)),
        payload,
    }
}
