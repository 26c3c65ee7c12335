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
    /// An action of the namespace that has no container may still get one while the namespace has fewer than this
    /// many per cent of `containers`, rounded up: 150 is half as many on top. 100 (the default) allows no excess.
    pub over_provision_percent: u32,
    /// Most activations accepted per minute over all schedulers; `None` (the default) is no limit.
    pub invocations_per_minute: Option<u32>,
    /// Share of the memory when there is too little for all, relative to the weights of the others.
    /// 1 to 10,000, default 100.
    pub weight: u32,
}

impl NamespaceLimits {
    /// Limits that differ from the default ones by the number of containers only.
    #[must_use]
    pub fn containers(containers: u32) -> Self {
        Self {
            containers,
            ..Self::default()
        }
    }

    /// Most containers with the excess that an action without containers may use.
    #[must_use]
    pub fn containers_over(&self) -> u32 {
        let over = u64::from(self.containers) * u64::from(self.over_provision_percent.max(100));
        u32::try_from(over.div_ceil(100)).unwrap_or(u32::MAX)
    }
}

impl Default for NamespaceLimits {
    fn default() -> Self {
        Self {
            containers: 30,
            over_provision_percent: 100,
            invocations_per_minute: None,
            weight: 100,
        }
    }
}
