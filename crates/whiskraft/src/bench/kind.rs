//! What is timed.

use serde::Serialize;

/// What is timed. All but the stages of a creation count from when something was due; see [`Kind::is_stage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Until an activation begins in a container.
    Queueing,
    /// Until its result is back.
    EndToEnd,
    /// Until a durable one is accepted.
    DurableAcceptance,
    /// Until a durable one begins in a container.
    DurableQueueing,
    /// Until the result of a durable one is back.
    DurableEndToEnd,
    /// Until it was handed to the SDK: what the load generator itself adds to all others.
    Sending,
    /// Until the tables have a leader for a new queue.
    Leading,
    /// From then until its container is decided on and the tables have a slot for it, and its place if that was chosen before.
    Reserving,
    /// From then until they say on which invoker: nothing if they said so with the slot.
    Placing,
    /// From then until they say that it runs: creation sent, carried out, reported.
    Starting,
    /// Until a small document is stored and its writer knows.
    Put,
    /// From just before a change is sent until a watcher has it.
    Watched,
    /// From the loss of an invoker until no scheduler counts it as healthy, and so places nothing on it.
    OutOfRotation,
    /// From the same moment until the tables of all say that it is gone, and what ran there with it.
    Expired,
    /// From the end of all schedulers until an activation through a queue is done.
    Usable,
    /// From the loss of a queue's leader until an activation is done that was due afterwards.
    Takeover,
    /// End to end while the leader of other queues is gone.
    Elsewhere,
}

impl Kind {
    /// Those of activations, in the order in which they are shown.
    pub(crate) const OF_ACTIVATIONS: [Self; 6] = [
        Self::Queueing,
        Self::EndToEnd,
        Self::DurableAcceptance,
        Self::DurableQueueing,
        Self::DurableEndToEnd,
        Self::Sending,
    ];

    /// For people.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Queueing => "queueing",
            Self::EndToEnd => "end to end",
            Self::DurableAcceptance => "durable acceptance",
            Self::DurableQueueing => "durable queueing",
            Self::DurableEndToEnd => "durable end to end",
            Self::Sending => "sending",
            Self::Leading => "leading",
            Self::Reserving => "reserving",
            Self::Placing => "placing",
            Self::Starting => "starting",
            Self::Put => "put",
            Self::Watched => "watched",
            Self::OutOfRotation => "out of rotation",
            Self::Expired => "expired",
            Self::Usable => "usable",
            Self::Takeover => "takeover",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// Whether it is a stage of a creation, which counts from the stage before.
    pub(crate) const fn is_stage(self) -> bool {
        matches!(
            self,
            Self::Leading | Self::Reserving | Self::Placing | Self::Starting
        )
    }
}
