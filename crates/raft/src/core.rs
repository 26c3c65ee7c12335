//! The running consensus core of a group and what the parts of a node ask it for: who leads, whether this node may act
//! as the leader, a write into its own log.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::{Instant as _, RaftMetrics, ReadPolicy, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;
use whiskraft_state::{Command, Response};
use whiskraft_types::LogRevision;

use crate::clock;
use crate::config::Settings;
use crate::disk::DiskSpace;
use crate::fatal::Fatal;
use crate::held::Held;
use crate::peers::Peers;
use crate::store::{Applied, GroupMachine, LaneTime, Shared};
use crate::types::{Answer, Packed, Proposal, Types};

/// openraft, with our types.
pub(crate) type Raft = openraft::Raft<Types, GroupMachine>;

/// A Raft group on this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Group {
    /// Its number.
    pub(crate) group: u32,
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    /// How far this node has applied.
    pub(crate) applied: watch::Sender<Applied>,
    pub(crate) fatal: Fatal,
    pub(crate) settings: Arc<Settings>,
    pub(crate) disk: DiskSpace,
    /// What its log keeps for followers that are sent a snapshot.
    pub(crate) held: Held,
    /// The clock of a lane; group 0 has none.
    pub(crate) time: Option<Arc<LaneTime>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("group", &self.group)
            .field("id", &self.peers.id())
            .finish_non_exhaustive()
    }
}

/// Group 0 and its tables. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    pub(crate) group: Group,
    pub(crate) shared: Arc<Shared>,
    /// Name that the operator gave the cluster.
    pub(crate) cluster_name: Arc<str>,
    /// Held while this node, as the leader, changes the membership.
    pub(crate) changing: Arc<tokio::sync::Mutex<()>>,
    /// The lanes, which have the members of group 0 a moment later; set once they run.
    pub(crate) lanes: Arc<OnceLock<Vec<Group>>>,
}

impl std::ops::Deref for Core {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.group
    }
}

impl Core {
    /// Writes a command into this node's log, if it leads, and waits until it is applied here.
    pub(crate) async fn write(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<(LogRevision, Response), NotDone> {
        let written = self.group.write(Proposal::Command(command), timeout).await;
        written.map(|(revision, answer)| (revision, answer.response()))
    }
}

/// Why this node, asked as the leader, has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotDone {
    /// Certainly not done: this node does not lead; another may.
    NotLeader(Option<u64>),
    /// Certainly not done, for now: ask again.
    Busy(String),
    /// Certainly not done, and not before somebody makes room on the disk.
    Full(String),
    /// May still be done.
    Unknown(String),
}

/// What came of a write into this node's log.
pub(crate) type Written = Result<(LogRevision, Answer), NotDone>;

impl Group {
    /// This node.
    pub(crate) fn id(&self) -> u64 {
        self.peers.id()
    }

    /// Looks at openraft's metrics without copying them.
    pub(crate) fn metrics<T>(&self, look: impl FnOnce(&RaftMetrics<Types>) -> T) -> T {
        look(&self.raft.metrics().borrow_watched())
    }

