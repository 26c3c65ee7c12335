//! Follows where containers are placed, from a watch of the containers table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use whiskraft_client::Client;
use whiskraft_client::watch::{Container, ContainerState, Table, WatchEvent, WatchUpdate};
use whiskraft_types::{ContainerId, InvokerId};

use crate::wait::Deadline;

/// A container that was given a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// When, from the start of the watch.
    pub at: Duration,
    /// Where.
    pub invoker: InvokerId,
}

#[derive(Debug, Default)]
struct Seen {
    placements: Vec<Placement>,
    /// Containers that exist, with the moment their slot was reserved.
    live: BTreeMap<ContainerId, Row>,
    /// What a snapshot has told of so far, until it is complete.
    snapshot: Option<BTreeSet<ContainerId>>,
    longest_in_progress: Duration,
    most_on: BTreeMap<InvokerId, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    since: Duration,
    invoker: Option<InvokerId>,
    in_progress: bool,
}

/// Follows all containers; ends when dropped.
#[derive(Debug)]
pub struct PlacementWatch {
    seen: Arc<Mutex<Seen>>,
    clock: Deadline,
    task: JoinHandle<()>,
}

impl PlacementWatch {
    /// Starts with what there is now.
    ///
    /// # Panics
    /// If the cluster does not tell.
    pub async fn start(client: &Client) -> Self {
        let mut updates = client
            .watch(&[Table::Containers], None)
            .await
            .expect("the watch starts");
        let clock = Deadline::after(Duration::MAX);
        let mut first = Seen::default();
        while first.on_update(clock.elapsed(), updates.next().await.expect("a snapshot")) {}
        let seen = Arc::new(Mutex::new(first));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Some(update) = updates.next().await {
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                seen.on_update(clock.elapsed(), update);
            }
        });
        Self { seen, clock, task }
    }

    /// Time since the start of the watch.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// All placements so far, in order; a container that goes from one invoker to another has several.
    #[must_use]
    pub fn all(&self) -> Vec<Placement> {
        self.look(|seen| seen.placements.clone())
    }

    /// Times of the placements on one invoker, in order.
    #[must_use]
    pub fn on(&self, invoker: u64) -> Vec<Duration> {
        let own = self.all().into_iter();
        own.filter(|placement| placement.invoker.0 == invoker)
            .map(|placement| placement.at)
            .collect()
    }

    /// Rows of the table now; after a gap in the watch, the rows before it until it is known what has become of them.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.look(|seen| seen.live.len())
    }

    /// Rows that only reserve a slot so far, now.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.look(|seen| seen.live.values().filter(|row| row.in_progress).count())
    }

    /// The longest time that a slot was reserved for a container that did not run.
    #[must_use]
    pub fn longest_in_progress(&self) -> Duration {
        self.look(|seen| seen.longest_in_progress)
    }

    /// The most containers that one invoker had at once.
    #[must_use]
    pub fn most_on(&self, invoker: u64) -> usize {
        self.look(|seen| seen.most_on.get(&InvokerId(invoker)).copied().unwrap_or(0))
    }

    fn look<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for PlacementWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    /// Whether a snapshot is under way, so that more is to come before anything is certain.
    fn on_update(&mut self, at: Duration, update: WatchUpdate) -> bool {
        let (events, is_complete) = match update {
            WatchUpdate::Resync { .. } => {
                self.snapshot = Some(BTreeSet::new());
                return true;
            }
            WatchUpdate::Snapshot { events, last, .. } => {
                self.snapshot.get_or_insert_default();
                (events, last)
            }
            WatchUpdate::Changes { events, .. } => (events, false),
        };
        for event in events {
            if let WatchEvent::Container(info) = event {
                if let Some(told) = &mut self.snapshot {
                    told.insert(info.container);
                }
                self.take(at, &info);
            }
        }
        if let Some(told) = self.snapshot.take_if(|_| is_complete) {
            self.live.retain(|id, _| told.contains(id));
        }
        self.snapshot.is_some()
    }

    fn take(&mut self, at: Duration, info: &Container) {
        let before = self.live.get(&info.container).copied();
        let in_progress = info.state == ContainerState::InProgress;
        if let Some(row) = before.filter(|row| row.in_progress && !in_progress) {
            self.longest_in_progress = self.longest_in_progress.max(at.saturating_sub(row.since));
        }
        if info.state == ContainerState::Removed {
            self.live.remove(&info.container);
            return;
        }
        let row = Row {
            since: before.map_or(at, |row| row.since),
            invoker: info.invoker,
            in_progress,
        };
        self.live.insert(info.container, row);
        if let Some(invoker) = info.invoker {
            if before.and_then(|row| row.invoker) != Some(invoker) {
                self.placements.push(Placement { at, invoker });
            }
            let there = self.live.values().filter(|row| row.invoker == Some(invoker));
            let there = there.count();
            let most = self.most_on.entry(invoker).or_default();
            *most = there.max(*most);
        }
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::{LogRevision, Revision, SessionId};

    use super::*;

    fn container(seq: u64, invoker: Option<u64>, state: ContainerState) -> WatchEvent {
        WatchEvent::Container(Container {
            container: ContainerId {
                session: SessionId(1),
                seq,
            },
            key: whiskraft_types::QueueKey {
                namespace: "guest".parse().unwrap(),
                action: "guest/hello".parse().unwrap(),
            },
            revision: Revision(1),
            invoker: invoker.map(InvokerId),
            state,
        })
    }

    fn changes(events: Vec<WatchEvent>) -> WatchUpdate {
        let revision = LogRevision(1);
        WatchUpdate::Changes { revision, events }
    }

    fn snapshot(events: Vec<WatchEvent>, last: bool) -> WatchUpdate {
        let revision = LogRevision(1);
        WatchUpdate::Snapshot {
            revision,
            events,
            last,
        }
    }

    fn resync() -> WatchUpdate {
        WatchUpdate::Resync {
            reason: "a gap".to_owned(),
        }
    }

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn every_place_of_a_container_counts() {
        let mut seen = Seen::default();
        for invoker in [None, Some(1), Some(1), Some(2), None, Some(2)] {
            seen.on_update(
                SOON,
                changes(vec![container(1, invoker, ContainerState::InProgress)]),
            );
        }
        let places: Vec<_> = seen
            .placements
            .iter()
            .map(|placement| placement.invoker.0)
            .collect();
        assert_eq!(places, [1, 2, 2]);
    }

    #[test]
    fn rows_go_after_a_gap_only_when_the_snapshot_is_complete() {
        let running = |seq| container(seq, Some(1), ContainerState::Running);
        let mut seen = Seen::default();
        seen.on_update(SOON, changes(vec![running(1), running(2)]));
        assert!(seen.on_update(SOON, resync()));
        assert!(seen.on_update(SOON, snapshot(vec![running(2)], false)));
        assert_eq!(seen.live.len(), 2);
        assert!(!seen.on_update(SOON, snapshot(vec![running(3)], true)));
        let left: Vec<_> = seen.live.keys().map(|id| id.seq).collect();
        assert_eq!(left, [2, 3]);
        assert_eq!(seen.placements.len(), 3, "container 2 did not move");
    }
}
