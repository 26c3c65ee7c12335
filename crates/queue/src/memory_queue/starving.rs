//! A full namespace: queues without a container wait for room, tell their callers in time, and do not all ask at once
//! when there is room.
//!
//! Chained calls could wait for each other for ever (A holds every slot and waits for B), so a queue without a
//! container says that it starves, which makes an idle container of the namespace go, and after `starved_wait` without
//! any room it ends what waits with one text and refuses what comes with `Throttled`.
//! Containers of which none comes free are as good as none (`calls.rs`): then the same is true for the calls, and only
//! for them, for what else waits is served once the callers have heard.

use std::time::Duration;

use whiskraft_types::{ActivationStatus, Instant};

use super::MemoryQueue;
use crate::ledger::EndKind;
use crate::{NamespaceCounts, Output};

/// Text for activations that a full namespace leaves without a container, as OpenWhisk's.
const TOO_MANY: &str = "Too many concurrent requests in flight.";
/// Longest pause between the moment a full namespace has room and the first ask of a queue.
const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// Age from which a waiting activation needs no pause.
const ROOM_AGE: Duration = Duration::from_secs(1);

/// The namespace is full and the queue has no container, or none that comes free.
#[derive(Debug)]
pub(super) struct Starved {
    since: Instant,
    checked_at: Instant,
    /// Whether it has containers, all at work for callers that wait for it.
    is_knotted: bool,
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    pub(super) fn on_namespace_full(&mut self, now: Instant, is_full: bool) {
        self.set_full(now, is_full);
        if !is_full {
            self.starved = None;
            self.decide_soon(now);
        }
    }

    /// What a tick shows of the namespace.
    pub(super) fn note_counts(&mut self, now: Instant, counts: NamespaceCounts) {
        self.counts = counts;
        self.set_full(
            now,
            counts.running.saturating_add(counts.in_progress) >= counts.limit,
        );
    }

    fn set_full(&mut self, now: Instant, is_full: bool) {
        if is_full {
            self.room_since = None;
        } else if self.is_namespace_full {
            self.starved = None;
            self.room_since = Some(now);
        }
        self.is_namespace_full = is_full;
    }

    /// Since a namespace that was full has room, queues ask one after the other, over all schedulers: the longer the
    /// oldest of a queue without a container waits, the sooner. `None` if the queue may ask.
    pub(super) fn room_wait(&mut self, now: Instant) -> Option<Instant> {
        let since = self.room_since?;
        let counts = self.containers.counts();
        let has_none = counts.running + counts.in_progress + self.reserving as usize == 0;
        let age = match self.waiting.oldest().filter(|_| has_none) {
            Some(oldest) => since.saturating_since(oldest),
            None => Duration::ZERO,
        };
        // The pause falls by as much per second of age as it takes to reach zero at ROOM_AGE.
        let fall = ROOM_PAUSE.mul_f64(age.as_secs_f64() / ROOM_AGE.as_secs_f64());
        let at = since + ROOM_PAUSE.saturating_sub(fall);
        if at > now {
            return Some(at);
        }
        self.room_since = None;
        None
    }

    /// The namespace is full and this queue has no container, or none that comes free. It waits a moment for room, then
    /// tells the callers.
    pub(super) fn starve(&mut self, now: Instant, is_knotted: bool, out: &mut Vec<Output<P, R>>) {
        if self.waiting.is_empty() && self.starved.is_none() {
            return;
        }
        let wait = self.settings.starved_wait;
        // What was not looked at for a while begins again: those who come now get their moment too.
        let before = self
            .starved
            .as_deref()
            .filter(|starved| now.saturating_since(starved.checked_at) < wait);
        let since = match before {
            Some(starved) => starved.since,
            None => {
                out.push(Output::Starved);
                now
            }
        };
        self.starved = Some(Box::new(Starved {
            since,
            checked_at: now,
            is_knotted,
        }));
        if now.saturating_since(since) < wait {
            return;
        }
        let ids = if is_knotted {
            // With the first caller that hears it a container comes free: what comes next is to be judged anew.
            self.starved = None;
            self.waiting_calls()
        } else {
            // Nobody waits for the answer to a durable one, unless another activation called it.
            let has_called = self.ledger.has_called();
            self.waiting
                .ids_where(|ticket| !ticket.is_durable || (has_called && self.is_called(ticket.id)))
        };
        if ids.is_empty() {
            return;
        }
        tracing::debug!(queue = %self.key, activations = ids.len(), is_knotted, "namespace is full; activations fail");
        let why = (EndKind::Failed, ActivationStatus::DeveloperError, TOO_MANY);
        self.fail_all(now, ids, why, out);
    }

    /// Whether this queue has said that it starves, and nothing has changed since.
    #[must_use]
    pub fn starves(&self) -> bool {
        self.starved.is_some()
    }

    /// Whether another container would do anything for those that wait, now.
    #[must_use]
    pub fn could_use_a_container(&self) -> bool {
        self.len() > 0 && self.may_hand_out() && self.failure.is_none()
    }

    /// When those that wait are told, if nothing changes.
    pub(super) fn starves_until(&self) -> Option<Instant> {
        Some(self.starved.as_deref()?.since + self.settings.starved_wait)
    }

    /// Whether new activations are refused because the namespace has no room for a first container. Forgotten when it
    /// was not looked at for a while: then the next activation is taken and makes the queue look again.
    pub(super) fn is_starved(&self, now: Instant) -> bool {
        self.starved.as_deref().is_some_and(|starved| {
            let wait = self.settings.starved_wait;
            !starved.is_knotted
                && now.saturating_since(starved.since) >= wait
                && now.saturating_since(starved.checked_at) < wait
        })
    }
}
