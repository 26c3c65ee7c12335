//! What can go wrong, one enum per kind of operation; each variant is something a caller can act on.
//!
//! Errors are `Clone`: one cause may end many activations at once.

use std::time::Duration;

use whiskraft_proto::InvalidMessage;
use whiskraft_types::{ActivationId, Rejection, Revision};

use crate::{FoundActivation, OptionsError, PayloadError};

/// Why a client could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No endpoint was given.
    #[error("no endpoint given; name the client address (host:port) of at least one scheduler")]
    NoEndpoint,
    /// An endpoint is not an address.
    #[error("endpoint {endpoint:?} is not host:port: {reason}")]
    BadEndpoint {
        /// The text.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No scheduler could be used within the connect deadline.
    #[error("no scheduler answered within {waited:?} at {endpoints:?}: {cause}")]
    NoScheduler {
        /// How long it was tried.
        waited: Duration,
        /// Where.
        endpoints: Vec<String>,
        /// The newest failure.
        cause: String,
    },
    /// The endpoints belong to another cluster than the one asked for.
    #[error("endpoint belongs to cluster {found}, expected {expected}; check the endpoints")]
    WrongCluster {
        /// Cluster asked for.
        expected: String,
        /// Cluster found.
        found: String,
    },
}

/// How an invocation ended without a record.
///
/// | variant | did the action run? | what to do |
/// | --- | --- | --- |
/// | `Payload`, `Options`, `Full`, `IdInUse` | no | correct the call, or slow down |
/// | `Rejected` | no, unless `may_have_run` | see the rejection; `Throttled` says when to come back |
/// | `KeyConflict` | an earlier one with this key may | use another key for another request |
/// | `StorageFull` | no | try again when somebody has made room, or without durability |
/// | `NotAccepted` | no | the cluster is not available; try again later |
/// | `NotConfirmed` | it may, now or later | submit it again under the same id or key: it does not start twice |
/// | `Deadline` | it may, now or later | ask [`find_activation`](crate::Client::find_activation) for the id |
/// | `NoResult`, `Garbled`, `Closed` | nobody knows | ask for the id before starting it again |
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// The arguments cannot be sent.
    #[error("the arguments were not sent")]
    Payload(#[from] PayloadError),
    /// The options do not go together.
    #[error("the options of the invocation cannot be used")]
    Options(#[from] OptionsError),
    /// This client has as many unfinished activations as it may hold.
    #[error(
        "this client holds {unfinished} unfinished activations with {bytes} bytes of arguments, its limit"
    )]
    Full {
        /// Activations without a result.
        unfinished: usize,
        /// Bytes of their arguments.
        bytes: u64,
    },
    /// The caller's id names an activation of this client that has no result yet.
    #[error("activation {id} is already under way in this client")]
    IdInUse {
        /// The id.
        id: ActivationId,
    },
    /// A scheduler refused for good.
    #[error("activation {id} was rejected{}", at_attempt(*.attempts))]
    Rejected {
        /// The activation.
        id: ActivationId,
        /// How often it was handed to a scheduler; 0: refused before it was sent.
        attempts: u32,
        /// Whether an earlier attempt may have reached a container.
        may_have_run: bool,
        /// Why, and what to do.
        #[source]
        rejection: Rejection,
    },
    /// The idempotency key was used before, with other arguments. That activation is what it was.
    #[error(
        "idempotency key {key:?} names activation {id}, which was submitted with another payload; use another key for \
         another request, or look at that activation"
    )]
    KeyConflict {
        /// The activation that the key names.
        id: ActivationId,
        /// The key.
        key: String,
    },
    /// The disks of the schedulers have no room for another durable activation; it was not accepted.
    #[error(
        "activation {id} was not accepted{}: {reason}; try again when there is room, or without durability Quorum",
        at_attempt(*.attempts)
    )]
    StorageFull {
        /// The activation.
        id: ActivationId,
        /// How often it was handed to a scheduler.
        attempts: u32,
        /// Which disk, and how much is left.
        reason: String,
    },
    /// The caller's deadline passed while it was unknown whether the journal has it. It goes on if it has, and this
    /// client goes on trying; submitting it again under the same id or key tells.
    #[error("nobody confirmed until the deadline that activation {id} is accepted; it may be{}: {cause}", after_attempts(*.attempts))]
    NotConfirmed {
        /// The activation.
        id: ActivationId,
        /// How often it was handed to a scheduler.
        attempts: u32,
        /// What stood in the way last.
        cause: String,
    },
    /// No scheduler accepted it until the caller's deadline; it has not run and will not.
    #[error("activation {id} was accepted by no scheduler until the deadline{}: {cause}", after_attempts(*.attempts))]
    NotAccepted {
        /// The activation.
        id: ActivationId,
        /// How often it was handed to a scheduler.
        attempts: u32,
        /// What stood in the way last.
        cause: String,
    },
    /// The caller's deadline passed. Nothing is cancelled: the activation goes on and can be looked up until its result
    /// is there. A client that is still open then confirms the result, and no scheduler keeps the record.
    #[error("activation {id} has no result yet")]
    Deadline {
        /// The activation.
        id: ActivationId,
        /// How often it was handed to a scheduler.
        attempts: u32,
        /// Whether a scheduler confirmed that it has it.
        accepted: bool,
    },
    /// Neither completion nor rejection arrived within the time after which an activation is given up.
    #[error("activation {id} has timed out, no completion received within {waited:?}{}", after_attempts(*.attempts))]
    NoResult {
        /// The activation.
        id: ActivationId,
        /// How often it was handed to a scheduler.
        attempts: u32,
        /// Time since it was submitted.
        waited: Duration,
    },
    /// A result came that this release cannot read.
    #[error("the record of activation {id} cannot be read")]
    Garbled {
        /// The activation.
        id: ActivationId,
        /// What is wrong with it.
        #[source]
        source: InvalidMessage,
    },
    /// The client was closed first.
    #[error("the client was closed before activation {id} ended")]
    Closed {
        /// The activation.
        id: ActivationId,
    },
}

