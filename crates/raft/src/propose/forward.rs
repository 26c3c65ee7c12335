//! Proposals on their way to a leader elsewhere: what comes while calls are under way goes along with the next.
//!
//! - **Invariant:** a proposal is part of one call at most; what came of it goes to its proposer, if there still is one.
//! - **Invariant:** whoever stops waiting changes nothing for the others of a call.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::async_runtime::WatchReceiver;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tonic::{ConnectError, Status};
use whiskraft_proto::gather::{CallBounds, Line, Load};
use whiskraft_proto::v1;
use whiskraft_types::LogRevision;

use super::{Attempt, PROPOSALS_MAX, Refused};
use crate::core::Group;
use crate::error::ProposeError;
use crate::peers::Class;
use crate::types::{Answer, META_GROUP, Proposal};

/// Calls under way to one leader: with two it always has the next one at hand, and the more there are the less is in each.
/// A call has as many commands as the log takes into one append.
const CALLS: CallBounds = CallBounds {
    calls_max: 2,
    count_max: 1024,
    bytes_max: 1 << 20,
};

/// Bytes above which proposals are long and have calls of their own.
const SHORT_LEN: usize = 16 << 10;

/// Proposals of one proposer for one leader; they stay together.
struct Forward {
    leader: u64,
    commands: Vec<Bytes>,
    deadline: Instant,
    answer: oneshot::Sender<Carried>,
    /// Set by whoever is first: the call that takes them, or their proposer who has waited long enough.
    is_claimed: Arc<AtomicBool>,
    /// Counts them as under way until they are answered, also when their proposer has stopped waiting.
    permits: Arc<OwnedSemaphorePermit>,
}

/// What came of each proposal, or of all of them.
type Carried = Result<Vec<Attempt>, Lost>;

/// Why a call has no outcomes.
#[derive(Debug, Clone)]
enum Lost {
    /// Nothing of it left this node.
    Unsent(String),
    /// The leader may have done it.
    Unknown(String),
}

/// Gives proposals to the forwarder.
#[derive(Debug, Clone)]
pub(super) struct ForwarderHandle {
    class: Class,
    forwards: mpsc::Sender<Forward>,
}

impl ForwarderHandle {
    /// What the calls to other schedulers are.
    pub(super) const fn class(&self) -> Class {
        self.class
    }

    /// Tries each of them once, at this leader.
    pub(super) async fn forward(
        &self,
        leader: u64,
        proposals: Vec<Proposal>,
        deadline: Instant,
        permits: &Arc<OwnedSemaphorePermit>,
    ) -> Vec<Attempt> {
        let count = proposals.len();
        let encoded: Result<Vec<_>, _> = proposals.iter().map(Proposal::encode).collect();
        let commands = match encoded {
            Ok(commands) => commands.into_iter().map(Bytes::from).collect(),
            Err(error) => return each(count, || Err(ProposeError::Unavailable(error.to_string()))),
        };
        let (answer, answered) = oneshot::channel();
        let is_claimed = Arc::new(AtomicBool::new(false));
        let forward = Forward {
            leader,
            commands,
            deadline,
            answer,
            is_claimed: Arc::clone(&is_claimed),
            permits: Arc::clone(permits),
        };
        if self.forwards.send(forward).await.is_err() {
            return each(count, || {
                Err(ProposeError::Unavailable("the node has stopped".to_owned()))
            });
        }
        let late = || format!("scheduler {leader} did not answer in time");
        let carried = match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(carried)) => carried,
            Ok(Err(_)) => Err(Lost::Unknown("the node has stopped".to_owned())),
            Err(_) if is_claimed.swap(true, Ordering::AcqRel) => Err(Lost::Unknown(late())),
            Err(_) => Err(Lost::Unsent(late())),
        };
        carried.unwrap_or_else(|lost| match lost {
            Lost::Unsent(reason) => each(count, || Ok(Err(Refused::Later(reason.clone())))),
            Lost::Unknown(reason) => each(count, || Err(ProposeError::Unknown(reason.clone()))),
        })
    }
}

fn each(count: usize, attempt: impl FnMut() -> Attempt) -> Vec<Attempt> {
    std::iter::repeat_with(attempt).take(count).collect()
}

impl Load for Forward {
    fn count(&self) -> usize {
        self.commands.len()
    }

    fn bytes(&self) -> usize {
        self.commands.iter().map(Bytes::len).sum()
    }

