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

/// Why the queue that ticks gives activations up: what it fails at its tick, it fails for its age, and nothing that
/// fails otherwise is counted.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    is_ticking: bool,
    /// Looked up once per tick: a queue may fail thousands in one.
    kept_by: Option<WaitReason>,
}

impl Drops {
    /// A queue is about to tick.
    pub(crate) const fn begin(&mut self) {
        (self.is_ticking, self.kept_by) = (true, None);
    }

    /// It has ticked.
    pub(crate) const fn end(&mut self) {
        self.is_ticking = false;
    }

    fn reason(&mut self, look: impl FnOnce() -> Option<WaitReason>) -> Option<WaitReason> {
        if self.is_ticking {
            self.kept_by = self.kept_by.or_else(look);
            return self.kept_by;
        }
        None
    }
}

impl Shard {
    /// A container runs.
    pub(crate) fn count_running(&mut self, container: ContainerId) {
        if let Some(since) = self.creations.end(container) {
            self.parts.meter.started(self.now.saturating_since(since));
        }
    }

    /// A queue has failed an activation; it counts if that was at its tick.
    pub(crate) fn count_dropped(&mut self, slot: Slot) {
        let look = || Some(kept_by(&self.queues.get(slot)?.queue.view()));
        if let Some(reason) = self.drops.reason(look) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tick_has_its_own_reason_and_nothing_else_has_one() {
        let mut drops = Drops::default();
        let (first, second) = (WaitReason::NamespaceLimit, WaitReason::ContainersBusy);
        assert_eq!(drops.reason(|| Some(first)), None);
        drops.begin();
        assert_eq!(drops.reason(|| Some(first)), Some(first));
        assert_eq!(drops.reason(|| Some(second)), Some(first), "looked up once");
        drops.end();
        assert_eq!(drops.reason(|| Some(first)), None);
        drops.begin();
        assert_eq!(drops.reason(|| Some(second)), Some(second));
    }
}
