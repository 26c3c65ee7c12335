//! Workload (a), the message path: producers submit activations to the queue of their action, containers pull one at a time,
//! hold it, acknowledge it and send the result back to its producer.
//!
//! The open loop hands out what is due at fixed times, whatever became of the ones before, and every latency counts from then. Only
//! when as many as allowed are under way does it wait; the latency of what it holds back counts from when it was due as well. In
//! the closed loop the end of one activation begins the next.

use std::future::Future;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc::{Receiver, channel};

use crate::arguments::{Load, Message, Place, Runs};
use crate::clock;
use crate::desk::{Desk, Run};
use crate::report;
use crate::ticket::Ticket;
use crate::usage::{Reading, resident_mib};
use crate::window::Window;

/// Activations submitted in one go: what is due by then, no waiting for more.
const BATCH_MAX: usize = 64;
/// How late the system may wake the open loop's thread, in nanoseconds; by default it takes 50,000.
const SLACK_NS: NonZeroU64 = NonZeroU64::new(1000).expect("not zero");
/// Time between two looks for room, or for the end of a run.
const LOOK: Duration = Duration::from_micros(200);

/// What a peer is asked to carry.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Servers, `host:port` each.
    pub(crate) servers: Vec<String>,
    /// Actions that activations are for, in turn.
    pub(crate) actions: u64,
    /// Queues for them: one each, or fewer where the peer cannot carry that many.
    pub(crate) queues: u64,
    /// Containers, in turn over the queues: each pulls from one.
    pub(crate) containers: u64,
    /// Producers, each with a connection of its own.
    pub(crate) producers: u32,
    /// Connections that containers share, unless the peer needs one for each.
    pub(crate) connections: usize,
}

impl Shape {
    /// The queue of an activation: that of its action.
    pub(crate) fn queue(&self, ticket: &Ticket) -> u64 {
        ticket.n % self.actions % self.queues
    }

    /// Server of the `n`th connection or queue.
    pub(crate) fn server(&self, n: u64) -> &str {
        &self.servers[(n % self.servers.len() as u64) as usize]
    }
}

/// A peer as a path for activations.
pub(crate) trait Path: Sized + Send {
    /// Submits activations; has the connection to which their results come back.
    type Producer: Producer;

    /// Creates the queues, and begins containers.
    fn prepare(shape: &Shape, desk: &Arc<Desk>) -> impl Future<Output = Result<Self>> + Send;

    /// Connects a producer, and begins to listen for its results.
    fn producer(
        &self,
        shape: &Shape,
        number: u32,
        desk: &Arc<Desk>,
    ) -> impl Future<Output = Result<Self::Producer>> + Send;
}

/// One that submits.
pub(crate) trait Producer: Send + 'static {
    /// Submits activations, each a message for a queue.
    fn submit(&mut self, batch: Vec<(u64, Vec<u8>)>) -> impl Future<Output = Result<()>> + Send;
}

/// Measures a peer.
///
/// # Errors
/// If it cannot be prepared in the time there is, or a server ends.
pub(crate) async fn measure<P: Path>(place: &Place, runs: &Runs, asked: &Message) -> Result<()> {
    let shape = asked.shape(place);
    let room = match asked.load {
        Load {
            closed: Some(callers),
            ..
        } => callers as usize,
        Load { .. } => asked.under_way_max as usize,
    };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shape.producers)
        .map(|_| channel::<Ticket>(room.max(1)))
        .unzip();
    let desk = Arc::new(Desk::new(asked.hold, senders));
    let begun = clock::now();
    let prepare = async {
        let path = P::prepare(&shape, &desk).await?;
        let mut producers = Vec::new();
        for number in 0..shape.producers {
            producers.push(
                path.producer(&shape, number, &desk)
                    .await
                    .with_context(|| format!("cannot connect producer {number}"))?,
            );
        }
        Ok::<_, anyhow::Error>((path, producers))
    };
    let prepared = tokio::time::timeout(place.set_up_max, prepare).await;
    let (_path, producers) = prepared.with_context(|| {
        format!(
            "{} queues and {} containers were not ready within {:?}",
            shape.queues, shape.containers, place.set_up_max
        )
    })??;
    let set_up_s = (clock::now() - begun) as f64 / 1e9;
    eprintln!(
        "{} queues and {} containers are ready after {set_up_s:.1} s",
        shape.queues, shape.containers
    );
    for (producer, tickets) in producers.into_iter().zip(receivers) {
        tokio::spawn(submit_all(
            producer,
            tickets,
            shape.clone(),
            asked.bytes,
            Arc::clone(&desk),
        ));
    }
    let mut report = report::Report::new(asked.plan(place, runs, &shape));
    if shape.queues < shape.actions {
        report.note(format!(
            "{} actions share {} queues: more were not tried, see scripts/bench-peers.sh --help",
            shape.actions, shape.queues
        ));
    }
    for _ in 0..runs.runs {
        let mut run = one_run(place, runs, asked, &desk).await?;
        run.put("set_up_s", set_up_s);
        report.add(run);
    }
    report.write(&place.json)
}

