//! What a shard counts beside the way of an activation: how creations end, and why activations are given up.

use std::collections::BTreeMap;

use whiskraft_queue::{QueueState, QueueView};
use whiskraft_types::{ContainerId, Instant, WaitReason};

use crate::shard::actor::Shard;
use crate::shard::local::Slot;

/// Containers on their way whose start is measured; beyond it the oldest are not.
const CREATIONS_MAX: usize = 16_384;

/// When the slots of containers on their way were granted.
#[derive(Debug, Default)]
pub(crate) struct Creations {
    since: BTreeMap<ContainerId, Instant>,
}

impl Creations {
    /// Slots were granted.
    pub(crate) fn begin(&mut self, now: Instant, containers: &[ContainerId]) {
        self.since
            .extend(containers.iter().map(|container| (*container, now)));
        while self.since.len() > CREATIONS_MAX {
            self.since.pop_first();
        }
    }

    /// The container runs, or is given up: when its slot was granted, if it was granted to this shard.
    pub(crate) fn end(&mut self, container: ContainerId) -> Option<Instant> {
        self.since.remove(&container)
    }
}

impl Shard {
    /// A container runs.
    pub(crate) fn count_running(&mut self, container: ContainerId) {
        if let Some(since) = self.creations.end(container) {
            self.parts.meter.started(self.now.saturating_since(since));
        }
    }

    /// A queue has failed an activation at its tick.
    pub(crate) fn count_dropped(&mut self, slot: Slot) {
        // Once per tick: a queue may fail thousands in one.
        let reason = self
            .kept_by
            .or_else(|| Some(kept_by(&self.queues.get(slot)?.queue.view())));
        self.kept_by = reason;
        if let Some(reason) = reason {
            self.parts.meter.dropped(reason);
        }
    }
}

/// What keeps activations of a queue waiting, also when none is left.
fn kept_by(view: &QueueView) -> WaitReason {
    if let Some(wait) = &view.wait {
        return wait.reason;
    }
    match view.state {
        QueueState::Flushing => WaitReason::CreationFailing,
        QueueState::NamespaceThrottled => WaitReason::NamespaceLimit,
        QueueState::Draining | QueueState::Removed => WaitReason::Draining,
        QueueState::Running | QueueState::Idle | QueueState::ActionThrottled => match view.in_progress {
            0 => WaitReason::ContainersBusy,
            _ => WaitReason::ContainerStarting,
        },
    }
}
