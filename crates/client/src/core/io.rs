//! What the router is told, and what it wants done.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_proto::{InvalidMessage, v1};
use whiskraft_types::{ActivationId, Epoch, QueueKey, Rejection, SchedulerId, ThrottleScope};

use crate::invocation::Outcome;
use crate::{ActivationRecord, InvokeError};

/// An activation as the caller hands it in.
#[derive(Debug, Clone)]
pub(crate) struct NewActivation {
    pub(crate) id: ActivationId,
    pub(crate) key: QueueKey,
    pub(crate) payload: Bytes,
    /// Whether somebody waits for the result itself.
    pub(crate) blocking: bool,
    pub(crate) may_have_run: bool,
    /// Acceptance has to mean that it is on the disks of a majority.
    pub(crate) durable: bool,
    /// Its id comes from an idempotency key: whoever submits it again joins it.
    pub(crate) keyed: bool,
    /// Unix time before which it must not begin, in milliseconds; 0: at once.
    pub(crate) not_before_ms: u64,
    pub(crate) deadline: Duration,
    pub(crate) given_up_after: Duration,
    pub(crate) context: Context,
}

/// What travels with an activation and means nothing to the router.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    pub(crate) transaction: String,
    pub(crate) subject: String,
    pub(crate) api_key: String,
    pub(crate) cause: String,
    pub(crate) caller: Option<ActivationId>,
}

/// Identifies one life of the stream to a scheduler; a reconnect is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId {
    pub(crate) scheduler: SchedulerId,
    pub(crate) generation: u64,
}

/// Leader (if any) and epoch of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) leader: Option<SchedulerId>,
    pub(crate) epoch: Epoch,
}

/// How an `EnsureQueue` ended.
#[derive(Debug, Clone)]
pub(crate) enum EnsureAnswer {
    Leadership {
        leader: SchedulerId,
        epoch: Epoch,
        address: Option<String>,
    },
    Rejected(Rejection),
    /// Nobody answered, or not in a way that can be read.
    Failed(String),
}

/// How an activation is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is to be submitted.
    New,
    /// The same request is under way already; its outcome is the outcome of this one.
    Joined { is_accepted: bool },
}

#[derive(Debug)]
pub(crate) enum Input {
    /// Taken in after [`Router::admit`](super::Router::admit) called it new.
    Submit(NewActivation),
    StreamOpened {
        stream: StreamId,
        window: u32,
        payload_len_max: u64,
    },
    /// `unsent` certainly never left this process.
    StreamLost {
        stream: StreamId,
        unsent: Vec<ActivationId>,
    },
    Accepted {
        stream: StreamId,
        id: ActivationId,
    },
    Rejected {
        stream: StreamId,
        id: ActivationId,
        rejection: Rejection,
    },
    Completed {
        stream: StreamId,
        record: ActivationRecord,
    },
    /// A record arrived that cannot be read.
    Garbled {
        stream: StreamId,
        id: ActivationId,
        source: InvalidMessage,
    },
    Ensured {
        key: QueueKey,
        answer: EnsureAnswer,
    },
    /// A member has this client address now; `None`: it has none, or it left.
    Member {
        scheduler: SchedulerId,
        address: Option<String>,
    },
    /// A queue's leadership changed; `None`: the queue is gone.
    Queue {
        key: QueueKey,
        route: Option<Route>,
    },
    /// Replaces everything known of members and queues.
    Snapshot {
        members: BTreeMap<SchedulerId, String>,
        queues: BTreeMap<QueueKey, Route>,
    },
    /// Nobody waits for this activation any more. A durably accepted one then needs nothing more from here.
    Forget {
        id: ActivationId,
    },
    /// Time has passed.
    Tick,
    /// The client is being closed.
    Close,
}

#[derive(Debug)]
pub(crate) enum Output {
    /// Keep a stream open to this scheduler.
    Open { scheduler: SchedulerId, address: String },
    /// Close it for good.
    Shut { scheduler: SchedulerId },
    Send {
        stream: StreamId,
        id: ActivationId,
        submission: v1::Submission,
    },
    /// Tell the scheduler that the result is here.
    Received { stream: StreamId, id: ActivationId },
    /// Ask a scheduler, best the one that writes the log, for the leader of this queue; answer with [`Input::Ensured`].
    Ensure {
        key: QueueKey,
        /// Whether activations wait for it that may have begun.
        resubmits: bool,
    },
    /// A scheduler refused an activation of this queue by a limit.
    Throttled {
        key: QueueKey,
        scope: ThrottleScope,
        limit: Option<u32>,
        retry_after: Duration,
    },
    /// First confirmation by a scheduler.
    Accepted { id: ActivationId },
    /// The caller's deadline passed; the activation goes on.
    Overdue { id: ActivationId, error: InvokeError },
    /// The activation goes on without us. Last output for this id.
    Forgotten { id: ActivationId },
    /// The activation ended. Last output for this id.
    Settled { id: ActivationId, outcome: Outcome },
}
