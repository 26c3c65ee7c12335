//! Finds slots that nobody will use: containers in progress of queues led here that no job takes care of. A former
//! leader reserved them and died; its creation may still come to something until the creation deadline is over.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_state::ContainerState;
use whiskraft_types::{ContainerId, Instant, InvokerId};

use crate::context::Context;
use crate::creation::job::Jobs;

/// Time between two looks at the table: small against the creation deadline.
const PAUSE: Duration = Duration::from_secs(2);

/// What is abandoned, and since when we know.
#[derive(Debug)]
pub(crate) struct Sweep {
    since: BTreeMap<ContainerId, Instant>,
    next: Instant,
}

impl Sweep {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: BTreeMap::new(),
            next: now + PAUSE,
        }
    }

    /// When it wants to run again.
    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// The slots to give back, with the invokers that may still be at it.
    pub(crate) fn run(
        &mut self,
        context: &Context,
        jobs: &Jobs,
        wait: Duration,
        now: Instant,
    ) -> Vec<(ContainerId, Option<InvokerId>)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + PAUSE;
        let Some(session) = context.fence.session() else {
            return Vec::new();
        };
        let abandoned: BTreeMap<ContainerId, (Option<InvokerId>, bool)> = context.node.read(|state| {
            let rows = state.containers().filter(|(id, row)| {
                let leader = state.queue(&row.key).and_then(|queue| queue.leader);
                let is_led = leader.is_some_and(|(_, leader)| leader == session);
                row.state == ContainerState::InProgress && is_led && !jobs.contains(*id)
            });
            // One that was never placed cannot be created any more once its session has ended.
            let row = |(id, row): (ContainerId, &whiskraft_state::ContainerRecord)| {
                let is_hopeless = row.invoker.is_none() && state.session(id.session).is_none();
                (id, (row.invoker.map(|(invoker, _)| invoker), is_hopeless))
            };
            rows.map(row).collect()
        });
        self.since.retain(|id, _| abandoned.contains_key(id));
        let mut due = Vec::new();
        for (id, (invoker, is_hopeless)) in abandoned {
            let since = *self.since.entry(id).or_insert(now);
            if is_hopeless || now.saturating_since(since) >= wait {
                due.push((id, invoker));
            }
        }
        due
    }
}
