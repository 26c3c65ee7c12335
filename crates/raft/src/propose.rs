//! Proposals and read indices from any node: finds the leader, forwards, retries what was refused for sure.
//!
//! A proposal that may be in the log is never repeated here: only its proposer knows whether that is harmless.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{ConnectError, Status};
use whiskraft_proto::v1;
use whiskraft_types::LogRevision;

use crate::clock;
use crate::core::{Group, NotDone};
use crate::error::{ProposeError, Unavailable};
use crate::peers::Class;
use crate::types::{Answer, META_GROUP, Proposal};

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
    class: Class,
    permits: Arc<Semaphore>,
    leaderless: Arc<std::sync::Mutex<Option<Instant>>>,
}

/// Answered, refused for sure, or given up: the outer error ends the proposal.
type Attempt = Result<Result<(LogRevision, Answer), Refused>, ProposeError>;

/// One attempt that came to nothing for sure.
enum Refused {
    /// This one leads.
    NotLeader(Option<u64>),
    /// Worth asking again.
    Later(String),
}

impl Proposer {
    /// A proposer for a running group.
    pub(crate) fn new(group: Group) -> Self {
        let class = if group.group == META_GROUP {
            Class::Forward
        } else {
            Class::LaneForward
        };
        Self {
            group,
            class,
            permits: Arc::new(Semaphore::new(PROPOSALS_MAX)),
            leaderless: Arc::default(),
        }
    }

    /// Puts a proposal into the log and waits until it is applied on the leader.
    pub(crate) async fn propose(&self, proposal: Proposal) -> Result<(LogRevision, Answer), ProposeError> {
        let deadline = clock::now() + self.group.settings.propose_timeout;
        let permit = tokio::time::timeout_at(deadline, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(ProposeError::Unavailable(format!(
                "{PROPOSALS_MAX} proposals are under way already"
            )));
        };
        let mut hint = None;
        loop {
            let refused = match self.leader(hint.take()) {
                Some(leader) => match self.attempt(leader, &proposal, deadline).await? {
                    Ok(done) => return Ok(done),
                    Err(Refused::NotLeader(other)) => {
                        hint = other.filter(|other| *other != leader);
                        format!("scheduler {leader} does not lead")
                    }
                    Err(Refused::Later(reason)) => reason,
                },
                None => "no leader is known".to_owned(),
            };
            if self.group.fatal.reason().is_some() {
                return Err(ProposeError::Unavailable("the node has stopped".to_owned()));
            }
            if clock::now() + RETRY_PAUSE >= deadline || self.is_leaderless() {
                return Err(ProposeError::Unavailable(refused));
            }
            if hint.is_none() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
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

    async fn attempt(&self, leader: u64, proposal: &Proposal, deadline: Instant) -> Attempt {
        let left = deadline.saturating_duration_since(clock::now());
        if leader != self.group.id() {
            return self.forward(leader, proposal, left).await;
        }
        match self.group.write(proposal.clone(), left).await {
            Ok(done) => Ok(Ok(done)),
            Err(NotDone::NotLeader(other)) => Ok(Err(Refused::NotLeader(other))),
            Err(NotDone::Busy(reason)) => Ok(Err(Refused::Later(reason))),
            Err(NotDone::Full(reason)) => Err(ProposeError::Full(reason)),
            Err(NotDone::Unknown(reason)) => Err(ProposeError::Unknown(reason)),
        }
    }

    async fn forward(&self, leader: u64, proposal: &Proposal, left: Duration) -> Attempt {
        let command = proposal
            .encode()
            .map_err(|error| ProposeError::Unavailable(error.to_string()))?;
        let client = self
            .group
            .address(leader)
            .ok_or_else(|| format!("address of scheduler {leader} is not known"));
        let mut client = match client.and_then(|address| self.group.peers.client(&address, self.class)) {
            Ok(client) => client,
            Err(reason) => return Ok(Err(Refused::Later(reason))),
        };
        let envelope = Some(self.group.peers.envelope_of(self.group.group, leader));
        let request = v1::ProposeRequest {
            envelope,
            command: command.into(),
        };
        let reply = match tokio::time::timeout(left, client.propose(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if is_unsent(&status) => {
                return Ok(Err(Refused::Later(format!(
                    "scheduler {leader}: {}",
                    status.message()
                ))));
            }
            Ok(Err(status)) => {
                return Err(ProposeError::Unknown(format!(
                    "connection to scheduler {leader}: {}",
                    status.message()
                )));
            }
            Err(_) => {
                return Err(ProposeError::Unknown(format!(
                    "scheduler {leader} did not answer in {left:?}"
                )));
            }
        };
        self.group.peers.answered(leader);
        parse_reply(self.group.group, leader, reply)
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
            .client(&address, self.class)
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

fn parse_reply(group: u32, leader: u64, reply: v1::ProposeResponse) -> Attempt {
    use v1::propose_response::Outcome;

    match reply.outcome {
        Some(Outcome::Ok(ok)) => match Answer::decode(group, &ok.response) {
            Ok(response) => Ok(Ok((LogRevision(ok.revision), response))),
            Err(error) => Err(ProposeError::Unknown(format!(
                "answer of scheduler {leader}: {error}"
            ))),
        },
        Some(Outcome::NotLeader(other)) => Ok(Err(Refused::NotLeader(
            (other.leader != 0).then_some(other.leader),
        ))),
        Some(Outcome::Refused(reason)) => Ok(Err(Refused::Later(reason))),
        Some(Outcome::Full(reason)) => Err(ProposeError::Full(reason)),
        Some(Outcome::Unknown(reason)) => Err(ProposeError::Unknown(reason)),
        None => Err(ProposeError::Unknown(format!(
            "scheduler {leader} answered nothing"
        ))),
    }
}

/// Whether a call failed before anything of it left this node.
fn is_unsent(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
