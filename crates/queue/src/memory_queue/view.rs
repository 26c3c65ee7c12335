//! What can be seen of a queue from outside: `status`, and the lookup of an activation by id.

use whiskraft_types::{ActivationId, ContainerId, Instant, WaitReason};

use super::MemoryQueue;
use crate::ledger::{Ending, Stage};
use crate::{ActionProfile, ActivationState, ControllerId, Decision, QueueState};

/// What `status` shows of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Its state.
    pub state: QueueState,
    /// Waiting activations, held back ones included.
    pub waiting: usize,
    /// Of these, held back until every invoker has registered.
    pub held: usize,
    /// Acceptances on their way to the journal.
    pub journaling: usize,
    /// Accepted ones that are not to begin yet.
    pub delayed: usize,
    /// Delivered or started ones.
    pub in_flight: usize,
    /// Ends of runs on their way to the journal.
    pub ending: usize,
    /// Outcomes kept.
    pub done: usize,
    /// Running containers.
    pub running: usize,
    /// Containers in progress, asked for ones included.
    pub in_progress: usize,
    /// Asks of containers that nothing has answered yet.
    pub credits: usize,
    /// Whether new activations are refused because too many wait.
    pub is_throttled: bool,
    /// Average length of a run in milliseconds.
    pub average_ms: Option<f64>,
    /// When the oldest waiting activation was accepted.
    pub oldest: Option<Instant>,
    /// Why it waits; `None` if nothing does.
    pub wait: Option<Wait>,
    /// The last scaling decision, and when it was made.
    pub last_decision: Option<(Decision, Instant)>,
    /// Containers of older revisions that are ending.
    pub old: usize,
}

/// The times of an activation that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationEnd {
    /// When it was accepted first, by whomever.
    pub accepted_at: Instant,
    /// When a container got it; when it ended if none did.
    pub begun_at: Instant,
    /// When it ended.
    pub ended_at: Instant,
}

