//! A queue as JSON and by name: what `status`, `queues` and `explain` share.

use std::time::Duration;

use serde::Serialize;
use whiskraft_client::QueueStatus;
use whiskraft_types::QueueKey;

/// A queue; `state` is empty and the counts are zero if its leader did not answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Queue {
    pub(super) namespace: String,
    pub(super) action: String,
    pub(super) leader: Option<u64>,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    pub(super) state: String,
    pub(super) waiting: u64,
    pub(super) delivered: u64,
    pub(super) started: u64,
    pub(super) held_back: u64,
    pub(super) containers: Containers,
    /// Most containers of the action in this namespace; 0: not told.
    pub(super) containers_limit: u32,
    /// Containers of older revisions, which are ending.
    pub(super) containers_old: u32,
    pub(super) duration_avg_ms: Option<f64>,
    pub(super) oldest_ms: u64,
    pub(super) throttled: bool,
    /// From the closed list; `null` if nothing waits.
    pub(super) wait_reason: Option<&'static str>,
    pub(super) wait_detail: String,
    pub(super) last_decision: String,
    pub(super) decided_ago_ms: u64,
}

/// Containers by the part of their life they are in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Containers {
    pub(super) in_progress: u64,
    pub(super) running: u64,
    pub(super) warm: u64,
}

impl Queue {
    pub(super) fn new(status: &QueueStatus) -> Self {
        Self {
            namespace: status.queue.key.namespace.to_string(),
            action: status.queue.key.action.to_string(),
            leader: status.queue.leader.map(|id| id.0),
            epoch: status.queue.epoch.0,
            revision: status.queue.revision.0,
            state: status.state.clone(),
            waiting: status.waiting,
            delivered: status.delivered,
            started: status.started,
            held_back: status.held_back,
            containers: Containers {
                in_progress: status.containers_in_progress.into(),
                running: status.containers_running.into(),
                warm: status.containers_warm.into(),
            },
            containers_limit: status.containers_limit,
            containers_old: status.containers_old,
            duration_avg_ms: status.duration_avg.map(|average| average.as_secs_f64() * 1000.0),
            oldest_ms: millis(status.oldest),
            throttled: status.throttled,
            wait_reason: status.wait_reason.map(|reason| reason.name()),
            wait_detail: status.wait_detail.clone(),
            last_decision: status.last_decision.clone(),
            decided_ago_ms: millis(status.decided_ago),
        }
    }
}

/// The action, and whose activations they are where that is somebody else.
pub(super) fn queue_name(key: &QueueKey) -> String {
    let (namespace, action) = (key.namespace.as_str(), key.action.as_str());
    match action
        .strip_prefix(namespace)
        .is_some_and(|rest| rest.starts_with('/'))
    {
        true => action.to_owned(),
        false => format!("{action} of {namespace}"),
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use whiskraft_types::{Epoch, Revision, SchedulerId};

    use super::*;

    /// The queue of `guest/hello`.
    pub(in super::super) fn queue(leader: u64, epoch: u64, waiting: u64) -> QueueStatus {
        QueueStatus {
            queue: whiskraft_client::watch::Queue {
                key: QueueKey {
                    namespace: "guest".parse().unwrap(),
                    action: "guest/hello".parse().unwrap(),
                },
                leader: Some(SchedulerId(leader)),
                epoch: Epoch(epoch),
                revision: Revision(4),
                removed: false,
            },
            state: String::new(),
            waiting,
            delivered: 0,
            started: 0,
            held_back: 0,
            containers_in_progress: 0,
            containers_running: 0,
            containers_warm: 0,
            duration_avg: Some(Duration::from_millis(3)),
            oldest: Duration::ZERO,
            wait_reason: None,
            wait_detail: String::new(),
            last_decision: String::new(),
            decided_ago: Duration::ZERO,
            throttled: false,
            containers_limit: 30,
            containers_old: 0,
        }
    }

    #[test]
    fn a_queue_of_somebody_elses_action_names_both() {
        let mut key = queue(1, 1, 0).queue.key;
        assert_eq!(queue_name(&key), "guest/hello");
        key.namespace = "gue".parse().unwrap();
        assert_eq!(queue_name(&key), "guest/hello of gue");
    }
}
