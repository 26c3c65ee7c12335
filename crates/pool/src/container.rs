//! One container as the pool sees it. Transitions are in `create`, `activation`, `idle` and `remove`.
//!
//! A state is entered only after the operation that defines it has finished; while one is under way the container
//! is in the state named after it (creating, initialising, pausing, resuming, removing).

use std::fmt;

use whiskraft_types::{
    ActivationId, ByteSize, ContainerId, CreationError, Epoch, Instant, QueueKey, Revision, SchedulerId,
};

/// Names the owner task of a container. Stays the same when a resumed container takes a new [`ContainerId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

/// Where a container is in its life. Running is `Ready` (or `Initialising`) with activations in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Admitted; waits for the memory of containers that are being removed. Nothing real exists.
    Waiting,
    /// Being created.
    Creating,
    /// Exists, without code.
    Fresh,
    /// Loads its code for its first activation.
    Initialising,
    /// The code is loaded.
    Ready,
    /// Being paused.
    Pausing,
    /// Paused; holds no slot and may be evicted.
    Paused,
    /// Being resumed.
    Resuming,
    /// Being removed; counts until it is gone.
    Removing,
}

impl Life {
    /// Whether it may hold asks and run activations.
    pub(crate) const fn is_live(self) -> bool {
        matches!(self, Self::Fresh | Self::Initialising | Self::Ready)
    }

    /// Whether a timer may outlast the entry into this state.
    pub(crate) const fn keeps_timer(self) -> bool {
        self.is_live() || matches!(self, Self::Creating)
    }
}

/// What to report when nothing is left of a container.
#[derive(Debug, Clone)]
pub(crate) enum Farewell {
    /// Nobody waits to hear of it.
    Nothing,
    /// Its slot is free again.
    Removed(String),
    /// It never came to be.
    Failed(CreationError, String),
}

#[derive(Debug)]
pub(crate) struct Container<A> {
    pub(crate) id: ContainerId,
    pub(crate) key: QueueKey,
    /// Leader and epoch of its queue, copied here so that the hot path needs no lookup by key.
    pub(crate) leader: SchedulerId,
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) memory: ByteSize,
    pub(crate) concurrency: u32,
    pub(crate) life: Life,
    /// At most `concurrency` entries.
    pub(crate) running: Vec<ActivationId>,
    /// Asks that the leader holds, as far as we know.
    pub(crate) asks: u32,
    /// A withdraw is on its way; no ask may follow it before its ack.
    pub(crate) withdrawing: bool,
    /// Why it pulls no more; it is removed when nothing runs in it.
    pub(crate) retired: Option<String>,
    /// Its session has ended: nobody wants its results.
    pub(crate) orphaned: bool,
    pub(crate) farewell: Farewell,
    /// Last time that it was created, resumed or had an activation.
    pub(crate) used_at: Instant,
    /// When its only pending timer fires: creation deadline, idle check or end of keeping.
    pub(crate) timer: Option<Instant>,
    /// When the leader gives the reservation up.
    pub(crate) deadline: Instant,
    /// What it is created from, until it has been given to the owner task or the resume has succeeded.
    pub(crate) action: Option<A>,
}

impl<A> Container<A> {
    /// Asks it could have more, if nothing else forbids them: one before its code is loaded, then its concurrency.
    pub(crate) fn room(&self) -> u32 {
        let limit = match self.life {
            Life::Fresh | Life::Initialising => 1,
            Life::Ready => self.concurrency,
            Life::Waiting
            | Life::Creating
            | Life::Pausing
            | Life::Paused
            | Life::Resuming
            | Life::Removing => 0,
        };
        if self.withdrawing || self.retired.is_some() {
            return 0;
        }
        let running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        limit.saturating_sub(running).saturating_sub(self.asks)
    }

    pub(crate) fn is_warmed(&self) -> bool {
        self.life == Life::Ready
    }
}
