//! Workload (b), durable publish: clients publish, and wait until the peer has acknowledged it. Nobody consumes.
//!
//! In the closed loop a client goes on at once. In the open loop arrivals are due at fixed times, for whichever client is free; when
//! none is, they wait, and their latency counts from when they were due.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::arguments::{Durable, Place, Runs};
use crate::clock;
use crate::report::{self, Report};
use crate::times::Times;
use crate::usage::{Reading, resident_mib};
use crate::window::Window;

/// Time between two tries to reach servers that do not answer yet.
const TRY_AGAIN: Duration = Duration::from_millis(300);
/// Longest time that one try may take.
const TRY_MAX: Duration = Duration::from_secs(5);
/// After this many errors a client gives up.
const ERRORS_MAX: u64 = 10;

/// What a peer is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Servers, `host:port` each.
    pub(crate) servers: Vec<String>,
    pub(crate) clients: u32,
    /// Connections that clients share, in turn over the servers.
    pub(crate) connections: u32,
    pub(crate) queues: u64,
}

/// Something that publishes and waits for the acknowledgement.
pub(crate) trait Client: Sized + Send + 'static {
    /// Creates what they publish to, and connects all of them.
    fn connect(shape: &Shape) -> impl Future<Output = Result<Vec<Self>>> + Send;

    /// Publishes the `n`th message of all, and waits until the peer says that it has it.
    fn publish(&mut self, n: u64, message: Vec<u8>) -> impl Future<Output = Result<()>> + Send;
}

/// Waits until every server takes a write.
///
/// # Errors
/// The last one, when the time is over or a server has ended.
pub(crate) async fn wait<C: Client>(place: &Place) -> Result<()> {
    let servers = place.at.len() as u32;
    let shape = Shape {
        servers: place.at.clone(),
        clients: servers,
        connections: servers,
        queues: 1,
    };
    let given_up = clock::now() + clock::nanos(place.set_up_max);
    loop {
        resident_mib(&place.pids).context("a server has ended")?;
        let once = async {
            for (n, mut client) in C::connect(&shape).await?.into_iter().enumerate() {
                client.publish(n as u64, b"ready?".to_vec()).await?;
            }
            Ok(())
        };
        let tried = tokio::time::timeout(TRY_MAX, once)
            .await
            .context("no answer")
            .and_then(|answer| answer);
        match tried {
            Ok(()) => return Ok(()),
            Err(error) if clock::now() > given_up => return Err(error.context("the servers do not serve")),
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
}

/// Measures a peer.
///
/// # Errors
/// If it cannot be reached, or a server ends.
pub(crate) async fn measure<C: Client>(place: &Place, runs: &Runs, asked: &Durable) -> Result<()> {
    let shape = Shape {
        servers: place.at.clone(),
        clients: asked.clients,
        connections: asked.connections.clamp(1, asked.clients),
        queues: asked.queues,
    };
    let connected = tokio::time::timeout(place.set_up_max, C::connect(&shape)).await;
    let mut clients = connected.with_context(|| {
        format!(
            "{} clients were not ready within {:?}",
            shape.clients, place.set_up_max
        )
    })??;
    let mut report = Report::new(asked.plan(place, runs));
    let next = Arc::new(AtomicU64::new(0));
    for _ in 0..runs.runs {
        let window = Window::new(clock::now(), runs.warm_up, runs.time);
        let first = next.load(Relaxed);
        let mut tasks = JoinSet::new();
        for client in clients.drain(..) {
            let job = Job {
                next: Arc::clone(&next),
                first,
                window,
                rate: asked.rate,
                bytes: asked.bytes,
            };
            tasks.spawn(job.run(client));
        }
        tokio::time::sleep(clock::until(window.from)).await;
        let before = Reading::take(&place.pids)?;
        tokio::time::sleep(clock::until(window.to)).await;
        let used = Reading::take(&place.pids)?.since(&before, runs.time);
        let resident = resident_mib(&place.pids)?;
        let mut all = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            let (client, tally) = ended.context("a client's task has ended")?;
            clients.push(client);
            all.merge(tally);
        }
        let due = asked.rate.map_or(all.due, |rate| window.due_count(rate));
        let mut run = report::Run::default();
        run.put("due", due as f64);
        run.put("not_done", due.saturating_sub(all.done) as f64);
        run.put("offered_per_s", due as f64 / window.seconds());
        run.put("achieved_per_s", all.done_in_window as f64 / window.seconds());
        run.put_times("acceptance", &all.acceptance);
        run.put_used(&used, all.done_in_window, &resident);
        run.put_errors(all.errors.into_iter().map(|error| (error, 1)).collect());
        report.add(run);
    }
    report.write(&place.json)
}

#[derive(Default)]
struct Tally {
    due: u64,
    done: u64,
    done_in_window: u64,
    acceptance: Times,
    errors: Vec<String>,
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.due += other.due;
        self.done += other.done;
        self.done_in_window += other.done_in_window;
        self.acceptance.merge(&other.acceptance);
        self.errors.extend(other.errors);
    }
}

/// What one client does in a run.
struct Job {
    next: Arc<AtomicU64>,
    /// Number of the run's first message.
    first: u64,
    window: Window,
    rate: Option<f64>,
    bytes: usize,
}

impl Job {
    async fn run<C: Client>(self, mut client: C) -> (C, Tally) {
        let (mut tally, mut errors) = (Tally::default(), 0);
        while clock::now() < self.window.to && errors < ERRORS_MAX {
            let n = self.next.fetch_add(1, Relaxed);
            let due = match self.rate.map(|rate| self.window.due(n - self.first, rate)) {
                Some(Some(due)) => due,
                Some(None) => break,
                None => clock::now(),
            };
            let left = clock::until(due);
            if !left.is_zero() {
                tokio::time::sleep(left).await;
            }
            let counts = self.window.contains(due);
            tally.due += u64::from(counts);
            if let Err(error) = client.publish(n, vec![b'.'; self.bytes]).await {
                errors += 1;
                tally.errors.push(format!("{error:#}"));
                continue;
            }
            let now = clock::now();
            tally.done_in_window += u64::from(self.window.contains(now));
            if counts {
                tally.done += 1;
                tally.acceptance.add(now - due);
            }
        }
        (client, tally)
    }
}
