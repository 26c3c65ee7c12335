//! What every part of the scheduler needs: settings, the replicated log, the clock, the fence, the phase.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use whiskraft_proto::v1;
use whiskraft_raft::{Node, ProposeError};
use whiskraft_state::{Command, Response};
use whiskraft_types::{Instant, LogRevision, Rejection, SchedulerId};

use crate::clock::Clock;
use crate::config::SchedulerConfig;
use crate::fence::Fence;
use crate::metrics::{Metrics, Proposed};

/// Longest time before a caller hears that this scheduler has no quorum.
const AVAILABLE_WAIT_MAX: Duration = Duration::from_millis(100);

/// What everybody hears from a fenced scheduler.
pub(crate) fn fenced() -> Rejection {
    Rejection::Unavailable {
        reason: "this scheduler has lost touch with the others".to_owned(),
    }
}

/// What a proposal comes to.
pub(crate) type Proposing = Result<(LogRevision, Response), ProposeError>;

/// Where the process is in its life; only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serves.
    Serving,
    /// Serves, and hands its queues over because it is about to go.
    Leaving,
    /// Takes no new activations; what it still leads moves with the end of its session.
    Draining,
    /// Streams and tasks end.
    Stopping,
}

/// Shared by all parts; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Settings, checked.
    pub(crate) config: Arc<SchedulerConfig>,
    /// Replicated log and tables.
    pub(crate) node: Node,
    /// Time.
    pub(crate) clock: Clock,
    /// The right to act.
    pub(crate) fence: Fence,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    phase: watch::Receiver<Phase>,
    streams: Arc<AtomicU64>,
}

/// Tells a stream from the one that the same peer opens next, so that the end of the old one, noticed late, does not
/// take the new one with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

/// The leader as the wire has it; a node names itself only while it may act.
fn named_leader(leader: Option<SchedulerId>, this: SchedulerId, may_act: bool) -> u64 {
    let leader = leader.filter(|leader| may_act || *leader != this);
    leader.map_or(0, |leader| leader.0)
}

impl Context {
    pub(crate) fn new(config: SchedulerConfig, node: Node, phase: watch::Receiver<Phase>) -> Self {
        Self {
            metrics: Metrics::new(config.shards_len()),
            config: Arc::new(config),
            node,
            clock: Clock::start(),
            fence: Fence::closed(),
            phase,
            streams: Arc::default(),
        }
    }

    /// An id that no other stream of this process has.
    pub(crate) fn next_stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a command into the log, and counts how that went.
    ///
    /// # Errors
    /// As [`Node::propose`].
    pub(crate) async fn propose(&self, command: Command) -> Proposing {
        let began = self.clock.now();
        let answer = self.node.propose(command).await;
        self.count(&answer, began);
        answer
    }

    /// Puts commands into the log together, as [`Node::propose_many`], and counts how that went.
    pub(crate) async fn propose_many(&self, commands: Vec<Command>) -> Vec<Proposing> {
        let began = self.clock.now();
        let answers = self.node.propose_many(commands).await;
        answers.iter().for_each(|answer| self.count(answer, began));
        answers
    }

    fn count(&self, answer: &Proposing, began: Instant) {
        let outcome = match answer {
            Ok((_, Response::Refused(_))) => Proposed::Refused,
            Ok(_) => Proposed::Done,
            Err(_) => Proposed::Failed,
        };
        let after = self.clock.now().saturating_since(began);
        self.metrics.proposed(outcome, after);
    }

    /// Who writes into the log, as the wire has it: 0 if that is not known. Whoever has lost touch may take itself for the
    /// one for a while longer: it does not say so.
    pub(crate) fn log_leader(&self) -> u64 {
        let may_act = self.fence.allows(self.clock.now());
        named_leader(self.node.leader(), self.node.id(), may_act)
    }

    /// Where invokers reach each member that has announced itself, as this node knows it now.
    pub(crate) fn scheduler_addresses(&self) -> Vec<v1::SchedulerAddress> {
        self.node.read(|state| {
            let members = state
                .members()
                .filter(|(_, member)| !member.client_address.is_empty());
            members
                .map(|(id, member)| v1::SchedulerAddress {
                    scheduler: id.0,
                    client_address: member.client_address.clone(),
                })
                .collect()
        })
    }

    /// Whether new activations are refused because the process is going.
    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Refuses what needs the log while this scheduler has no lease: without a quorum an answer would take long. A
    /// process that has just started gets a moment to open its session.
    ///
    /// # Errors
    /// `Unavailable`: somebody else may have the quorum.
    pub(crate) async fn available(&self) -> Result<(), Rejection> {
        if self.fence.allows(self.clock.now()) {
            return Ok(());
        }
        let mut view = self.fence.subscribe();
        let opened = tokio::time::timeout(AVAILABLE_WAIT_MAX, view.wait_for(|view| !view.fenced)).await;
        match opened {
            Ok(Ok(_)) => Ok(()),
            _ => Err(fenced()),
        }
    }

    /// Whether the process is about to go: it takes no queues.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.phase.borrow() >= Phase::Leaving
    }

    /// Waits until the process is about to go.
    pub(crate) async fn draining(&self) {
        let _ = self
            .phase
            .clone()
            .wait_for(|phase| *phase >= Phase::Draining)
            .await;
    }

    /// Waits until tasks and streams shall end.
    pub(crate) async fn stopping(&self) {
        // An error means that the scheduler itself is gone, which is the same.
        let _ = self
            .phase
            .clone()
            .wait_for(|phase| *phase >= Phase::Stopping)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_lost_touch_does_not_name_itself() {
        let (this, other) = (SchedulerId(1), SchedulerId(2));
        assert_eq!(named_leader(Some(this), this, true), 1);
        assert_eq!(named_leader(Some(this), this, false), 0);
        assert_eq!(named_leader(Some(other), this, false), 2);
        assert_eq!(named_leader(None, this, true), 0);
    }
}
