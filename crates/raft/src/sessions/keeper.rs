//! The keeper: the only timekeeper of the cluster, on whichever node leads.
//!
//! Runs on every node, acts on the leader. It acknowledges a keepalive only while its lease holds, so two nodes never
//! both do; when the lease begins (or begins again, or the process was stopped for a while), every session gets at least a full
//! TTL before anything can expire.

use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use whiskraft_state::{Command, Event, SessionOwner, SessionRecord};
use whiskraft_types::SessionId;

use super::{Deadlines, Verdict};
use crate::clock;
use crate::core::{Core, NotDone};
use crate::watch::{EventStream, StreamEnd};

/// Calls that wait for the keeper, one per node and a few retries.
const REQUESTS_MAX: usize = 256;
/// Shortest pause between looks at the deadlines: what it adds to the end of a session.
const TICK: Duration = Duration::from_millis(25);
/// Longest pause between two turns of one that leads, far below what counts as a stall.
const TURN_MAX: Duration = Duration::from_millis(50);
/// A turn that comes so late means that the process was stopped; keepalives may have waited in its buffers meanwhile.
const STALL_MAX: Duration = Duration::from_millis(500);
/// Longest wait for the log to take an expiry or a renewal before it is tried again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before an expiry without outcome is proposed again.
const WRITE_PAUSE: Duration = Duration::from_millis(200);
/// Sessions in one command.
const BATCH_MAX: usize = 1000;

/// Why the keeper acknowledged nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeeperRefusal {
    /// Another node leads, or nobody.
    NotLeader(Option<u64>),
    /// This node leads and cannot say so for sure, or the log did not answer.
    Unavailable(String),
}

type Answer = Result<Vec<SessionId>, KeeperRefusal>;

struct Request {
    sessions: Vec<(SessionId, u64)>,
    answer: oneshot::Sender<Answer>,
}

/// Asks the keeper of this node.
#[derive(Debug, Clone)]
pub(crate) struct KeeperHandle {
    requests: mpsc::Sender<Request>,
}

