//! Appends one batch to a lane, and makes of each outcome what its queue is told.

use std::time::Duration;

use whiskraft_queue::Verdict;
use whiskraft_raft::{Journal, Journaled, LaneId, Lookup, ProposeError};
use whiskraft_state::journal::{JournalBatch, JournalCommand, JournalOutcome, KnownActivation, UnixMillis};
use whiskraft_types::{NotLeader, Rejection};

use crate::clock::unix_ms;
use crate::journal::lanes::{Batch, Class};
use crate::journal::prepare::{Answer, Write, ended, known};
use crate::message::Record;

/// Longest wait for this node's own copy of what another node's lane has written; a later look-up finds it or is
/// repeated.
const LOCAL_WAIT_MAX: Duration = Duration::from_secs(1);

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) lane: LaneId,
    pub(crate) class: Class,
    pub(crate) settled: Vec<Settled>,
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The queue has its answer.
    Answer(Answer),
    /// To be repeated, in the same lane.
    Again(Write),
    /// To be looked for in another lane.
    Elsewhere(Write),
    /// Another leadership has begun: nobody waits for this any more.
    Over(Write),
}

/// Appends a batch.
pub(crate) async fn append(journal: Journal, batch: Batch) -> Appended {
    let Batch { lane, class, writes } = batch;
    let commands = writes.iter().map(|write| write.command.clone()).collect();
    let now = UnixMillis(unix_ms());
    let settled = match journal.append(lane, JournalBatch { now, commands }).await {
        Ok((revision, outcomes)) => {
            // Whoever is answered now may ask this node next.
            let local = journal.wait_applied(lane, revision);
            let _ = tokio::time::timeout(LOCAL_WAIT_MAX, local).await;
            let of = |(write, outcome)| settle(&journal, lane, write, outcome);
            writes.into_iter().zip(outcomes).map(of).collect()
        }
        Err(error) => {
            tracing::debug!(lane = lane.0, %error, "append to the journal failed");
            let of = |write| failed(&journal, write, &error);
            writes.into_iter().map(of).collect()
        }
    };
    Appended { lane, class, settled }
}

fn settle(journal: &Journal, lane: LaneId, write: Write, outcome: JournalOutcome) -> Settled {
    match (outcome, &write.command) {
        (JournalOutcome::Written, _) => Settled::Answer(write.answer(Verdict::Written)),
        (JournalOutcome::Known(known), command) => {
            let verdict = said_before(journal, lane, known, command);
            Settled::Answer(write.answer(verdict))
        }
        (JournalOutcome::Conflict, _) => Settled::Answer(write.answer(Verdict::Conflict)),
        (JournalOutcome::Stale { current }, JournalCommand::Accept(_)) => {
            let moved = Rejection::NotLeader(NotLeader {
                leader: None,
                epoch: current,
            });
            Settled::Answer(write.answer(Verdict::Refused(moved)))
        }
        (JournalOutcome::Stale { .. }, _) => Settled::Over(write),
        (JournalOutcome::Missing, _) => Settled::Elsewhere(write),
    }
}

/// What a lane means that knows the activation already.
fn said_before(
    journal: &Journal,
    lane: LaneId,
    known: KnownActivation,
    command: &JournalCommand,
) -> Verdict<Record> {
    match command {
        JournalCommand::Accept(_) if !known.ended => Verdict::Open {
            run: known.run,
            not_before: None,
        },
        // Ours, said a second time: the pause before the run is the one that was asked for.
        JournalCommand::Retry(retry) if !known.ended && known.run <= retry.run => Verdict::Written,
        JournalCommand::Retry(_) if !known.ended => Verdict::Open {
            run: known.run,
            not_before: None,
        },
        JournalCommand::Accept(accept) => ended(journal, lane, accept.id),
        JournalCommand::Retry(retry) => first_record(journal, lane, retry.id),
        JournalCommand::End(end) => first_record(journal, lane, end.id),
        _ => Verdict::Written,
    }
}

/// The first record wins, be it ours or not; one that cannot be read any more is as good as written.
fn first_record(journal: &Journal, lane: LaneId, id: whiskraft_types::ActivationId) -> Verdict<Record> {
    match ended(journal, lane, id) {
        Verdict::Ended(outcome) => Verdict::Ended(outcome),
        _ => Verdict::Written,
    }
}

fn failed(journal: &Journal, write: Write, error: &ProposeError) -> Settled {
    let Some(digest) = write.digest() else {
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
        ProposeError::Unknown(_) => match journal.find(write.id) {
            Ok(Lookup::Found(Journaled { lane, row })) => known(journal, lane, &row, &write.key, digest),
            Ok(Lookup::Missing | Lookup::Gone) | Err(_) => Verdict::Unknown,
        },
    };
    Settled::Answer(write.answer(verdict))
}