/// Why the oldest waiting activation of a queue waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// From the closed list.
    pub reason: WaitReason,
    /// The same for people, with the numbers or the error.
    pub detail: String,
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// Where an activation is, as far as this leadership knows.
    #[must_use]
    pub fn find(&self, id: ActivationId) -> Option<ActivationState<R>> {
        self.ledger.find(id).map(|entry| match &entry.stage {
            Stage::Journaling { .. } => ActivationState::Journaling,
            Stage::Held | Stage::Waiting => ActivationState::Waiting,
            Stage::Delayed(until) => ActivationState::Delayed(*until),
            Stage::Delivered(container) => ActivationState::Delivered(*container),
            Stage::Adopted(container) | Stage::Started(container) => ActivationState::Started(*container),
            Stage::Ending(_) => ActivationState::Ending,
            Stage::Done(done) => ActivationState::Done(done.outcome.clone()),
        })
    }

    /// The action as it was last told of.
    #[must_use]
    pub const fn action(&self) -> &ActionProfile {
        &self.action
    }

    /// What `status` shows.
    #[must_use]
    pub fn view(&self) -> QueueView {
        let counts = self.containers.counts();
        QueueView {
            state: self.state(),
            waiting: self.len(),
            held: self.held.len(),
            journaling: self.ledger.journaling_len(),
            delayed: self.ledger.delayed_len(),
            in_flight: self.ledger.in_flight_len(self.len()),
            ending: self.ledger.ending_len(),
            done: self.ledger.done_len(),
            running: counts.running,
            in_progress: counts.in_progress + self.reserving as usize,
            credits: self.containers.credits(),
            is_throttled: self.is_throttled,
            average_ms: self.average.mean_ms(),
            oldest: self.oldest(),
            wait: self.wait(),
            last_decision: self.last_decision,
            old: self.containers.ending(),
        }
    }

    /// Whether a container has its code loaded, as far as it has said.
    #[must_use]
    pub fn is_warmed(&self, container: ContainerId) -> bool {
        self.containers.find(container).is_some_and(|known| known.warmed)
    }

    /// Average length of a run in milliseconds, if one is known. Cheap enough for every completion.
    #[must_use]
    pub fn average_ms(&self) -> Option<f64> {
        self.average.mean_ms()
    }

    /// How many are served before a waiting activation; `None` if it does not wait.
    #[must_use]
    pub fn position(&self, id: ActivationId) -> Option<usize> {
        let entry = self.ledger.find(id)?;
        matches!(entry.stage, Stage::Waiting).then(|| self.waiting.position(&entry.ticket))
    }

    /// Activations that wait, held back ones included: what [`QueueView::waiting`] says, without the rest.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.len()
    }

    /// Whether it waits for invokers to register with this leader.
    #[must_use]
    pub fn expects_invokers(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Since when activations are held back for invokers that have not registered with this leader; `None` if none are.
    #[must_use]
    pub fn holds_since(&self) -> Option<Instant> {
        let holds = !self.expected.is_empty() && !self.held.is_empty();
        holds.then_some(self.taken_over_at)
    }

    /// When the oldest waiting activation was accepted.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.oldest().into_iter().chain(self.held.oldest()).min()
    }

    /// Activations and outcomes that the ledger holds.
    #[must_use]
    pub fn ledger_len(&self) -> usize {
        self.ledger.open_len() + self.ledger.done_len()
    }

    /// Whether an activation that the ledger knows is durable, and which run of it is under way or next.
    #[must_use]
    pub fn run_of(&self, id: ActivationId) -> Option<(bool, u32)> {
        let entry = self.ledger.find(id)?;
        Some((entry.is_durable(), entry.run))
    }

    /// When an activation that the ledger knows was accepted, and its newest attempt.
    #[must_use]
    pub fn accepted(&self, id: ActivationId) -> Option<(Instant, u32)> {
        let entry = self.ledger.find(id)?;
        Some((entry.ticket.accepted_at, entry.attempt))
    }

    /// When the last run of an activation began and ended, as far as this leader knows; `None` if it has not ended.
    #[must_use]
    pub fn end(&self, id: ActivationId) -> Option<ActivationEnd> {
        let entry = self.ledger.find(id)?;
        let (Stage::Done(done) | Stage::Ending(Ending { done, .. })) = &entry.stage else {
            return None;
        };
        Some(ActivationEnd {
            accepted_at: entry.ticket.accepted_at,
            begun_at: entry.sent_at,
            ended_at: done.at,
        })
    }

    /// How many activations have not ended.
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.ledger.open_len()
    }

    /// Activations that have not ended, each with every controller that waits for it: whom the shell has to tell when
    /// the leadership ends.
    pub fn unfinished(&self) -> impl Iterator<Item = (ControllerId, ActivationId)> {
        let ids = self
            .ledger
            .ids_where(|stage| !matches!(stage, Stage::Done(_)))
            .into_iter();
        let waiters = |id| {
            self.ledger
                .find(id)
                .map(|entry| entry.waiters.iter().map(move |waiter| (waiter, id)))
        };
        ids.filter_map(waiters).flatten()
    }

    /// Activations that were delivered and have not said yet that they start.
    #[must_use]
    pub fn delivered_len(&self) -> usize {
        self.ledger
            .ids_where(|stage| matches!(stage, Stage::Delivered(_)))
            .len()
    }

    fn state(&self) -> QueueState {
        if self.is_removing {
            QueueState::Removed
        } else if self.is_draining {
            QueueState::Draining
        } else if self.failure.is_some() {
            QueueState::Flushing
        } else if self.is_throttled {
            QueueState::ActionThrottled
        } else if self.quiet_since.is_some() {
            QueueState::Idle
        } else if self.is_namespace_full {
            QueueState::NamespaceThrottled
        } else {
            QueueState::Running
        }
    }
}
