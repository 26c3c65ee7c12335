//! Takes over the open activations of queues that are led here now: fences all lanes, waits until the fences are applied
//! on this node, reads what is open, and passes it to the shards in parts.
//!
//! All queues that moved at once share one fence per lane. A part is bounded, so that a queue with much to recover holds
//! neither a shard nor the memory. What is open and cannot be read ends here, with a record that says so, before its queue
//! accepts anything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use whiskraft_queue::{Outcome, Recovered};
use whiskraft_raft::{Journal, Journaled, LaneId, StoreError};
use whiskraft_state::journal::{End, EndKind, JournalBatch, JournalCommand, UnixMillis};
use whiskraft_types::{ActivationId, ActivationStatus, Epoch, QueueKey};

use crate::clock::unix_ms;
use crate::context::Context;
use crate::journal::content::encode_record;
use crate::journal::prepare::not_before;
use crate::message::{Content, Payload, Request};
use crate::shard::{ShardsHandle, record_of};

/// Queues in one fence: some 300 KiB at most, a fraction of that as a rule.
pub(crate) const FENCE_MAX: usize = 2048;
/// Queues that are read together.
pub(crate) const READ_MAX: usize = 64;
/// Activations in one part: what a turn of a shard takes in beside its other work.
const PART_MAX: usize = 64;
/// Bytes of payloads after which a part is full.
const PART_LEN: usize = 1 << 20;
/// Pause before an entry is repeated; it doubles up to the longest.
const APPEND_PAUSE: Duration = Duration::from_millis(25);
const APPEND_PAUSE_MAX: Duration = Duration::from_secs(1);
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
    let queues = queues.to_vec();
    append_surely(journal, lane, JournalCommand::Fence { queues }).await;
}

/// Appends a command that may be repeated, until it is applied on this node.
async fn append_surely(journal: &Journal, lane: LaneId, command: JournalCommand) {
    let mut pause = APPEND_PAUSE;
    loop {
        let batch = JournalBatch::of(vec![command.clone()]);
        match journal.append(lane, batch).await {
            // An error is a node that stops, and this task with it.
            Ok((revision, _)) => {
                let _ = journal.wait_applied(lane, revision).await;
                return;
            }
            Err(error) => {
                tracing::debug!(lane = lane.0, %error, "entry of a recovery not written, tries again")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(APPEND_PAUSE_MAX);
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

/// Rows of one queue.
#[derive(Debug)]
struct Part {
    queue: usize,
    rows: Vec<Opened>,
    damaged: Vec<Damaged>,
    is_last: bool,
}

/// An open activation, with what it runs.
#[derive(Debug)]
pub(crate) struct Opened {
    journaled: Journaled,
    payload: Payload,
}

/// An open activation that cannot run, and why.
#[derive(Debug)]
pub(crate) struct Damaged {
    journaled: Box<Journaled>,
    reason: String,
}

/// What can be made of an open activation and its payload.
///
/// # Errors
/// If there is no payload, or none that can be read.
pub(crate) fn opened(journaled: Journaled, payload: Option<Bytes>) -> Result<Opened, Damaged> {
    let reason = match payload.map(Content::decode) {
        Some(Ok(payload)) => {
            let payload = Arc::new(payload);
            return Ok(Opened { journaled, payload });
        }
        Some(Err(error)) => error.to_string(),
        None => "they are missing".to_owned(),
    };
    let journaled = Box::new(journaled);
    Err(Damaged { journaled, reason })
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
                    let led = of[part.queue].clone();
                    end_damaged(context.clone(), led.clone(), part.damaged).await;
                    pass_on(&context, &shards, led, part.rows, part.is_last).await;
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
        let from = (self.queue, self.lane, self.after);
        let parts = self.next_parts(journal);
        if parts.is_err() {
            // What was read before the error is dropped with it.
            (self.queue, self.lane, self.after) = from;
        }
        parts
    }

    fn next_parts(&mut self, journal: &Journal) -> Result<Vec<Part>, StoreError> {
        let mut parts = Vec::new();
        let (mut count, mut len) = (0, 0);
        while self.queue < self.queues.len() && count < PART_MAX && len < PART_LEN {
            let mut part = Part {
                queue: self.queue,
                rows: Vec::new(),
                damaged: Vec::new(),
                is_last: false,
            };
            part.is_last = self.rows(journal, &mut part, PART_MAX - count, &mut len)?;
            count += part.len();
            if part.is_last {
                (self.queue, self.lane, self.after) = (self.queue + 1, 0, None);
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// Rows of the queue at hand, up to a limit; whether that was all.
    fn rows(
        &mut self,
        journal: &Journal,
        part: &mut Part,
        limit: usize,
        len: &mut usize,
    ) -> Result<bool, StoreError> {
        let (key, _) = &self.queues[self.queue];
        while let Some(lane) = self.lanes.get(self.lane).copied() {
            let page = journal.open(lane, key, self.after, limit - part.len())?;
            let is_end = page.is_empty();
            for row in page {
                let id = row.id;
                let payload = journal.payload(lane, id)?;
                self.after = Some(id);
                match opened(Journaled { lane, row }, payload) {
                    Ok(opened) => {
                        *len += opened.payload.len();
                        part.rows.push(opened);
                    }
                    Err(damaged) => part.damaged.push(damaged),
                }
                if *len >= PART_LEN {
                    return Ok(false);
                }
            }
            if is_end {
                (self.lane, self.after) = (self.lane + 1, None);
            } else if part.len() >= limit {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Part {
    fn len(&self) -> usize {
        self.rows.len() + self.damaged.len()
    }
}

/// Passes open activations to their queue.
pub(crate) async fn pass_on(
    context: &Context,
    shards: &ShardsHandle,
    (key, epoch): Led,
    rows: Vec<Opened>,
    is_last: bool,
) {
    let rows = rows.into_iter();
    let request = Request::Recovered {
        key: key.clone(),
        epoch,
        recovered: rows.map(|row| recovered(context, row)).collect(),
        is_last,
    };
    shards.send_to(&key, request).await;
}

/// Ends activations that cannot run, each with a record that says why; back when this node has all of it, or they are
/// somebody else's.
pub(crate) async fn end_damaged(context: Context, (key, epoch): Led, damaged: Vec<Damaged>) {
    let journal = context.node.journal();
    for Damaged { journaled, reason } in damaged {
        let Journaled { lane, row } = *journaled;
        tracing::error!(activation = %row.id, queue = %key, reason, "payload in the journal is damaged, cannot run");
        let outcome = Outcome::Failure {
            status: ActivationStatus::WhiskError,
            text: format!(
                "The activation cannot run: its arguments in the journal cannot be read ({reason})."
            ),
        };
        let end = JournalCommand::End(End {
            id: row.id,
            key: key.clone(),
            epoch,
            run: row.run,
            at: UnixMillis(unix_ms()),
            keep: context.config.journal.retention,
            kind: EndKind::Record,
            record: encode_record(&record_of(row.id, outcome, row.run, None)),
        });
        append_surely(journal, lane, end).await;
    }
}

/// As its queue takes it, in the time of this process.
fn recovered(context: &Context, Opened { journaled, payload }: Opened) -> Recovered<Payload> {
    let Journaled { lane, row } = journaled;
    let journal = context.node.journal();
    Recovered {
        id: row.id,
        waited: row.waited(journal.clock(lane)),
        ready: row.ready(journal.clock(lane)),
        run: row.run,
        not_before: not_before(journal, lane, &row, context.clock.now()),
        cancelled: row.cancelled,
        payload,
    }
}
