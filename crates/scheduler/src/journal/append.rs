//! Appends one batch to a lane, and makes of each outcome what its queue is told.

use std::time::Duration;

use whiskraft_queue::Verdict;
use whiskraft_raft::{Journaled, LaneId, Lookup, ProposeError};
use whiskraft_state::journal::{JournalBatch, JournalCommand, JournalOutcome, KnownActivation};
use whiskraft_types::{LogRevision, NotLeader, Rejection};

use crate::context::Context;
use crate::failpoint::failpoint;
use crate::journal::lanes::Batch;
use crate::journal::prepare::{Answer, Reader, Write};
use crate::message::Record;
use crate::metrics::{EntryKind, EntryOutcome};

/// Longest wait for this node's own copy of an acceptance that another node's lane has written; a later look-up finds it
/// or is repeated.
const LOCAL_WAIT_MAX: Duration = Duration::from_secs(1);

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) lane: LaneId,
    pub(crate) settled: Vec<Settled>,
    /// What this node's own copy does not show yet.
    pub(crate) behind: Option<Behind>,
    /// Whether a disk took no acceptances.
    pub(crate) is_full: bool,
}

/// Written, but not in this node's own copy of the lane.
#[derive(Debug)]
pub(crate) struct Behind {
    revision: LogRevision,
    writes: Vec<(Write, JournalOutcome)>,
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The queue has its answer.
    Answer(Answer),
    /// To be repeated.
    Again(Write),
    /// The lane has no such activation, though this node found it there.
    Missing(Write),
    /// Another leadership has begun: nobody waits for this any more.
    Over(Write),
}

impl Settled {
    /// As it is counted.
    const fn counted(&self) -> (EntryKind, EntryOutcome) {
        match self {
            Self::Answer(answer) => (answer.kind, outcome(&answer.verdict)),
            Self::Again(write) | Self::Missing(write) => (write.kind(), EntryOutcome::Repeated),
            Self::Over(write) => (write.kind(), EntryOutcome::Refused),
        }
    }
}

/// A verdict as it is counted.
pub(crate) const fn outcome(verdict: &Verdict<Record>) -> EntryOutcome {
    match verdict {
        Verdict::Written | Verdict::Recorded(_) => EntryOutcome::Written,
        Verdict::Open { .. } | Verdict::Ended(_) | Verdict::Expired => EntryOutcome::Known,
        Verdict::Conflict | Verdict::Refused(_) => EntryOutcome::Refused,
        Verdict::Unknown => EntryOutcome::Unknown,
    }
}

/// Appends a batch.
pub(crate) async fn append(context: Context, reader: Reader, batch: Batch) -> Appended {
    let Batch { lane, writes } = batch;
    let commands = writes.iter().map(|write| write.command.clone());
    let (began, commands) = (context.clock.now(), JournalBatch::of(commands.collect()));
    failpoint!("lane-append-before");
    let journal = &reader.journal;
    let appended = journal.append(lane, commands).await;
    failpoint!("lane-append-after");
    let after = context.clock.now().saturating_since(began);
    context.metrics.journal.appended(after);
    let (has_acceptances, has_ends) = (
        writes.iter().any(Write::is_acceptance),
        !writes.iter().all(Write::is_acceptance),
    );
    let is_full = matches!(appended, Err(ProposeError::Full(_)));
    let (settled, behind) = match appended {
        Ok((revision, outcomes)) => {
            let mut written: Vec<_> = writes.into_iter().zip(outcomes).collect();
            // Whoever is answered now may ask this node next.
            let local = journal.wait_applied(lane, revision);
            let is_behind = tokio::time::timeout(LOCAL_WAIT_MAX, local).await.is_err();
            let ends = written.extract_if(.., |(write, _)| is_behind && !write.is_acceptance());
            let ends: Vec<_> = ends.collect();
            let behind = (!ends.is_empty()).then_some(Behind {
                revision,
                writes: ends,
            });
            (settle_all(&reader, lane, written), behind)
        }
        Err(error) => {
            tracing::debug!(lane = lane.0, %error, "append to the journal failed");
            let of = |write| failed(&reader, write, &error);
            (writes.into_iter().map(of).collect(), None)
        }
    };
    count(&context, &settled);
    if has_acceptances {
        failpoint!("acceptance-written");
    }
    if has_ends {
        failpoint!("end-written");
    }
    Appended {
        lane,
        settled,
        behind,
        is_full,
    }
}

