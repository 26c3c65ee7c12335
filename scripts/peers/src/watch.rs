//! Workload (c), watch fan-out: one key of etcd changes at fixed times, and each watcher's event is timed from just before the change is sent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::arguments::{Place, Runs, Watch};
use crate::clock;
use crate::peer::etcd::Etcd;
use crate::report::{self, Report};
use crate::ticket::Ticket;
use crate::times::Times;
use crate::usage::{Reading, resident_mib};
use crate::window::Window;

/// The key that changes.
const KEY: &str = "watched";

#[derive(Default)]
struct Events {
    /// Run that counts now; 0 before the first.
    run: AtomicU64,
    seen: Mutex<(u64, Times)>,
}

impl Events {
    fn add(&self, value: &[u8]) {
        let now = clock::now();
        let Ok(change) = Ticket::read(value) else { return };
        // `began` says whether the change counts, `run` which run it is of.
        if u64::from(change.run) == self.run.load(Relaxed) && change.began == 1 {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0 += 1;
            seen.1.add(now - change.due);
        }
    }
}

/// Measures etcd.
///
/// # Errors
/// If it cannot be reached, or a server ends.
pub(crate) async fn measure(place: &Place, runs: &Runs, asked: &Watch) -> Result<()> {
    let events = Arc::new(Events::default());
    let set_up = async {
        let connections = asked.connections.clamp(1, asked.watchers.max(1));
        let mut clients = Vec::new();
        for n in 0..connections as usize {
            clients.push(Etcd::connect(&place.at[n % place.at.len()]).await?);
        }
        for n in 0..asked.watchers as usize {
            let mut client = clients[n % clients.len()].clone();
            let mut changes = client.watch(KEY).await?;
            let events = Arc::clone(&events);
            tokio::spawn(async move {
                while let Ok(Some(values)) = changes.next().await {
                    values.iter().for_each(|value| events.add(value));
                }
            });
        }
        Etcd::connect(&place.at[0]).await
    };
    let ready = tokio::time::timeout(place.set_up_max, set_up).await;
    let writer = ready.with_context(|| {
        format!(
            "{} watchers were not ready within {:?}",
            asked.watchers, place.set_up_max
        )
    })??;
    let mut report = Report::new(asked.plan(place, runs));
    for number in 1..=runs.runs {
        report.add(one_run(place, runs, asked, &writer, &events, number).await?);
    }
    report.write(&place.json)
}

async fn one_run(
    place: &Place,
    runs: &Runs,
    asked: &Watch,
    writer: &Etcd,
    events: &Arc<Events>,
    number: u32,
) -> Result<report::Run> {
    *events.seen.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    events.run.store(number.into(), Relaxed);
    let window = Window::new(clock::now(), runs.warm_up, runs.time);
    let writes = tokio::spawn(change(writer.clone(), window, asked.rate, number));
    tokio::time::sleep(clock::until(window.from)).await;
    let before = Reading::take(&place.pids)?;
    tokio::time::sleep(clock::until(window.to)).await;
    let used = Reading::take(&place.pids)?.since(&before, runs.time);
    let resident = resident_mib(&place.pids)?;
    let (changes, errors) = writes.await.context("the writer has ended")?;
    let due = changes * u64::from(asked.watchers);
    let given_up = window.to + clock::nanos(runs.drain);
    let seen = || events.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    while seen().0 < due && clock::now() < given_up {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let (count, times) = seen();
    let mut run = report::Run::default();
    run.put("due", due as f64);
    run.put("not_done", due.saturating_sub(count) as f64);
    run.put("offered_per_s", changes as f64 / window.seconds());
    run.put("achieved_per_s", count as f64 / window.seconds());
    run.put_times("watch", &times);
    run.put_used(&used, changes, &resident);
    run.put_errors(errors.into_iter().map(|error| (error, 1)).collect());
    Ok(run)
}

/// Changes the key until the window ends, without waiting for answers; how many counted.
async fn change(writer: Etcd, window: Window, rate: f64, run: u32) -> (u64, Vec<String>) {
    let (mut count, mut puts) = (0, JoinSet::new());
    for (n, due) in (0..).map_while(|n| Some((n, window.due(n, rate)?))) {
        tokio::time::sleep(clock::until(due)).await;
        let counts = u64::from(window.contains(due));
        count += counts;
        let value = Ticket {
            run,
            producer: 0,
            n,
            // Not the schedule's: by how much the timer is late is no part of the way to a watcher.
            due: clock::now(),
            began: counts,
        }
        .message(200);
        let mut writer = writer.clone();
        puts.spawn(async move { writer.put(KEY.into(), value).await });
    }
    let ended = puts.join_all().await;
    (
        count,
        ended
            .into_iter()
            .filter_map(|put| Some(format!("{:#}", put.err()?)))
            .collect(),
    )
}
