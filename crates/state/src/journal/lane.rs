//! What a lane decides: batches of commands in, outcomes and changes out.
//!
//! Driven by the state machine of a lane, which applies some entries of its log in one [`Turn`] and then makes all
//! changes at once. Commands of a turn see what those before them have changed.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_types::{ActivationId, Epoch, QueueKey};

use super::{
    Accept, Archive, Cancel, End, EndKind, Fence, JournalBatch, JournalCommand, JournalOutcome, JournalRow,
    JournalRows, KnownActivation, LaneMillis, Retry, RowChange, RowState,
};

/// How long a lane remembers an epoch, by its clock: 30 days. Who led a queue that long ago and was followed by another has
/// lost its session by far.
pub const FENCE_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Added to a time before which nothing may begin: it was rounded down, and so was the clock from which it counts.
const ROUNDING: Duration = Duration::from_millis(2);

/// Some batches, decided in order, and what they change.
#[derive(Debug)]
pub struct Turn<'a, R> {
    base: &'a R,
    clock: LaneMillis,
    /// Rows as this turn has changed them.
    rows: BTreeMap<ActivationId, JournalRow>,
    /// Fences that this turn has looked at, as they are now.
    fences: BTreeMap<QueueKey, Option<Fence>>,
    changes: Vec<RowChange>,
}