    fn is_unwanted(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The actor; one per proposer.
pub(super) struct Forwarder {
    group: Group,
    class: Class,
    forwards: mpsc::Receiver<Forward>,
    lines: BTreeMap<Way, Line<Forward>>,
    /// Each ends with the way that it took.
    calls: FuturesUnordered<BoxFuture<'static, Way>>,
}

/// A leader, and whether what goes there is long: slots and sessions do not wait for documents.
type Way = (u64, bool);

impl Forwarder {
    /// A forwarder and the way to it.
    pub(super) fn new(group: Group) -> (Self, ForwarderHandle) {
        let class = if group.group == META_GROUP {
            Class::Forward
        } else {
            Class::LaneForward
        };
        let (sender, forwards) = mpsc::channel(PROPOSALS_MAX);
        let handle = ForwarderHandle {
            class,
            forwards: sender,
        };
        let forwarder = Self {
            group,
            class,
            forwards,
            lines: BTreeMap::new(),
            calls: FuturesUnordered::new(),
        };
        (forwarder, handle)
    }

    /// What the calls to other schedulers are.
    pub(super) const fn class(&self) -> Class {
        self.class
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self) {
        let mut leadership = self.group.raft.server_metrics();
        let mut has_core = true;
        loop {
            tokio::select! {
                biased;
                Some(way) = self.calls.next() => self.on_answered(way),
                changed = leadership.changed(), if has_core => {
                    has_core = changed.is_ok();
                    // What has just woken this says who leads; the other metrics follow.
                    let leader = leadership.borrow_watched().current_leader;
                    // Those that were sent before this are for the former one.
                    self.take_waiting();
                    self.on_leadership(leader);
                    self.call_all();
                }
                forward = self.forwards.recv() => match forward {
                    Some(forward) => {
                        // Whoever is about to propose as well, after an answer of the same call above all, does so first.
                        tokio::task::yield_now().await;
                        self.on_forwards(forward);
                    }
                    None => return,
                },
            }
            self.lines.retain(|_, line| !line.is_idle());
        }
    }

    /// Takes all that is there, so that it goes together.
    fn on_forwards(&mut self, first: Forward) {
        self.line(&first).push(first);
        self.take_waiting();
        self.call_all();
    }

    fn take_waiting(&mut self) {
        while let Ok(forward) = self.forwards.try_recv() {
            self.line(&forward).push(forward);
        }
    }

    fn line(&mut self, forward: &Forward) -> &mut Line<Forward> {
        let way = (forward.leader, forward.bytes() > SHORT_LEN);
        self.lines.entry(way).or_insert_with(|| Line::new(CALLS))
    }

    fn call_all(&mut self) {
        let ways: Vec<Way> = self.lines.keys().copied().collect();
        ways.into_iter().for_each(|way| self.call(way));
    }

    fn on_answered(&mut self, way: Way) {
        if let Some(line) = self.lines.get_mut(&way) {
            line.end();
        }
        self.call(way);
    }

    /// What waits for calls to somebody who does not lead any more need not wait: another one leads.
    fn on_leadership(&mut self, leader: Option<u64>) {
        let Some(leader) = leader else { return };
        let others = self.lines.iter_mut().filter(|((id, _), _)| *id != leader);
        for forward in others.flat_map(|(_, line)| line.drain()) {
            let unsent = Lost::Unsent(format!("scheduler {} does not lead", forward.leader));
            drop(forward.answer.send(Err(unsent)));
        }
    }

    /// Begins as many calls as there may and need be.
    fn call(&mut self, way: Way) {
        while let Some(batch) = self.lines.get_mut(&way).and_then(Line::begin) {
            let call = call(self.group.clone(), self.class, way, batch);
            self.calls.push(Box::pin(call));
        }
    }
}

/// One call with all of these.
async fn call(group: Group, class: Class, way: Way, mut batch: Vec<Forward>) -> Way {
    let (leader, _) = way;
    batch.retain(|forward| !forward.is_claimed.swap(true, Ordering::AcqRel));
    let Some(deadline) = batch.iter().map(|forward| forward.deadline).max() else {
        return way;
    };
    let (mut commands, mut waiting) = (Vec::new(), Vec::new());
    for forward in batch {
        waiting.push((forward.commands.len(), forward.answer, forward.permits));
        commands.extend(forward.commands);
    }
    let carried = carry(&group, class, leader, commands, deadline).await;
    let mut carried = carried.map(Vec::into_iter);
    for (count, answer, _permits) in waiting {
        let part = match &mut carried {
            Ok(attempts) => Ok(attempts.take(count).collect()),
            Err(lost) => Err(lost.clone()),
        };
        // Whoever has stopped waiting does not know; the tables will tell.
        drop(answer.send(part));
    }
    way
}

/// Calls a leader elsewhere.
async fn carry(group: &Group, class: Class, leader: u64, commands: Vec<Bytes>, deadline: Instant) -> Carried {
    let address = group
        .address(leader)
        .ok_or_else(|| Lost::Unsent(format!("address of scheduler {leader} is not known")))?;
    let mut client = group.peers.client(&address, class).map_err(Lost::Unsent)?;
    let count = commands.len();
    let request = v1::ProposeRequest {
        envelope: Some(group.peers.envelope_of(group.group, leader)),
        commands,
    };
    let reply = tokio::time::timeout_at(deadline, client.propose(request)).await;
    let late = |_| Lost::Unknown(format!("scheduler {leader} did not answer in time"));
    let reply = reply.map_err(late)?.map_err(|status| match is_unsent(&status) {
        true => Lost::Unsent(format!("scheduler {leader}: {}", status.message())),
        false => Lost::Unknown(format!("connection to scheduler {leader}: {}", status.message())),
    })?;
    group.peers.answered(leader);
    let outcomes = reply.into_inner().outcomes;
    if outcomes.len() != count {
        let answered = outcomes.len();
        return Err(Lost::Unknown(format!(
            "scheduler {leader} answered {answered} of {count} proposals"
        )));
    }
    let attempts = outcomes
        .into_iter()
        .map(|outcome| parse(group.group, leader, outcome));
    Ok(attempts.collect())
}

fn parse(group: u32, leader: u64, outcome: v1::ProposeOutcome) -> Attempt {
    use v1::propose_outcome::Outcome;

    match outcome.outcome {
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
        Some(Outcome::Invalid(reason)) => Err(ProposeError::Unavailable(format!(
            "scheduler {leader} cannot read it: {reason}"
        ))),
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
