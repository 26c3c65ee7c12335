//! What the pool is told.

use std::time::Duration;

use whiskraft_types::{
    ActivationId, ByteSize, ContainerId, CreationError, Epoch, Instant, QueueKey, Revision, SchedulerId,
};

use crate::WorkerId;

/// One thing that happened outside.
#[derive(Debug, Clone)]
pub enum Input<A, D, R> {
    // From schedulers.
    /// A queue leader wants a container here.
    Create(CreateContainer<A>),
    /// A scheduler wants a container gone.
    Remove {
        /// The container.
        container: ContainerId,
        /// Whether what runs in it is killed; otherwise it finishes first.
        now: bool,
    },
    /// A queue leader hands an activation to a container.
    Deliver(Deliver<D>),
    /// An activation was cancelled. One that has not started is refused, one that runs alone ends with its container; where
    /// others run as well it goes on. One that is not here changes nothing.
    Stop {
        /// Sender.
        from: SchedulerId,
        /// The activation.
        id: ActivationId,
        /// The container that has it.
        container: ContainerId,
        /// Epoch of the sender's leadership.
        epoch: Epoch,
    },
    /// A scheduler has these results; they are forgotten.
    ResultsAcked {
        /// Whose results.
        ids: Vec<ActivationId>,
    },
    /// The leader has taken back the open asks of a container.
    WithdrawAcked {
        /// Sender.
        from: SchedulerId,
        /// The container.
        container: ContainerId,
    },
    /// The sender says that it leads the queue now.
    Reregister {
        /// Sender.
        from: SchedulerId,
        /// The queue.
        key: QueueKey,
        /// Epoch of its leadership.
        epoch: Epoch,
    },
    /// The sender has no such queue: its containers are of no use.
    QueueGone {
        /// Sender.
        from: SchedulerId,
        /// The queue.
        key: QueueKey,
    },
    /// The sender refused the asks of a container for a reason that passes.
    PullRefused {
        /// Sender.
        from: SchedulerId,
        /// The container.
        container: ContainerId,
    },
    /// A pull stream to the scheduler is open; whatever the one before it carried may be lost.
    PullOpened {
        /// The scheduler.
        scheduler: SchedulerId,
    },
    /// Reports that a scheduler has dealt with.
    ReportsAcked {
        /// Their numbers.
        seqs: Vec<u64>,
    },
    /// Reports that are not acknowledged yet have to go out again: a stream opened or an ack is overdue.
    RepeatReports,

    // From the session.
    /// A session is open; the invoker starts with nothing.
    SessionOpened,
    /// A keepalive (or the opening) that was sent at `sent_at` was acknowledged.
    LeaseRenewed {
        /// When it was sent.
        sent_at: Instant,
        /// The session's time to live.
        ttl: Duration,
    },
    /// The session has ended: everything goes, nothing is reported.
    SessionExpired,
    /// The invoker shuts down: nothing new starts, idle containers go, busy ones when they are done.
    Drain,
    /// The grace of the shutdown is over: everything goes at once.
    DrainEnded,

    // From the owner tasks of containers. A worker's inputs come in order, `Gone` last.
    /// The container exists.
    Created {
        /// Its owner.
        worker: WorkerId,
    },
    /// The container could not be created and nothing is left of it.
    CreationFailed {
        /// Its owner.
        worker: WorkerId,
        /// Kind of failure.
        error: CreationError,
        /// For the person who reads the activation record.
        message: String,
    },
    /// The code is loaded; what it was loaded for is not run yet.
    Initialised {
        /// Its owner.
        worker: WorkerId,
    },
    /// A run is certainly under way. Need not be said of one that ends soon, and only of
    /// one that will not come back as [`Input::NotStarted`].
    Begun {
        /// Its owner.
        worker: WorkerId,
        /// The activation.
        id: ActivationId,
    },
    /// An activation has ended.
    Finished(Finished<R>),
    /// An activation was certainly not started: not one byte of it reached the container.
    NotStarted {
        /// Its owner.
        worker: WorkerId,
        /// The activation.
        id: ActivationId,
        /// Whether the container can still be used.
        reusable: bool,
        /// Why.
        reason: String,
    },
    /// The container is paused.
    Paused {
        /// Its owner.
        worker: WorkerId,
    },
    /// It could not be paused.
    PauseFailed {
        /// Its owner.
        worker: WorkerId,
    },
    /// The container runs again.
    Resumed {
        /// Its owner.
        worker: WorkerId,
    },
    /// It could not be resumed.
    ResumeFailed {
        /// Its owner.
        worker: WorkerId,
    },
    /// The container died by itself.
    Died {
        /// Its owner.
        worker: WorkerId,
        /// What is known about it.
        reason: String,
    },
    /// Nothing is left of the container, and nothing more will be said about it.
    Gone {
        /// Its owner.
        worker: WorkerId,
    },

    /// [`crate::Pool::next_deadline`] has passed.
    Tick,
}

/// What a queue leader wants.
#[derive(Debug, Clone)]
pub struct CreateContainer<A> {
    /// The new container's id, whose slot is reserved.
    pub container: ContainerId,
    /// The queue it pulls from.
    pub key: QueueKey,
    /// Epoch of the queue's leadership.
    pub epoch: Epoch,
    /// Scheduler to pull from.
    pub leader: SchedulerId,
    /// Revision of the action.
    pub revision: Revision,
    /// Memory it takes.
    pub memory: ByteSize,
    /// Activations it runs at once, at least 1.
    pub concurrency: u32,
    /// Paused container to take instead of a new one.
    pub resume: Option<ContainerId>,
    /// Paused containers to evict first when there is no room, in this order; those that are not here or not paused
    /// are passed over.
    pub evict_first: Vec<ContainerId>,
    /// When the leader gives the reservation up.
    pub deadline: Instant,
    /// What the container is created from.
    pub action: A,
}

/// An activation for a container.
#[derive(Debug, Clone)]
pub struct Deliver<D> {
    /// Sender.
    pub from: SchedulerId,
    /// The activation.
    pub id: ActivationId,
    /// The container whose ask it answers.
    pub container: ContainerId,
    /// Epoch of the sender's leadership.
    pub epoch: Epoch,
    /// Which run of the activation this is, from 1.
    ///
    /// A leader counts up: within an epoch it delivers no run before one that it has delivered, and no run again whose result
    /// it has acknowledged, since its ledger (of a durable activation: the journal) has the end of that run first. So the pool
    /// need not remember what was acknowledged. The next leader may count an activation that is not durable from 1 again, and
    /// an id that comes back when the ledger has forgotten it is a new activation.
    pub run: u32,
    /// Payload and context.
    pub content: D,
}

/// How an activation ended in its container.
#[derive(Debug, Clone)]
pub struct Finished<R> {
    /// Owner of the container.
    pub worker: WorkerId,
    /// The activation.
    pub id: ActivationId,
    /// Its record.
    pub record: R,
    /// Bytes that the record takes.
    pub len: u64,
    /// Whether the container can still be used.
    pub reusable: bool,
    /// Whether the platform did its part: false only for a whisk error.
    pub healthy: bool,
}
