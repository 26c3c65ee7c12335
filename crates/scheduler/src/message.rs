//! What streams and shards say to each other. Parsed once at the stream's end; past that point everything is typed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};
use whiskraft_queue::{
    ActivationState, Calls, CancelAnswer, ControllerId, Recovered, RegisteredContainer, Terms,
};
use whiskraft_types::{
    ActivationId, ActivationRecord, ContainerId, CreationError, Epoch, NamespaceName, QueueKey, Rejection,
    Revision, SessionId,
};

use crate::context::StreamId;
use crate::control::hello::Peer;
use crate::journal::Answer;
use crate::shard::{Exported, Import, Pick, UnaryRequest, Walk};

/// What a caller submitted; shared, so that neither a delivery nor a repetition copies it.
pub(crate) type Payload = Arc<Content>;
/// The record of a finished activation; shared between ledger and streams.
pub(crate) type Record = Arc<ActivationRecord<Bytes>>;

/// Content of a submission.
#[derive(Debug)]
pub(crate) struct Content {
    /// JSON text of the arguments.
    pub(crate) arguments: Bytes,
    pub(crate) transaction: String,
    pub(crate) subject: String,
    pub(crate) api_key: String,
    pub(crate) cause: String,
}

/// Two submissions are the same if they would run the same: the transaction is of the call, not of the activation.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.arguments == other.arguments && self.subject == other.subject && self.cause == other.cause
    }
}

/// One submission.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: ActivationId,
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: u32,
    /// Since a scheduler first accepted it.
    pub(crate) waited: Duration,
    /// The activation that waits for its end.
    pub(crate) caller: Option<ActivationId>,
    pub(crate) payload: Payload,
    pub(crate) terms: Terms,
}

/// What a controller is told.
#[derive(Debug)]
pub(crate) enum ResultItem {
    Accepted(ActivationId),
    Rejected(ActivationId, Rejection),
    Completed {
        key: QueueKey,
        epoch: Epoch,
        record: Record,
    },
}

/// What an invoker's Pull stream says about one queue.
#[derive(Debug)]
pub(crate) struct PullInput {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) kind: PullKind,
}

/// The frame of a [`PullInput`].
#[derive(Debug)]
pub(crate) enum PullKind {
    Credit {
        container: ContainerId,
        count: u32,
        warmed: bool,
    },
    Started {
        container: ContainerId,
        id: ActivationId,
    },
    Completed {
        container: ContainerId,
        record: Record,
        duration: Option<Duration>,
        credits: u32,
    },
    Refused {
        container: ContainerId,
        id: ActivationId,
    },
    /// Names no epoch on the wire: taking asks back is right in any.
    Withdraw { container: ContainerId },
    Register {
        containers: Vec<RegisteredContainer>,
        unacknowledged: Vec<Record>,
    },
}

/// What an invoker is told on its Pull stream.
#[derive(Debug)]
pub(crate) enum PullItem {
    Deliver {
        id: ActivationId,
        container: ContainerId,
        epoch: Epoch,
        attempt: u32,
        run: u32,
        waited: Duration,
        payload: Payload,
    },
    Stop {
        id: ActivationId,
        container: ContainerId,
        epoch: Epoch,
    },
    CompletedAck(ActivationId),
    WithdrawAck(ContainerId),
    Reregister(QueueKey, Epoch),
    Rejected {
        container: Option<ContainerId>,
        key: QueueKey,
        rejection: Rejection,
    },
}

/// The near end of a stream: batches of items, and a way to end it when it does not take them.
#[derive(Debug)]
pub(crate) struct StreamEnd<T> {
    pub(crate) stream: StreamId,
    pub(crate) items: mpsc::Sender<Vec<T>>,
    pub(crate) cut: Arc<Notify>,
}

impl<T> Clone for StreamEnd<T> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream,
            items: self.items.clone(),
            cut: Arc::clone(&self.cut),
        }
    }
}

impl<T> StreamEnd<T> {
    /// Sends what is ready; false, and the stream is cut, if its peer does not read.
    pub(crate) fn send(&self, items: Vec<T>) -> bool {
        let sent = self.items.try_send(items).is_ok();
        if !sent {
            self.cut.notify_one();
        }
        sent
    }
}

