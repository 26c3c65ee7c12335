//! Containers after their reservation: placed, running, paused, ended, gone.
//!
//! Invariant: a container that is placed names a live session of its invoker; one that is not hangs on a queue.
//! Invariant: containers in progress and running on an invoker never have more memory than it. All schedulers place through
//! here or with the slot (`slots.rs`), so of two that choose the last place at the same moment one gets it.

use whiskraft_types::{ByteSize, ContainerId, InvokerId, QueueKey};

use crate::command::{ContainerChange, ContainerUpdate, DocumentKey};
use crate::event::{Event, Refusal, Response};
use crate::record::{ContainerRecord, ContainerState};
use crate::state::State;
use crate::turn::Turn;

/// What a change makes of a container.
enum Next {
    /// Nothing: the change is late or a repetition.
    Same,
    /// Another record.
    Record(ContainerRecord),
    /// Its end.
    Gone,
}

impl State {
    /// Applies each update by itself; one that cannot be applied does not keep the others from it, and the report of
    /// an invoker about a container that is not on it, in that session, changes nothing. The answer is
    /// a refusal only if nothing changed because of that.
    pub(crate) fn apply_update_containers(
        &mut self,
        updates: &[ContainerUpdate],
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let mut has_changed = false;
        let mut refusal = None;
        for ContainerUpdate {
            container: id,
            change,
            reporter,
        } in updates
        {
            let Some(row) = self.container(*id) else { continue };
            if reporter.is_some() && row.invoker != *reporter {
                continue; // It is somewhere else by now.
            }
            match self.next_container(*id, row, change) {
                Ok(Next::Same) => continue,
                Ok(Next::Record(row)) => self.put_container(*id, row, turn),
                Ok(Next::Gone) => drop(self.delete_container(*id, turn)),
                Err(refused) => {
                    refusal = Some(refused);
                    continue;
                }
            }
            has_changed = true;
        }
        match refusal.filter(|_| !has_changed) {
            Some(refusal) => Err(refusal),
            None => Ok(Response::Done),
        }
    }

    fn next_container(
        &self,
        id: ContainerId,
        row: &ContainerRecord,
        change: &ContainerChange,
    ) -> Result<Next, Refusal> {
        use {ContainerChange as Change, ContainerState as Was};
        match (row.state, change) {
            (_, Change::Removed) => Ok(Next::Gone),
            (Was::InProgress, Change::Placed { invoker }) => self.place(row, *invoker),
            (Was::InProgress, Change::Unplaced { invoker }) => {
                Ok(unplaced(row, *invoker, self.is_wanted(&row.key)))
            }
            (Was::InProgress, Change::Running | Change::Warm) if row.invoker.is_none() => {
                // It would outlive the invoker it is on.
                Err(Refusal::Invalid {
                    reason: format!("container {id} was not placed; say first where it is"),
                })
            }
            (Was::InProgress, Change::Running) => Ok(Next::Record(in_state(row, Was::Running))),
            (Was::InProgress, Change::Ended) if row.invoker.is_none() => Ok(Next::Gone),
            (Was::InProgress | Was::Running | Was::Warm, Change::Ended) => {
                Ok(Next::Record(in_state(row, Was::Ended)))
            }
            (Was::InProgress | Was::Running, Change::Warm) => Ok(Next::Record(in_state(row, Was::Warm))),
            (Was::Running, Change::Placed { .. } | Change::Unplaced { .. } | Change::Running) => {
                Ok(Next::Same)
            }
            // A paused container gets its slot back by a reservation only, which gives it a new id.
            (Was::Warm | Was::Ended, _) => Ok(Next::Same),
        }
    }

    /// Whether anybody has a use for a container of this queue that is nowhere yet.
    fn is_wanted(&self, key: &QueueKey) -> bool {
        let document = DocumentKey::action(&key.action);
        self.queue(key).is_some() && document.is_some_and(|document| self.document(&document).is_some())
    }

    fn place(&self, row: &ContainerRecord, invoker: InvokerId) -> Result<Next, Refusal> {
        let Some(session) = self.invoker(invoker).map(|record| record.session) else {
            return Err(Refusal::Invalid {
                reason: format!("invoker {invoker} has no session"),
            });
        };
        if row.invoker == Some((invoker, session)) || !self.has_memory(invoker, row.memory) {
            return Ok(Next::Same);
        }
        // Elsewhere it starts from nothing.
        Ok(Next::Record(ContainerRecord {
            invoker: Some((invoker, session)),
            resumes: None,
            ..row.clone()
        }))
    }

    /// Whether an invoker has `memory` left by what is promised on it.
    pub(crate) fn has_memory(&self, invoker: InvokerId, memory: ByteSize) -> bool {
        let promised = self.promised_on(invoker).saturating_add(memory);
        self.invoker(invoker)
            .is_some_and(|record| promised <= record.profile.memory)
    }

    pub(crate) fn put_container(&mut self, id: ContainerId, row: ContainerRecord, turn: &mut Turn) {
        let old = self.tables.containers.insert(id, row.clone());
        old.iter().for_each(|old| self.index.remove_container(id, old));
        self.index.add_container(id, &row);
        turn.touch(&row.key.namespace);
        turn.event(Event::Container {
            id,
            record: row,
            before: old.map(|old| old.state),
            removed: false,
        });
    }

    pub(crate) fn delete_container(&mut self, id: ContainerId, turn: &mut Turn) -> Option<ContainerRecord> {
        let old = self.tables.containers.remove(&id)?;
        self.index.remove_container(id, &old);
        turn.touch(&old.key.namespace);
        turn.event(Event::Container {
            id,
            record: old.clone(),
            before: Some(old.state),
            removed: true,
        });
        Some(old)
    }

    /// Gives back the slots of a queue's containers that no invoker has.
    pub(crate) fn delete_unplaced_containers(&mut self, key: &QueueKey, turn: &mut Turn) {
        let unplaced = self.containers_of(key).filter(|(_, row)| row.invoker.is_none());
        let ids: Vec<ContainerId> = unplaced.map(|(id, _)| id).collect();
        ids.into_iter()
            .for_each(|id| drop(self.delete_container(id, turn)));
    }
}

fn unplaced(row: &ContainerRecord, from: InvokerId, is_wanted: bool) -> Next {
    match row.invoker {
        // Without a queue nobody would settle it: it would keep its slot for ever.
        Some((on, _)) if on == from && !is_wanted => Next::Gone,
        Some((on, _)) if on == from => Next::Record(ContainerRecord {
            invoker: None,
            resumes: None,
            ..row.clone()
        }),
        _ => Next::Same,
    }
}

fn in_state(row: &ContainerRecord, state: ContainerState) -> ContainerRecord {
    ContainerRecord { state, ..row.clone() }
}

#[cfg(test)]
#[path = "containers_test.rs"]
mod tests;
