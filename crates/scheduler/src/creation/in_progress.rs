//! Containers on their way, of all schedulers, and since when this node knows of them. Kept by the follower, read by the
//! creation actor: what waits for memory elsewhere, and what was abandoned.
//!
//! Control plane only: one short lock, never held across an await.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use whiskraft_state::{ContainerRecord, ContainerState, Event, State};
use whiskraft_types::{ByteSize, ContainerId, Instant, InvokerId, NamespaceName, QueueKey, Revision};

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct OnItsWay {
    pub(crate) key: QueueKey,
    pub(crate) revision: Revision,
    pub(crate) invoker: Option<InvokerId>,
    pub(crate) memory: ByteSize,
    /// When this node heard of it.
    pub(crate) since: Instant,
}

/// Namespaces whose last place is remembered, below 100 bytes each; beyond it all are forgotten, which costs each a turn.
const SERVED_MAX: usize = 16_384;

/// What a namespace waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) memory: ByteSize,
    /// Since when it has waited without getting any.
    pub(crate) since: Instant,
}

/// What has no place, in sum.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlacelessSum {
    pub(crate) together: ByteSize,
    pub(crate) largest: ByteSize,
    /// How long the oldest of it has been on its way.
    pub(crate) oldest: Duration,
}

impl PlacelessSum {
    /// The sum of both.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            together: self.together.saturating_add(more.together),
            largest: self.largest.max(more.largest),
            oldest: self.oldest.max(more.oldest),
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<ContainerId, OnItsWay>,
    /// When a container of a namespace last got its place.
    served: BTreeMap<NamespaceName, Instant>,
}

/// All of them, and a bell for whoever waits for memory; a cheap copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct InProgress {
    table: Arc<Mutex<Table>>,
    changed: Arc<Notify>,
}

impl InProgress {
    /// Starts anew from the tables; what was known keeps its time.
    pub(crate) fn reset(&self, now: Instant, state: &State) {
        let new = state
            .containers()
            .filter(|(_, row)| row.state == ContainerState::InProgress);
        self.with(|table| {
            let before = std::mem::take(&mut table.rows);
            table.rows.extend(new.map(|(id, row)| {
                let since = before.get(&id).map_or(now, |known| known.since);
                (id, on_its_way(row, since))
            }));
        });
        self.changed.notify_one();
    }

    /// Notes the changes of one log entry, and rings if memory may have come free or something more waits for some.
    pub(crate) fn follow(&self, now: Instant, events: &[Event]) {
        let mut rings = false;
        self.with(|table| {
            for event in events {
                match event {
                    Event::Container {
                        id, record, removed, ..
                    } => {
                        rings |= *removed || !record.state.holds_slot() || record.invoker.is_none();
                        if *removed || record.state != ContainerState::InProgress {
                            table.rows.remove(id);
                        } else {
                            table.note(now, *id, record);
                        }
                    }
                    Event::Invoker(_, Some(_)) => rings = true,
                    _ => {}
                }
            }
        });
        if rings {
            // Rings that nobody has answered yet are one.
            self.changed.notify_one();
        }
    }

    /// Waits until memory may have come free, or something more waits for some, since the last time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What namespaces wait for, of what counts.
    pub(crate) fn wanted(
        &self,
        counts: impl Fn(ContainerId, &OnItsWay) -> bool,
    ) -> BTreeMap<NamespaceName, Demand> {
        let mut wanted = BTreeMap::<NamespaceName, Demand>::new();
        self.with(|table| {
            for (id, row) in &table.rows {
                if counts(*id, row) {
                    let nothing = Demand {
                        memory: ByteSize::ZERO,
                        since: row.since,
                    };
                    let demand = wanted.entry(row.key.namespace.clone()).or_insert(nothing);
                    demand.memory = demand.memory.saturating_add(row.memory);
                    demand.since = demand.since.min(row.since);
                }
            }
            for (namespace, demand) in &mut wanted {
                let served = table.served.get(namespace).copied();
                demand.since = served.map_or(demand.since, |served| served.max(demand.since));
            }
        });
        wanted
    }

