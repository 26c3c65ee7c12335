//! One activation in the ledger: where it is, who waits for it, which run it is.

use whiskraft_types::{ActivationId, ContainerId, Instant, InvokerId};

use super::Waiters;
use crate::waiting::Ticket;
use crate::{Outcome, Unacknowledged};

/// Where an activation is, as `find` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivationState<R> {
    /// Its acceptance is on its way to the journal.
    Journaling,
    /// In the queue (or held back until all invokers have registered).
    Waiting,
    /// Accepted, not to begin before this moment.
    Delayed(Instant),
    /// Sent to a container that has not said yet that it starts it.
    Delivered(ContainerId),
    /// Running.
    Started(ContainerId),
    /// Its run is over, and what follows is on its way to the journal.
    Ending,
    /// It ended.
    Done(Outcome<R>),
}

/// Where an activation is.
#[derive(Debug, Clone)]
pub(crate) enum Stage<R> {
    /// Its acceptance is on its way to the journal.
    Journaling {
        /// Not to begin before this.
        not_before: Option<Instant>,
        /// The record of its latest run, and the invoker that keeps it, if one has said so meanwhile.
        found: Option<Box<Found<R>>>,
    },
    /// Not to be delivered before all invokers have registered: one of them may have it.
    Held,
    /// In the queue.
    Waiting,
    /// Accepted, not to begin before this.
    Delayed(Instant),
    /// Sent.
    Delivered(ContainerId),
    /// Reported by the invoker that has it; only that one knows whether it has started.
    Adopted(ContainerId),
    /// Running.
    Started(ContainerId),
    /// What follows its run is on its way to the journal.
    Ending(Ending<R>),
    /// Ended.
    Done(Done<R>),
}

impl<R> Stage<R> {
    /// The container that has it.
    pub(crate) const fn container(&self) -> Option<ContainerId> {
        match self {
            Self::Delivered(container) | Self::Adopted(container) | Self::Started(container) => {
                Some(*container)
            }
            Self::Journaling { .. }
            | Self::Held
            | Self::Waiting
            | Self::Delayed(_)
            | Self::Ending(_)
            | Self::Done(_) => None,
        }
    }

    /// Whether nothing can happen to it any more but that the journal has its end.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Done(_)
                | Self::Ending(Ending {
                    next: Next::End { .. },
                    ..
                })
        )
    }
}

/// The record of a run that an invoker keeps.
#[derive(Debug, Clone)]
pub(crate) struct Found<R> {
    /// Who.
    pub(crate) invoker: InvokerId,
    /// What.
    pub(crate) kept: Unacknowledged<R>,
}

/// The end of an activation.
#[derive(Debug, Clone)]
pub(crate) struct Done<R> {
    /// How.
    pub(crate) outcome: Outcome<R>,
    /// Whether another run may follow, if it turns out to be durable.
    pub(crate) kind: EndKind,
    /// Who still keeps this result for us.
    pub(crate) invoker: Option<InvokerId>,
    /// When.
    pub(crate) at: Instant,
}

/// The end of a run, until the journal has what follows.
#[derive(Debug, Clone)]
pub(crate) struct Ending<R> {
    /// How the run ended.
    pub(crate) done: Done<R>,
    /// What follows.
    pub(crate) next: Next,
}

/// What follows the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    End {
        /// Its runs are used up.
        dead_letter: bool,
    },
    /// Another run.
    Retry {
        /// Which.
        run: u32,
        /// Not before this.
        not_before: Instant,
    },
}

impl Next {
    /// The run that the journal has then, if this is the one that ends.
    pub(crate) const fn run(self, current: u32) -> u32 {
        match self {
            Self::End { .. } => current,
            Self::Retry { run, .. } => run,
        }
    }
}

/// What the end of a run means for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// It did what it should: there is none.
    Success,
    /// It was cancelled: there is none.
    Cancelled,
    /// It did not begin and never will: it was too old, or its action is gone.
    Final,
    /// It failed: the policy decides.
    Failed,
    /// It may have run, and nobody can say: there is another one only for those who asked for that.
    Lost,
}

