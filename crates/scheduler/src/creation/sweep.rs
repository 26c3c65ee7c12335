//! Finds slots that nobody will use: containers in progress of queues led here that no job takes care of. A former
//! leader reserved them and died, or gave the queue away; its creation may still come to something until the creation
//! deadline is over, counted from when this node first saw the reservation.

use std::time::Duration;

use whiskraft_queue::CreationSettings;
use whiskraft_types::{ContainerId, Instant, InvokerId};

use crate::creation::actor::CreationParts;
use crate::creation::job::Jobs;

/// Time between two looks: small against the creation deadline.
const PAUSE: Duration = Duration::from_millis(500);

/// The agenda.
#[derive(Debug)]
pub(crate) struct Sweep {
    next: Instant,
}

impl Sweep {
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now + PAUSE }
    }

    /// When it wants to run again.
    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// The slots to give back, with the invokers that may still be at it.
    pub(crate) fn run(
        &mut self,
        parts: &CreationParts,
        jobs: &Jobs,
        settings: &CreationSettings,
        now: Instant,
    ) -> Vec<(ContainerId, Option<InvokerId>)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + PAUSE;
        let node = &parts.context.node;
        let Some(session) = parts.context.fence.session() else {
            return Vec::new();
        };
        let mut abandoned = parts.in_progress.pick(|id, _| !jobs.contains(id));
        abandoned.retain(|(id, row)| {
            let (is_led, is_hopeless) = node.read(|state| {
                let leader = state.queue(&row.key).and_then(|queue| queue.leader);
                let is_led = leader.is_some_and(|(_, leader)| leader == session);
                // One that was never placed cannot be created any more once its session has ended.
                (
                    is_led,
                    row.invoker.is_none() && state.session(id.session).is_none(),
                )
            });
            let age = now.saturating_since(row.since);
            let is_overdue = age >= settings.timeout(false)
                && age >= settings.timeout(parts.profiles.is_blackbox(node, &row.key.action, row.revision));
            is_led && (is_hopeless || is_overdue)
        });
        let slot = |(id, row): (ContainerId, crate::creation::in_progress::OnItsWay)| (id, row.invoker);
        abandoned.into_iter().map(slot).collect()
    }
}
