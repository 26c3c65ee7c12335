//! Follows where containers are placed, from a watch of the containers table.

use std::collections::BTreeMap;
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
    placements: BTreeMap<ContainerId, Placement>,
    /// Containers that exist, with the moment their slot was reserved.
    live: BTreeMap<ContainerId, Row>,
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
    pub async fn start(client: &Client) -> Self {
        let mut updates = client
            .watch(&[Table::Containers], None)
            .await
            .expect("the watch starts");
        let clock = Deadline::after(Duration::MAX);
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Some(update) = updates.next().await {
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let events = match update {
                    WatchUpdate::Resync { .. } => {
                        seen.live.clear();
                        continue;
                    }
                    WatchUpdate::Snapshot { events, .. } | WatchUpdate::Changes { events, .. } => events,
                };
                for event in events {
                    if let WatchEvent::Container(info) = event {
                        seen.take(clock.elapsed(), &info);
                    }
                }
            }
        });
        Self { seen, clock, task }
    }

    /// Time since the start of the watch.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// All placements so far, in order.
    #[must_use]
    pub fn all(&self) -> Vec<Placement> {
        let mut all: Vec<_> = self.look(|seen| seen.placements.values().copied().collect());
        all.sort_by_key(|placement| placement.at);
        all
    }

    /// Times of the placements on one invoker, in order.
    #[must_use]
    pub fn on(&self, invoker: u64) -> Vec<Duration> {
        let own = self.all().into_iter();
        own.filter(|placement| placement.invoker.0 == invoker)
            .map(|placement| placement.at)
            .collect()
    }

    /// Rows of the table now.
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
            self.placements
                .entry(info.container)
                .or_insert(Placement { at, invoker });
            let there = self.live.values().filter(|row| row.invoker == Some(invoker));
            let there = there.count();
            let most = self.most_on.entry(invoker).or_default();
            *most = there.max(*most);
        }
    }
}
