//! Scaling and the passing of time: decisions, creations, retention, removal.

use std::time::Duration;

use whiskraft_types::{
    ActivationStatus, ContainerId, CreationError, CreationErrorClass, Instant, InvokerId, Revision,
};

use super::{MemoryQueue, acknowledge_to, container_text};
use crate::containers::Fate;
use crate::{
    ActionProfile, BuiltInRule, Decision, DecisionRule, NamespaceCounts, Output, QueueState, Snapshot,
    action_limit,
};

/// Pause after the first failed creation.
const CREATION_PAUSE: Duration = Duration::from_millis(100);
/// Text for activations that a full namespace leaves without a container, as OpenWhisk's.
const TOO_MANY: &str = "Too many concurrent requests in flight.";
/// Text for activations of a namespace that may run nothing, as OpenWhisk's.
const ZERO_LIMIT: &str = "The namespace limit is less than or equal to 0.";
/// Text for a resubmitted activation whose fate no invoker could tell in time.
const HELD_TOO_LONG: &str =
    "The activation may have started before its queue moved; no invoker could tell in time.";

/// A failed creation, while the queue has no running container.
#[derive(Debug)]
pub(super) struct Failure {
    class: CreationErrorClass,
    text: String,
    /// Failures in a row.
    count: u32,
    /// No creation before this.
    retry_at: Instant,
    /// Last time that an activation came or waited.
    pub(super) active_at: Instant,
}

/// The namespace is full and the queue has no container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Starved {
    since: Instant,
    checked_at: Instant,
}

impl<P: Clone + PartialEq, R: Clone> MemoryQueue<P, R> {
    pub(super) fn on_tick(&mut self, now: Instant, counts: NamespaceCounts, out: &mut Vec<Output<P, R>>) {
        if self.is_fenced || self.is_removing {
            return;
        }
        self.is_namespace_full = counts.running.saturating_add(counts.in_progress) >= counts.limit;
        self.drop_old(now, out);
        self.settle_overdue(now, out);
        self.expired_at = now;
        self.ledger.expire(now, &self.settings, &mut acknowledge_to(out));
        self.lost = self.lost.filter(|(_, until)| now < *until);
        self.pump(now, out);
        if self.decide_at.is_some_and(|at| at <= now) {
            self.decide(now, counts, out);
        }
        self.forget_failure(now);
        if self
            .quiet_since
            .is_some_and(|since| now.saturating_since(since) >= self.settings.idle_after)
        {
            self.is_removing = true;
            out.push(Output::RemoveQueue);
        }
    }

    /// Fails what waited longer than the retention.
    fn drop_old(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        let retention = self.retention();
        let old = self.waiting.older_than(now, retention);
        if !old.is_empty() {
            let text = match &self.failure {
                Some(failure) => failure.text.clone(),
                None => format!(
                    "Activation processing is not initiated for {} ms",
                    retention.as_millis()
                ),
            };
            tracing::warn!(queue = %self.key, activations = old.len(), reason = text, "activations waited too long");
            self.fail_all(now, old, ActivationStatus::WhiskError, &text, out);
        }
        let old = self.held.older_than(now, retention);
        self.fail_all(now, old, ActivationStatus::WhiskError, HELD_TOO_LONG, out);
    }

    /// Fails activations of containers that went long ago and whose invoker said nothing about them.
    fn settle_overdue(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        for container in self.containers.overdue(now, self.settings.settle_wait) {
            let ids = self
                .ledger
                .ids_where(|stage| stage.container() == Some(container));
            self.fail_all(
                now,
                ids,
                ActivationStatus::WhiskError,
                &container_text(container),
                out,
            );
            self.containers.remove(container);
        }
    }

