//! What the invoker's shell tells a backend: the container to make, the code to load, the activation to run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use whiskraft_types::{ByteSize, CreationError};

/// A container of one backend, for as long as the process lives. Not the cluster's `ContainerId`: a paused
/// container that is granted again gets a new one of those and stays the same instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u64);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// What a backend found it can run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Kind families it can start ("python", "nodejs", "sh", "native"); empty is any.
    pub kinds: Vec<String>,
    /// Memory of the host, where it can be told.
    pub memory: Option<ByteSize>,
}

/// A container to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Names the container in logs and in the file system; needs not be unique.
    pub name: String,
    /// Kind of the action: "python:3", "nodejs:20", "sh", "native".
    pub kind: String,
    /// Most memory its processes may use together.
    pub memory: ByteSize,
    /// Activations it may run at once, at least 1.
    pub concurrency: u32,
    /// Environment for the action besides the context, as `__OW_API_HOST`.
    pub environment: BTreeMap<String, String>,
}

/// Code to load into a container (`POST /init`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    /// Last segment of the action's name.
    pub name: String,
    /// Entry point; empty is "main".
    pub main: String,
    /// Whether `code` is a zip, tar.gz or executable instead of text.
    pub binary: bool,
    /// The code as stored; `None` for an image that brings its own.
    pub code: Option<Bytes>,
    /// Init arguments of the action, JSON values by name.
    pub env: BTreeMap<String, serde_json::Value>,
    /// Who runs what; becomes `__OW_*`.
    pub context: Context,
    /// Longest init.
    pub timeout: Duration,
    /// Log bytes kept of a failed init; zero keeps none.
    pub logs_max: ByteSize,
}

/// An activation to run (`POST /run`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// JSON text of the arguments, an object or array; empty is `{}`.
    pub payload: Bytes,
    /// Which run of the activation this is, from 1.
    pub run: u32,
    /// Who runs what.
    pub context: Context,
    /// Longest run.
    pub timeout: Duration,
    /// Log bytes kept; zero keeps none.
    pub logs_max: ByteSize,
}

/// What an action is told about its activation, besides the deadline, which the backend computes just before the call.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// Namespace of the caller.
    pub namespace: String,
    /// `/<namespace>[/<package>]/<name>` of the action.
    pub action_name: String,
    /// Version of the action, as "0.0.1".
    pub action_version: String,
    /// 32 hex digits.
    pub activation_id: String,
    /// Text that ties log lines of one request together.
    pub transaction_id: String,
    /// `<uuid>:<secret>`, only for actions that ask for it. Never logged.
    pub api_key: Option<String>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("namespace", &self.namespace)
            .field("action_name", &self.action_name)
            .field("activation_id", &self.activation_id)
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// Why a container was not created; `error` is what the scheduler is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CreateError {
    /// The kind that decides what happens to the waiting activations.
    pub error: CreationError,
    /// What was tried and what came of it.
    pub message: String,
}

impl CreateError {
    /// The platform could not start it: another invoker may.
    #[must_use]
    pub fn platform(message: impl Into<String>) -> Self {
        Self {
            error: CreationError::Whisk,
            message: message.into(),
        }
    }

    /// Nothing here or elsewhere can run this kind.
    #[must_use]
    pub fn kind(message: impl Into<String>) -> Self {
        Self {
            error: CreationError::NonExecutable,
            message: message.into(),
        }
    }
}

/// Why a container was not paused or resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    /// Pausing would stop what runs.
    #[error("container {0} runs an activation")]
    Busy(Instance),
    /// It died or was removed: remove it.
    #[error("container {0} is gone")]
    Gone(Instance),
}
