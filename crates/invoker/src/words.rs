//! What passes through the pool unread, and the pool's types with these filled in.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use whiskraft_pool as pool;
use whiskraft_proto::v1;
use whiskraft_types::{ActionLimits, ActionName, Instant};

/// SHA-256 of a code blob.
pub(crate) type CodeHash = [u8; 32];

/// What a container is created from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ActionSpec {
    pub(crate) name: ActionName,
    pub(crate) kind: String,
    pub(crate) main: String,
    pub(crate) code: Option<CodeHash>,
    pub(crate) binary: bool,
    pub(crate) limits: ActionLimits,
    pub(crate) version: String,
    /// Whether the action is given the caller's key.
    pub(crate) provide_api_key: bool,
    /// Default parameters; the caller's win.
    pub(crate) parameters: Map<String, Value>,
}

/// An action, or why its document is of no use.
pub(crate) type Action = Result<Arc<ActionSpec>, String>;

/// An activation as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Which run of the activation it is, from 1.
    pub(crate) run: u32,
    pub(crate) payload: Bytes,
    pub(crate) waited_ms: u64,
    pub(crate) received_at: Instant,
    pub(crate) transaction: String,
    pub(crate) api_key: String,
}

/// How an activation ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// What the controller is given.
    pub(crate) activation: v1::ActivationRecord,
    /// Length of the run in microseconds, init left out; 0 if it says nothing about the action.
    pub(crate) run_us: u64,
}

pub(crate) type Pool = pool::Pool<Action, Delivery, Record>;
pub(crate) type Input = pool::Input<Action, Delivery, Record>;
pub(crate) type Output = pool::Output<Action, Delivery, Record>;

/// Bytes that a record takes, for the bound on unacknowledged results.
pub(crate) fn record_len(record: &Record) -> u64 {
    /// Ids, times and framing.
    const FIXED: usize = 96;
    let record = &record.activation;
    let logs: usize = record.logs.iter().map(|line| line.len() + 8).sum();
    (FIXED + record.result.len() + logs) as u64
}