/// What a shard is asked. Requests of one stream arrive in the order of that stream.
#[derive(Debug)]
pub(crate) enum Request {
    ControllerOpened {
        controller: ControllerId,
        end: StreamEnd<ResultItem>,
    },
    ControllerClosed {
        controller: ControllerId,
        stream: StreamId,
    },
    Submit {
        controller: ControllerId,
        submissions: Vec<Submission>,
    },
    Received {
        controller: ControllerId,
        ids: Vec<(QueueKey, ActivationId)>,
    },
    PullOpened {
        peer: Peer,
        end: StreamEnd<PullItem>,
    },
    PullClosed {
        peer: Peer,
        stream: StreamId,
    },
    Pull {
        peer: Peer,
        stream: StreamId,
        inputs: Vec<PullInput>,
    },
    /// The log's answer to a reservation.
    Granted {
        key: QueueKey,
        epoch: Epoch,
        asked: u32,
        containers: Vec<ContainerId>,
        revision: Revision,
    },
    CreationFailed {
        key: QueueKey,
        container: ContainerId,
        error: CreationError,
        message: String,
    },
    /// A creation waits for memory; it goes on.
    CreationDelayed {
        key: QueueKey,
        container: ContainerId,
        error: CreationError,
        message: String,
    },
    RemovalFailed {
        key: QueueKey,
        epoch: Epoch,
    },
    /// A queue of this namespace has work and no container that comes free: give one up that idles.
    Reclaim {
        starved: QueueKey,
        /// Time since it last had one.
        unserved: Duration,
        /// Containers that it has.
        held: u32,
    },
    /// What the queues of a namespace know of calls.
    Calls {
        namespace: NamespaceName,
        answer: oneshot::Sender<Vec<(QueueKey, Calls)>>,
    },
    /// The judgement over the calls of all queues.
    Knotted {
        key: QueueKey,
        epoch: Epoch,
        is_knotted: bool,
    },
    /// Stop queues of a session, they are about to move; answered with those that are stopped.
    Freeze {
        session: SessionId,
        pick: Pick,
        answer: oneshot::Sender<Vec<Exported>>,
    },
    /// The queue did not move: it goes on.
    Unfreeze {
        key: QueueKey,
        epoch: Epoch,
    },
    /// What another scheduler has sent of a queue that it is about to hand over; answered once it is kept.
    Import {
        key: QueueKey,
        import: Import,
        answer: oneshot::Sender<()>,
    },
    /// The sender goes on with the queue.
    ForgetImport {
        session: SessionId,
        attempt: u64,
        key: QueueKey,
    },
    /// From the unary pull service.
    Unary(UnaryRequest),
    /// The rate home of a namespace has answered.
    RateSettled {
        namespace: NamespaceName,
    },
    /// What the journal says to entries of this shard's queues.
    Journaled(Vec<Answer>),
    /// What a queue has open in the journal, in parts.
    Recovered {
        key: QueueKey,
        epoch: Epoch,
        recovered: Vec<Recovered<Payload>>,
        is_last: bool,
    },
    /// Ends an activation at its caller's wish; answered with `Unknown` if no queue of this shard has it.
    Cancel {
        id: ActivationId,
        namespace: NamespaceName,
        answer: oneshot::Sender<CancelAnswer>,
    },
    Find {
        id: ActivationId,
        namespace: NamespaceName,
        answer: oneshot::Sender<Option<Found>>,
    },
    /// Looks at a bounded number of queues; the walk comes back and goes on where it stopped.
    Walk {
        walk: Walk,
        answer: oneshot::Sender<Walk>,
    },
    /// Answered once every request before it was handled.
    Barrier {
        answer: oneshot::Sender<()>,
    },
}

/// When an activation ended, in wall time: for a record made up for one of which there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    pub(crate) wait_ms: u64,
}

/// What a queue knows of an activation.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: QueueKey,
    pub(crate) epoch: Epoch,
    pub(crate) state: ActivationState<Record>,
    pub(crate) durable: bool,
    /// Which run is under way, next, or was the last.
    pub(crate) run: u32,
    /// Unix time of its acceptance.
    pub(crate) accepted_ms: u64,
    /// Of one that has ended: when.
    pub(crate) end: Option<Ending>,
}
