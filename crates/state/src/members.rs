//! Commands about schedulers as members of the cluster.

use whiskraft_types::SchedulerId;

use crate::bounds::TEXT_LEN_MAX;
use crate::event::{Event, Refusal, Response};
use crate::record::MemberRecord;
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_put_member(
        &mut self,
        id: SchedulerId,
        member: &MemberRecord,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        check_text("peer address", &member.peer_address)?;
        check_text("client address", &member.client_address)?;
        check_text("zone", &member.zone)?;
        check_text("version", &member.version)?;
        self.put_member(id, member.clone(), turn);
        Ok(Response::Done)
    }

    pub(crate) fn apply_set_draining(
        &mut self,
        id: SchedulerId,
        draining: bool,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let member = self.member(id).ok_or(Refusal::NotFound)?;
        self.put_member(
            id,
            MemberRecord {
                draining,
                ..member.clone()
            },
            turn,
        );
        Ok(Response::Done)
    }

    pub(crate) fn apply_remove_member(
        &mut self,
        id: SchedulerId,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        // The member first: its queues must not find it as a candidate.
        self.tables.members.remove(&id).ok_or(Refusal::NotFound)?;
        turn.event(Event::Member(id, None));
        self.end_sessions(self.scheduler_session(id), turn);
        Ok(Response::Done)
    }

    fn put_member(&mut self, id: SchedulerId, member: MemberRecord, turn: &mut Turn) {
        if self.member(id) == Some(&member) {
            return;
        }
        self.tables.members.insert(id, member.clone());
        turn.event(Event::Member(id, Some(member)));
        // It may be the first one that takes queues again.
        self.reassign_queues(None, turn);
    }
}

/// Refuses a text that is too long for a record.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), Refusal> {
    let len = text.len();
    if len > TEXT_LEN_MAX {
        let reason = format!("{what} has {len} bytes, at most {TEXT_LEN_MAX} are allowed");
        return Err(Refusal::Invalid { reason });
    }
    Ok(())
}

#[cfg(test)]
#[path = "members_test.rs"]
mod tests;
