//! Proposals and read indices from any node: finds the leader, forwards, retries what was refused for sure.
//!
//! A proposal that may be in the log is never repeated here: only its proposer knows whether that is harmless.

mod forward;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use whiskraft_proto::v1;
use whiskraft_types::LogRevision;

use self::forward::{Forwarder, ForwarderHandle};
use crate::clock;
use crate::core::{Group, NotDone, Written};
use crate::error::{ProposeError, Unavailable};
use crate::types::{Answer, Proposal};

/// Proposals of this node under way at a time; more wait here, which is back pressure on whoever makes them.
const PROPOSALS_MAX: usize = 4096;
/// Pause before a leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(15);
/// Longest election timeouts without any leader after which a proposal is refused at once: the quorum is gone, and
/// whoever asks should know now.
const LEADERLESS_ELECTIONS: u32 = 6;

/// Finds the leader for proposals and reads; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Proposer {
    group: Group,
    forwarder: ForwarderHandle,
    permits: Arc<Semaphore>,
    /// Of those that come several at a time: one by itself does not wait for room for many.
    permits_together: Arc<Semaphore>,
    leaderless: Arc<std::sync::Mutex<Option<Instant>>>,
}

/// What has become of a proposal.
pub(crate) type Proposed = Result<(LogRevision, Answer), ProposeError>;

/// Answered, refused for sure, or given up: the outer error ends the proposal.
type Attempt = Result<Result<(LogRevision, Answer), Refused>, ProposeError>;

/// One attempt that came to nothing for sure.
enum Refused {
    /// This one leads.
    NotLeader(Option<u64>),
    /// Worth asking again.
    Later(String),
}

/// Proposals made together, until each of them has its outcome.
struct Round {
    /// Without one yet, by place.
    open: Vec<(usize, Proposal)>,
    outcomes: Vec<Option<Proposed>>,
}

impl Round {
    fn new(proposals: Vec<Proposal>) -> Self {
        Self {
            outcomes: proposals.iter().map(|_| None).collect(),
            open: proposals.into_iter().enumerate().collect(),
        }
    }

    fn proposals(&self) -> Vec<Proposal> {
        self.open.iter().map(|(_, proposal)| proposal.clone()).collect()
    }

    /// Takes what came of the open ones; what was refused for sure stays open. Gives the newest refusal.
    fn settle(&mut self, attempts: Vec<Attempt>) -> Option<Refused> {
        let mut newest = None;
        let mut attempts = attempts.into_iter();
        let outcomes = &mut self.outcomes;
        self.open.retain(|(place, _)| {
            let silent = || Err(ProposeError::Unknown("the leader answered nothing".to_owned()));
            let outcome = match attempts.next().unwrap_or_else(silent) {
                Ok(Ok(done)) => Ok(done),
                Err(error) => Err(error),
                Ok(Err(refused)) => {
                    newest = Some(refused);
                    return true;
                }
            };
            outcomes[*place] = Some(outcome);
            false
        });
        newest
    }

    /// Ends those that are open with this.
    fn end(self, reason: &str) -> Vec<Proposed> {
        let refused = || Err(ProposeError::Unavailable(reason.to_owned()));
        self.outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(refused))
            .collect()
    }
}

impl Proposer {
    /// A proposer for a running group. What it forwards goes along with what its clones forward.
    pub(crate) fn new(group: Group) -> Self {
        let (forwarder, handle) = Forwarder::new(group.clone());
        group.peers.runtime(forwarder.class()).spawn(forwarder.run());
        Self {
            group,
            forwarder: handle,
            permits: Arc::new(Semaphore::new(PROPOSALS_MAX)),
            permits_together: Arc::new(Semaphore::new(PROPOSALS_MAX)),
            leaderless: Arc::default(),
        }
    }

    /// Puts a proposal into the log and waits until it is applied on the leader.
    pub(crate) async fn propose(&self, proposal: Proposal) -> Proposed {
        let mut proposed = self.propose_many(vec![proposal]).await;
        let unsaid = || Err(ProposeError::Unknown("the proposal was lost".to_owned()));
        proposed.pop().unwrap_or_else(unsaid)
    }

