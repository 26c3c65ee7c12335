//! The state machine: tables, what is derived from them, and `apply`.
//!
//! Called by the log's state machine adapter with every committed command, in order; read by everybody else.
//! `apply` answers any input, however malformed, without a panic: a command that makes no sense is refused.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use whiskraft_types::LogRevision;

use crate::command::Command;
use crate::event::{Applied, Refusal, Response};
use crate::index::Index;
use crate::tables::Tables;
use crate::turn::Turn;

/// Everything the cluster agrees on. A clone is cheap and shares its rows with the original until one of them
/// changes; serialised it is the tables alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) tables: Tables,
    pub(crate) index: Index,
}

impl State {
    /// Applies the command at a log revision. Revisions ascend; gaps are entries that are not commands.
    pub fn apply(&mut self, revision: LogRevision, command: &Command) -> Applied {
        let last = self.tables.revision;
        let mut turn = Turn::new(revision);
        let result = if revision > last {
            self.tables.revision = revision;
            self.dispatch(command, &mut turn)
        } else {
            Err(Refusal::Invalid {
                reason: format!("revision {revision} is not after {last}, the last one applied"),
            })
        };
        self.judge_namespaces(&mut turn);
        turn.finish(result.unwrap_or_else(Response::Refused))
    }

    /// Every arm checks all it has to before it writes, so that a refused command has changed nothing.
    fn dispatch(&mut self, command: &Command, turn: &mut Turn) -> Result<Response, Refusal> {
        match command {
            Command::PutMember { id, member } => self.apply_put_member(*id, member, turn),
            Command::RemoveMember { id } => self.apply_remove_member(*id, turn),
            Command::SetDraining { id, draining } => self.apply_set_draining(*id, *draining, turn),
            Command::OpenSession(open) => self.apply_open_session(open, turn),
            Command::RenewSessions { sessions } => Ok(self.apply_renew_sessions(sessions)),
            Command::ExpireSessions { sessions } => Ok(self.apply_expire_sessions(sessions, turn)),
            Command::CloseSession { session } => self.apply_close_session(*session, turn),
            Command::EnsureQueue(ensure) => self.apply_ensure_queue(ensure, turn),
            Command::RemoveQueue { key, epoch } => self.apply_remove_queue(key, *epoch, turn),
            Command::MoveQueues { session, queues } => self.apply_move_queues(*session, queues, turn),
            Command::HandOver { session, queues } => Ok(self.apply_hand_over(*session, queues, turn)),
            Command::SetActionThrottle {
                key,
                epoch,
                throttled,
            } => self.apply_set_action_throttle(key, *epoch, *throttled, turn),
            Command::ReserveSlots { session, requests } => self.apply_reserve_slots(*session, requests, turn),
            Command::ReservePlaces { session, requests } => {
                self.apply_reserve_places(*session, requests, turn)
            }
            Command::UpdateContainers { updates } => self.apply_update_containers(updates, turn),
            Command::ReportInvokers { reports } => Ok(self.apply_report_invokers(reports, turn)),
            Command::PutNamespace { name, limits } => self.apply_put_namespace(name, limits, turn),
            Command::DeleteNamespace { name } => self.apply_delete_namespace(name, turn),
            Command::PutDocument(put) => self.apply_put_document(put, turn),
            Command::DeleteDocument { key, expected } => self.apply_delete_document(key, *expected, turn),
            Command::PutBlobChunk(chunk) => self.apply_put_blob_chunk(chunk, turn),
            Command::SweepBlobs { before } => Ok(self.apply_sweep_blobs(*before, turn)),
        }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.tables.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut tables = Tables::deserialize(deserializer)?;
        tables.share_names();
        let index = Index::of(&tables);
        Ok(Self { tables, index })
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