impl KeeperHandle {
    /// Keepalives of many sessions; answers with those that have ended.
    pub(crate) async fn keepalives(&self, sessions: Vec<(SessionId, u64)>) -> Answer {
        let stopped = || KeeperRefusal::Unavailable("the node has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(Request { sessions, answer })
            .await
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

/// How long a session has to be heard of by a new leader. Invokers that found no scheduler at all first have to find one
/// again, and the end of one that lives ends work that nobody has started: they have a second TTL for it. The session of
/// a scheduler that is gone keeps its queues waiting.
fn granted(session: &SessionRecord) -> Duration {
    match session.owner {
        SessionOwner::Invoker { .. } => session.ttl.saturating_mul(2),
        SessionOwner::Scheduler(_) => session.ttl,
    }
}

/// When a leader looks again if nothing else happens: when the next session is due, if there is a lease to count in.
fn next_turn(now: Instant, lease: Option<Option<Instant>>) -> Instant {
    let (soonest, latest) = (now + TICK, now + TURN_MAX);
    match lease {
        None => soonest,
        Some(due) => due.map_or(latest, |due| due.clamp(soonest, latest)),
    }
}

/// What a write of the keeper's decided.
enum Decided {
    Expired(Vec<(SessionId, u64)>),
    Renewed,
}

/// Whether a proposal may still come to something that this node has not seen. While an expiry is in doubt its sessions
/// are renewed through the log only: acknowledged from memory they could end under a lease that their holder trusts.
#[derive(Debug, Default)]
struct Doubt {
    /// Newest term in which the log may have taken it without saying so.
    since: Option<u64>,
}

impl Doubt {
    /// Takes the answer to one more attempt, the term after it and the lease as it is now. Settled is what the log
    /// answered, what it never took, and what it took in a term whose entries a newer lease has decided.
    fn is_settled_by(&mut self, answer: &Result<(), NotDone>, term: u64, lease: Option<u64>) -> bool {
        match answer {
            // In order: with this attempt the earlier ones are decided.
            Ok(()) => return true,
            Err(NotDone::Unknown(_)) => self.since = Some(term),
            Err(NotDone::NotLeader(_) | NotDone::Busy(_) | NotDone::Full(_)) => {}
        }
        self.since
            .is_none_or(|since| lease.is_some_and(|lease| lease > since))
    }
}

/// The actor.
pub(crate) struct Keeper {
    core: Core,
    requests: mpsc::Receiver<Request>,
    events: EventStream,
    deadlines: Deadlines,
    /// Term of the lease in which the deadlines count.
    lease: Option<u64>,
    turned: Instant,
    /// When it looks again, if this node leads.
    wake: Instant,
    writes: JoinSet<Decided>,
}

impl Keeper {
    /// A keeper and the way to ask it.
    pub(crate) fn new(core: Core) -> (Self, KeeperHandle) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (_, revision) = core.shared.clone_state();
        let events = EventStream::after(core.shared.ring.clone(), revision);
        let keeper = Self {
            core,
            requests,
            events,
            deadlines: Deadlines::default(),
            lease: None,
            turned: clock::now(),
            wake: clock::now(),
            writes: JoinSet::new(),
        };
        (keeper, KeeperHandle { requests: sender })
    }

    /// Runs until the node stops. A node that does not lead has no look at the clock to take.
    pub(crate) async fn run(mut self) {
        let fatal = self.core.fatal.clone();
        let mut leadership = self.core.raft.server_metrics();
        loop {
            let leads = leadership.borrow_watched().state == ServerState::Leader;
            tokio::select! {
                biased;
                _ = fatal.wait() => break,
                () = tokio::time::sleep_until(self.wake), if leads => self.on_tick(),
                changed = leadership.changed() => if changed.is_err() { break },
                Some(decided) = self.writes.join_next() => if let Ok(decided) = decided { self.on_decided(&decided) },
                event = self.events.next() => match event {
                    Ok(batch) => self.on_events(&batch.events),
                    Err(StreamEnd::Lagged) => self.resubscribe(),
                    Err(StreamEnd::Stopped) => break,
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => break, // Every handle is gone: nobody can ask any more.
                },
            }
        }
    }

    fn resubscribe(&mut self) {
        let (_, revision) = self.core.shared.clone_state();
        self.events = EventStream::after(self.core.shared.ring.clone(), revision);
        self.grant_all(clock::now());
    }

    fn grant_all(&mut self, now: Instant) {
        let deadlines = &mut self.deadlines;
        self.core.shared.read(|state| {
            let all = state.sessions();
            deadlines.grant_all(now, all.map(|(id, session)| (id, session.ttl, granted(session))));
        });
    }

    /// Looks at lease and clock; returns whether deadlines count.
    fn turn(&mut self, now: Instant) -> bool {
        let lease = self.core.lease();
        let stalled = now.duration_since(self.turned) > STALL_MAX;
        self.turned = now;
        if lease.is_some() && (lease != self.lease || stalled) {
            self.grant_all(now);
        }
        self.lease = lease;
        lease.is_some()
    }

    fn on_tick(&mut self) {
        let now = clock::now();
        let counts = self.turn(now);
        let due = if counts {
            self.deadlines.take_due(now)
        } else {
            Vec::new()
        };
        self.wake = next_turn(now, counts.then(|| self.deadlines.next_due()));
        for due in due.chunks(BATCH_MAX) {
            let (core, due) = (self.core.clone(), due.to_vec());
            tracing::info!(sessions = ?due, "sessions expire");
            self.writes.spawn(async move {
                let command = Command::ExpireSessions {
                    sessions: due.clone(),
                };
                let mut doubt = Doubt::default();
                loop {
                    let answer = core.write(command.clone(), WRITE_TIMEOUT).await.map(|_| ());
                    let term = core.metrics(|metrics| metrics.current_term);
                    if doubt.is_settled_by(&answer, term, core.lease()) {
                        return Decided::Expired(due);
                    }
                    if let Err(NotDone::Unknown(error)) = answer {
                        tracing::warn!(error, "expiry of sessions not confirmed, tries again");
                    }
                    tokio::time::sleep(WRITE_PAUSE).await;
                }
            });
        }
    }

    fn on_decided(&mut self, decided: &Decided) {
        if let Decided::Expired(due) = decided {
            // The events that removed them may still be on their way to us.
            let left: Vec<_> = self.core.shared.read(|state| {
                due.iter()
                    .filter(|(id, _)| state.session(*id).is_some())
                    .copied()
                    .collect()
            });
            self.deadlines.on_decided(clock::now(), &left);
        }
    }

    fn on_events(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Session(id, Some(session)) => {
                    self.deadlines.on_opened(clock::now(), *id, session.ttl);
                }
                Event::Session(id, None) => self.deadlines.on_ended(*id),
                _ => {}
            }
        }
    }