/// Waits for this node's own copy. Once its end is told, the queue forgets an activation: a copy that still shows it open
/// would run it again.
pub(crate) async fn catch_up(context: Context, reader: Reader, lane: LaneId, behind: Behind) -> Vec<Settled> {
    let Behind { revision, writes } = behind;
    // It fails only when the node stops.
    let _ = reader.journal.wait_applied(lane, revision).await;
    let settled = settle_all(&reader, lane, writes);
    count(&context, &settled);
    settled
}

fn settle_all(reader: &Reader, lane: LaneId, writes: Vec<(Write, JournalOutcome)>) -> Vec<Settled> {
    let settled = writes.into_iter();
    settled
        .map(|(write, outcome)| settle(reader, lane, write, outcome))
        .collect()
}

fn count(context: &Context, settled: &[Settled]) {
    for settled in settled {
        let (kind, outcome) = settled.counted();
        context.metrics.journal.entry(kind, outcome);
    }
}

fn settle(reader: &Reader, lane: LaneId, write: Write, outcome: JournalOutcome) -> Settled {
    match (outcome, &write.command) {
        (JournalOutcome::Written, _) => Settled::Answer(written(write)),
        // It has ended, and needs no mark.
        (JournalOutcome::Known(_), JournalCommand::Cancel(_)) => {
            Settled::Answer(write.answer(Verdict::Expired))
        }
        (JournalOutcome::Known(known), _) => said_before(reader, lane, known, write),
        (JournalOutcome::Conflict, _) => Settled::Answer(write.answer(Verdict::Conflict)),
        (JournalOutcome::Stale { current }, JournalCommand::Accept(_)) => {
            let moved = Rejection::NotLeader(NotLeader {
                leader: None,
                epoch: current,
            });
            Settled::Answer(write.answer(Verdict::Refused(moved)))
        }
        (JournalOutcome::Stale { .. }, _) => Settled::Over(write),
        (JournalOutcome::Missing, _) => Settled::Missing(write),
    }
}

/// The journal has it as it was said.
fn written(mut write: Write) -> Answer {
    let verdict = write.made_up.take().map_or(Verdict::Written, Verdict::Recorded);
    write.answer(verdict)
}

/// A lane knows the activation already: its row says what that means.
fn said_before(reader: &Reader, lane: LaneId, known: KnownActivation, write: Write) -> Settled {
    // Ours, said a second time: the pause before the run is the one that was asked for.
    if let JournalCommand::Retry(retry) = &write.command
        && !known.ended
        && known.run <= retry.run
    {
        return Settled::Answer(written(write));
    }
    let row = match reader.journal.find(write.id) {
        Ok(Lookup::Found(journaled)) if journaled.lane == lane => Some(journaled),
        _ => None,
    };
    let is_end = write.kind() == EntryKind::End;
    // This node's copy is behind the lane.
    let row = row.filter(|journaled| journaled.row.is_open() != known.ended);
    match row.map(|row| reader.verdict(&row)) {
        // The first record wins, be it ours or not; one that cannot be read any more is as good as written.
        Some(Verdict::Expired | Verdict::Refused(_)) if is_end => Settled::Answer(written(write)),
        Some(verdict) => Settled::Answer(write.answer(verdict)),
        // This node does not have it yet.
        None => Settled::Again(write),
    }
}

fn failed(reader: &Reader, write: Write, error: &ProposeError) -> Settled {
    let JournalCommand::Accept(accept) = &write.command else {
        return Settled::Again(write);
    };
    let verdict = match error {
        ProposeError::Full(reason) => Verdict::Refused(Rejection::StorageFull {
            reason: reason.clone(),
        }),
        ProposeError::Unavailable(_) => Verdict::Refused(Rejection::Unavailable {
            reason: error.to_string(),
        }),
        // What this node has applied is as good as an answer.
        ProposeError::Unknown(_) => match reader.journal.find(write.id) {
            found @ Ok(Lookup::Found(Journaled { .. })) => reader
                .known(found, &write.key, accept.digest)
                .unwrap_or(Verdict::Unknown),
            Ok(Lookup::Missing | Lookup::Gone) | Err(_) => Verdict::Unknown,
        },
    };
    Settled::Answer(write.answer(verdict))
}
