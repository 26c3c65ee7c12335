//! The journal: first terminal record wins, runs only grow; what is under way arrives in any order, or never.

use whiskraft_queue::{CancelAnswer, Input, JournalEntry, Outcome, Recovered, Verdict};
use whiskraft_types::{ActivationId, Instant, Rejection};

use crate::world::{Record, World};

/// What the journal has of an activation.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) accepted_at: Instant,
    pub(crate) run: u32,
    pub(crate) not_before: Option<Instant>,
    pub(crate) cancelled: bool,
    pub(crate) ended: Option<Outcome<Record>>,
}

/// An entry under way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) id: ActivationId,
    pub(crate) entry: JournalEntry<String, Record>,
}

impl World {
    /// One entry under way gets its verdict, or one mark its answer.
    pub(crate) fn journal(&mut self, pick: u8, how: u8) {
        let under_way = self.pending.len() + self.marks.len();
        if under_way == 0 {
            return;
        }
        let at = usize::from(pick) % under_way;
        if let Some(mark) = at.checked_sub(self.pending.len()) {
            let id = self.marks.remove(mark);
            let answer = self.mark(id);
            return self.tell(Input::Marked { id, answer });
        }
        let Pending { id, entry } = self.pending.remove(at);
        let is_acceptance = matches!(entry, JournalEntry::Accept { .. });
        let verdict = match how % 8 {
            0 if is_acceptance => Verdict::Refused(Rejection::Draining),
            1 if is_acceptance => Verdict::Unknown,
            2 if is_acceptance => {
                self.write(id, entry);
                Verdict::Unknown
            }
            _ => self.write(id, entry),
        };
        self.tell(Input::Journaled { id, verdict });
    }

    /// What the journal makes of an entry.
    pub(crate) fn write(&mut self, id: ActivationId, entry: JournalEntry<String, Record>) -> Verdict<Record> {
        let Some(row) = self.rows.get_mut(&id) else {
            return match entry {
                JournalEntry::Accept {
                    waited, not_before, ..
                } => {
                    let origin = self.now.since_origin().saturating_sub(waited);
                    let row = Row {
                        accepted_at: Instant::from_origin(origin),
                        run: 1,
                        not_before,
                        cancelled: false,
                        ended: None,
                    };
                    self.rows.insert(id, row);
                    Verdict::Written
                }
                JournalEntry::Retry { .. } | JournalEntry::End { .. } => Verdict::Refused(Rejection::NoQueue),
            };
        };
        if let Some(outcome) = &row.ended {
            return Verdict::Ended(outcome.clone());
        }
        match entry {
            JournalEntry::Accept { .. } => Verdict::Open {
                run: row.run,
                not_before: row.not_before,
            },
            JournalEntry::Retry { run, .. } if run <= row.run => Verdict::Open {
                run: row.run,
                not_before: row.not_before,
            },
            JournalEntry::End { run, .. } if run < row.run => Verdict::Open {
                run: row.run,
                not_before: row.not_before,
            },
            JournalEntry::Retry { run, not_before } => {
                (row.run, row.not_before) = (run, Some(not_before));
                self.ghosts.retain(|(ghost, _), _| *ghost != id);
                Verdict::Written
            }
            JournalEntry::End { outcome, .. } => {
                row.ended = Some(outcome);
                self.ghosts.retain(|(ghost, _), _| *ghost != id);
                Verdict::Written
            }
        }
    }

    /// What the journal makes of a wish to cancel.
    fn mark(&mut self, id: ActivationId) -> CancelAnswer {
        match self.rows.get_mut(&id) {
            Some(row) if row.ended.is_some() => CancelAnswer::Ended,
            Some(row) => {
                row.cancelled = true;
                CancelAnswer::Stopping
            }
            None => CancelAnswer::Unavailable,
        }
    }

    /// The leader has gone: what was under way arrives, bit by bit of `pick`, or never.
    pub(crate) fn settle_pending(&mut self, pick: u8) {
        for (at, Pending { id, entry }) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if pick >> (at % 8) & 1 == 1 {
                self.write(id, entry);
            }
        }
        for (at, id) in std::mem::take(&mut self.marks).into_iter().enumerate() {
            if pick >> (at % 8) & 1 == 0 {
                self.mark(id);
            }
        }
    }

    /// The new leader reads the journal.
    pub(crate) fn recover(&mut self) {
        if !std::mem::take(&mut self.recovering) {
            return;
        }
        let open = self.rows.iter().filter(|(_, row)| row.ended.is_none());
        let recovered = open.map(|(id, row)| Recovered {
            id: *id,
            waited: self.now.saturating_since(row.accepted_at),
            ready: self.now.saturating_since(
                row.not_before
                    .map_or(row.accepted_at, |at| at.max(row.accepted_at)),
            ),
            run: row.run,
            not_before: row.not_before,
            cancelled: row.cancelled,
            payload: id.to_string(),
        });
        let recovered = recovered.collect();
        self.tell(Input::Recovered(recovered));
    }
}