    /// Who leads, as far as this node knows.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.metrics(|metrics| metrics.current_leader)
    }

    /// Peer address of a member.
    pub(crate) fn address(&self, id: u64) -> Option<String> {
        self.metrics(|metrics| {
            metrics
                .membership_config
                .get_node(&id)
                .map(|node| node.addr.clone())
        })
    }

    /// The term in which this node leads with a lease: a quorum has answered it so recently that nobody else can have
    /// been elected, and it has applied an entry of its own term, so its tables hold everything acknowledged before.
    pub(crate) fn lease(&self) -> Option<u64> {
        let applied = *self.applied.borrow();
        // Followers wait for the longest election timeout before they vote again; a heartbeat earlier is safe.
        let held = self.settings.election_max.saturating_sub(self.settings.heartbeat);
        self.metrics(|metrics| {
            let alone = metrics.membership_config.voter_ids().eq([metrics.id]);
            let acked = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < held);
            let leads = metrics.state == ServerState::Leader && applied.term == metrics.current_term;
            (leads && (alone || acked)).then_some(metrics.current_term)
        })
    }

    /// The term in which this node leads and has applied everything of the terms before.
    fn caught_up(&self) -> Option<u64> {
        let applied = self.applied.borrow().term;
        self.metrics(|metrics| {
            let leads = metrics.state == ServerState::Leader && applied == metrics.current_term;
            leads.then_some(metrics.current_term)
        })
    }

    /// Puts a proposal into this node's log, if it leads, and waits until it is applied here.
    pub(crate) async fn write(&self, proposal: Proposal, timeout: Duration) -> Written {
        let mut written = self.write_many(vec![proposal], timeout).await;
        written.pop().unwrap_or_else(unsaid)
    }

    /// Puts proposals into this node's log with one append, if it leads, and waits until they are applied here; an outcome
    /// for each.
    pub(crate) async fn write_many(&self, proposals: Vec<Proposal>, timeout: Duration) -> Vec<Written> {
        let deadline = clock::now() + timeout;
        let mut outcomes = Vec::with_capacity(proposals.len());
        let mut taken = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let checked = self.disk.check(&proposal).map_err(NotDone::Full);
            if checked.is_ok() {
                taken.push(self.stamped(proposal));
            }
            outcomes.push(checked);
        }
        let mut written = self.write_taken(taken, deadline).await.into_iter();
        let mut next = |()| written.next().unwrap_or_else(unsaid);
        outcomes
            .into_iter()
            .map(|checked| checked.and_then(&mut next))
            .collect()
    }

    async fn write_taken(&self, taken: Vec<Packed>, deadline: Instant) -> Vec<Written> {
        let count = taken.len();
        let late = || NotDone::Unknown("no quorum confirmed it in time".to_owned());
        let stopped = |error| NotDone::Unknown(format!("the consensus core stopped: {error}"));
        let begun = tokio::time::timeout_at(deadline, self.raft.client_write_many(taken)).await;
        let results = match begun {
            Ok(Ok(results)) => results,
            Ok(Err(error)) => return vec![Err(stopped(error)); count],
            Err(_) => return vec![Err(late()); count],
        };
        let results = until(deadline, count, results).await.into_iter();
        let written = results.map(|result| match result {
            Some(Ok(Ok(done))) => Ok((LogRevision(done.log_id.index), done.response)),
            Some(Ok(Err(error))) => Err(refused(error)),
            Some(Err(error)) => Err(stopped(error)),
            None => Err(late()),
        });
        written.collect()
    }

    /// A proposal as it goes into the log: a batch of a lane gets the lane's time.
    fn stamped(&self, mut proposal: Proposal) -> Packed {
        if let (Proposal::Journal(batch), Some(time)) = (&mut proposal, &self.time) {
            batch.now = time.stamp(self.caught_up());
        }
        proposal.into()
    }

    /// Index that covers every write acknowledged before the call; leader only.
    pub(crate) async fn read_index(&self, timeout: Duration) -> Result<LogRevision, NotDone> {
        let read = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(timeout, read).await {
            Ok(Ok((read, _))) => Ok(LogRevision(read.log_id().index)),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(forwarded(&forward))
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error)))) => {
                Err(NotDone::Busy(error.to_string()))
            }
            Ok(Err(RaftError::Fatal(error))) => {
                Err(NotDone::Busy(format!("the consensus core stopped: {error}")))
            }
            Err(_) => Err(NotDone::Busy(format!(
                "no quorum confirmed leadership within {timeout:?}"
            ))),
        }
    }
}

/// The first results of a stream, in order; none for those that have not come by the deadline, nor for any behind them: the next that
/// comes is that of the first which is missing.
async fn until<T>(
    deadline: Instant,
    count: usize,
    mut results: impl Stream<Item = T> + Unpin,
) -> Vec<Option<T>> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count
        && let Ok(Some(result)) = tokio::time::timeout_at(deadline, results.next()).await
    {
        taken.push(Some(result));
    }
    taken.resize_with(count, || None);
    taken
}

/// Stands for an answer that is missing, which there never is.
fn unsaid() -> Written {
    Err(NotDone::Unknown("the consensus core said nothing".to_owned()))
}

fn refused(error: ClientWriteError<Types>) -> NotDone {
    match error {
        ClientWriteError::ForwardToLeader(forward) => forwarded(&forward),
        ClientWriteError::LogEntryDiscarded(_) => {
            NotDone::Unknown("leadership changed while it was being replicated".to_owned())
        }
        error @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            NotDone::Busy(error.to_string())
        }
    }
}

fn forwarded(forward: &ForwardToLeader<Types>) -> NotDone {
    match forward.reason {
        ForwardReason::NotLeader => NotDone::NotLeader(forward.leader_id),
        ForwardReason::LeadershipTransfer => NotDone::Busy("leadership is being handed over".to_owned()),
        ForwardReason::LeaseExpired => NotDone::Busy("the leader has lost its quorum".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_result_that_comes_late_is_not_taken_for_that_of_the_next() {
        let mut polls = 0;
        // The second has not come when its time is up, and has a moment later.
        let results = futures::stream::poll_fn(move |_| {
            polls += 1;
            match polls {
                1 => Poll::Ready(Some(1)),
                2 => Poll::Pending,
                _ => Poll::Ready(Some(2)),
            }
        });
        let deadline = clock::now() - Duration::from_secs(1);
        let taken = until(deadline, 3, results).await;
        assert_eq!(taken, [Some(1), None, None]);
    }
}
