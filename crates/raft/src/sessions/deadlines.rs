//! Deadlines of sessions, in the memory of the Raft leader. Pure: time comes in.
//!
//! Invariant: a session is due only after its whole TTL passed without a keepalive, counted from the moment this leader
//! first could have heard one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use whiskraft_types::SessionId;

/// What a keepalive found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The session has a full TTL again.
    Renewed,
    /// Its end is on the way through the log: only a renewal through the log can overtake it.
    Expiring,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Deadline {
    ttl: Duration,
    at: Instant,
    /// Newest keepalive.
    seq: u64,
    expiring: bool,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    sessions: BTreeMap<SessionId, Deadline>,
}

impl Deadlines {
    /// Forgets what was and gives every session time anew, a full TTL or more: leadership is new, or keepalives could not be
    /// heard. Each comes with its TTL and with the time until it is due.
    pub(crate) fn grant_all(
        &mut self,
        now: Instant,
        sessions: impl Iterator<Item = (SessionId, Duration, Duration)>,
    ) {
        let mut known = std::mem::take(&mut self.sessions);
        for (id, ttl, granted) in sessions {
            let known = known.remove(&id);
            let (seq, expiring) = known.map_or((0, false), |known| (known.seq, known.expiring));
            self.sessions.insert(
                id,
                Deadline {
                    ttl,
                    at: now + granted.max(ttl),
                    seq,
                    expiring,
                },
            );
        }
    }

    /// A session was opened.
    pub(crate) fn on_opened(&mut self, now: Instant, id: SessionId, ttl: Duration) {
        self.sessions.entry(id).or_insert(Deadline {
            ttl,
            at: now + ttl,
            seq: 0,
            expiring: false,
        });
    }

    /// A session has ended.
    pub(crate) fn on_ended(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// A keepalive of a session that the tables know.
    pub(crate) fn on_keepalive(&mut self, now: Instant, id: SessionId, ttl: Duration, seq: u64) -> Verdict {
        let known = self.sessions.entry(id).or_insert(Deadline {
            ttl,
            at: now + ttl,
            seq: 0,
            expiring: false,
        });
        if known.expiring {
            return Verdict::Expiring;
        }
        known.at = now + known.ttl;
        known.seq = known.seq.max(seq);
        Verdict::Renewed
    }

    /// When the next session is due, if nothing is heard of it.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let counting = self.sessions.values().filter(|deadline| !deadline.expiring);
        counting.map(|deadline| deadline.at).min()
    }

    /// Sessions whose time is up, with the newest keepalive seen; they are expiring from now on.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(SessionId, u64)> {
        let mut due = Vec::new();
        for (id, deadline) in &mut self.sessions {
            if !deadline.expiring && deadline.at <= now {
                deadline.expiring = true;
                due.push((*id, deadline.seq));
            }
        }
        due
    }

    /// The log has decided about sessions that were due; those that are still there were renewed in time.
    pub(crate) fn on_decided(&mut self, now: Instant, due: &[(SessionId, u64)]) {
        for (id, _) in due {
            if let Some(deadline) = self.sessions.get_mut(id) {
                deadline.expiring = false;
                deadline.at = now + deadline.ttl;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(2);
    const ID: SessionId = SessionId(7);

    fn opened() -> (Deadlines, Instant) {
        let now = crate::clock::now();
        let mut deadlines = Deadlines::default();
        deadlines.on_opened(now, ID, TTL);
        (deadlines, now)
    }

    #[test]
    fn silence_of_a_ttl_is_due_once() {
        let (mut deadlines, start) = opened();
        assert_eq!(deadlines.take_due(start + TTL - Duration::from_millis(1)), vec![]);
        assert_eq!(deadlines.next_due(), Some(start + TTL));
        assert_eq!(deadlines.take_due(start + TTL), vec![(ID, 0)]);
        assert_eq!(deadlines.take_due(start + TTL * 2), vec![]);
        assert_eq!(deadlines.next_due(), None, "its end is on the way");
    }

    #[test]
    fn keepalive_gives_a_whole_ttl() {
        let (mut deadlines, start) = opened();
        assert_eq!(
            deadlines.on_keepalive(start + TTL / 2, ID, TTL, 4),
            Verdict::Renewed
        );
        assert_eq!(deadlines.take_due(start + TTL), vec![]);
        assert_eq!(deadlines.take_due(start + TTL / 2 + TTL), vec![(ID, 4)]);
    }

    #[test]
    fn keepalive_during_expiry_must_go_through_the_log() {
        let (mut deadlines, start) = opened();
        let due = deadlines.take_due(start + TTL);
        assert_eq!(deadlines.on_keepalive(start + TTL, ID, TTL, 5), Verdict::Expiring);
        // Not decided yet: not due a second time however long it takes.
        assert_eq!(deadlines.take_due(start + TTL * 5), vec![]);
        deadlines.on_decided(start + TTL * 5, &due);
        assert_eq!(
            deadlines.on_keepalive(start + TTL * 5, ID, TTL, 6),
            Verdict::Renewed
        );
    }

    #[test]
    fn new_leadership_grants_everything_known_to_the_tables() {
        let (mut deadlines, start) = opened();
        let later = start + TTL * 3;
        let granted = [(SessionId(9), TTL, Duration::ZERO), (SessionId(10), TTL, TTL * 2)];
        deadlines.grant_all(later, granted.into_iter());
        assert_eq!(deadlines.take_due(later + TTL), vec![(SessionId(9), 0)]);
        assert_eq!(deadlines.take_due(later + TTL * 2), vec![(SessionId(10), 0)]);
    }

    #[test]
    fn ended_sessions_are_forgotten() {
        let (mut deadlines, start) = opened();
        deadlines.on_ended(ID);
        assert_eq!(deadlines.take_due(start + TTL * 9), vec![]);
    }
}
