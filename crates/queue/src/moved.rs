//! An activation on its way from one leader of a queue to the next, by hand-off.
//!
//! Times are ages, so that nothing depends on the clocks of the two hosts.

use std::time::Duration;

use whiskraft_types::{ActivationId, ContainerId, InvokerId};

use crate::{ControllerId, Outcome, RunEnd};

/// What the old leader knows of an activation.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved<P, R> {
    /// Which.
    pub id: ActivationId,
    /// Where it is.
    pub place: MovedPlace<R>,
    /// Time since a scheduler first accepted it.
    pub waited: Duration,
    /// Time since it may wait for a container; less than `waited` if it was delayed.
    pub ready: Duration,
    /// Newest attempt that was submitted.
    pub attempt: u32,
    /// Run that is under way or next, from 1; of an outcome the one that it is of.
    pub run: u32,
    /// Times that an invoker refused it.
    pub refusals: u8,
    /// Whether it is in the journal.
    pub durable: bool,
    /// Whether it ends as cancelled, whatever becomes of it.
    pub cancelled: bool,
    /// The activation that waits for its end, if one does.
    pub caller: Option<ActivationId>,
    /// Who waits for it, the longest waiting first.
    pub controllers: Vec<ControllerId>,
    /// What to run it with; `None` if only an invoker has told of it.
    pub payload: Option<P>,
}

/// Where an activation is when its queue moves.
#[derive(Debug, Clone, PartialEq)]
pub enum MovedPlace<R> {
    /// In the queue: no invoker has it.
    Waiting,
    /// Held back: an invoker may have it.
    Held,
    /// Not to begin before this time has passed.
    Delayed(Duration),
    /// Sent to a container.
    InFlight {
        /// Which.
        container: ContainerId,
        /// Whether it may have started, as its invoker has said.
        started: bool,
    },
    /// It ended, and not everybody who waits, nor the journal, has confirmed it.
    Ended {
        /// How.
        outcome: Outcome<R>,
        /// How its run ended; `None` if it did not begin, or nobody can say.
        end: Option<RunEnd>,
        /// Whether nobody can say.
        lost: bool,
        /// Who keeps the record.
        invoker: Option<InvokerId>,
        /// Time since then.
        age: Duration,
    },
}
