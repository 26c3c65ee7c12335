//! Scaling and the passing of time: decisions, creations, retention, removal.

use whiskraft_types::{
    ActivationStatus, ContainerId, CreationError, CreationErrorClass, Instant, InvokerId, Revision,
};

use super::MemoryQueue;
use super::ending::{End, acknowledge_to, container_text};
use crate::containers::Fate;
use crate::ledger::EndKind;
use crate::waiting::Ticket;
use crate::{ActionProfile, Decision, NamespaceCounts, Output, QueueState, Snapshot, action_limit};

/// Shortest average that a decision is made with, in milliseconds.
const AVERAGE_MS_MIN: f64 = 0.001;
/// Text for activations of a namespace that may run nothing, as OpenWhisk's.
const ZERO_LIMIT: &str = "The namespace limit is less than or equal to 0.";
/// The same where the limit is the action's.
const ZERO_INSTANCES: &str = "The action's limit of containers is less than or equal to 0.";

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_tick(&mut self, now: Instant, counts: NamespaceCounts, out: &mut Vec<Output<P, R>>) {
        if self.is_fenced || self.is_removing {
            return;
        }
        self.note_counts(now, counts);
        self.begin_due(now, out);
        self.drop_old(now, out);
        self.settle_overdue(now, out);
        self.watch(now, out);
        self.expired_at = now;
        if !self.ledger.is_unused() {
            self.ledger
                .expire(now, &self.settings, self.is_recovering, &mut acknowledge_to(out));
        }
        self.lost = self.lost.filter(|(_, until)| now < *until);
        self.forget_failure(now);
        self.pump(now, out);
        if self.is_draining {
            return;
        }
        if self.decide_at.is_some_and(|at| at <= now) {
            self.decide(now, counts, out);
        }
        if self
            .quiet_since
            .is_some_and(|since| now.saturating_since(since) >= self.idle_after())
        {
            self.is_removing = true;
            out.push(Output::RemoveQueue);
        }
    }

    /// Fails what waited longer than the retention.
    fn drop_old(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        let retention = self.retentions();
        let old = self.waiting.expired(now, retention);
        if !old.is_empty() {
            tracing::warn!(queue = %self.key, activations = old.len(), "activations waited too long");
        }
        for id in old {
            let is_durable = self.ledger.find(id).is_some_and(|entry| entry.is_durable());
            let waited = if is_durable {
                retention.durable
            } else {
                retention.memory
            };
            let text = match &self.failure {
                Some(failure) => failure.text.clone(),
                None => format!(
                    "Activation processing is not initiated for {} ms",
                    waited.as_millis()
                ),
            };
            let end = End::failure(EndKind::Final, ActivationStatus::WhiskError, text);
            self.fail(now, id, end, out);
        }
        self.drop_held(now, out);
    }

    /// Fails activations of containers that went long ago and whose invoker said nothing about them.
    fn settle_overdue(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        for container in self.containers.overdue(now, self.settings.settle_wait) {
            let ids = self
                .ledger
                .ids_where(|stage| stage.container() == Some(container));
            self.lose(now, ids, &container_text(container), out);
            self.containers.remove(container);
        }
    }

    fn decide(&mut self, now: Instant, counts: NamespaceCounts, out: &mut Vec<Output<P, R>>) {
        self.decide_at = None;
        let is_failing = self
            .failure
            .as_ref()
            .is_some_and(|failure| failure.error.class() == CreationErrorClass::Whisk);
        if is_failing && self.waiting.is_empty() {
            // Creations that fail are repeated only for somebody.
            return;
        }
        let not_before = self
            .failure
            .as_ref()
            .map(|failure| failure.retry_at)
            .max(self.scale_after)
            .max(self.room_wait(now));
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
        let is_knotted = self.is_knotted(now, out);
        let decision = if is_knotted {
            // Containers that never come free are as good as none.
            Decision::EnableNamespaceThrottling { count: 0, drop: true }
        } else {
            self.settings.rule.decide(&snapshot)
        };
        self.last_decision = Some((decision, now));
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
            // Its own containers of an old revision give their slots back when what they run has ended.
            Decision::EnableNamespaceThrottling { drop: true, .. }
                if !is_knotted && self.containers.ending_at_work() > 0 =>
            {
                self.starved = None;
            }
            Decision::EnableNamespaceThrottling { drop: true, .. } => self.starve(now, is_knotted, out),
            Decision::Pausing if snapshot.existing > 0 => {}
            Decision::Pausing => {
                let text = if counts.limit == 0 {
                    ZERO_LIMIT
                } else {
                    ZERO_INSTANCES
                };
                self.note_failure(now, CreationError::ZeroNamespaceLimit, text.to_owned());
            }
        }
        if !self.waiting.is_empty() {
            let next = now + self.settings.decision_interval;
            // Who starves hears it on time, not at the next look after that.
            let ends = self.starves_until().filter(|at| *at > now);
            self.decide_at = [self.decide_at, ends, Some(next)].into_iter().flatten().min();
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
            // Runs too short to measure are the shortest, not of unknown length.
            average_ms: self.average.mean_ms().map(|mean| mean.max(AVERAGE_MS_MIN)),
            namespace_limit: i64::from(counts.limit),
            action_limit: i64::from(action_limit(counts.limit, self.action.instances)),
            concurrency: i64::from(self.action.concurrency.max(1)),
            stale_threshold: self.settings.stale_threshold,
            over_limit: (counts.limit_over > counts.limit).then_some(i64::from(counts.limit_over)),
        }
    }

    fn reserve(&mut self, count: u32, out: &mut Vec<Output<P, R>>) {
        self.starved = None;
        if count > 0 {
            self.reserving += count;
            out.push(Output::Reserve { count });
        }
    }

    pub(super) fn on_granted(
        &mut self,
        asked: u32,
        containers: &[(ContainerId, Option<InvokerId>)],
        revision: Revision,
        out: &mut Vec<Output<P, R>>,
    ) {
        self.reserving = self.reserving.saturating_sub(asked);
        for (container, invoker) in containers {
            self.containers.insert(*container, *invoker, revision, false);
        }
        self.retire(out);
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

    /// A container serves no more; `since` is from when on its invoker has nothing more to say of it, if that is so.
    pub(super) fn on_container_left(&mut self, now: Instant, container: ContainerId, since: Option<Instant>) {
        if self.containers.find(container).is_some() {
            self.containers.leave(container, since);
            self.decide_soon(now);
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
        self.timeout_max = self.timeout_max.max(action.timeout);
        self.action = action;
        self.retire(out);
        // A raised limit gives back what was still busy.
        self.pump(now, out);
        self.decide_soon(now);
    }

    /// Ends containers that the action may have no more: those of old revisions, and the newest beyond its limit. What
    /// runs in them finishes first.
    pub(super) fn retire(&mut self, out: &mut Vec<Output<P, R>>) {
        if self.containers.is_empty() {
            return;
        }
        let mut free = self.containers.end_older(self.action.revision);
        let limit = self.action.instances.map_or(usize::MAX, |limit| limit as usize);
        free.extend(self.containers.limit_to(limit));
        out.extend(
            free.into_iter()
                .map(|container| Output::RemoveContainer { container }),
        );
    }

    /// Something changed for those that wait: decide at the next tick.
    pub(super) fn decide_soon(&mut self, now: Instant) {
        if !self.waiting.is_empty() {
            self.decide_at = Some(now);
        }
    }

    /// One more waits. With no container the decision cannot be too soon; else running ones may free themselves first.
    pub(super) fn decide_for(&mut self, now: Instant, ticket: &Ticket) {
        let has_none = self.containers.is_empty() && self.reserving == 0;
        if has_none || self.retentions().end_of(ticket) <= now {
            self.decide_at = Some(now);
        } else {
            self.decide_at
                .get_or_insert(now + self.settings.decision_interval);
        }
    }
}
