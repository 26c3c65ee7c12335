//! Makes room in a full namespace: an idle container of one queue goes, so that another queue which has work and not
//! one container gets a slot. Chained calls would otherwise wait for each other for ever.
//!
//! A queue says once that it starves. Containers that idle a moment later count as well, so the wish is kept for a
//! while and looked at again.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_proto::v1;
use whiskraft_types::{ContainerId, Instant, InvokerId, QueueKey};

use crate::control::registry::ControlCommand;
use crate::shard::actor::Shard;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(25);
/// Time after which a wish is dropped: somewhat longer than a starved queue keeps its activations.
const WISH_AGE_MAX: Duration = Duration::from_millis(1500);

/// Queues that starve, led by this shard or another one.
#[derive(Debug, Default)]
pub(crate) struct Reclaims {
    until: BTreeMap<QueueKey, Instant>,
    next: Option<Instant>,
}

impl Reclaims {
    /// When to look again.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Shard {
    pub(crate) fn on_reclaim(&mut self, starved: QueueKey) {
        self.reclaims.until.insert(starved, self.now + WISH_AGE_MAX);
        self.reclaims.next = Some(self.now);
    }

    /// Looks for idle containers, if it is time to.
    pub(crate) fn reclaim(&mut self) {
        if self.reclaims.next.is_none_or(|next| next > self.now) {
            return;
        }
        let mut until = std::mem::take(&mut self.reclaims.until);
        until.retain(|starved, until| {
            *until > self.now && self.is_starving(starved) && !self.make_room(starved)
        });
        self.reclaims.next = (!until.is_empty()).then(|| self.now + PAUSE);
        self.reclaims.until = until;
    }

    /// Whether the namespace is still full and the queue still without a container.
    fn is_starving(&self, starved: &QueueKey) -> bool {
        self.parts.context.node.read(|state| {
            state.is_namespace_throttled(&starved.namespace) && state.queue_counts(starved).slots() == 0
        })
    }

    /// Ends one idle container; whether there was one.
    fn make_room(&self, starved: &QueueKey) -> bool {
        let Some((container, invoker)) = self.idle_container(starved) else {
            return false;
        };
        tracing::debug!(%starved, %container, "idle container makes room");
        let command = v1::RemoveContainer {
            container: Some(container.into()),
            now: false,
        };
        self.parts
            .streams
            .send(invoker, ControlCommand::Remove(command))
            .is_ok()
    }

    fn idle_container(&self, starved: &QueueKey) -> Option<(ContainerId, InvokerId)> {
        let slots = self.queues.in_namespace(&starved.namespace).into_iter();
        let idle = slots.filter_map(|slot| self.queues.get(slot)).find(|local| {
            let view = local.queue.view();
            local.key != *starved && view.waiting == 0 && view.credits > 0
        });
        // The queue knows how many of its containers idle, not the shard which; the invoker lets what runs finish, so
        // a wrong guess costs time and nothing else.
        self.mirror.running(&idle?.key).last()
    }
}
