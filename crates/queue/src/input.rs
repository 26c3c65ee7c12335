//! Everything a [`MemoryQueue`](crate::MemoryQueue) can be told. The scheduler's shard actor is the only sender.
//!
//! Contract with the sender: frames of another epoch or of an ended invoker session never get here; inputs of one
//! stream arrive in the order of that stream, table changes in the order of the log; a new leadership is a new
//! `MemoryQueue`, whose first input is [`Input::Takeover`] unless the queue was just created.

use std::fmt;
use std::time::Duration;

use whiskraft_types::{
    ActivationId, ActivationStatus, Blank, ContainerId, CreationError, Instant, InvokerId, Rare, Rejection,
    Revision,
};

use crate::{CancelAnswer, Moved, Outcome};

/// An SDK instance: the same for all its streams and reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerId(pub [u8; 16]);

impl fmt::Display for ControllerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One fact for the queue. `P` is what the caller submitted, `R` the record of a finished activation.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<P, R> {
    /// A controller submits an activation, or submits it again. Answered by `Accept` or `Reject`, for good or bad;
    /// once accepted, by exactly one `Complete` per controller that asks.
    Submit {
        /// Who asks.
        controller: ControllerId,
        /// The activation; the same for every attempt.
        id: ActivationId,
        /// From 1; above 1 an earlier leader may have started it.
        attempt: u32,
        /// Time since the first scheduler accepted it; zero for the first attempt. Its place and its retention count
        /// from then.
        waited: Duration,
        /// The activation that waits for the end of this one, if one does.
        caller: Option<ActivationId>,
        /// What to run it with. Another payload under the same id is a conflict.
        payload: P,
        /// What acceptance promises, and when it may begin.
        terms: Terms,
    },
    /// The controller has the outcome: its record can go, and the invoker may forget it too.
    Received {
        /// Who has it.
        controller: ControllerId,
        /// Of which activation.
        id: ActivationId,
    },

    /// A container asks for `count` more activations. The first ask of a container also says that it runs.
    Credit {
        /// Where it is: the invoker of the stream.
        invoker: InvokerId,
        /// Who asks.
        container: ContainerId,
        /// How many more.
        count: u32,
        /// Whether its code is loaded; such containers are served first.
        warmed: bool,
    },
    /// A container takes its open asks back. Answered by `WithdrawAck`, after which nothing is delivered to it
    /// until it asks again.
    Withdraw {
        /// Who.
        container: ContainerId,
    },
    /// A delivered activation is about to run: from here on it is never run again.
    Started {
        /// Where.
        container: ContainerId,
        /// What.
        id: ActivationId,
    },
    /// An activation ended in a container. May repeat until `AcknowledgeInvoker`.
    Completed {
        /// The invoker of the stream.
        invoker: InvokerId,
        /// Where it ran.
        container: ContainerId,
        /// What.
        id: ActivationId,
        /// Which run of it, from 1.
        run: u32,
        /// How that run ended, by its record.
        end: RunEnd,
        /// Its record.
        record: R,
        /// Length of the run without init, for the average; `None` for a run that says nothing about the action.
        duration: Option<Duration>,
        /// Further asks of the same container.
        credits: u32,
    },
    /// A delivered activation was certainly not started: it goes back to the head of the queue.
    Refused {
        /// Who refused.
        container: ContainerId,
        /// What.
        id: ActivationId,
    },

    /// First input of a leadership that follows another one: who may have work of the predecessors.
    Takeover {
        /// Invokers that may have activations or results of this queue: at least those that hold a container of it,
        /// paused ones included, in the apply that changed the epoch. One that holds only an unacknowledged result
        /// belongs here too, else its activation could run again. Until each has registered or is gone, resubmitted
        /// activations are held back; containers are asked for after a bounded wait.
        expected: Vec<InvokerId>,
        /// Invokers that held one and whose session ended in that apply or shortly before (within the session TTL
        /// of the former leader, who may not have lived to report it). What they ran is not known.
        lost: Vec<InvokerId>,
        /// The containers of the queue at that log revision, warm ones left out. The sender gives those in progress
        /// creation jobs of its own, and gives up the ones that were never placed.
        containers: Vec<KnownContainer>,
        /// Whether `Recovered` follows. Until it has come no result of an activation that nobody has submitted here is
        /// acknowledged: the journal may not have its end.
        recovers: bool,
    },
    /// What the former leader has handed over, all at once or in parts, right after `Takeover`; known ids change nothing.
    Import(Vec<Moved<P, R>>),
    /// Durable activations of this queue that the journal has and that have not ended, accepted under former leaders:
    /// all of them, in any order. Comes once after `Takeover`, empty if there are none, and before any durable
    /// submission. Several in one turn count as one; later ones may tell of acceptances that the journal has taken after it
    /// had left them [`Unknown`](Verdict::Unknown).
    Recovered(Vec<Recovered<P>>),
    /// The answer to one [`Journal`](crate::Output::Journal): exactly one for each, in any order. One for an activation
    /// with nothing under way changes nothing.
    Journaled {
        /// Of which activation.
        id: ActivationId,
        /// What it came to.
        verdict: Verdict<R>,
    },
    /// The answer to one [`Mark`](crate::Output::Mark).
    Marked {
        /// Of which activation.
        id: ActivationId,
        /// What those hear who have asked: `Stopping` once it is on the disks of a quorum, `Ended` if the activation had
        /// ended before, `Unavailable` if the journal does not have it.
        answer: CancelAnswer,
    },
    /// Somebody entitled wants the activation to end. Answered by exactly one `CancelAnswered`, which may come later;
    /// with the leadership end those that are open.
    Cancel {
        /// For the answer.
        ask: u64,
        /// Which.
        id: ActivationId,
    },

