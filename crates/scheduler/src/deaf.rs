//! Moves queues on that wait for an invoker which this scheduler does not hear.
//!
//! After a change of leader a queue holds back what an invoker may have, until that one has registered. An invoker whose
//! session lives through another scheduler and whose way to this one is cut never does. Who hears it
//! is in no table, so such a queue goes round until it is there.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use whiskraft_types::SchedulerId;

use crate::context::Context;
use crate::drain::successors;
use crate::handoff::{Bare, HandOver, Settled, Targets};
use crate::shard::Pick;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// An invoker that lives and has a way here has registered long before: its links try again twice a second.
const HELD_MAX: Duration = Duration::from_secs(5);
/// Queues moved at a look.
const BATCH_MAX: usize = 64;

/// The actor.
pub(crate) struct DeafActor {
    context: Context,
    hand_over: HandOver,
}

impl DeafActor {
    pub(crate) const fn new(context: Context, hand_over: HandOver) -> Self {
        Self { context, hand_over }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let Some(session) = self.context.fence.session() else {
                continue;
            };
            let others = successors(&self.context).into_iter().map(|(_, id)| id);
            let Some(to) = next(self.context.node.id(), others.collect()) else {
                continue;
            };
            let pick = Pick::Deaf {
                count: BATCH_MAX,
                after: HELD_MAX,
            };
            let moving = self
                .hand_over
                .run(session, pick, Targets::Only(to), Bare::TooLarge);
            for (key, settled) in moving.await {
                match settled {
                    Settled::Moved { .. } => {
                        tracing::warn!(queue = %key, %to, "queue moved on: an invoker that it waits for is not heard here");
                    }
                    Settled::Stayed(rejection) => {
                        tracing::warn!(queue = %key, %to, %rejection, "queue waits for an invoker that is not heard here, and cannot be moved");
                    }
                    Settled::Gone => {}
                }
            }
        }
    }
}

/// The scheduler after this one in the ring of those that take queues.
fn next(own: SchedulerId, mut others: Vec<SchedulerId>) -> Option<SchedulerId> {
    others.sort_unstable();
    let after = others.iter().find(|id| **id > own);
    after.or(others.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_nobody_hears_for_goes_round() {
        let ring = |own, others: &[u64]| {
            next(
                SchedulerId(own),
                others.iter().copied().map(SchedulerId).collect(),
            )
        };
        assert_eq!(ring(1, &[3, 2]), Some(SchedulerId(2)));
        assert_eq!(ring(2, &[1, 3]), Some(SchedulerId(3)));
        assert_eq!(ring(3, &[2, 1]), Some(SchedulerId(1)));
        assert_eq!(ring(3, &[]), None);
    }
}