impl InvokeError {
    /// The activation, if it got as far as having an id.
    #[must_use]
    pub const fn id(&self) -> Option<ActivationId> {
        match self {
            Self::Payload(_) | Self::Options(_) | Self::Full { .. } => None,
            Self::IdInUse { id }
            | Self::Rejected { id, .. }
            | Self::KeyConflict { id, .. }
            | Self::StorageFull { id, .. }
            | Self::NotConfirmed { id, .. }
            | Self::NotAccepted { id, .. }
            | Self::Deadline { id, .. }
            | Self::NoResult { id, .. }
            | Self::Garbled { id, .. }
            | Self::Closed { id } => Some(*id),
        }
    }

    /// Whether the same call may succeed later without being changed. One that may have run is submitted again under the
    /// same id or key.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. }
            | Self::StorageFull { .. }
            | Self::NotAccepted { .. }
            | Self::NotConfirmed { .. } => true,
            Self::Rejected { rejection, .. } => matches!(rejection, Rejection::Throttled { .. }),
            Self::Payload(_)
            | Self::Options(_)
            | Self::IdInUse { .. }
            | Self::KeyConflict { .. }
            | Self::Deadline { .. }
            | Self::NoResult { .. }
            | Self::Garbled { .. }
            | Self::Closed { .. } => false,
        }
    }
}

/// The usual case, one attempt, needs no words.
fn at_attempt(attempts: u32) -> String {
    match attempts {
        0 => " before it was sent".to_owned(),
        1 => String::new(),
        more => format!(" at attempt {more}"),
    }
}

fn after_attempts(attempts: u32) -> String {
    match attempts {
        0 => ", it was never sent".to_owned(),
        1 => String::new(),
        more => format!(", after {more} attempts"),
    }
}

/// Why a question to the cluster got no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No scheduler did it before the call's deadline.
    #[error("{operation}, tried for {:.1} s: {cause}", .waited.as_secs_f64())]
    Unreachable {
        /// What was asked.
        operation: &'static str,
        /// How long it was tried.
        waited: Duration,
        /// How many requests were sent.
        tries: u32,
        /// What it looks like from here, then who was asked and how each of them failed.
        cause: String,
    },
    /// The scheduler named does not exist, or has no client address yet.
    #[error("{operation}: scheduler {scheduler} is not a member with a known address")]
    NoSuchScheduler {
        /// What was asked.
        operation: &'static str,
        /// Its number.
        scheduler: whiskraft_types::SchedulerId,
    },
    /// A scheduler refused for good.
    #[error("{operation} was rejected")]
    Rejected {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        rejection: Rejection,
    },
    /// A scheduler answered what this release cannot read, or failed.
    #[error("{operation}: unusable answer: {reason}")]
    BadAnswer {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// Why there is no record of an activation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// Every scheduler answered, and none knows it: it was never accepted, or its record is gone without a trace.
    #[error("no scheduler knows activation {id}")]
    Unknown {
        /// The activation.
        id: ActivationId,
    },
    /// It ended, and its record has expired.
    #[error("activation {id} has ended and its record has expired")]
    Gone {
        /// The activation.
        id: ActivationId,
    },
    /// It had not ended when the wait was over.
    #[error("activation {id} has not ended yet")]
    NotYet {
        /// The activation.
        id: ActivationId,
        /// What was known of it last.
        found: Box<FoundActivation>,
    },
    /// The cluster could not be asked.
    #[error("the record of the activation could not be asked for")]
    Call(#[from] CallError),
}

/// Why an operation on a stored action failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The name cannot be part of a document.
    #[error("action {name} cannot be stored: {reason}")]
    Invalid {
        /// The action.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else changed it; read it again and decide.
    #[error("action {name} is at revision {}, not the expected one", .current.map_or(0, |revision| revision.0))]
    Conflict {
        /// The action.
        name: String,
        /// Revision it has; `None`: it does not exist.
        current: Option<Revision>,
    },
    /// There is no such action.
    #[error("action {name} does not exist")]
    NotFound {
        /// The action.
        name: String,
    },
    /// The cluster could not be asked, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why an operation on a stored schedule failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It cannot be stored as it is.
    #[error("schedule {name:?} cannot be stored: {reason}")]
    Invalid {
        /// The schedule.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else changed it; read it again and decide.
    #[error("schedule {name:?} is at revision {}, not the expected one", .current.map_or(0, |revision| revision.0))]
    Conflict {
        /// The schedule.
        name: String,
        /// Revision it has; `None`: it does not exist.
        current: Option<Revision>,
    },
    /// There is no such schedule.
    #[error("schedule {name:?} does not exist")]
    NotFound {
        /// The schedule.
        name: String,
    },
    /// The cluster could not be asked, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
}
