//! How an activation ended.

use serde::{Deserialize, Serialize};

use crate::{ActivationId, ContainerId, InvokerId};

/// Status class of an activation record (`ActivationResult.scala`): the numbers 0 to 3 are what OpenWhisk stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ActivationStatus {
    /// 0: the action returned an object or array without `error`.
    Success,
    /// 1: the action returned `{"error": …}` or too large a result.
    ApplicationError,
    /// 2: the action could not be initialised, crashed, ran out of time or memory, or answered garbage.
    DeveloperError,
    /// 3: the platform failed.
    WhiskError,
}

impl ActivationStatus {
    /// The stored number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::ApplicationError => 1,
            Self::DeveloperError => 2,
            Self::WhiskError => 3,
        }
    }

    /// The text shown to users as `response.status`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ApplicationError => "application error",
            Self::DeveloperError => "action developer error",
            Self::WhiskError => "whisk internal error",
        }
    }
}

/// The record of a finished activation. `B` is the type that carries the result bytes (JSON text).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationRecord<B> {
    /// The activation.
    pub id: ActivationId,
    /// How it ended.
    pub status: ActivationStatus,
    /// JSON text of the result; `{"error": …}` for every status but success.
    pub result: B,
    /// Log lines, each `<time> <stdout|stderr>: <text>`.
    pub logs: Vec<String>,
    /// Start of the run (or of init when it failed), milliseconds since the Unix epoch on the invoker's clock.
    pub start_ms: u64,
    /// End, same clock. `end_ms - start_ms` is init plus run.
    pub end_ms: u64,
    /// Length of init if it ran for this activation, in milliseconds.
    pub init_ms: Option<u64>,
    /// From acceptance at the first scheduler to the start of init or run, in milliseconds.
    pub wait_ms: u64,
    /// Whether a time limit ended it.
    pub timed_out: bool,
    /// Where it ran; `None` when no container was involved.
    pub ran_on: Option<(InvokerId, ContainerId)>,
    /// Which run of the activation this is, from 1; above 1 only under a retry policy, `retry-on-loss` or a redrive.
    pub run: u32,
    /// Whether its caller cancelled it.
    pub cancelled: bool,
}
