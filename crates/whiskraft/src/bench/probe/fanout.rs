//! One namespace changes at fixed times, and each watcher's event is timed from when the change was due.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use whiskraft_client::Client;
use whiskraft_client::watch::{Table, WatchEvent, WatchStream, WatchUpdate};
use whiskraft_types::{NamespaceLimits, NamespaceName};

use super::{Finding, connect};
use crate::bench::cluster::Cluster;
use crate::bench::kind::Kind;
use crate::bench::open::Sender;
use crate::bench::plan::seconds;
use crate::bench::run_clock::RunClock;
use crate::bench::schedule::{Schedule, Window};
use crate::bench::tally::{Ended, Tallies};
use crate::bench::times::Times;
use crate::bench::usage::Roles;
use crate::bench::work::{UnderWay, Work};
use crate::clock;
use crate::command::call_failure;
use crate::exit::Failure;

/// Changes under way at once: far more than there should ever be.
const UNDER_WAY_MAX: u32 = 1000;
/// Time after the last change for it to reach everybody.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks whether it has.
const LOOK: Duration = Duration::from_millis(10);
/// Locks that the counting is spread over.
const SHARDS: usize = 8;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Fanout {
    /// Watchers of the one namespace.
    pub(crate) watchers: u32,
    /// Watchers that share an SDK client.
    pub(crate) per_connection: u32,
    /// Changes per second.
    pub(crate) rate: f64,
    /// What comes before the measured part.
    #[serde(serialize_with = "seconds")]
    pub(crate) warm_up: Duration,
    /// Length of the measured part.
    #[serde(serialize_with = "seconds")]
    pub(crate) time: Duration,
}

/// The changes, by number: number `n` allows `n + 1` containers, by which watchers know it.
struct Changes {
    client: Client,
    namespace: NamespaceName,
    clock: RunClock,
    under_way: UnderWay,
    tallies: Tallies,
}

/// What watchers have seen.
struct Seen {
    clock: RunClock,
    namespace: NamespaceName,
    schedule: Schedule,
    window: Window,
    times: [Mutex<Times>; SHARDS],
}

impl Fanout {
    pub(super) async fn run(&self, cluster: &mut Cluster) -> Result<Finding, Failure> {
        let window = Window::after(self.warm_up, self.time);
        let schedule = Schedule::new(self.rate, window);
        let namespace: NamespaceName = "bench-watched".parse().expect("a valid name");
        let client = connect(cluster, 0).await?;
        // Watches live as long as their clients.
        let (_clients, watches) = self.watches(cluster).await?;
        // From here on nothing is waited for that is not measured.
        let run_clock = RunClock::start();
        let seen = Arc::new(Seen {
            clock: run_clock,
            namespace: namespace.clone(),
            schedule,
            window,
            times: Default::default(),
        });
        let mut watchers = JoinSet::new();
        for (n, updates) in watches.into_iter().enumerate() {
            watchers.spawn(follow(updates, n, Arc::clone(&seen)));
        }
        let changes = Arc::new(Changes {
            client,
            namespace,
            clock: run_clock,
            under_way: UnderWay::default(),
            tallies: Tallies::new(window),
        });
        let roles = Roles::new(cluster.roles());
        let sender = Sender::start(Arc::clone(&changes), schedule, window, UNDER_WAY_MAX)?;
        let watched = roles.watch(run_clock, window, || {}).await;
        sender.finish().await;
        let due = schedule.count_in_window() * u64::from(self.watchers);
        let given_up = clock::now() + GRACE;
        while seen.times().count() < due && clock::now() < given_up {
            tokio::time::sleep(LOOK).await;
        }
        let (times, mut tally) = (seen.times(), changes.tallies.take(window));
        let count = times.count();
        let used = watched.used(schedule.count_in_window());
        let put = tally.times.remove(&Kind::EndToEnd).unwrap_or_default();
        Ok(Finding::new(count, tally.reasons, used)
            .with([
                (
                    "changes_per_s",
                    tally.done_in_window as f64 / self.time.as_secs_f64(),
                ),
                ("not_seen", due.saturating_sub(count) as f64),
            ])
            .timed(Kind::Watched, times)
            .timed(Kind::Put, put))
    }

    /// Clients, and what each watcher hears; each begins when it knows what there is.
    async fn watches(&self, cluster: &Cluster) -> Result<(Vec<Client>, Vec<WatchStream>), Failure> {
        let mut clients = Vec::new();
        let mut watches = Vec::new();
        for n in 0..self.watchers {
            if n % self.per_connection == 0 {
                clients.push(connect(cluster, clients.len()).await?);
            }
            let client = clients.last().expect("the first has one");
            let mut updates = client
                .watch(&[Table::Namespaces], None)
                .await
                .map_err(call_failure)?;
            while let Some(update) = updates.next().await {
                if matches!(update, WatchUpdate::Snapshot { last: true, .. }) {
                    break;
                }
            }
            watches.push(updates);
        }
        Ok((clients, watches))
    }

    pub(super) fn header(&self) -> String {
        format!(
            "a namespace changed {} times a second before {} watchers, {} on a client, for {:?} after {:?}",
            self.rate, self.watchers, self.per_connection, self.time, self.warm_up
        )
    }
}

impl Work for Changes {
    fn clock(&self) -> RunClock {
        self.clock
    }

    fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    async fn carry_out(&self, n: u64, due: Duration) -> bool {
        let limits = NamespaceLimits::containers(u32::try_from(n + 1).unwrap_or(u32::MAX));
        let stored = self.client.put_namespace(&self.namespace, &limits).await;
        let is_good = stored.is_ok();
        let why = stored.err().map(|error| error.to_string());
        self.tallies.add(n, Ended::plain(due, self.clock.elapsed(), why));
        is_good
    }
}

impl Seen {
    /// A watcher sees change number `n`.
    fn add(&self, watcher: usize, n: u64) {
        let now = self.clock.elapsed();
        let due = self.schedule.due(n).filter(|due| self.window.contains(*due));
        if let Some(due) = due {
            let shard = &self.times[watcher % SHARDS];
            let mut times = shard.lock().unwrap_or_else(PoisonError::into_inner);
            times.add(now.saturating_sub(due));
        }
    }

    fn times(&self) -> Times {
        let mut all = Times::default();
        for shard in &self.times {
            all.merge(&shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all
    }
}

async fn follow(mut updates: WatchStream, watcher: usize, seen: Arc<Seen>) {
    while let Some(update) = updates.next().await {
        let WatchUpdate::Changes { events, .. } = update else {
            continue;
        };
        for event in events {
            match event {
                WatchEvent::Namespace(change) if change.name == seen.namespace => {
                    let n = u64::from(change.limits.containers).checked_sub(1);
                    n.into_iter().for_each(|n| seen.add(watcher, n));
                }
                _ => {}
            }
        }
    }
}
