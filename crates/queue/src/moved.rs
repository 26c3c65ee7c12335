//! What a leader passes on when it hands its queue over: every activation it knows, where it is and who waits for it.
//!
//! Made by [`MemoryQueue::export`](crate::MemoryQueue::export) of a queue that has stopped, taken by
//! [`Input::Import`](crate::Input::Import) of the leadership that follows. Times are ages, as the two have no clock in common.

use std::time::Duration;

use whiskraft_types::{ActivationId, ContainerId, InvokerId};

use crate::{ControllerId, Outcome};

/// One activation on its way to another leader.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved<P, R> {
    /// Which.
    pub id: ActivationId,
    /// Where it is.
    pub stage: MovedStage<R>,
    /// Time since a scheduler first accepted it.
    pub waited: Duration,
    /// What to run it with; `None` while only an invoker has told of it, and once it has ended.
    pub payload: Option<P>,
    /// Newest attempt that was submitted.
    pub attempt: u32,
    /// The activation that waits for its end.
    pub caller: Option<ActivationId>,
    /// Who waits for its outcome, the longest waiting first.
    pub controllers: Vec<ControllerId>,
}

/// Where an activation is that moves.
#[derive(Debug, Clone, PartialEq)]
pub enum MovedStage<R> {
    /// Not to be delivered before all invokers have registered.
    Held,
    /// In the queue.
    Waiting,
    /// A container has it.
    InFlight {
        /// Which.
        container: ContainerId,
        /// Where that is.
        invoker: InvokerId,
        /// How far it has come.
        progress: Progress,
    },
    /// It ended.
    Done {
        /// How.
        outcome: Outcome<R>,
        /// Who still keeps this result.
        invoker: Option<InvokerId>,
        /// Time since then.
        ago: Duration,
    },
}

/// How far an activation has come that a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Sent: it runs again if its invoker does not have it.
    Delivered,
    /// Its invoker has it; only that one knows whether it has started.
    Adopted,
    /// Running.
    Started,
}