/// Whether the journal knows that an activation ends as cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Not, as far as this leader knows.
    None,
    /// It is being told.
    UnderWay,
    /// It does.
    Written,
}

/// One activation.
#[derive(Debug, Clone)]
pub(crate) struct Entry<P, R> {
    /// Where it is.
    pub(crate) stage: Stage<R>,
    /// Who waits for it.
    pub(crate) waiters: Waiters,
    /// What to run it with; `None` while only an invoker has told of it.
    pub(crate) payload: Option<P>,
    /// Who waits for its end; `None` once it has ended.
    pub(super) caller: Option<ActivationId>,
    /// Order and time of acceptance.
    pub(crate) ticket: Ticket,
    /// Newest attempt that was submitted.
    pub(crate) attempt: u32,
    /// Run that is under way or next, from 1.
    pub(crate) run: u32,
    /// Times that an invoker refused it.
    pub(crate) refusals: u8,
    /// Whether only an invoker has said that it has the run under way, without saying which run that is.
    pub(crate) is_adopted: bool,
    /// Whether a former leader has sent it, as it handed over: its invoker has not been heard of it here.
    pub(crate) is_imported: bool,
    /// Other containers that have it, as their invokers have said without saying which run that is.
    pub(crate) noted: Vec<ContainerId>,
    /// Whether the run under way may have begun where it was lost, before it turned up where it is.
    pub(crate) is_doubtful: bool,
    /// Whether it ends as cancelled, whatever becomes of it.
    pub(crate) is_cancelled: bool,
    /// Whether the journal knows that.
    pub(crate) mark: Mark,
    /// Whether it may have begun, as far as was known when its run was over.
    pub(crate) may_have_begun: bool,
    /// Wishes to cancel that are answered when the journal has its end, or knows of the wish.
    pub(crate) asks: Vec<u64>,
    /// When an invoker got it, as far as this leader knows, or when it ended if none did; means nothing before.
    pub(crate) sent_at: Instant,
    /// When its invoker was last heard of it, or got it.
    pub(crate) heard_at: Instant,
    /// Whether it was told that its invoker has not been heard of for too long.
    pub(crate) is_silence_told: bool,
}

impl<P, R> Entry<P, R> {
    /// A new activation.
    pub(crate) const fn new(
        now: Instant,
        stage: Stage<R>,
        waiters: Waiters,
        payload: Option<P>,
        ticket: Ticket,
        attempt: u32,
    ) -> Self {
        Self {
            stage,
            waiters,
            payload,
            caller: None,
            ticket,
            attempt,
            run: 1,
            refusals: 0,
            is_adopted: false,
            is_imported: false,
            noted: Vec::new(),
            is_doubtful: false,
            is_cancelled: false,
            mark: Mark::None,
            may_have_begun: false,
            asks: Vec::new(),
            sent_at: now,
            heard_at: now,
            is_silence_told: false,
        }
    }

    /// The same, called by another activation.
    pub(crate) fn called_by(mut self, caller: Option<ActivationId>) -> Self {
        self.caller = caller;
        self
    }

    /// The same in its `run`-th run.
    pub(crate) const fn in_run(mut self, run: u32) -> Self {
        self.run = run;
        self
    }

    /// Whether it is in the journal, or on its way there.
    pub(crate) const fn is_durable(&self) -> bool {
        self.ticket.is_durable
    }

    /// Which activation waits for its end.
    pub(crate) const fn caller(&self) -> Option<ActivationId> {
        self.caller
    }

    /// Whether another activation waits for its end.
    pub(crate) const fn is_called(&self) -> bool {
        self.caller.is_some()
    }

    /// A container got it.
    pub(crate) fn send(&mut self, now: Instant, stage: Stage<R>) {
        self.stage = stage;
        (self.sent_at, self.heard_at) = (now, now);
        self.is_silence_told = false;
        (self.is_adopted, self.is_imported) = (false, false);
        (self.noted, self.is_doubtful) = (Vec::new(), false);
    }
}
