//! A queue as operators see it.

use whiskraft_proto::v1;
use whiskraft_queue::{Decision, QueueView, action_limit};
use whiskraft_types::{Instant, WaitReason};

use crate::shard::actor::Shard;
use crate::shard::local::LocalQueue;

impl Shard {
    /// All that this leader knows of a queue.
    pub(crate) fn status_of(&self, local: &LocalQueue) -> v1::QueueStatus {
        let view = local.queue.view();
        let delivered = local.queue.delivered_len();
        let (warm, namespace_limit) = self.parts.context.node.read(|state| {
            let limits = state.namespace_limits(&local.key().namespace);
            (state.queue_counts(local.key()).warm, limits.containers)
        });
        let age_ms =
            |since: Instant| u64::try_from(self.now.saturating_since(since).as_millis()).unwrap_or(u64::MAX);
        let wait = view.wait.as_ref();
        v1::QueueStatus {
            queue: Some(v1::QueueInfo {
                key: Some(local.key().into()),
                leader: self.parts.context.node.id().0,
                epoch: local.epoch().0,
                revision: local.profile().revision.0,
                removed: false,
            }),
            state: format!("{:?}", view.state),
            waiting: view.waiting as u64,
            delivered: delivered as u64,
            started: view.in_flight.saturating_sub(delivered) as u64,
            held_back: view.held as u64,
            containers_in_progress: count(view.in_progress),
            containers_running: count(view.running),
            containers_warm: warm,
            containers_old: count(view.old),
            containers_limit: action_limit(namespace_limit, local.profile().instances),
            duration_avg_ms: view.average_ms,
            oldest_ms: view.oldest.map_or(0, age_ms),
            wait_reason: wait
                .map_or(v1::WaitReason::Unspecified, |wait| wait.reason.into())
                .into(),
            wait_detail: wait.map(|wait| wait.detail.clone()).unwrap_or_default(),
            last_decision: sentence(&view),
            decided_ago_ms: view.last_decision.map_or(0, |(_, at)| age_ms(at)),
            throttled: view.is_throttled,
        }
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// `3 containers`.
fn containers(count: u64) -> String {
    match count {
        1 => "1 container".to_owned(),
        _ => format!("{count} containers"),
    }
}

/// The last decision of the scaling rule for people; empty before the first.
fn sentence(view: &QueueView) -> String {
    let Some((decision, _)) = view.last_decision else {
        return String::new();
    };
    match decision {
        Decision::Skip => skipped(view),
        Decision::AddInitialContainer { count: 0 | 1 } => "add the first container".to_owned(),
        Decision::AddInitialContainer { count } | Decision::AddContainer { count } => {
            format!("add {}", containers(count.into()))
        }
        Decision::EnableNamespaceThrottling { drop: true, .. } => {
            "nothing: the namespace is full and this action has no container".to_owned()
        }
        Decision::EnableNamespaceThrottling { count: 0, .. } => {
            "nothing: the namespace uses all the containers it may".to_owned()
        }
        Decision::EnableNamespaceThrottling { count, .. } => {
            format!("add {}, then the namespace is full", containers(count.into()))
        }
        Decision::DisableNamespaceThrottling => "nothing: the namespace has room again".to_owned(),
        Decision::Pausing => "nothing: a limit is zero, nothing may run".to_owned(),
    }
}

/// Why nothing was done, in the numbers of now.
fn skipped(view: &QueueView) -> String {
    if view.waiting == 0 {
        return "nothing: nothing waits".to_owned();
    }
    match view.wait.as_ref().map(|wait| wait.reason) {
        Some(WaitReason::ActionLimit) => "nothing: the action uses all the containers it may".to_owned(),
        Some(WaitReason::NamespaceLimit) => {
            "nothing: the namespace uses all the containers it may".to_owned()
        }
        _ => {
            let total = (view.running + view.in_progress) as u64;
            let serve = if total == 1 { "serves" } else { "serve" };
            format!(
                "nothing: {} {serve} {} waiting in time",
                containers(total),
                view.waiting
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use whiskraft_queue::{QueueState, Wait};

    use super::*;

    fn view(decision: Option<Decision>, waiting: usize, running: usize) -> QueueView {
        let at = Instant::from_origin(Duration::ZERO);
        QueueView {
            state: QueueState::Running,
            waiting,
            held: 0,
            journaling: 0,
            delayed: 0,
            ending: 0,
            in_flight: 0,
            done: 0,
            running,
            in_progress: 0,
            credits: 0,
            is_throttled: false,
            average_ms: None,
            oldest: None,
            wait: None,
            last_decision: decision.map(|decision| (decision, at)),
            old: 0,
        }
    }

    #[test]
    fn decisions_are_told_as_sentences() {
        let told = |decision, waiting, running| sentence(&view(Some(decision), waiting, running));
        assert_eq!(sentence(&view(None, 3, 0)), "");
        assert_eq!(
            told(Decision::AddContainer { count: 3 }, 9, 1),
            "add 3 containers"
        );
        assert_eq!(
            told(Decision::AddInitialContainer { count: 1 }, 1, 0),
            "add the first container"
        );
        assert_eq!(told(Decision::Skip, 0, 2), "nothing: nothing waits");
        assert_eq!(
            told(Decision::Skip, 4, 2),
            "nothing: 2 containers serve 4 waiting in time"
        );
        assert_eq!(
            told(
                Decision::EnableNamespaceThrottling {
                    count: 2,
                    drop: false
                },
                4,
                2
            ),
            "add 2 containers, then the namespace is full"
        );
    }

    #[test]
    fn a_skip_at_a_limit_names_the_limit() {
        let mut at_limit = view(Some(Decision::Skip), 4, 2);
        at_limit.wait = Some(Wait {
            reason: WaitReason::ActionLimit,
            detail: String::new(),
        });
        assert_eq!(
            sentence(&at_limit),
            "nothing: the action uses all the containers it may"
        );
    }
}
