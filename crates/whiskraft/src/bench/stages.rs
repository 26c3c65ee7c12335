//! The stages of the first activations of actions, as the tables of the cluster tell them: leader, slot, place, running.
//!
//! A watch sees each change when it has been applied by the scheduler it asks, so the way to the watcher is in every stage but is
//! the same at both of its ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use whiskraft_client::Client;
use whiskraft_client::watch::{Container, ContainerState, Table, WatchEvent, WatchStream, WatchUpdate};
use whiskraft_types::{ContainerId, QueueKey};

use super::kind::Kind;
use super::mix::Mix;
use super::run_clock::RunClock;
use super::schedule::{Schedule, Window};
use super::times::Times;
use crate::clock;
use crate::command::call_failure;
use crate::exit::Failure;

/// Longest wait for the tables after the last result.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// When the stages of one queue's first container were over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stages {
    led: Option<Duration>,
    container: Option<ContainerId>,
    reserved: Option<Duration>,
    placed: Option<Duration>,
    running: Option<Duration>,
}

/// Follows the tables until it is dropped.
#[derive(Debug)]
pub(super) struct StageWatch {
    seen: Arc<Mutex<BTreeMap<QueueKey, Stages>>>,
    task: JoinHandle<()>,
}

impl StageWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// If no scheduler takes the watch.
    pub(super) async fn start(client: &Client, clock: RunClock) -> Result<Self, Failure> {
        let tables = [Table::Queues, Table::Containers];
        let updates = client.watch(&tables, None).await.map_err(call_failure)?;
        let seen = Arc::default();
        let task = tokio::spawn(follow(updates, clock, Arc::clone(&seen)));
        Ok(Self { seen, task })
    }

    /// The stages of activations that were due in the window: number `n` was the first of queue `n`. Waits for what tables tell later
    /// than results arrive.
    pub(super) async fn times(
        &self,
        mix: &Mix,
        schedule: &Schedule,
        window: Window,
    ) -> BTreeMap<Kind, Times> {
        let numbered = (0..).zip(mix.queues());
        let due =
            numbered.filter_map(|(n, key)| Some((key, schedule.due(n).filter(|due| window.contains(*due))?)));
        let due: Vec<(&QueueKey, Duration)> = due.collect();
        let given_up = clock::now() + GRACE;
        while !self.has_all(&due) && clock::now() < given_up {
            tokio::time::sleep(LOOK).await;
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times: BTreeMap<Kind, Times> = BTreeMap::new();
        for (key, due) in due {
            for (kind, time) in seen.get(key).into_iter().flat_map(|stages| stages.lengths(due)) {
                times.entry(kind).or_default().add(time);
            }
        }
        times
    }

    fn has_all(&self, due: &[(&QueueKey, Duration)]) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        due.iter()
            .all(|(key, _)| seen.get(*key).is_some_and(|stages| stages.running.is_some()))
    }
}

impl Drop for StageWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stages {
    fn note(&mut self, container: &Container, now: Duration) {
        if *self.container.get_or_insert(container.container) != container.container {
            return;
        }
        self.reserved.get_or_insert(now);
        if container.invoker.is_some() {
            self.placed.get_or_insert(now);
        }
        if container.state == ContainerState::Running {
            self.running.get_or_insert(now);
        }
    }

    /// How long each stage took that was seen.
    fn lengths(&self, due: Duration) -> Vec<(Kind, Duration)> {
        let stages = [
            (Kind::Leading, Some(due), self.led),
            (Kind::Reserving, self.led, self.reserved),
            (Kind::Placing, self.reserved, self.placed),
            (Kind::Starting, self.placed, self.running),
        ];
        let known = stages
            .into_iter()
            .filter_map(|(kind, from, to)| Some((kind, to?.saturating_sub(from?))));
        known.collect()
    }
}

async fn follow(mut updates: WatchStream, clock: RunClock, seen: Arc<Mutex<BTreeMap<QueueKey, Stages>>>) {
    while let Some(update) = updates.next().await {
        let now = clock.elapsed();
        // What a snapshot shows was there before the run.
        let WatchUpdate::Changes { events, .. } = update else {
            continue;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match event {
                WatchEvent::Queue(queue) if queue.leader.is_some() => {
                    seen.entry(queue.key).or_default().led.get_or_insert(now);
                }
                WatchEvent::Container(container) => {
                    let key = container.key.clone();
                    seen.entry(key).or_default().note(&container, now);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_types::{InvokerId, Revision, SessionId};

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn container(seq: u64, invoker: Option<u64>, state: ContainerState) -> Container {
        Container {
            container: ContainerId {
                session: SessionId(1),
                seq,
            },
            key: QueueKey {
                namespace: "guest".parse().unwrap(),
                action: "guest/hello".parse().unwrap(),
            },
            revision: Revision(1),
            invoker: invoker.map(InvokerId),
            state,
        }
    }

    #[test]
    fn each_stage_counts_from_the_end_of_the_one_before() {
        let mut stages = Stages {
            led: Some(MS(14)),
            ..Stages::default()
        };
        stages.note(&container(1, None, ContainerState::InProgress), MS(15));
        stages.note(&container(1, Some(2), ContainerState::InProgress), MS(17));
        // A second container of the queue is not the one that was waited for.
        stages.note(&container(2, Some(2), ContainerState::Running), MS(18));
        stages.note(&container(1, Some(2), ContainerState::Running), MS(20));
        stages.note(&container(1, Some(2), ContainerState::Warm), MS(30));
        let wanted = [
            (Kind::Leading, MS(4)),
            (Kind::Reserving, MS(1)),
            (Kind::Placing, MS(2)),
            (Kind::Starting, MS(3)),
        ];
        assert_eq!(stages.lengths(MS(10)), wanted);
    }

    #[test]
    fn a_place_that_comes_with_the_slot_takes_no_time_of_its_own() {
        let mut stages = Stages {
            led: Some(MS(14)),
            ..Stages::default()
        };
        stages.note(&container(1, Some(2), ContainerState::InProgress), MS(15));
        let wanted = [
            (Kind::Leading, MS(4)),
            (Kind::Reserving, MS(1)),
            (Kind::Placing, MS(0)),
        ];
        assert_eq!(stages.lengths(MS(10)), wanted);
    }

    #[test]
    fn what_was_not_seen_is_no_stage() {
        let stages = Stages {
            led: Some(MS(12)),
            placed: Some(MS(20)),
            ..Stages::default()
        };
        assert_eq!(stages.lengths(MS(10)), [(Kind::Leading, MS(2))]);
    }
}