/// A producer's task: takes what is due, and submits it.
async fn submit_all(
    mut producer: impl Producer,
    mut tickets: Receiver<Ticket>,
    shape: Shape,
    bytes: usize,
    desk: Arc<Desk>,
) {
    let mut due = Vec::with_capacity(BATCH_MAX);
    while tickets.recv_many(&mut due, BATCH_MAX).await > 0 {
        due.retain(|ticket| desk.submitted(ticket));
        let batch = due
            .iter()
            .map(|ticket| (shape.queue(ticket), ticket.message(bytes)));
        if let Err(error) = producer.submit(batch.collect()).await {
            desk.trouble(&error.context("cannot submit"));
            due.iter().for_each(|ticket| desk.failed(ticket));
        }
        due.clear();
    }
}

async fn one_run(place: &Place, runs: &Runs, asked: &Message, desk: &Arc<Desk>) -> Result<report::Run> {
    let window = Window::new(clock::now(), runs.warm_up, runs.time);
    let run = desk.begin(window, asked.load.closed.is_some());
    let open = match asked.load {
        Load {
            closed: Some(callers),
            ..
        } => {
            for _ in 0..callers {
                while !desk.hand_out(&run, clock::now()) && clock::now() < window.to {
                    tokio::task::yield_now().await;
                }
            }
            None
        }
        Load { rate, .. } => {
            let pacer = Pacer {
                desk: Arc::clone(desk),
                run: Arc::clone(&run),
                rate: rate.unwrap_or_default(),
                under_way_max: asked.under_way_max,
            };
            Some(tokio::task::spawn_blocking(move || pacer.run()))
        }
    };
    tokio::time::sleep(clock::until(window.from)).await;
    let before = Reading::take(&place.pids)?;
    tokio::time::sleep(clock::until(window.to)).await;
    let used = Reading::take(&place.pids)?.since(&before, runs.time);
    let resident = resident_mib(&place.pids)?;
    let done_in_window = run.done_in_window();
    let held_back = match open {
        Some(pacer) => pacer.await.context("the open loop's thread has ended")?,
        None => 0,
    };
    let given_up = window.to + clock::nanos(runs.drain);
    while run.under_way() > 0 && clock::now() < given_up {
        tokio::time::sleep(LOOK * 50).await;
    }
    let tally = run.tally();
    let due = asked.load.rate.map_or(tally.due, |rate| window.due_count(rate));
    let mut figures = report::Run::default();
    figures.put("due", due as f64);
    figures.put("not_done", due.saturating_sub(tally.done) as f64);
    figures.put("held_back", held_back as f64);
    figures.put("late", tally.late as f64);
    figures.put("offered_per_s", due as f64 / window.seconds());
    figures.put("achieved_per_s", tally.done_in_window as f64 / window.seconds());
    figures.put_times("queueing", &tally.queueing);
    figures.put_times("end_to_end", &tally.end_to_end);
    figures.put_used(&used, done_in_window, &resident);
    figures.put_errors(desk.take_errors());
    Ok(figures)
}

/// The open loop, on a thread of its own, because Tokio's timers count milliseconds.
struct Pacer {
    desk: Arc<Desk>,
    run: Arc<Run>,
    rate: f64,
    under_way_max: u64,
}

impl Pacer {
    /// Until nothing more is due; how many of those that count had to wait for room.
    fn run(self) -> u64 {
        // Refused, it is only less precise, which the report shows.
        let _ = rustix::thread::set_current_timer_slack(Some(SLACK_NS));
        let window = self.run.window;
        let mut held_back = 0;
        for due in (0..).map_while(|n| window.due(n, self.rate)) {
            wait(due);
            let mut had_room = true;
            while !(self.run.under_way() < self.under_way_max && self.desk.hand_out(&self.run, due)) {
                had_room = false;
                wait(clock::now() + clock::nanos(LOOK));
                if clock::now() >= window.to {
                    return held_back;
                }
            }
            held_back += u64::from(!had_room && window.contains(due));
        }
        held_back
    }
}

/// Blocks this thread until a moment.
fn wait(moment: u64) {
    loop {
        let left = clock::until(moment);
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
