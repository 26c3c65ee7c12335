//! Where the activations of a queue go: members, streams, leaderships, and the gate that paces questions.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{ActivationId, Instant, NotLeader, QueueKey, Rejection, SchedulerId};

use super::io::{EnsureAnswer, Output, Route, StreamId};
use super::{Gate, Place, Router, queue};

impl Router {
    /// Sends what waits in a queue to its leader, if the gate and the leader's stream are open.
    pub(super) fn dispatch(&mut self, now: Instant, key: &QueueKey, out: &mut Vec<Output>) {
        let Some(queue) = self.queues.get(key).filter(|queue| queue.gate == Gate::Open) else {
            return;
        };
        if queue.waiting.is_empty() {
            return;
        }
        let Some(leader) = self.routes.get(key).and_then(|route| route.leader) else {
            return self.hinder(now, key, "the queue has no known leader".to_owned(), true);
        };
        if self
            .links
            .get(&leader)
            .and_then(|link| link.generation())
            .is_none()
        {
            let cause = format!("its leader, scheduler {leader}, is not connected");
            return self.hinder(now, key, cause, false);
        }
        while let Some(queue) = self.queues.get_mut(key)
            && let Some((seq, id)) = queue.waiting.pop_first()
        {
            queue.placed.insert(seq, id);
            self.place(now, leader, id, out);
        }
    }

