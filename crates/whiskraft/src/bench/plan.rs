//! What a measurement does.

use std::time::Duration;

use serde::Serialize;
use whiskraft_types::NamespaceName;

use super::schedule::Window;

/// How load is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// So many arrivals per second, due at fixed times.
    Open {
        /// Per second.
        rate: f64,
    },
    /// So many callers, each of which waits for its answer before it goes on.
    Closed {
        /// Callers.
        callers: u32,
    },
}

/// What is asked for; in reports too, so that a figure says what it is a figure of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    /// How load is made.
    pub(crate) load: Load,
    /// Actions, invoked in turn.
    pub(crate) actions: u32,
    /// Namespaces that the actions are spread over.
    pub(crate) namespaces: u32,
    /// The namespaces are called this, a dash, and a number.
    pub(crate) prefix: NamespaceName,
    /// Most containers of each namespace.
    pub(crate) containers: u32,
    /// Activations that one container runs at once.
    pub(crate) concurrency: u32,
    /// Length of a simulated run.
    pub(crate) run_ms: f64,
    /// Bytes of the arguments of an activation.
    pub(crate) payload_bytes: usize,
    /// Share of the activations that are submitted durably instead of being waited for.
    pub(crate) durable_percent: u32,
    /// Whether durable ones are forgotten once they are accepted.
    pub(crate) forget: bool,
    /// How long after their acceptance durable ones may begin; zero: at once.
    #[serde(serialize_with = "seconds")]
    pub(crate) delay: Duration,
    /// SDK clients, each with a stream to every scheduler.
    pub(crate) connections: u32,
    /// Most activations under way at once.
    pub(crate) under_way_max: u32,
    /// Longest wait for one activation.
    #[serde(serialize_with = "seconds")]
    pub(crate) timeout: Duration,
    /// What comes before the measured part.
    #[serde(serialize_with = "seconds")]
    pub(crate) warm_up: Duration,
    /// Length of the measured part.
    #[serde(serialize_with = "seconds")]
    pub(crate) time: Duration,
    /// Whether queues and containers have to be made by the load itself.
    pub(crate) cold: bool,
    /// Whether the stages of first activations are told.
    pub(crate) stages: bool,
}

impl Plan {
    /// The measured part of a run.
    pub(super) fn window(&self) -> Window {
        Window::after(self.warm_up, self.time)
    }

    /// Actions of the namespace that has most of them.
    pub(crate) fn actions_per_namespace(&self) -> u32 {
        self.actions.div_ceil(self.namespaces)
    }
}

/// A time as seconds.
pub(super) fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A second of 100 arrivals per second after a warm-up of half a second.
    pub(in crate::bench) fn plan() -> Plan {
        Plan {
            load: Load::Open { rate: 100.0 },
            actions: 1,
            namespaces: 1,
            prefix: "bench".parse().unwrap(),
            containers: 4,
            concurrency: 1,
            run_ms: 0.0,
            payload_bytes: 0,
            durable_percent: 0,
            forget: false,
            delay: Duration::ZERO,
            connections: 1,
            under_way_max: 100,
            timeout: Duration::from_secs(1),
            warm_up: Duration::from_millis(500),
            time: Duration::from_secs(1),
            cold: false,
            stages: false,
        }
    }

    #[test]
    fn actions_are_spread_so_that_no_namespace_has_more_than_its_part() {
        let plan = |actions, namespaces| Plan {
            actions,
            namespaces,
            ..plan()
        };
        assert_eq!(plan(10, 10).actions_per_namespace(), 1);
        assert_eq!(plan(11, 10).actions_per_namespace(), 2);
    }
}
