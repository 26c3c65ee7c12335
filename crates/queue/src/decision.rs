//! When a queue wants containers: the decision table of the scheduler, as one function.
//!
//! Called by [`MemoryQueue`](crate::MemoryQueue) at its ticks, with numbers only; nothing here changes anything. The
//! rows carry the names they have in the specification of OpenWhisk's `SchedulingDecisionMaker` (L, C and R), so that
//! the table and the function can be read side by side. Three rows differ on purpose; each says so.

use std::fmt;
use std::time::Duration;

/// State of a queue as far as decisions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueState {
    /// It serves.
    Running,
    /// It has nothing to do and no container.
    Idle,
    /// Its namespace is full.
    NamespaceThrottled,
    /// It is full and refuses new activations.
    ActionThrottled,
    /// Its last creation failed and it has no container.
    Flushing,
    /// It is on its way to another scheduler and takes no new activations (`Removing` in the specification).
    Draining,
    /// It had nothing to do for long and has asked for its own removal, or is gone.
    Removed,
}

/// What a decision is made from. Counts are signed because the table subtracts them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// State of the queue.
    pub state: QueueState,
    /// Whether this queue has asked for its first container already.
    pub initialized: bool,
    /// Activations being accepted at this moment, not yet counted in `waiting`.
    pub incoming: i64,
    /// Activations that wait.
    pub waiting: i64,
    /// Waiting ones that are at least `stale_threshold` old.
    pub stale: i64,
    /// Running containers of the newest revision.
    pub existing: i64,
    /// Containers of it that are being created, or were asked for.
    pub in_progress: i64,
    /// Running containers of the namespace.
    pub existing_in_namespace: i64,
    /// Containers of the namespace that are being created.
    pub in_progress_in_namespace: i64,
    /// Average length of a run in milliseconds, if one is known.
    pub average_ms: Option<f64>,
    /// Most containers of the namespace.
    pub namespace_limit: i64,
    /// Most containers of the action; at most `namespace_limit`.
    pub action_limit: i64,
    /// Activations one container runs at once.
    pub concurrency: i64,
    /// Age at which a waiting activation counts as stale: each should leave the queue within this time.
    pub stale_threshold: Duration,
    /// Most containers of the namespace that an action without containers may take it to; `None` if it may not
    /// exceed the limit.
    pub over_limit: Option<i64>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Skip,
    /// Create the first containers; needs no waiting activation.
    AddInitialContainer {
        /// How many.
        count: u32,
    },
    /// Create containers.
    AddContainer {
        /// How many.
        count: u32,
    },
    /// Create what fits; the namespace is full then.
    EnableNamespaceThrottling {
        /// How many still fit.
        count: u32,
        /// Whether the waiting activations have no container that could ever serve them.
        drop: bool,
    },
    /// The namespace has room again.
    DisableNamespaceThrottling,
    /// A limit is zero: nothing can run.
    Pausing,
}

/// Decides when a queue wants containers.
pub trait DecisionRule: fmt::Debug + Send + Sync {
    /// What to do in this situation.
    fn decide(&self, snapshot: &Snapshot) -> Decision;
}

/// The built-in rule: enough containers that every waiting activation leaves within one stale threshold.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltInRule;

