//! Limits of actions and namespaces, with the defaults and bounds of OpenWhisk.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// What one activation of an action may use, and how many run where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionLimits {
    /// Longest run; init has a full limit of its own. 100 ms to 5 min, default 60 s.
    pub timeout: Duration,
    /// Memory of a container. 128 to 512 MiB unless the operator allows more, default 256 MiB.
    pub memory: ByteSize,
    /// Log bytes kept per activation. 0 to 10 MiB, default 10 MiB.
    pub logs: ByteSize,
    /// Activations one container runs at once. Default 1.
    pub concurrency: u32,
    /// Most containers of this action in one invocation namespace; `None` is the namespace's own limit.
    pub instances: Option<u32>,
}

impl Default for ActionLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            memory: ByteSize::mib(256),
            logs: ByteSize::mib(10),
            concurrency: 1,
            instances: None,
        }
    }
}

/// What one invocation namespace may use over all schedulers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceLimits {
    /// Most containers, starting ones included, at any log revision. Default 30.
    pub containers: u32,
}

impl Default for NamespaceLimits {
    fn default() -> Self {
        Self { containers: 30 }
    }
}
