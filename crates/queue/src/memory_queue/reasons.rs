//! Why the oldest waiting activation waits, worked out when somebody asks: nothing is kept for it on the hot path.
//!
//! The order of the checks is that of what would have to change first. While something waits there is always a reason.

use whiskraft_types::{CreationError, CreationErrorClass, Instant, WaitReason};

use super::{MemoryQueue, Wait};
use crate::Decision;

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// Why the oldest waiting activation waits; `None` exactly if nothing waits.
    pub(super) fn wait(&self) -> Option<Wait> {
        if self.len() == 0 {
            return None;
        }
        let (reason, detail) = self
            .wait_for_leader()
            .or_else(|| self.wait_for_failure())
            .or_else(|| self.wait_for_limit())
            .unwrap_or_else(|| self.wait_for_container());
        Some(Wait { reason, detail })
    }

    /// What this leadership itself may not do now.
    fn wait_for_leader(&self) -> Option<(WaitReason, String)> {
        if self.is_fenced {
            let detail = "the session of its scheduler may have ended".to_owned();
            return Some((WaitReason::Fenced, detail));
        }
        if self.is_draining {
            let detail = "the queue is on its way to another scheduler".to_owned();
            return Some((WaitReason::Draining, detail));
        }
        let invokers = self.expected.len();
        if oldest(self.held.oldest(), self.waiting.oldest()) {
            let detail = format!(
                "{} held back until {invokers} invokers have registered",
                self.held.len()
            );
            return Some((WaitReason::HeldBack, detail));
        }
        if self.ledger.is_full(&self.settings) {
            let detail = format!("{} results wait for their controllers", self.ledger.done_len());
            return Some((WaitReason::ResultsOwed, detail));
        }
        let is_taking_over = self.scale_after.is_some_and(|at| at > self.stepped_at);
        is_taking_over.then(|| {
            let detail = format!("{invokers} invokers have not registered yet");
            (WaitReason::TakingOver, detail)
        })
    }

    /// What went wrong with containers, or what they cannot get.
    fn wait_for_failure(&self) -> Option<(WaitReason, String)> {
        if let Some(failure) = &self.failure {
            let reason = match failure.error {
                // What memory could help would be waited for: no invoker has the tags, or is large enough.
                CreationError::NoAvailableResources => WaitReason::NoInvoker,
                error => self.reason_of(error),
            };
            return Some((reason, failure.text.clone()));
        }
        let delay = self.containers.delay_of_all()?;
        Some((self.reason_of(delay.error), delay.text.clone()))
    }

    fn reason_of(&self, error: CreationError) -> WaitReason {
        match error {
            CreationError::ZeroNamespaceLimit if self.action.instances == Some(0) => WaitReason::ActionLimit,
            CreationError::ZeroNamespaceLimit => WaitReason::NamespaceLimitZero,
            CreationError::NoAvailableInvokers => WaitReason::NoInvoker,
            CreationError::NoAvailableResources | CreationError::ResourceNotEnough => WaitReason::NoMemory,
            _ if error.class() == CreationErrorClass::Developer => WaitReason::ActionBroken,
            _ => WaitReason::CreationFailing,
        }
    }

    /// A limit that leaves no room for one more container.
    fn wait_for_limit(&self) -> Option<(WaitReason, String)> {
        let (own, asked) = (self.containers.counts(), self.reserving as usize);
        let starting = own.in_progress + asked;
        if starting > 0 {
            let detail = format!("{} containers start, {asked} more are asked for", own.in_progress);
            return Some((WaitReason::ContainerStarting, detail));
        }
        // The narrower one first: more room in the namespace would change nothing.
        let own_limit = self.action.instances.map(|limit| limit as usize);
        if let Some(limit) = own_limit.filter(|limit| own.running >= *limit) {
            let detail = format!("the action uses {} of {limit} containers", own.running);
            return Some((WaitReason::ActionLimit, detail));
        }
        let counts = self.counts;
        let used = counts.running.saturating_add(counts.in_progress);
        let most = if own.running == 0 {
            counts.limit_over
        } else {
            counts.limit
        };
        if self.is_namespace_full && counts.limit == 0 {
            let detail = format!("the limit of the namespace is 0; {used} of its containers finish");
            return Some((WaitReason::NamespaceLimitZero, detail));
        }
        if self.is_namespace_full && used >= most {
            let detail = format!("the namespace uses {used} of {} containers", counts.limit);
            return Some((WaitReason::NamespaceLimit, detail));
        }
        None
    }

    fn wait_for_container(&self) -> (WaitReason, String) {
        let running = self.containers.counts().running;
        let is_decided = self.decide_at.is_some_and(|at| at > self.stepped_at);
        let is_enough = matches!(
            self.last_decision,
            Some((Decision::Skip | Decision::DisableNamespaceThrottling, _))
        );
        if running > 0 && is_decided && is_enough {
            let detail = format!(
                "{running} containers are at work for {} waiting",
                self.waiting.len()
            );
            return (WaitReason::ContainersBusy, detail);
        }
        let detail = format!("{running} containers run; the next decision is due");
        (WaitReason::Deciding, detail)
    }
}

/// Whether the first moment is there and not after the other.
fn oldest(first: Option<Instant>, other: Option<Instant>) -> bool {
    first.is_some_and(|first| other.is_none_or(|other| first <= other))
}