impl<'a, R: JournalRows> Turn<'a, R> {
    /// Begins a turn on the rows of a lane whose clock stands there.
    pub fn new(base: &'a R, clock: LaneMillis) -> Self {
        Self {
            base,
            clock,
            rows: BTreeMap::new(),
            fences: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Decides on the commands of a batch; one outcome for each.
    ///
    /// # Errors
    /// If the rows cannot be read. The turn is of no use then.
    pub fn apply(&mut self, batch: &JournalBatch) -> Result<Vec<JournalOutcome>, R::Error> {
        self.clock = self.clock.max(batch.now);
        batch
            .commands
            .iter()
            .map(|command| self.decide(command))
            .collect()
    }

    /// The lane's clock, and all changes in order.
    #[must_use]
    pub fn finish(self) -> (LaneMillis, Vec<RowChange>) {
        (self.clock, self.changes)
    }

    fn decide(&mut self, command: &JournalCommand) -> Result<JournalOutcome, R::Error> {
        match command {
            JournalCommand::Accept(accept) => self.accept(accept),
            JournalCommand::Retry(retry) => self.retry(retry),
            JournalCommand::End(end) => self.end(end),
            JournalCommand::Archive(archive) => self.archive(archive),
            JournalCommand::Fence { queues } => {
                for (key, epoch) in queues {
                    self.raise(key, *epoch)?;
                }
                Ok(JournalOutcome::Written)
            }
            JournalCommand::Purge { ids } => {
                ids.iter().try_for_each(|id| self.purge(*id))?;
                Ok(JournalOutcome::Written)
            }
            JournalCommand::Cancel(cancel) => self.cancel(cancel),
        }
    }

    fn accept(&mut self, accept: &Accept) -> Result<JournalOutcome, R::Error> {
        if let Some(current) = self.newer(&accept.key, accept.epoch)? {
            return Ok(JournalOutcome::Stale { current });
        }
        let before = self.raw_row(accept.id)?;
        if let Some(row) = before.as_ref().filter(|row| !row.is_expired(self.clock)) {
            // An archived row does not say what ran.
            let same = row.digest.is_none_or(|digest| digest == accept.digest) && row.key == accept.key;
            return Ok(if same {
                known(row)
            } else {
                JournalOutcome::Conflict
            });
        }
        self.raise(&accept.key, accept.epoch)?;
        self.forget(before);
        let (id, key) = (accept.id, accept.key.clone());
        self.put(JournalRow {
            id,
            key: key.clone(),
            digest: Some(accept.digest),
            accepted: accept.accepted,
            since: self.clock.before(accept.waited),
            run: 1,
            cancelled: false,
            state: RowState::Open {
                not_before: accept.not_before.map(|delay| self.not_before(delay.time)),
                due: accept.not_before.map(|delay| delay.due),
            },
        });
        let payload = accept.payload.clone();
        self.changes.push(RowChange::PutPayload { id, payload });
        self.changes.push(RowChange::Open { key, id });
        Ok(JournalOutcome::Written)
    }

    fn retry(&mut self, retry: &Retry) -> Result<JournalOutcome, R::Error> {
        let row = match self.open_row(retry.id, &retry.key, retry.epoch)? {
            Ok(row) if retry.run > row.run => row,
            Ok(row) => return Ok(known(&row)),
            Err(outcome) => return Ok(outcome),
        };
        self.put(JournalRow {
            run: retry.run,
            state: RowState::Open {
                not_before: Some(self.not_before(retry.pause)),
                due: None,
            },
            ..row
        });
        Ok(JournalOutcome::Written)
    }

    fn cancel(&mut self, cancel: &Cancel) -> Result<JournalOutcome, R::Error> {
        let row = match self.open_row(cancel.id, &cancel.key, cancel.epoch)? {
            Ok(row) => row,
            Err(outcome) => return Ok(outcome),
        };
        if !row.cancelled {
            self.put(JournalRow {
                cancelled: true,
                ..row
            });
        }
        Ok(JournalOutcome::Written)
    }

    fn end(&mut self, end: &End) -> Result<JournalOutcome, R::Error> {
        let row = match self.open_row(end.id, &end.key, end.epoch)? {
            Ok(row) if end.run >= row.run => row,
            Ok(row) => return Ok(known(&row)),
            Err(outcome) => return Ok(outcome),
        };
        let (id, at, expires) = (end.id, end.at, self.clock.after(end.keep));
        let dead_letter = end.kind == EndKind::DeadLetter;
        self.put(JournalRow {
            run: end.run,
            state: RowState::Ended {
                at,
                expires,
                dead_letter,
            },
            ..row
        });
        let record = end.record.clone();
        self.changes.push(RowChange::PutRecord { id, expires, record });
        if dead_letter {
            let namespace = end.key.namespace.clone();
            self.changes.push(RowChange::KeepPayload { id, expires });
            self.changes.push(RowChange::List {
                namespace,
                at,
                id,
                expires,
            });
        } else {
            self.changes.push(RowChange::DeletePayload(id));
        }
        let key = end.key.clone();
        self.changes.push(RowChange::Close { key, id });
        Ok(JournalOutcome::Written)
    }

    fn archive(&mut self, archive: &Archive) -> Result<JournalOutcome, R::Error> {
        let before = self.raw_row(archive.id)?;
        if let Some(row) = before.as_ref().filter(|row| !row.is_expired(self.clock)) {
            return Ok(known(row));
        }
        self.forget(before);
        let (id, record) = (archive.id, archive.record.clone());
        let expires = self.clock.after(archive.keep);
        self.put(JournalRow {
            id,
            key: archive.key.clone(),
            digest: None,
            accepted: archive.accepted,
            since: self.clock,
            run: 1,
            cancelled: false,
            state: RowState::Ended {
                at: archive.at,
                expires,
                dead_letter: false,
            },
        });
        self.changes.push(RowChange::PutRecord { id, expires, record });
        Ok(JournalOutcome::Written)
    }

    fn purge(&mut self, id: ActivationId) -> Result<(), R::Error> {
        let Some(row) = self.row(id)? else {
            return Ok(());
        };
        if let RowState::Ended {
            at,
            expires,
            dead_letter: true,
        } = row.state
        {
            let namespace = row.key.namespace.clone();
            let state = RowState::Ended {
                at,
                expires,
                dead_letter: false,
            };
            self.put(JournalRow { state, ..row });
            self.changes.push(RowChange::Unlist { namespace, at, id });
            self.changes.push(RowChange::DeletePayload(id));
        }
        Ok(())
    }

    /// The row that a leader may go on with, or the answer to it.
    fn open_row(
        &mut self,
        id: ActivationId,
        key: &QueueKey,
        epoch: Epoch,
    ) -> Result<Result<JournalRow, JournalOutcome>, R::Error> {
        if let Some(current) = self.newer(key, epoch)? {
            return Ok(Err(JournalOutcome::Stale { current }));
        }
        Ok(match self.row(id)? {
            Some(row) if row.key != *key => Err(JournalOutcome::Missing),
            Some(row) if row.is_open() => Ok(row),
            Some(row) => Err(known(&row)),
            None => Err(JournalOutcome::Missing),
        })
    }

    /// What is left of an activation whose record has expired makes room for another of the same id.
    fn forget(&mut self, before: Option<JournalRow>) {
        let Some(row) = before else { return };
        let id = row.id;
        self.changes.push(RowChange::DeleteRecord(id));
        if let RowState::Ended {
            at,
            dead_letter: true,
            ..
        } = row.state
        {
            let namespace = row.key.namespace;
            self.changes.push(RowChange::Unlist { namespace, at, id });
            self.changes.push(RowChange::DeletePayload(id));
        }
    }

    fn not_before(&self, time: Duration) -> LaneMillis {
        self.clock.after(time.saturating_add(ROUNDING))
    }

    fn put(&mut self, row: JournalRow) {
        self.rows.insert(row.id, row.clone());
        self.changes.push(RowChange::PutRow(row));
    }

    /// A row that has not expired.
    fn row(&self, id: ActivationId) -> Result<Option<JournalRow>, R::Error> {
        Ok(self.raw_row(id)?.filter(|row| !row.is_expired(self.clock)))
    }

    fn raw_row(&self, id: ActivationId) -> Result<Option<JournalRow>, R::Error> {
        match self.rows.get(&id) {
            Some(row) => Ok(Some(row.clone())),
            None => self.base.row(id),
        }
    }

    /// The epoch of a queue, if the lane remembers one.
    fn epoch(&mut self, key: &QueueKey) -> Result<Option<Epoch>, R::Error> {
        let fence = match self.fences.get(key) {
            Some(fence) => *fence,
            None => {
                let fence = self.base.fence(key)?;
                self.fences.insert(key.clone(), fence);
                fence
            }
        };
        let fence = fence.filter(|fence| !fence.is_forgotten(self.clock));
        Ok(fence.map(|fence| fence.epoch))
    }

    /// The epoch of a queue, if it is newer than this one.
    fn newer(&mut self, key: &QueueKey, epoch: Epoch) -> Result<Option<Epoch>, R::Error> {
        Ok(self.epoch(key)?.filter(|current| *current > epoch))
    }

    fn raise(&mut self, key: &QueueKey, epoch: Epoch) -> Result<(), R::Error> {
        if self.epoch(key)?.is_none_or(|current| current < epoch) {
            let fence = Fence {
                epoch,
                at: self.clock,
            };
            self.fences.insert(key.clone(), Some(fence));
            let key = key.clone();
            self.changes.push(RowChange::PutFence { key, fence });
        }
        Ok(())
    }
}

impl Fence {
    /// When a lane stops remembering it.
    #[must_use]
    pub fn expires(&self) -> LaneMillis {
        self.at.after(FENCE_KEPT)
    }

    fn is_forgotten(&self, clock: LaneMillis) -> bool {
        self.expires() <= clock
    }
}

fn known(row: &JournalRow) -> JournalOutcome {
    JournalOutcome::Known(KnownActivation {
        run: row.run,
        ended: !row.is_open(),
    })
}