impl DecisionRule for BuiltInRule {
    fn decide(&self, s: &Snapshot) -> Decision {
        use QueueState::{ActionThrottled, Draining, Flushing, NamespaceThrottled, Running};

        if s.namespace_limit.min(s.action_limit) <= 0 {
            // L1, L2
            return if s.state == Flushing {
                Decision::Skip
            } else {
                Decision::Pausing
            };
        }
        let room = Room::of(s);
        let (total, available) = (s.existing + s.in_progress, s.waiting + s.incoming);
        if room.capacity <= 0 {
            return match s.state {
                // C1. Only a full namespace throttles the namespace: an action at its own limit must not.
                Running if room.over.is_none_or(|over| over <= 0) && room.namespace <= 0 => {
                    Decision::EnableNamespaceThrottling {
                        count: 0,
                        drop: total == 0,
                    }
                }
                // C2
                NamespaceThrottled if room.over.is_some_and(|over| over > 0) => {
                    Decision::DisableNamespaceThrottling
                }
                // C3
                _ => Decision::Skip,
            };
        }
        // A queue that refuses new activations needs containers more than any: it scales like a running one.
        let serves = matches!(s.state, Running | ActionThrottled);
        match s.average_ms {
            // R1
            None if s.state == Running && total == 0 && !s.initialized => {
                Decision::AddInitialContainer { count: 1 }
            }
            // R2
            _ if s.state == NamespaceThrottled => Decision::DisableNamespaceThrottling,
            // R3
            _ if serves && total == 0 && available > 0 => Decision::AddContainer { count: 1 },
            // R4
            _ if s.state == Flushing && total == 0 => Decision::AddInitialContainer { count: 1 },
            // R5, R8
            None if (serves || s.state == Draining) && s.stale > 0 => {
                let wanted = ceil(s.stale as f64 / s.concurrency as f64) - s.in_progress;
                room.add(wanted.min(available))
            }
            // R6
            Some(average) if serves => room.add(demand(s, average)),
            // R7
            Some(average) if s.state == Draining && s.stale > 0 => {
                room.add(stale_demand(s, throughput(s, average)) - s.in_progress)
            }
            // R9
            _ => Decision::Skip,
        }
    }
}

/// How many containers may be added.
struct Room {
    /// Until the namespace is full.
    namespace: i64,
    /// Until the namespace is full with its excess; `None` where no excess is allowed.
    over: Option<i64>,
    /// For this queue.
    capacity: i64,
}

impl Room {
    fn of(s: &Snapshot) -> Self {
        let used = s.existing_in_namespace + s.in_progress_in_namespace;
        let total = s.existing + s.in_progress;
        let namespace = s.namespace_limit - used;
        let over = s.over_limit.map(|limit| limit - used);
        let capacity = match over {
            Some(over) if total == 0 => i64::from(over > 0),
            _ => namespace.min(s.action_limit - total),
        };
        Self {
            namespace,
            over,
            capacity,
        }
    }

    fn add(&self, wanted: i64) -> Decision {
        if wanted > self.capacity {
            let count = count(self.capacity);
            if self.capacity >= self.namespace {
                // Create what fits, then the namespace is full.
                Decision::EnableNamespaceThrottling { count, drop: false }
            } else {
                Decision::AddContainer { count }
            }
        } else if wanted <= 0 {
            Decision::Skip
        } else {
            Decision::AddContainer { count: count(wanted) }
        }
    }
}

/// Containers that a queue with a known average wants on top of those it has (R6).
fn demand(s: &Snapshot, average_ms: f64) -> i64 {
    let throughput = throughput(s, average_ms);
    let total = s.existing + s.in_progress;
    let fresh = s.waiting + s.incoming - s.stale;
    if average_ms > 0.0 && fresh as f64 >= throughput * total as f64 && total < fresh {
        // R6a. Containers in progress already lower the fresh part, so the stale part must not lower it again.
        let wanted = ceil(fresh as f64 / throughput - total as f64);
        wanted.min(fresh - total) + stale_demand(s, throughput)
    } else if s.stale > 0 {
        // R6b
        stale_demand(s, throughput) - s.in_progress
    } else {
        // R6c
        0
    }
}

/// Containers that would clear the stale activations within one threshold; at most one each.
fn stale_demand(s: &Snapshot, throughput: f64) -> i64 {
    ceil(s.stale as f64 / throughput).min(s.stale)
}

/// Activations that one container takes within one stale threshold.
fn throughput(s: &Snapshot, average_ms: f64) -> f64 {
    if average_ms > 0.0 {
        s.stale_threshold.as_secs_f64() * 1000.0 / average_ms * s.concurrency as f64
    } else {
        s.concurrency as f64
    }
}

fn ceil(value: f64) -> i64 {
    // `as` saturates, which is what a demand beyond all limits should do.
    value.ceil() as i64
}

fn count(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// The limit of an action in a namespace: its own, lowered to the namespace's.
#[must_use]
pub fn action_limit(namespace_limit: u32, instances: Option<u32>) -> u32 {
    instances.map_or(namespace_limit, |own| own.min(namespace_limit))
}
