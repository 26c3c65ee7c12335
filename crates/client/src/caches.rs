//! Turns the watched tables into what the router and the throttle view take.
//!
//! A snapshot comes in parts; nothing of it counts before its last part, so nobody ever sees half a table.

use std::collections::BTreeMap;

use whiskraft_types::{Instant, QueueKey, SchedulerId};

use crate::core::{Input, Route};
use crate::throttle::ThrottleView;
use crate::watch::{Member, Queue, WatchEvent, WatchUpdate};

/// The snapshot being received.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    members: BTreeMap<SchedulerId, String>,
    queues: BTreeMap<QueueKey, Route>,
    throttles: ThrottleView,
}

impl Caches {
    /// Takes one update; the router gets what is returned.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        update: WatchUpdate,
        throttles: &mut ThrottleView,
    ) -> Vec<Input> {
        match update {
            WatchUpdate::Resync { reason } => {
                tracing::info!(reason, "tables are read anew");
                *self = Self::default();
                Vec::new()
            }
            WatchUpdate::Snapshot { events, last, .. } => {
                events.iter().for_each(|event| self.collect(now, event));
                if !last {
                    return Vec::new();
                }
                let complete = std::mem::take(self);
                throttles.replace(complete.throttles);
                vec![Input::Snapshot {
                    members: complete.members,
                    queues: complete.queues,
                }]
            }
            WatchUpdate::Changes { events, .. } => {
                events.iter().for_each(|event| throttles.apply(now, event));
                events.iter().filter_map(change).collect()
            }
        }
    }

    fn collect(&mut self, now: Instant, event: &WatchEvent) {
        self.throttles.apply(now, event);
        match event {
            WatchEvent::Member(member) => {
                if let Some(address) = address(member) {
                    self.members.insert(member.scheduler, address);
                }
            }
            WatchEvent::Queue(queue) if !queue.removed => {
                self.queues.insert(queue.key.clone(), route(queue));
            }
            _ => {}
        }
    }
}

fn change(event: &WatchEvent) -> Option<Input> {
    match event {
        WatchEvent::Member(member) => Some(Input::Member {
            scheduler: member.scheduler,
            address: address(member),
        }),
        WatchEvent::Queue(queue) => Some(Input::Queue {
            key: queue.key.clone(),
            route: (!queue.removed).then(|| route(queue)),
        }),
        _ => None,
    }
}

fn address(member: &Member) -> Option<String> {
    member.client_address.clone().filter(|_| !member.removed)
}

fn route(queue: &Queue) -> Route {
    Route {
        leader: queue.leader,
        epoch: queue.epoch,
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::{Epoch, LogRevision, Revision};

    use super::*;

    fn member(id: u64, removed: bool) -> WatchEvent {
        WatchEvent::Member(Member {
            scheduler: SchedulerId(id),
            peer_address: String::new(),
            client_address: Some(format!("h:{id}")),
            zone: String::new(),
            version: String::new(),
            draining: false,
            removed,
        })
    }

    fn queue(epoch: u64) -> WatchEvent {
        WatchEvent::Queue(Queue {
            key: QueueKey {
                namespace: "guest".parse().unwrap(),
                action: "lib/hello".parse().unwrap(),
            },
            leader: Some(SchedulerId(1)),
            epoch: Epoch(epoch),
            revision: Revision(1),
            removed: false,
        })
    }

    fn part(events: Vec<WatchEvent>, last: bool) -> WatchUpdate {
        WatchUpdate::Snapshot {
            revision: LogRevision(1),
            events,
            last,
        }
    }

    #[test]
    fn a_snapshot_counts_only_when_it_is_complete() {
        let (mut caches, mut throttles) = (Caches::default(), ThrottleView::default());
        assert!(
            caches
                .apply(
                    Instant::ORIGIN,
                    part(vec![member(1, false)], false),
                    &mut throttles
                )
                .is_empty()
        );
        let inputs = caches.apply(Instant::ORIGIN, part(vec![queue(3)], true), &mut throttles);
        let [Input::Snapshot { members, queues }] = inputs.as_slice() else {
            panic!("{inputs:?}")
        };
        assert_eq!((members.len(), queues.len()), (1, 1));
    }

    #[test]
    fn a_resync_forgets_the_parts_before_it() {
        let (mut caches, mut throttles) = (Caches::default(), ThrottleView::default());
        caches.apply(
            Instant::ORIGIN,
            part(vec![member(1, false)], false),
            &mut throttles,
        );
        caches.apply(
            Instant::ORIGIN,
            WatchUpdate::Resync {
                reason: "behind".to_owned(),
            },
            &mut throttles,
        );
        let inputs = caches.apply(
            Instant::ORIGIN,
            part(vec![member(2, false)], true),
            &mut throttles,
        );
        let [Input::Snapshot { members, .. }] = inputs.as_slice() else {
            panic!("{inputs:?}")
        };
        assert_eq!(members.keys().collect::<Vec<_>>(), [&SchedulerId(2)]);
    }

    #[test]
    fn a_member_that_left_has_no_address() {
        let (mut caches, mut throttles) = (Caches::default(), ThrottleView::default());
        let update = WatchUpdate::Changes {
            revision: LogRevision(2),
            events: vec![member(1, true)],
        };
        let inputs = caches.apply(Instant::ORIGIN, update, &mut throttles);
        assert!(
            matches!(inputs.as_slice(), [Input::Member { address: None, .. }]),
            "{inputs:?}"
        );
    }
}