    fn decide(&mut self, now: Instant, counts: NamespaceCounts, out: &mut Vec<Output<P, R>>) {
        self.decide_at = None;
        let is_failing = self
            .failure
            .as_ref()
            .is_some_and(|failure| failure.class == CreationErrorClass::Whisk);
        if is_failing && self.waiting.is_empty() {
            // Creations that fail are repeated only for somebody.
            return;
        }
        let not_before = self
            .failure
            .as_ref()
            .map(|failure| failure.retry_at)
            .max(self.scale_after);
        if let Some(at) = not_before.filter(|at| *at > now) {
            self.decide_at = Some(at);
            return;
        }
        if self.ledger.is_full(&self.settings) {
            // Another container would get nothing.
            self.decide_at = (!self.waiting.is_empty()).then_some(now + self.settings.decision_interval);
            return;
        }
        let snapshot = self.snapshot(now, counts);
        let decision = BuiltInRule.decide(&snapshot);
        tracing::trace!(queue = %self.key, ?snapshot, ?decision, "decided");
        match decision {
            Decision::Skip | Decision::DisableNamespaceThrottling => self.starved = None,
            Decision::AddInitialContainer { count } => {
                self.initialized = true;
                self.reserve(count, out);
            }
            Decision::AddContainer { count } | Decision::EnableNamespaceThrottling { count, drop: false } => {
                self.reserve(count, out);
            }
            Decision::EnableNamespaceThrottling { drop: true, .. } => self.starve(now, out),
            Decision::Pausing if snapshot.existing > 0 => {}
            Decision::Pausing => {
                self.note_failure(now, CreationError::ZeroNamespaceLimit, ZERO_LIMIT.to_owned())
            }
        }
        if !self.waiting.is_empty() {
            let next = now + self.settings.decision_interval;
            self.decide_at = Some(self.decide_at.map_or(next, |at| at.min(next)));
        }
    }

    fn snapshot(&self, now: Instant, counts: NamespaceCounts) -> Snapshot {
        let own = self.containers.counts();
        let reserving = i64::from(self.reserving);
        let len = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        Snapshot {
            // Throttling is derived from length and counts, so to the rule a throttled queue is a running one.
            state: if self.failure.is_some() {
                QueueState::Flushing
            } else {
                QueueState::Running
            },
            initialized: self.initialized,
            incoming: 0,
            waiting: len(self.waiting.len()),
            stale: len(self.waiting.count_older(now, self.settings.stale_threshold)),
            existing: len(own.running),
            in_progress: len(own.in_progress) + reserving,
            existing_in_namespace: i64::from(counts.running),
            in_progress_in_namespace: i64::from(counts.in_progress) + reserving,
            average_ms: self.average.mean_ms(),
            namespace_limit: i64::from(counts.limit),
            action_limit: i64::from(action_limit(counts.limit, self.action.instances)),
            concurrency: i64::from(self.action.concurrency.max(1)),
            stale_threshold: self.settings.stale_threshold,
            // The log grants no slot beyond the limit.
            over_provision: None,
        }
    }

    fn reserve(&mut self, count: u32, out: &mut Vec<Output<P, R>>) {
        self.starved = None;
        if count > 0 {
            self.reserving += count;
            out.push(Output::Reserve { count });
        }
    }

    /// The namespace is full and this queue has no container. It waits a moment for room, then tells the callers.
    fn starve(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        if self.waiting.is_empty() && self.starved.is_none() {
            return;
        }
        let since = match self.starved {
            Some(starved) => starved.since,
            None => {
                out.push(Output::Starved);
                now
            }
        };
        self.starved = Some(Starved {
            since,
            checked_at: now,
        });
        if now.saturating_since(since) >= self.settings.starved_wait {
            let ids = self.waiting.ids();
            tracing::debug!(queue = %self.key, activations = ids.len(), "namespace is full; activations fail");
            self.fail_all(now, ids, ActivationStatus::DeveloperError, TOO_MANY, out);
        }
    }

    /// Whether new activations are refused because the namespace has no room for a first container. Forgotten when it
    /// was not looked at for a while: then the next activation is taken and makes the queue look again.
    pub(super) fn is_starved(&self, now: Instant) -> bool {
        self.starved.is_some_and(|starved| {
            let wait = self.settings.starved_wait;
            now.saturating_since(starved.since) >= wait && now.saturating_since(starved.checked_at) < wait
        })
    }

    /// The text with which activations fail because the action cannot be started. Notes that somebody still wants it,
    /// so that another creation is tried.
    pub(super) fn developer_failure(&mut self, now: Instant) -> Option<String> {
        let failure = self.failure.as_mut()?;
        failure.active_at = now;
        if failure.class == CreationErrorClass::Whisk {
            return None;
        }
        let (text, retry_at) = (failure.text.clone(), failure.retry_at);
        self.decide_at.get_or_insert(retry_at);
        Some(text)
    }

