//! Replays containers and limits of one namespace from a watch and looks at the slots in use after every log revision.
//!
//! The watch follows the cluster, not one scheduler: it goes on when the one it asks is lost.

use std::collections::BTreeMap;

use tokio::sync::watch as cell;
use tokio::task::JoinHandle;
use whiskraft_client::Client;
use whiskraft_client::watch::{ContainerState, Table, WatchEvent, WatchStream, WatchUpdate};
use whiskraft_types::{ContainerId, NamespaceLimits, NamespaceName, QueueKey};

/// Slots in use as of the newest revision seen, and what was seen before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// Log revision.
    pub revision: u64,
    /// In progress or running now.
    pub now: usize,
    /// Of these, in progress.
    pub in_progress: usize,
    /// Limit in force now.
    pub limit: usize,
    /// The most at any revision.
    pub most: usize,
    /// Revisions that were looked at.
    pub revisions: u64,
    /// Of these, the ones in which more slots were in use than before and than the limit in force.
    pub over: u64,
    /// Containers that got a slot so far.
    pub granted: u64,
}

/// Follows the containers of one namespace; ends when dropped.
#[derive(Debug)]
pub struct SlotWatch {
    slots: cell::Receiver<Slots>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Replay {
    containers: BTreeMap<ContainerId, (QueueKey, ContainerState)>,
    limit: Option<usize>,
}

impl SlotWatch {
    /// Follows `namespace`.
    pub async fn start(client: &Client, namespace: &NamespaceName) -> Self {
        let tables = [Table::Containers, Table::Namespaces];
        let updates = client.watch(&tables, None).await.expect("the watch starts");
        let (sender, slots) = cell::channel(Slots::default());
        let task = tokio::spawn(follow(updates, namespace.clone(), sender));
        Self { slots, task }
    }

    /// What has been seen so far.
    #[must_use]
    pub fn slots(&self) -> Slots {
        *self.slots.borrow()
    }
}

impl Drop for SlotWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(mut updates: WatchStream, namespace: NamespaceName, slots: cell::Sender<Slots>) {
    let mut replay = Replay::default();
    while let Some(update) = updates.next().await {
        match update {
            WatchUpdate::Resync { .. } => replay.containers.clear(),
            WatchUpdate::Snapshot {
                revision,
                events,
                last,
            } => {
                replay.apply(&namespace, events);
                if last {
                    slots.send_modify(|slots| replay.look(revision.0, slots));
                }
            }
            WatchUpdate::Changes { revision, events } => {
                replay.apply(&namespace, events);
                slots.send_modify(|slots| replay.look(revision.0, slots));
            }
        }
    }
}

impl Replay {
    fn apply(&mut self, namespace: &NamespaceName, events: Vec<WatchEvent>) {
        for event in events {
            match event {
                WatchEvent::Container(info) if info.key.namespace == *namespace => match info.state {
                    ContainerState::Removed => drop(self.containers.remove(&info.container)),
                    state => drop(self.containers.insert(info.container, (info.key, state))),
                },
                WatchEvent::Namespace(info) if info.name == *namespace => {
                    self.limit = (!info.removed).then_some(info.limits.containers as usize);
                }
                _ => {}
            }
        }
    }

    /// A limit that was lowered is above board as long as no slot is added.
    fn look(&self, revision: u64, slots: &mut Slots) {
        let count = |wanted: &[ContainerState]| {
            let states = self.containers.values();
            states.filter(|(_, state)| wanted.contains(state)).count()
        };
        let now = count(&[ContainerState::InProgress, ContainerState::Running]);
        let limit = self
            .limit
            .unwrap_or(NamespaceLimits::default().containers as usize);
        let has_grown = now > slots.now;
        *slots = Slots {
            revision,
            now,
            in_progress: count(&[ContainerState::InProgress]),
            limit,
            most: slots.most.max(now),
            revisions: slots.revisions + 1,
            over: slots.over + u64::from(has_grown && now > limit),
            granted: slots.granted + now.saturating_sub(slots.now) as u64,
        };
    }
}
