//! What the pool wants done.

use whiskraft_types::{
    ActivationId, ContainerId, CreationError, Epoch, Instant, QueueKey, Revision, SchedulerId,
};

use crate::{MemoryUse, WorkerId};

/// One thing for the shell to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<A, D, R> {
    // To the owner tasks of containers.
    /// Start an owner task and let it create the container.
    Create {
        /// The new owner.
        worker: WorkerId,
        /// The container.
        container: ContainerId,
        /// The queue it works for.
        key: QueueKey,
        /// What it is created from.
        action: A,
    },
    /// Run an activation; [`crate::Input::Finished`] or [`crate::Input::NotStarted`] must follow.
    Run {
        /// Owner of the container.
        worker: WorkerId,
        /// The activation.
        id: ActivationId,
        /// Whether the code has to be loaded first.
        init: bool,
        /// Past this moment it may not start any more: the invoker is fenced.
        start_by: Instant,
        /// Payload and context.
        content: D,
    },
    /// The activation was cancelled; [`Output::Remove`] follows. It ends as [`crate::Input::NotStarted`] if it has not
    /// begun, else as [`crate::Input::Finished`] with a record that says so.
    Stop {
        /// Owner of the container.
        worker: WorkerId,
        /// The activation.
        id: ActivationId,
    },
    /// Pause the container.
    Pause {
        /// Its owner.
        worker: WorkerId,
    },
    /// Resume the container, which has a new id.
    Resume {
        /// Its owner.
        worker: WorkerId,
        /// The new id.
        container: ContainerId,
    },
    /// Remove the container, whatever it does, until nothing is left of it.
    Remove {
        /// Its owner.
        worker: WorkerId,
    },

    // To schedulers, on the pull stream of `to`.
    /// The container asks for more activations.
    Credit {
        /// Leader of the queue.
        to: SchedulerId,
        /// The container.
        container: ContainerId,
        /// The queue.
        key: QueueKey,
        /// Epoch.
        epoch: Epoch,
        /// How many more.
        count: u32,
        /// Whether its code is loaded.
        warmed: bool,
    },
    /// The activation counts as started from here on; never followed by `Refused`.
    Started {
        /// Leader of the queue.
        to: SchedulerId,
        /// The activation.
        id: ActivationId,
        /// Where.
        container: ContainerId,
        /// Epoch.
        epoch: Epoch,
    },
    /// The activation has a result.
    Completed(Completed<R>),
    /// The activation was certainly not started.
    Refused {
        /// Who delivered it, or who leads the queue now.
        to: SchedulerId,
        /// The activation.
        id: ActivationId,
        /// Where it was delivered.
        container: ContainerId,
        /// Epoch of the delivery.
        epoch: Epoch,
        /// Why, for the log.
        reason: String,
    },
    /// The container takes its open asks back.
    Withdraw {
        /// Leader of the queue.
        to: SchedulerId,
        /// The container.
        container: ContainerId,
    },
    /// Everything this invoker has of one queue.
    Register(Registration<R>),

    // To schedulers, on a control stream.
    /// What became of a container; repeated until acknowledged.
    Report(Report),
    /// Memory and health have changed.
    Memory(MemoryUse),

    /// No container is left after the session's end or a drain.
    Emptied,
}

/// The result of an activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed<R> {
    /// Leader of the queue.
    pub to: SchedulerId,
    /// Where it ran, or for a repeated delivery where that was delivered.
    pub container: ContainerId,
    /// The queue.
    pub key: QueueKey,
    /// Epoch.
    pub epoch: Epoch,
    /// The record.
    pub record: R,
    /// Further asks of the container.
    pub credits: u32,
}

/// Everything this invoker has of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration<R> {
    /// Leader of the queue.
    pub to: SchedulerId,
    /// The queue.
    pub key: QueueKey,
    /// Epoch.
    pub epoch: Epoch,
    /// Containers that pull.
    pub containers: Vec<RegisteredContainer>,
    /// Results that were not acknowledged.
    pub unacknowledged: Vec<R>,
}

/// A container that pulls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredContainer {
    /// The container.
    pub container: ContainerId,
    /// Revision of its action.
    pub revision: Revision,
    /// Activations that it has and that have not finished.
    pub in_flight: Vec<ActivationId>,
    /// Its open asks; earlier ones count no more.
    pub credits: u32,
    /// Whether its code is loaded.
    pub warmed: bool,
}

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Number of the report, for its ack.
    pub seq: u64,
    /// Who should hear it first.
    pub leader: SchedulerId,
    /// The container.
    pub container: ContainerId,
    /// Its queue.
    pub key: QueueKey,
    /// What happened.
    pub change: Change,
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Created or resumed; it pulls.
    Running,
    /// Paused with its code loaded; it holds no slot.
    Warm,
    /// Gone, or (from warm) about to go, while results of it are kept that nobody has confirmed: [`Change::Removed`] follows
    /// when the last of them is acknowledged.
    Ended {
        /// Why.
        reason: String,
    },
    /// Gone, or (from warm) about to go; nothing is kept of it.
    Removed {
        /// Why.
        reason: String,
    },
    /// It could not be created.
    Failed {
        /// Kind of failure.
        error: CreationError,
        /// For the person who reads the activation record.
        message: String,
    },
}