    fn note_failure(&mut self, now: Instant, error: CreationError, text: String) {
        let before = self.failure.take();
        let count = before.as_ref().map_or(0, |failure| failure.count);
        // Doubling beyond sixteen-fold never matters below the largest pause.
        let pause = (CREATION_PAUSE * (1 << count.min(10))).min(self.settings.creation_pause_max);
        let active_at = before.map_or(now, |failure| failure.active_at);
        let active_at = if self.waiting.is_empty() { active_at } else { now };
        let retry_at = now + pause;
        self.failure = Some(Failure {
            class: error.class(),
            text,
            count: count + 1,
            retry_at,
            active_at,
        });
    }

    /// Forgets a failure that nobody has asked about for a while.
    fn forget_failure(&mut self, now: Instant) {
        let grace = self.settings.flush_grace;
        let Some(failure) = &mut self.failure else { return };
        if !self.waiting.is_empty() {
            failure.active_at = now;
        } else if now.saturating_since(failure.active_at) >= grace {
            self.failure = None;
        }
    }

    pub(super) fn on_granted(
        &mut self,
        asked: u32,
        containers: &[ContainerId],
        revision: Revision,
        out: &mut Vec<Output<P, R>>,
    ) {
        self.reserving = self.reserving.saturating_sub(asked);
        for container in containers {
            self.containers.insert(*container, None, revision, false);
        }
        self.end_older(out);
    }

    pub(super) fn on_running(&mut self, container: ContainerId, invoker: InvokerId) {
        if self
            .containers
            .find(container)
            .is_some_and(|known| known.fate == Fate::Serving)
        {
            self.failure = None;
        }
        self.containers.place(container, invoker, true);
    }

    pub(super) fn on_container_left(&mut self, now: Instant, container: ContainerId) {
        if self.containers.find(container).is_some() {
            self.containers.leave(container, now);
            self.decide_soon(now);
        }
    }

    pub(super) fn on_creation_failed(
        &mut self,
        now: Instant,
        container: ContainerId,
        error: CreationError,
        message: String,
        out: &mut Vec<Output<P, R>>,
    ) {
        self.on_container_left(now, container);
        if self.containers.counts().running > 0 {
            return;
        }
        tracing::debug!(queue = %self.key, %container, ?error, message, "creation failed");
        if error.class() == CreationErrorClass::Developer {
            let ids = self.waiting.ids();
            self.note_failure(now, error, message.clone());
            self.fail_all(now, ids, ActivationStatus::DeveloperError, &message, out);
            // The next activation asks for another try; until then there is none.
            self.decide_at = self.decide_at.filter(|_| !self.waiting.is_empty());
        } else {
            self.note_failure(now, error, message);
        }
    }

    pub(super) fn on_action(&mut self, now: Instant, action: ActionProfile, out: &mut Vec<Output<P, R>>) {
        if action.revision < self.action.revision {
            return;
        }
        if action.revision > self.action.revision {
            // What failed may be mended. The average stays: it is a better guess than none.
            self.failure = None;
        }
        self.action = action;
        self.end_older(out);
        self.decide_soon(now);
    }

    /// Ends containers of old revisions; those with activations follow when these have ended.
    pub(super) fn end_older(&mut self, out: &mut Vec<Output<P, R>>) {
        let free = self.containers.end_older(self.action.revision);
        out.extend(
            free.into_iter()
                .map(|container| Output::RemoveContainer { container }),
        );
    }

    pub(super) fn on_namespace_full(&mut self, now: Instant, is_full: bool) {
        self.is_namespace_full = is_full;
        if !is_full {
            self.starved = None;
            self.decide_soon(now);
        }
    }

    /// Something changed for those that wait: decide at the next tick.
    pub(super) fn decide_soon(&mut self, now: Instant) {
        if !self.waiting.is_empty() {
            self.decide_at = Some(now);
        }
    }

    /// One more waits. With no container the decision cannot be too soon; else running ones may free themselves first.
    pub(super) fn decide_for_new(&mut self, now: Instant) {
        if self.containers.is_empty() && self.reserving == 0 {
            self.decide_at = Some(now);
        } else {
            self.decide_at
                .get_or_insert(now + self.settings.decision_interval);
        }
    }
}
