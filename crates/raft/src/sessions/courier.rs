//! The courier: takes the keepalives of everything on this node to the Raft leader.
//!
//! One call is under way at a time; what arrives meanwhile joins the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use whiskraft_proto::v1;
use whiskraft_types::SessionId;

use super::{KeeperHandle, KeeperRefusal};
use crate::clock;
use crate::core::Core;
use crate::error::KeepaliveError;
use crate::peers::Class;

/// Keepalives that wait for a call: every session of a node, some times over.
const WAITING_MAX: usize = 8192;
/// How long a keepalive is carried before its sender is told to try again; well below a session's TTL.
const CARRY_MAX: Duration = Duration::from_millis(600);
/// Longest wait for one leader to answer.
const CALL_MAX: Duration = Duration::from_millis(300);
/// Pause before a leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

type Answer = Result<(), KeepaliveError>;

struct Request {
    session: SessionId,
    seq: u64,
    answer: oneshot::Sender<Answer>,
}

/// Gives keepalives to the courier.
#[derive(Debug, Clone)]
pub(crate) struct CourierHandle {
    requests: mpsc::Sender<Request>,
}

impl CourierHandle {
    /// Says that the holder of a session is alive.
    pub(crate) async fn keepalive(&self, session: SessionId, seq: u64) -> Answer {
        let stopped = || KeepaliveError::Unavailable("the node has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(Request { session, seq, answer })
            .await
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

/// The actor.
pub(crate) struct Courier {
    core: Core,
    keeper: KeeperHandle,
    requests: mpsc::Receiver<Request>,
}

impl Courier {
    /// A courier and the way to it.
    pub(crate) fn new(core: Core, keeper: KeeperHandle) -> (Self, CourierHandle) {
        let (sender, requests) = mpsc::channel(WAITING_MAX);
        (
            Self {
                core,
                keeper,
                requests,
            },
            CourierHandle { requests: sender },
        )
    }

    /// Runs until every handle is gone.
    pub(crate) async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.requests.recv_many(&mut waiting, WAITING_MAX).await > 0 {
            let mut newest = BTreeMap::new();
            for request in &waiting {
                let seq = newest.entry(request.session).or_insert(request.seq);
                *seq = (*seq).max(request.seq);
            }
            let carried = self.carry(newest.into_iter().collect()).await;
            for request in waiting.drain(..) {
                let answer = match &carried {
                    Ok(expired) if expired.contains(&request.session) => {
                        Err(KeepaliveError::Expired(request.session))
                    }
                    Ok(_) => Ok(()),
                    Err(reason) => Err(KeepaliveError::Unavailable(reason.clone())),
                };
                drop(request.answer.send(answer));
            }
        }
    }

    /// Finds the leader and asks it; the answer is the sessions that have ended.
    async fn carry(&self, sessions: Vec<(SessionId, u64)>) -> Result<Vec<SessionId>, String> {
        let deadline = clock::now() + CARRY_MAX;
        let mut leader = self.core.leader();
        loop {
            let refusal = match leader {
                None => "no leader is known".to_owned(),
                Some(id) => match self.ask(id, &sessions).await {
                    Ok(expired) => return Ok(expired),
                    Err(KeeperRefusal::NotLeader(_)) => format!("scheduler {id} does not lead"),
                    Err(KeeperRefusal::Unavailable(reason)) => reason,
                },
            };
            if clock::now() >= deadline {
                return Err(refusal);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            leader = self.core.leader();
        }
    }

    async fn ask(&self, leader: u64, sessions: &[(SessionId, u64)]) -> Result<Vec<SessionId>, KeeperRefusal> {
        use v1::keepalives_response::Outcome;

        if leader == self.core.id() {
            return self.keeper.keepalives(sessions.to_vec()).await;
        }
        let unavailable = KeeperRefusal::Unavailable;
        let address = self.core.address(leader);
        let address =
            address.ok_or_else(|| unavailable(format!("address of scheduler {leader} is not known")))?;
        let mut client = self
            .core
            .peers
            .client(&address, Class::Forward)
            .map_err(unavailable)?;
        let request = v1::KeepalivesRequest {
            envelope: Some(self.core.peers.envelope(leader)),
            sessions: sessions
                .iter()
                .map(|(session, seq)| v1::SessionKeepalive {
                    session: session.0,
                    seq: *seq,
                })
                .collect(),
        };
        let reply = tokio::time::timeout(CALL_MAX, client.keepalives(request)).await;
        let reply =
            reply.map_err(|_| unavailable(format!("scheduler {leader} did not answer in {CALL_MAX:?}")))?;
        let reply =
            reply.map_err(|status| unavailable(format!("scheduler {leader}: {}", status.message())))?;
        self.core.peers.answered(leader);
        match reply.into_inner().outcome {
            Some(Outcome::Ok(ok)) => Ok(ok.expired.into_iter().map(SessionId).collect()),
            Some(Outcome::NotLeader(other)) => Err(KeeperRefusal::NotLeader(
                (other.leader != 0).then_some(other.leader),
            )),
            Some(Outcome::Unavailable(reason)) => Err(unavailable(reason)),
            None => Err(unavailable(format!("scheduler {leader} answered nothing"))),
        }
    }
}
