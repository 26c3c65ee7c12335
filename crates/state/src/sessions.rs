//! Sessions: the only lease there is. Opening, renewing, and ending one with everything that hangs on it.

use std::time::Duration;

use whiskraft_types::SessionId;

use crate::bounds::{PROFILE_LIST_LEN_MAX, TTL_MAX, TTL_MIN};
use crate::command::{OpenSession, SessionOwner};
use crate::event::{Event, Refusal, Response};
use crate::members::check_text;
use crate::record::{InvokerProfile, SessionRecord};
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_open_session(
        &mut self,
        open: &OpenSession,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        check_ttl(open.ttl)?;
        let held = self.session_held_by(&open.owner)?;
        if let Some(held) = held
            && self
                .session(held)
                .is_some_and(|session| session.incarnation == open.incarnation)
        {
            return Ok(Response::Session(held));
        }
        if let (SessionOwner::Invoker { id, .. }, Some(holder)) = (&open.owner, held) {
            return Err(Refusal::Held {
                owner: format!("invoker {id}"),
                holder,
            });
        }
        let id = self.put_session(open, turn);
        match &open.owner {
            SessionOwner::Scheduler(_) => {
                // The new session first: it may take over what the older one leaves.
                self.end_sessions(held, turn);
                self.reassign_queues(None, turn);
            }
            SessionOwner::Invoker { id: invoker, profile } => self.put_invoker(*invoker, id, profile, turn),
        }
        Ok(Response::Session(id))
    }

    pub(crate) fn apply_renew_sessions(&mut self, sessions: &[(SessionId, u64)]) -> Response {
        for (id, seq) in sessions {
            if let Some(session) = self.tables.sessions.get_mut(id) {
                session.renewed_seq = session.renewed_seq.max(*seq);
            }
        }
        Response::Done
    }

    pub(crate) fn apply_expire_sessions(
        &mut self,
        sessions: &[(SessionId, u64)],
        turn: &mut Turn,
    ) -> Response {
        let is_due = |(id, last_seen_seq): &(SessionId, u64)| {
            // A renewal that the proposer had not seen has overtaken this expiry.
            self.session(*id)
                .is_some_and(|session| session.renewed_seq <= *last_seen_seq)
                .then_some(*id)
        };
        let due: Vec<SessionId> = sessions.iter().filter_map(is_due).collect();
        self.end_sessions(due, turn);
        Response::Done
    }

    pub(crate) fn apply_close_session(
        &mut self,
        session: SessionId,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        self.session(session).ok_or(Refusal::NoSession { session })?;
        self.end_sessions([session], turn);
        Ok(Response::Done)
    }

    /// Ends sessions and what hangs on them. Events: all sessions, then per invoker its record and its containers,
    /// per scheduler its queues.
    pub(crate) fn end_sessions(&mut self, ids: impl IntoIterator<Item = SessionId>, turn: &mut Turn) {
        let mut ended = Vec::new();
        // All rows first: no queue may move to a session that ends in the same command.
        for id in ids {
            if let Some(session) = self.tables.sessions.remove(&id) {
                self.index.remove_session(id, &session);
                turn.event(Event::Session(id, None));
                ended.push((id, session.owner));
            }
        }
        for (id, owner) in ended {
            match owner {
                SessionOwner::Scheduler(_) => self.reassign_queues(Some(id), turn),
                SessionOwner::Invoker { id: invoker, .. } => self.delete_invoker(invoker, turn),
            }
        }
    }

    /// The live session of an owner that may have one.
    fn session_held_by(&self, owner: &SessionOwner) -> Result<Option<SessionId>, Refusal> {
        match owner {
            SessionOwner::Scheduler(id) => {
                self.member(*id).ok_or(Refusal::NotFound)?;
                Ok(self.scheduler_session(*id))
            }
            SessionOwner::Invoker { id, profile } => {
                check_profile(profile)?;
                Ok(self.invoker(*id).map(|invoker| invoker.session))
            }
        }
    }

    fn put_session(&mut self, open: &OpenSession, turn: &mut Turn) -> SessionId {
        let id = SessionId(turn.revision.0);
        let session = SessionRecord {
            owner: open.owner.clone(),
            incarnation: open.incarnation,
            ttl: open.ttl,
            renewed_seq: 0,
            container_seq: 0,
        };
        self.index.add_session(id, &session);
        self.tables.sessions.insert(id, session.clone());
        turn.event(Event::Session(id, Some(session)));
        id
    }
}

fn check_ttl(ttl: Duration) -> Result<(), Refusal> {
    if (TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Ok(());
    }
    let reason = format!("time to live {ttl:?} of a session is not between {TTL_MIN:?} and {TTL_MAX:?}");
    Err(Refusal::Invalid { reason })
}

fn check_profile(profile: &InvokerProfile) -> Result<(), Refusal> {
    let lens = [profile.tags.len(), profile.kinds.len(), profile.dedicated.len()];
    if lens.into_iter().any(|len| len > PROFILE_LIST_LEN_MAX) {
        let reason = format!("an invoker has at most {PROFILE_LIST_LEN_MAX} tags, kinds and namespaces each");
        return Err(Refusal::Invalid { reason });
    }
    check_text("zone", &profile.zone)?;
    check_text("version", &profile.version)?;
    profile.tags.iter().try_for_each(|tag| check_text("tag", tag))?;
    profile.kinds.iter().try_for_each(|kind| check_text("kind", kind))
}

#[cfg(test)]
#[path = "sessions_test.rs"]
mod tests;