    /// Opens the gate: there is a new reason to believe that sending works.
    fn reopen(&mut self, now: Instant, key: &QueueKey, out: &mut Vec<Output>) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.gate = Gate::Open;
            self.dispatch(now, key, out);
        }
    }

    /// Closes the gate until the cluster has been asked: at once if `at_once` and this is the first obstacle,
    /// else after a pause.
    fn hinder(&mut self, now: Instant, key: &QueueKey, cause: String, at_once: bool) {
        let queues = self.queues.len();
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        queue.cause = cause;
        // One burst of rejections is one obstacle.
        if queue.gate != Gate::Open {
            return;
        }
        queue.failures = queue.failures.saturating_add(1);
        if at_once && queue.failures == 1 {
            queue.gate = Gate::AskQueued;
            self.asks_queued.push_back(key.clone());
        } else {
            let until = now + queue::pause(queue.failures, queues, &mut self.rng);
            queue.gate = Gate::Pausing { until };
            self.pauses.insert((until, key.clone()));
        }
    }

    pub(super) fn on_pause_over(&mut self, at: Instant, key: &QueueKey) {
        if let Some(queue) = self.queues.get_mut(key)
            && queue.gate == (Gate::Pausing { until: at })
        {
            queue.gate = Gate::AskQueued;
            self.asks_queued.push_back(key.clone());
        }
    }

    /// Asks for as many queues as may be asked for at a time.
    pub(super) fn ask_next(&mut self, out: &mut Vec<Output>) {
        while self.asks_open < self.bounds.asks_max {
            let Some(key) = self.asks_queued.pop_front() else {
                return;
            };
            let Some(queue) = self
                .queues
                .get_mut(&key)
                .filter(|queue| queue.gate == Gate::AskQueued)
            else {
                continue;
            };
            queue.gate = if queue.waiting.is_empty() {
                Gate::Open
            } else {
                Gate::Asking
            };
            if queue.gate == Gate::Asking {
                let unfinished = &self.unfinished;
                let may_have_begun = |id| {
                    unfinished
                        .get(id)
                        .is_some_and(super::activation::Activation::may_have_begun)
                };
                let resubmits = queue.waiting.values().any(may_have_begun);
                self.asks_open += 1;
                self.stats.ensures += 1;
                out.push(Output::Ensure { key, resubmits });
            }
        }
    }

    pub(super) fn on_ensured(
        &mut self,
        now: Instant,
        key: &QueueKey,
        answer: EnsureAnswer,
        out: &mut Vec<Output>,
    ) {
        self.asks_open = self.asks_open.saturating_sub(1);
        let was_asking = self
            .queues
            .get(key)
            .is_some_and(|queue| queue.gate == Gate::Asking);
        let cause = match answer {
            EnsureAnswer::Leadership {
                leader,
                epoch,
                address,
            } => {
                if let Some(address) = address.filter(|_| !self.members.contains_key(&leader)) {
                    self.on_member(now, leader, Some(address), out);
                }
                self.learn(
                    now,
                    key,
                    Route {
                        leader: Some(leader),
                        epoch,
                    },
                    out,
                );
                if was_asking {
                    self.reopen(now, key, out);
                }
                return;
            }
            EnsureAnswer::Rejected(rejection) if !rejection.is_retryable() => {
                if was_asking {
                    self.reject_waiting(key, &rejection, out);
                }
                return;
            }
            EnsureAnswer::Rejected(rejection) => rejection.to_string(),
            EnsureAnswer::Failed(cause) => cause,
        };
        if let Some(queue) = self.queues.get_mut(key).filter(|_| was_asking) {
            queue.gate = Gate::Open;
            self.hinder(now, key, cause, false);
        }
    }

    fn reject_waiting(&mut self, key: &QueueKey, rejection: &Rejection, out: &mut Vec<Output>) {
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        queue.gate = Gate::Open;
        let ids: Vec<ActivationId> = queue.waiting.values().copied().collect();
        for id in ids {
            self.reject(id, rejection.clone(), out);
        }
    }

    /// Does what a rejection advises; the activation waits already.
    pub(super) fn follow_advice(
        &mut self,
        now: Instant,
        from: SchedulerId,
        key: &QueueKey,
        rejection: Rejection,
        out: &mut Vec<Output>,
    ) {
        let cause = format!("scheduler {from}: {rejection}");
        let at_once = match rejection {
            Rejection::NotLeader(NotLeader {
                leader: Some(leader),
                epoch,
            }) => {
                let newer = self.routes.get(key).is_none_or(|route| epoch > route.epoch);
                if newer {
                    self.learn(
                        now,
                        key,
                        Route {
                            leader: Some(leader),
                            epoch,
                        },
                        out,
                    );
                    return self.dispatch(now, key, out);
                }
                // It has not heard of its leadership yet, or we are wrong: the cluster knows.
                self.forget(key, Some(from));
                false
            }
            Rejection::NotLeader(_) | Rejection::NoQueue | Rejection::Draining => {
                self.forget(key, Some(from));
                true
            }
            _ => false,
        };
        self.hinder(now, key, cause, at_once);
    }

    /// Takes a leadership unless a newer one is known.
    fn learn(&mut self, now: Instant, key: &QueueKey, route: Route, out: &mut Vec<Output>) {
        let known = self.routes.get(key);
        if known.is_some_and(|known| known.epoch > route.epoch || *known == route) {
            return;
        }
        self.routes.insert(key.clone(), route);
        let Some(queue) = self.queues.get(key) else { return };
        let placed: Vec<ActivationId> = queue.placed.values().copied().collect();
        for id in placed {
            let stays = self
                .unfinished
                .get(&id)
                .is_some_and(|activation| match activation.place {
                    Place::Sent { stream, epoch } | Place::Accepted { stream, epoch } => {
                        epoch == route.epoch && route.leader == Some(stream.scheduler)
                    }
                    Place::Waiting | Place::Backlog { .. } => false,
                });
            if !stays {
                self.take_back(id, false);
            }
        }
        self.reopen(now, key, out);
    }

    /// Drops a cached leadership (only that of `leader`, if given) that turned out wrong, so that the next answer
    /// counts whatever its epoch.
    fn forget(&mut self, key: &QueueKey, leader: Option<SchedulerId>) {
        let known = self.routes.get(key).and_then(|route| route.leader);
        if leader.is_some() && known != leader {
            return;
        }
        self.routes.remove(key);
        let Some(queue) = self.queues.get(key) else { return };
        let placed: Vec<ActivationId> = queue.placed.values().copied().collect();
        for id in placed {
            let place = self.unfinished.get(&id).map(|activation| activation.place);
            if matches!(place, Some(Place::Backlog { .. })) {
                self.take_back(id, true);
            }
        }
    }

    pub(super) fn on_queue(
        &mut self,
        now: Instant,
        key: &QueueKey,
        route: Option<Route>,
        out: &mut Vec<Output>,
    ) {
        match route {
            Some(route) => self.learn(now, key, route, out),
            None => {
                self.forget(key, None);
                self.dispatch(now, key, out);
            }
        }
    }

    pub(super) fn on_member(
        &mut self,
        now: Instant,
        scheduler: SchedulerId,
        address: Option<String>,
        out: &mut Vec<Output>,
    ) {
        if self.members.get(&scheduler) == address.as_ref() {
            return;
        }
        if self.members.remove(&scheduler).is_some() {
            out.push(Output::Shut { scheduler });
            self.drop_link(now, scheduler, &[], out);
            self.links.remove(&scheduler);
        }
        if let Some(address) = address {
            self.members.insert(scheduler, address.clone());
            self.links.entry(scheduler).or_default();
            out.push(Output::Open { scheduler, address });
        }
    }

    pub(super) fn on_snapshot(
        &mut self,
        now: Instant,
        members: BTreeMap<SchedulerId, String>,
        queues: BTreeMap<QueueKey, Route>,
        out: &mut Vec<Output>,
    ) {
        let gone: Vec<_> = self
            .members
            .keys()
            .filter(|id| !members.contains_key(id))
            .copied()
            .collect();
        for scheduler in gone {
            self.on_member(now, scheduler, None, out);
        }
        for (scheduler, address) in members {
            self.on_member(now, scheduler, Some(address), out);
        }
        let gone: Vec<_> = self
            .routes
            .keys()
            .filter(|key| !queues.contains_key(key))
            .cloned()
            .collect();
        for key in gone {
            self.on_queue(now, &key, None, out);
        }
        for (key, route) in queues {
            self.learn(now, &key, route, out);
        }
    }

    pub(super) fn on_stream_opened(
        &mut self,
        now: Instant,
        stream: StreamId,
        window: u32,
        payload_len_max: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(link) = self.links.get_mut(&stream.scheduler) else {
            return;
        };
        link.on_opened(stream.generation, window, payload_len_max);
        let led: Vec<QueueKey> = self
            .queues
            .keys()
            .filter(|key| self.routes.get(key).and_then(|route| route.leader) == Some(stream.scheduler))
            .cloned()
            .collect();
        for key in led {
            self.reopen(now, &key, out);
        }
    }

    pub(super) fn on_stream_lost(
        &mut self,
        now: Instant,
        stream: StreamId,
        unsent: &[ActivationId],
        out: &mut Vec<Output>,
    ) {
        let link = self.links.get(&stream.scheduler);
        if link.and_then(|link| link.generation()) == Some(stream.generation) {
            self.drop_link(now, stream.scheduler, unsent, out);
        }
    }

    /// Everything that was on the stream waits again, in order.
    fn drop_link(
        &mut self,
        now: Instant,
        scheduler: SchedulerId,
        unsent: &[ActivationId],
        out: &mut Vec<Output>,
    ) {
        if let Some(link) = self.links.get_mut(&scheduler) {
            if link.generation().is_some() {
                self.stats.streams_lost += 1;
            }
            link.on_lost();
        }
        let unsent: BTreeSet<_> = unsent.iter().collect();
        let lost: Vec<_> = self
            .unfinished
            .iter()
            .filter(|(_, activation)| activation.place.scheduler() == Some(scheduler))
            .map(|(id, activation)| (*id, activation.key.clone()))
            .collect();
        for (id, _) in &lost {
            self.take_back(*id, unsent.contains(id));
        }
        let keys: BTreeSet<_> = lost.into_iter().map(|(_, key)| key).collect();
        for key in keys {
            self.dispatch(now, &key, out);
        }
    }
}