    /// An invoker says all it has of this queue, for this epoch: the answer to `Reregister`, or the opening of a
    /// new stream (then after [`Input::Disconnected`] for the old one). `Deliver`s that the sender could not put on
    /// the old stream, and any for this invoker until its `Register` is in, are dropped by the sender: this input
    /// settles them.
    Register {
        /// Who.
        invoker: InvokerId,
        /// Its containers of this queue.
        containers: Vec<RegisteredContainer>,
        /// Finished there, not acknowledged.
        unacknowledged: Vec<Unacknowledged<R>>,
    },
    /// The pull stream of an invoker ended: nothing can be delivered there until it registers again.
    Disconnected {
        /// Which.
        invoker: InvokerId,
    },
    /// The session of an invoker ended in the log: what was there is lost.
    InvokerGone {
        /// Which.
        invoker: InvokerId,
    },

    /// The answer of the log to one `Reserve`: it grants at most what was asked. Also sent, with no containers, when
    /// the reservation certainly failed.
    Granted {
        /// Count of the `Reserve` that this answers.
        asked: u32,
        /// New containers, now in progress, and where each is as far as the tables have told: a slot may come with a
        /// place, and the tables tell of that before or after this.
        containers: Vec<(ContainerId, Option<InvokerId>)>,
        /// Revision of the action that they run.
        revision: Revision,
    },
    /// The creation (or resumption) goes to an invoker. Says nothing of a container that was not granted yet: its grant tells
    /// where it is.
    ContainerPlaced {
        /// Which.
        container: ContainerId,
        /// Where.
        invoker: InvokerId,
    },
    /// Its creation came back from there and will be tried again.
    ContainerUnplaced {
        /// Which.
        container: ContainerId,
    },
    /// The containers table says that it runs.
    ContainerRunning {
        /// Which.
        container: ContainerId,
        /// Where.
        invoker: InvokerId,
    },
    /// The containers table says that it is paused and holds no slot; it asks no more under this id.
    ContainerWarm {
        /// Which.
        container: ContainerId,
    },
    /// It has ended, and its invoker keeps results of it that nobody has confirmed: it serves no more.
    ContainerEnded {
        /// Which.
        container: ContainerId,
    },
    /// The containers table lost it. What ran in it is still reported by its invoker, which lives.
    ContainerRemoved {
        /// Which.
        container: ContainerId,
    },
    /// A creation was given up, after its retries. The sender also removes the container from the table.
    CreationFailed {
        /// Which.
        container: ContainerId,
        /// Why; its class decides what happens to the activations that wait.
        error: CreationError,
        /// Text for the users whose activations fail.
        message: String,
    },

    /// A creation waits for something that only time or others can give: memory, or an invoker. It goes on; this is for
    /// those who ask why.
    CreationDelayed {
        /// Which.
        container: ContainerId,
        /// What is missing.
        error: CreationError,
        /// The same for people.
        message: String,
    },
    /// A container reports the length of a run whose outcome was reported elsewhere (the unary service).
    Sampled(Duration),

    /// The action document changed. An older revision than the newest known changes nothing.
    Action(ActionProfile),
    /// The namespace reached its container limit, or has room again (the derived throttle of the log).
    NamespaceFull(bool),
    /// The scheduler may act for its queues no more (`true`), or again (`false`) without having lost its session.
    Fence(bool),
    /// The queue is on its way to another scheduler (`true`): nothing is accepted or delivered until its epoch ends, or
    /// until the move has certainly failed (`false`).
    Draining(bool),
    /// The answer to `Entangled`: whether all containers of this queue run what waits, over other queues, for calls that
    /// no container will serve.
    Knotted(bool),
    /// The proposal to remove this queue certainly failed: it goes on.
    RemovalFailed,
    /// The time of [`next_deadline`](crate::MemoryQueue::next_deadline) has come.
    Tick(NamespaceCounts),
}

/// How a run ended, by its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunEnd {
    /// Well.
    Success,
    /// With an error of the application, the developer or the platform.
    Failed,
    /// It was stopped because its activation was cancelled, whatever its status says.
    Cancelled,
}