    /// Puts proposals into the log, together as far as it goes, and waits until they are applied on the leader; an outcome
    /// for each. At most so many as may be under way at a time.
    pub(crate) async fn propose_many(&self, proposals: Vec<Proposal>) -> Vec<Proposed> {
        let deadline = clock::now() + self.group.settings.propose_timeout;
        let mut round = Round::new(proposals);
        let Some(permits) = self.room(round.open.len(), deadline).await else {
            return round.end(&format!("{PROPOSALS_MAX} proposals are under way already"));
        };
        let mut hint = None;
        while !round.open.is_empty() {
            let refused = match self.leader(hint.take()) {
                Some(leader) => {
                    let attempts = self.attempt(leader, round.proposals(), deadline, &permits).await;
                    match round.settle(attempts) {
                        None => break,
                        Some(Refused::NotLeader(other)) => {
                            hint = other.filter(|other| *other != leader);
                            format!("scheduler {leader} does not lead")
                        }
                        Some(Refused::Later(reason)) => reason,
                    }
                }
                None => "no leader is known".to_owned(),
            };
            if self.group.fatal.reason().is_some() {
                return round.end("the node has stopped");
            }
            if clock::now() + RETRY_PAUSE >= deadline || self.is_leaderless() {
                return round.end(&refused);
            }
            if hint.is_none() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        round.end("the proposal was lost")
    }

    /// Waits for room among what is under way.
    async fn room(&self, count: usize, deadline: Instant) -> Option<Arc<OwnedSemaphorePermit>> {
        let count = u32::try_from(count).ok()?;
        let permits = match count {
            0 | 1 => &self.permits,
            _ => &self.permits_together,
        };
        let permits = Arc::clone(permits).acquire_many_owned(count);
        let permits = tokio::time::timeout_at(deadline, permits).await;
        permits.ok()?.ok().map(Arc::new)
    }

    /// Who to ask: what the last one asked said, or what this node knows.
    fn leader(&self, hint: Option<u64>) -> Option<u64> {
        let leader = self.group.leader();
        let mut leaderless = self
            .leaderless
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if leader.is_some() {
            *leaderless = None;
        } else {
            leaderless.get_or_insert_with(clock::now);
        }
        drop(leaderless);
        hint.or(leader)
    }

    fn is_leaderless(&self) -> bool {
        let leaderless = self
            .leaderless
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let patience = self.group.settings.election_max * LEADERLESS_ELECTIONS;
        leaderless.is_some_and(|since| clock::now().duration_since(since) > patience)
    }

    /// Tries each of them once, at this leader.
    async fn attempt(
        &self,
        leader: u64,
        proposals: Vec<Proposal>,
        deadline: Instant,
        permits: &Arc<OwnedSemaphorePermit>,
    ) -> Vec<Attempt> {
        if leader != self.group.id() {
            return self.forwarder.forward(leader, proposals, deadline, permits).await;
        }
        let left = deadline.saturating_duration_since(clock::now());
        let written = self.group.write_many(proposals, left).await;
        written.into_iter().map(own_attempt).collect()
    }

    /// A log revision that covers every write acknowledged before the call.
    pub(crate) async fn read_index(&self) -> Result<LogRevision, Unavailable> {
        let deadline = clock::now() + self.group.settings.propose_timeout;
        let mut hint = None;
        loop {
            let refused = match self.leader(hint.take()) {
                Some(leader) => match self.ask_read_index(leader, deadline).await {
                    Ok(revision) => return Ok(revision),
                    Err(Refused::NotLeader(other)) => {
                        hint = other.filter(|other| *other != leader);
                        format!("scheduler {leader} does not lead")
                    }
                    Err(Refused::Later(reason)) => reason,
                },
                None => "no leader is known".to_owned(),
            };
            let stopped = self.group.fatal.reason().is_some();
            if stopped || clock::now() + RETRY_PAUSE >= deadline || self.is_leaderless() {
                return Err(Unavailable(refused));
            }
            if hint.is_none() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn ask_read_index(&self, leader: u64, deadline: Instant) -> Result<LogRevision, Refused> {
        use v1::read_index_response::Outcome;

        // A read may be repeated, so a leader that does not answer is not waited for until the end.
        let left = deadline
            .saturating_duration_since(clock::now())
            .min(self.group.settings.election_max * 2);
        if leader == self.group.id() {
            return self
                .group
                .read_index(left)
                .await
                .map_err(|refused| match refused {
                    NotDone::NotLeader(other) => Refused::NotLeader(other),
                    NotDone::Busy(reason) | NotDone::Full(reason) | NotDone::Unknown(reason) => {
                        Refused::Later(reason)
                    }
                });
        }
        let address = self.group.address(leader);
        let address =
            address.ok_or_else(|| Refused::Later(format!("address of scheduler {leader} is not known")))?;
        let mut client = self
            .group
            .peers
            .client(&address, self.forwarder.class())
            .map_err(Refused::Later)?;
        let request = v1::ReadIndexRequest {
            envelope: Some(self.group.peers.envelope_of(self.group.group, leader)),
        };
        let reply = tokio::time::timeout(left, client.read_index(request)).await;
        let reply =
            reply.map_err(|_| Refused::Later(format!("scheduler {leader} did not answer in {left:?}")))?;
        let reply =
            reply.map_err(|status| Refused::Later(format!("scheduler {leader}: {}", status.message())))?;
        self.group.peers.answered(leader);
        match reply.into_inner().outcome {
            Some(Outcome::Revision(revision)) => Ok(LogRevision(revision)),
            Some(Outcome::NotLeader(other)) => {
                Err(Refused::NotLeader((other.leader != 0).then_some(other.leader)))
            }
            Some(Outcome::Unavailable(reason)) => Err(Refused::Later(reason)),
            None => Err(Refused::Later(format!("scheduler {leader} answered nothing"))),
        }
    }
}

fn own_attempt(written: Written) -> Attempt {
    match written {
        Ok(done) => Ok(Ok(done)),
        Err(NotDone::NotLeader(other)) => Ok(Err(Refused::NotLeader(other))),
        Err(NotDone::Busy(reason)) => Ok(Err(Refused::Later(reason))),
        Err(NotDone::Full(reason)) => Err(ProposeError::Full(reason)),
        Err(NotDone::Unknown(reason)) => Err(ProposeError::Unknown(reason)),
    }
}