    fn on_request(&mut self, request: Request) {
        let now = clock::now();
        if !self.turn(now) {
            let leader = self.core.leader();
            let refusal = if leader == Some(self.core.id()) {
                KeeperRefusal::Unavailable("the leader waits for its quorum".to_owned())
            } else {
                KeeperRefusal::NotLeader(leader)
            };
            drop(request.answer.send(Err(refusal)));
            return;
        }
        let mut expired = Vec::new();
        let mut expiring = Vec::new();
        let deadlines = &mut self.deadlines;
        self.core.shared.read(|state| {
            for (id, seq) in &request.sessions {
                match state.session(*id).map(|session| session.ttl) {
                    None => expired.push(*id),
                    Some(ttl) => match deadlines.on_keepalive(now, *id, ttl, *seq) {
                        Verdict::Renewed => {}
                        Verdict::Expiring => expiring.push((*id, *seq)),
                    },
                }
            }
        });
        if expiring.is_empty() {
            drop(request.answer.send(Ok(expired)));
        } else {
            self.renew(expiring, expired, request.answer);
        }
    }

    /// Sends renewals after the expiry that they try to overtake, and answers by what the tables say then.
    fn renew(
        &mut self,
        expiring: Vec<(SessionId, u64)>,
        mut expired: Vec<SessionId>,
        answer: oneshot::Sender<Answer>,
    ) {
        let core = self.core.clone();
        self.writes.spawn(async move {
            let command = Command::RenewSessions {
                sessions: expiring.clone(),
            };
            let result = match core.write(command, WRITE_TIMEOUT).await {
                Ok(_) => {
                    core.shared.read(|state| {
                        expired.extend(
                            expiring
                                .iter()
                                .map(|(id, _)| *id)
                                .filter(|id| state.session(*id).is_none()),
                        );
                    });
                    Ok(expired)
                }
                Err(NotDone::NotLeader(leader)) => Err(KeeperRefusal::NotLeader(leader)),
                Err(NotDone::Busy(error) | NotDone::Full(error) | NotDone::Unknown(error)) => {
                    Err(KeeperRefusal::Unavailable(error))
                }
            };
            drop(answer.send(result));
            Decided::Renewed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_again_when_the_next_session_is_due_and_not_too_late_or_soon() {
        let now = clock::now();
        let in_ms = |ms| now + Duration::from_millis(ms);
        assert_eq!(next_turn(now, None), in_ms(25), "the lease may come any moment");
        assert_eq!(next_turn(now, Some(None)), in_ms(50));
        for (due, next) in [(0, 25), (24, 25), (40, 40), (900, 50)] {
            assert_eq!(next_turn(now, Some(Some(in_ms(due)))), in_ms(next), "{due}");
        }
    }

    fn unknown() -> Result<(), NotDone> {
        Err(NotDone::Unknown("no quorum".to_owned()))
    }

    #[test]
    fn expiry_without_outcome_is_in_doubt_until_the_log_or_a_newer_term_answers() {
        let mut doubt = Doubt::default();
        assert!(!doubt.is_settled_by(&unknown(), 3, Some(3)));
        // Refusals of later attempts say nothing about the first one.
        assert!(!doubt.is_settled_by(&Err(NotDone::Busy(String::new())), 3, Some(3)));
        assert!(!doubt.is_settled_by(&Err(NotDone::NotLeader(Some(2))), 4, None));
        assert!(!doubt.is_settled_by(&unknown(), 5, Some(5)));
        assert!(doubt.is_settled_by(&Ok(()), 5, Some(5)));

        let mut doubt = Doubt::default();
        assert!(!doubt.is_settled_by(&unknown(), 3, None));
        assert!(
            doubt.is_settled_by(&Err(NotDone::Busy(String::new())), 6, Some(6)),
            "the lease of a later term has applied what survived of the earlier ones"
        );
    }

    #[test]
    fn refused_expiry_is_settled_at_once() {
        for refusal in [
            NotDone::NotLeader(None),
            NotDone::Busy(String::new()),
            NotDone::Full(String::new()),
        ] {
            assert!(Doubt::default().is_settled_by(&Err(refusal), 3, Some(3)));
        }
    }
}