    /// Whether something of these ages that is not among `own` has no place.
    pub(crate) fn waits_elsewhere(
        &self,
        now: Instant,
        ages: Range<Duration>,
        is_own: impl Fn(ContainerId) -> bool,
    ) -> bool {
        let is_of_age = |row: &OnItsWay| ages.contains(&now.saturating_since(row.since));
        self.with(|table| {
            let mut rows = table.rows.iter();
            rows.any(|(id, row)| row.invoker.is_none() && is_of_age(row) && !is_own(*id))
        })
    }

    /// What has no place, of all schedulers.
    pub(crate) fn placeless(&self, now: Instant) -> PlacelessSum {
        self.with(|table| {
            let rows = table.rows.values().filter(|row| row.invoker.is_none());
            let sums = rows.map(|row| PlacelessSum {
                together: row.memory,
                largest: row.memory,
                oldest: now.saturating_since(row.since),
            });
            sums.fold(PlacelessSum::default(), PlacelessSum::and)
        })
    }

    /// Whether anything has no place.
    pub(crate) fn waits(&self) -> bool {
        self.with(|table| table.rows.values().any(|row| row.invoker.is_none()))
    }

    /// Those that `is_wanted` picks.
    pub(crate) fn pick(
        &self,
        is_wanted: impl Fn(ContainerId, &OnItsWay) -> bool,
    ) -> Vec<(ContainerId, OnItsWay)> {
        self.with(|table| {
            let picked = table.rows.iter().filter(|(id, row)| is_wanted(**id, row));
            picked.map(|(id, row)| (*id, row.clone())).collect()
        })
    }

    fn with<T>(&self, access: impl FnOnce(&mut Table) -> T) -> T {
        // Nothing under this lock can leave the maps half changed.
        access(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    /// A container that is on its way still; its namespace is served when it gets a place.
    fn note(&mut self, now: Instant, id: ContainerId, record: &ContainerRecord) {
        let known = self.rows.get(&id);
        let had_none = known.is_none_or(|known| known.invoker.is_none());
        let since = known.map_or(now, |known| known.since);
        if had_none && record.invoker.is_some() {
            if self.served.len() >= SERVED_MAX {
                self.served.clear();
            }
            self.served.insert(record.key.namespace.clone(), now);
        }
        self.rows.insert(id, on_its_way(record, since));
    }
}

fn on_its_way(row: &ContainerRecord, since: Instant) -> OnItsWay {
    OnItsWay {
        key: row.key.clone(),
        revision: row.revision,
        invoker: row.invoker.map(|(invoker, _)| invoker),
        memory: row.memory,
        since,
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::{Epoch, LogRevision, SessionId};

    use super::*;

    #[test]
    fn the_sum_is_of_what_has_no_place_and_as_old_as_the_oldest_of_it() {
        let in_progress = InProgress::default();
        let at = |ms| Instant::from_origin(Duration::from_millis(ms));
        let add = |ms, seq, mib, invoker: Option<u64>| {
            let record = ContainerRecord {
                key: QueueKey {
                    namespace: "guest".parse().unwrap(),
                    action: "guest/hello".parse().unwrap(),
                },
                revision: Revision(1),
                invoker: invoker.map(|invoker| (InvokerId(invoker), SessionId(9))),
                state: ContainerState::InProgress,
                memory: ByteSize::mib(mib),
                epoch: Epoch(1),
                since: LogRevision(1),
                resumes: None,
            };
            let id = ContainerId {
                session: SessionId(1),
                seq,
            };
            in_progress.with(|table| table.note(at(ms), id, &record));
        };
        add(0, 1, 512, None);
        add(10, 2, 128, None);
        add(20, 3, 256, None);
        add(30, 1, 512, Some(7));
        let sum = PlacelessSum {
            together: ByteSize::mib(384),
            largest: ByteSize::mib(256),
            oldest: Duration::from_millis(90),
        };
        assert_eq!(in_progress.placeless(at(100)), sum);
    }
}