impl RunEnd {
    /// What a record of this status says.
    #[must_use]
    pub fn of(status: ActivationStatus, is_cancelled: bool) -> Self {
        match status {
            _ if is_cancelled => Self::Cancelled,
            ActivationStatus::Success => Self::Success,
            ActivationStatus::ApplicationError
            | ActivationStatus::DeveloperError
            | ActivationStatus::WhiskError => Self::Failed,
        }
    }
}

/// A result that an invoker keeps until it is acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct Unacknowledged<R> {
    /// Of which activation.
    pub id: ActivationId,
    /// Of which run of it, from 1.
    pub run: u32,
    /// How that run ended, by its record.
    pub end: RunEnd,
    /// Its record.
    pub record: R,
}

/// What a submission asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Accepted only once it is in the journal; its end is in the journal before anybody hears of it.
    pub durable: bool,
    /// It must not begin before; durable ones only.
    pub not_before: Option<Instant>,
}

/// A durable activation that has not ended, as the journal has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered<P> {
    /// Which.
    pub id: ActivationId,
    /// Time since a scheduler first accepted it.
    pub waited: Duration,
    /// Time since its next run might begin: less if it, or a retry of it, was to wait first.
    pub ready: Duration,
    /// Run that is under way or next, from 1.
    pub run: u32,
    /// It must not begin before.
    pub not_before: Option<Instant>,
    /// Whether its caller was told that it ends as cancelled.
    pub cancelled: bool,
    /// What to run it with.
    pub payload: P,
}

/// What became of an entry for the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<R> {
    /// It is on the disks of a quorum.
    Written,
    /// To an end whose outcome was not a record: written, with this record, which is what everybody hears.
    Recorded(R),
    /// To an acceptance: the id was accepted before, with the same payload, and has not ended. To a retry: the journal has a
    /// later run already.
    Open {
        /// Run that is under way or next.
        run: u32,
        /// It must not begin before.
        not_before: Option<Instant>,
    },
    /// It had ended before, like this.
    Ended(Outcome<R>),
    /// To an acceptance: it ended, and its record has expired.
    Expired,
    /// To an acceptance: the id was accepted with another payload.
    Conflict,
    /// Certainly not written. Other entries than acceptances are repeated by the sender until they are written, or this
    /// leadership has ended; to one of these it means that the journal has no such activation, so that it goes on in
    /// memory only.
    Refused(Rejection),
    /// It may be written, or may still be. Acceptances only.
    Unknown,
}

/// When an activation that failed runs again (annotations `retry-…` of its action).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Most runs of one activation, at least 1; 1 is no retry and no dead letter.
    pub runs_max: u32,
    /// Pause before the second run; doubled for each further one, with a jitter of up to a tenth, which is a function of
    /// the id and the run.
    pub backoff: Duration,
    /// Longest pause, with its jitter.
    pub backoff_max: Duration,
    /// Age, from acceptance, after which no further run begins; `None`: no limit.
    pub age_max: Option<Duration>,
    /// Whether one that may have started on an invoker that was lost runs again, durable or not. Without it such a one ends
    /// with an error, however many runs are left.
    pub on_loss: bool,
}

impl Blank for RetryPolicy {
    const BLANK: &'static Self = &Self {
        runs_max: 1,
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        age_max: None,
        on_loss: false,
    };
}

impl Default for RetryPolicy {
    fn default() -> Self {
        *Self::BLANK
    }
}

/// What the queue needs of its action document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionProfile {
    /// Newest revision.
    pub revision: Revision,
    /// Activations one container runs at once, at least 1.
    pub concurrency: u32,
    /// Most containers of the action in this namespace, if it has a limit of its own.
    pub instances: Option<u32>,
    /// Whether its containers come from an image that must be pulled: waiting is allowed for longer.
    pub blackbox: bool,
    /// Longest run. An invoker that says nothing about an activation for much longer has lost it.
    pub timeout: Duration,
    /// Whether the action was deleted, at `revision`: what was handed out finishes, nothing else begins, and the queue goes.
    pub deleted: bool,
    /// What happens to durable activations that fail.
    pub retry: Rare<RetryPolicy>,
}

/// Containers of the namespace over all queues and schedulers, from the local copy of the log's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespaceCounts {
    /// Most containers, starting ones included.
    pub limit: u32,
    /// The same with the excess that an action without containers may use; at least `limit`.
    pub limit_over: u32,
    /// Running ones.
    pub running: u32,
    /// Reserved or starting ones.
    pub in_progress: u32,
}

/// A container that a former leader left behind, as the containers table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownContainer {
    /// Which.
    pub container: ContainerId,
    /// Where; `None` until placed.
    pub invoker: Option<InvokerId>,
    /// Revision of the action it runs.
    pub revision: Revision,
    /// Whether it runs; else it is in progress.
    pub running: bool,
}

/// A container as its invoker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredContainer {
    /// Which.
    pub container: ContainerId,
    /// Revision of the action it runs.
    pub revision: Revision,
    /// Delivered to it or started in it, not finished.
    pub in_flight: Vec<ActivationId>,
    /// Open asks, all of them.
    pub credits: u32,
    /// Whether its code is loaded.
    pub warmed: bool,
}
