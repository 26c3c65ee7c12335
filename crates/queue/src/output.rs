//! Everything a [`MemoryQueue`](crate::MemoryQueue) wants done, in order. The scheduler's shard actor carries it out
//! and adds the queue's key and epoch to every frame.

use std::time::Duration;

use whiskraft_types::{ActivationId, ActivationStatus, ContainerId, Instant, InvokerId, Rejection};

use crate::ControllerId;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output<P, R> {
    /// Tell the controller that its activation is taken.
    Accept {
        /// Whom.
        controller: ControllerId,
        /// Which.
        id: ActivationId,
    },
    /// Tell the controller that it is not.
    Reject {
        /// Whom.
        controller: ControllerId,
        /// Which.
        id: ActivationId,
        /// Why, and what to do next.
        rejection: Rejection,
    },
    /// Send the activation to the container, on the stream whose `Register` was passed in last. Only a stream that
    /// is certainly broken allows to drop this; `Disconnected` follows then.
    Deliver {
        /// Where the container is.
        invoker: InvokerId,
        /// Which container.
        container: ContainerId,
        /// The activation.
        id: ActivationId,
        /// Newest attempt that was submitted.
        attempt: u32,
        /// Which run of the activation this is, from 1; its record names it.
        run: u32,
        /// Time since the first scheduler accepted it.
        waited: Duration,
        /// What to run it with.
        payload: P,
    },
    /// Send the outcome to the controller. If it is not connected, drop this: it submits again when it is back.
    Complete {
        /// Whom.
        controller: ControllerId,
        /// Which.
        id: ActivationId,
        /// How it ended.
        outcome: Outcome<R>,
        /// In which run, from 1.
        run: u32,
    },
    /// Put this into the journal; answered by exactly one [`Journaled`](crate::Input::Journaled). An activation has one
    /// entry under way at most.
    Journal {
        /// Of which activation.
        id: ActivationId,
        /// What.
        entry: JournalEntry<P, R>,
    },
    /// Note in the journal that a durable activation ends as cancelled, whatever becomes of its run; answered by exactly one
    /// [`Marked`](crate::Input::Marked). May be under way together with an entry of the same activation.
    Mark {
        /// Which.
        id: ActivationId,
    },
    /// Keep the record of an activation that is not durable, if there is room and such records are kept. Said once, not
    /// answered.
    Archive {
        /// Which.
        id: ActivationId,
        /// How it ended.
        outcome: Outcome<R>,
        /// In which run, from 1.
        run: u32,
    },
    /// The answer to one [`Cancel`](crate::Input::Cancel).
    CancelAnswered {
        /// Of which one.
        ask: u64,
        /// What it came to.
        answer: CancelAnswer,
    },
    /// The activation was cancelled: its invoker refuses it if it has not started, else ends its container, unless others
    /// run in it as well.
    Stop {
        /// Where the container is.
        invoker: InvokerId,
        /// Which container.
        container: ContainerId,
        /// The activation.
        id: ActivationId,
    },
    /// Tell the invoker that it may forget this result.
    AcknowledgeInvoker {
        /// Whom.
        invoker: InvokerId,
        /// Which.
        id: ActivationId,
    },
    /// Tell the container's invoker that its asks are taken back.
    WithdrawAck {
        /// Whose.
        container: ContainerId,
    },
    /// Ask the log for container slots; answered by exactly one [`Granted`](crate::Input::Granted).
    Reserve {
        /// How many.
        count: u32,
    },
    /// Propose that new activations of this action are refused (or taken again), for other schedulers and SDKs to
    /// see. The queue itself refuses from this moment.
    SetThrottle(bool),
    /// The namespace is full, this queue has work and not one container that comes free: an idle container of another
    /// queue of the namespace should make room. Sent once each time this begins.
    Starved,
    /// Calls wait in this queue, and whether its containers come free depends on other queues of the namespace: judge with
    /// [`comes_free`](crate::comes_free) by the [`Calls`](crate::Calls) of all of them, and answer with
    /// [`Knotted`](crate::Input::Knotted). Said again while it lasts; need not be answered if the others are not known.
    Entangled,
    /// The invoker has said nothing about an activation: for `silent_after` neither that it starts it nor how it ended
    /// (in a container without code there is the time limit of an init besides), or no end within the bound. Said once
    /// per delivery; until the bound the activation goes on waiting for the answer.
    Silent {
        /// Who is silent.
        invoker: InvokerId,
        /// Where the activation was sent.
        container: ContainerId,
    },
    /// A run lasts many times as long as those before it, and goes on. Said once per run.
    Late {
        /// Whose.
        invoker: InvokerId,
        /// Where it runs.
        container: ContainerId,
        /// How long it has lasted.
        age: Duration,
    },
    /// End the container after what runs in it: it runs an old revision, or nobody here knows it.
    RemoveContainer {
        /// Which.
        container: ContainerId,
    },
    /// Propose the removal of this queue: nothing waits, runs or is owed for the whole idle time. Activations are
    /// answered with `NoQueue` until `RemovalFailed`.
    RemoveQueue,
}

/// How an activation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<R> {
    /// It ran; this is its record.
    Record(R),
    /// It did not run, or nobody can say: the shell makes a record of no duration from this.
    Failure {
        /// Class of the failure.
        status: ActivationStatus,
        /// Text for the user.
        text: String,
    },
    /// Its caller cancelled it: the shell makes a record with `cancelled` from this.
    Cancelled,
}

/// Something that a quorum's disks must have before it is so.
#[derive(Debug, Clone, PartialEq)]
pub enum JournalEntry<P, R> {
    /// A new activation: answered to its controller once it is written.
    Accept {
        /// What to run it with.
        payload: P,
        /// Time since a scheduler first accepted it.
        waited: Duration,
        /// It must not begin before.
        not_before: Option<Instant>,
    },
    /// A run has failed; another one follows.
    Retry {
        /// The run that follows.
        run: u32,
        /// It must not begin before.
        not_before: Instant,
    },
    /// It has ended: told to its controllers and acknowledged to its invoker once it is written.
    End {
        /// How.
        outcome: Outcome<R>,
        /// In which run.
        run: u32,
        /// Whether it goes to the list of dead letters: its runs are used up.
        dead_letter: bool,
    },
}

/// What a wish to cancel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// The queue does not know it.
    Unknown,
    /// It never starts.
    BeforeStart,
    /// It may have begun; it ends as cancelled.
    Stopping,
    /// It had ended before.
    Ended,
    /// The queue may not act now, or too many wait for the same answer: ask again.
    Unavailable,
}
