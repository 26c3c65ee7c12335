//! What each scheduler says of invokers and sessions: its tables, and the number in its metrics that it places containers on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Streaming;
use whiskraft_proto::v1::watch_client::WatchClient;
use whiskraft_proto::v1::watch_event::Event;
use whiskraft_proto::v1::watch_frame::Frame;
use whiskraft_proto::v1::{Table, WatchFrame, WatchRequest};

use crate::bench::run_clock::RunClock;
use crate::exit::{Exit, Failure};

/// Changes that wait to be looked at.
const CHANGES_MAX: usize = 1024;

/// Time between two looks at the metrics of a scheduler.
const SCRAPE_PAUSE: Duration = Duration::from_millis(10);
/// Longest answer with metrics that is read: a cluster of a measurement like this has few.
const METRICS_LEN_MAX: u64 = 1 << 20;
/// What stands before the number of invokers that are healthy, connected and not suspect.
const HEALTHY: &str = "whiskraft_invokers{state=\"healthy\"} ";

/// A change of the tables of one scheduler.
#[derive(Debug)]
struct Change {
    scheduler: usize,
    at: Duration,
    event: Event,
}

/// Follows all schedulers, each by its own tables. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Rotation {
    changes: mpsc::Receiver<Change>,
    view: View,
    _tasks: JoinSet<()>,
}

/// What they have said so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    /// By scheduler, the invokers that it counts as healthy.
    healthy: Vec<BTreeSet<u64>>,
    /// Owners of sessions.
    owners: BTreeMap<u64, String>,
    /// Sessions that have ended.
    ended: BTreeSet<u64>,
}

impl Rotation {
    /// Begins to follow them.
    ///
    /// # Errors
    /// If one does not let itself be watched.
    pub(super) async fn follow(endpoints: &[String], clock: RunClock) -> Result<Self, Failure> {
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        let mut tasks = JoinSet::new();
        for (scheduler, endpoint) in endpoints.iter().enumerate() {
            let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
                Failure::new(Exit::Unreachable, format!("cannot watch {endpoint}")).caused_by(error)
            };
            let connected = WatchClient::connect(format!("http://{endpoint}")).await;
            let mut client = connected.map_err(|error| refused(error.into()))?;
            let request = WatchRequest {
                tables: vec![Table::Invokers.into(), Table::Sessions.into()],
                after: 0,
            };
            let frames = client
                .watch(request)
                .await
                .map_err(|status| refused(status.into()))?;
            tasks.spawn(read(frames.into_inner(), scheduler, clock, sender.clone()));
        }
        let view = View {
            healthy: vec![BTreeSet::new(); endpoints.len()],
            ..View::default()
        };
        Ok(Self {
            changes,
            view,
            _tasks: tasks,
        })
    }

    /// Waits until every scheduler counts an invoker as healthy, or none does. When the last one came to that.
    pub(super) async fn until(&mut self, invoker: u64, is_healthy: bool) -> Duration {
        let mut last = Duration::ZERO;
        while !self.view.all_say(invoker, is_healthy) {
            // All streams have ended: nothing will ever change.
            let Some(change) = self.changes.recv().await else {
                return std::future::pending().await;
            };
            last = change.at;
            self.view.note(change.scheduler, &change.event);
        }
        last
    }

    /// Owners of sessions that have ended so far, one for each session.
    pub(super) fn ended(&mut self) -> Vec<String> {
        while let Ok(change) = self.changes.try_recv() {
            self.view.note(change.scheduler, &change.event);
        }
        let owner = |session: &u64| self.view.owners.get(session).cloned().unwrap_or_default();
        self.view.ended.iter().map(owner).collect()
    }
}

/// Waits until each scheduler counts at most so many invokers as healthy, by its metrics. When the last one came to that.
pub(super) async fn until_counted(endpoints: &[String], most: u64, clock: RunClock) -> Duration {
    let each = endpoints.iter().map(|endpoint| async move {
        // One that does not answer places nothing, but may have counted wrongly until then.
        while scrape(endpoint)
            .await
            .ok()
            .and_then(|text| healthy(&text))
            .is_none_or(|count| count > most)
        {
            tokio::time::sleep(SCRAPE_PAUSE).await;
        }
        clock.elapsed()
    });
    let all = futures::future::join_all(each).await;
    all.into_iter().max().unwrap_or_default()
}

/// The metrics of a scheduler, with the head of the answer.
async fn scrape(endpoint: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.take(METRICS_LEN_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

/// Invokers that a scheduler may place containers on.
fn healthy(metrics: &str) -> Option<u64> {
    let count = metrics.lines().find_map(|line| line.strip_prefix(HEALTHY))?;
    count.trim().parse().ok()
}

impl View {
    fn all_say(&self, invoker: u64, is_healthy: bool) -> bool {
        let mut all = self.healthy.iter();
        all.all(|healthy| healthy.contains(&invoker) == is_healthy)
    }

    fn note(&mut self, scheduler: usize, event: &Event) {
        match event {
            Event::Invoker(invoker) => {
                let healthy = &mut self.healthy[scheduler];
                let is_in_rotation = !invoker.removed && invoker.session != 0 && invoker.healthy;
                match is_in_rotation {
                    true => healthy.insert(invoker.invoker),
                    false => healthy.remove(&invoker.invoker),
                };
            }
            Event::Session(session) if session.removed => {
                self.ended.insert(session.session);
            }
            Event::Session(session) => {
                self.owners.insert(session.session, session.owner.clone());
            }
            _ => {}
        }
    }
}

async fn read(
    mut frames: Streaming<WatchFrame>,
    scheduler: usize,
    clock: RunClock,
    changes: mpsc::Sender<Change>,
) {
    while let Ok(Some(frame)) = frames.message().await {
        let at = clock.elapsed();
        let (Some(Frame::Snapshot(batch)) | Some(Frame::Events(batch))) = frame.frame else {
            continue;
        };
        for event in batch.events.into_iter().filter_map(|event| event.event) {
            let change = Change { scheduler, at, event };
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use whiskraft_proto::v1::{InvokerInfo, SessionInfo};

    use super::*;

    fn invoker(session: u64, healthy: bool) -> Event {
        Event::Invoker(InvokerInfo {
            invoker: 7,
            session,
            healthy,
            ..InvokerInfo::default()
        })
    }

    fn session(session: u64, removed: bool) -> Event {
        Event::Session(SessionInfo {
            session,
            owner: if removed {
                String::new()
            } else {
                "invoker 7".to_owned()
            },
            removed,
        })
    }

    #[test]
    fn an_invoker_is_out_when_the_last_scheduler_says_so() {
        let mut view = View {
            healthy: vec![BTreeSet::new(); 2],
            ..View::default()
        };
        (0..2).for_each(|scheduler| view.note(scheduler, &invoker(3, true)));
        assert!(view.all_say(7, true));
        view.note(0, &invoker(3, false));
        assert!(!view.all_say(7, true) && !view.all_say(7, false));
        view.note(1, &invoker(0, true));
        assert!(view.all_say(7, false), "without a session it is not healthy");
    }

    #[test]
    fn the_healthy_ones_are_found_among_the_metrics() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE whiskraft_invokers gauge\nwhiskraft_invokers{state=\"disconnected\"} 1\n\
                    whiskraft_invokers{state=\"healthy\"} 3\n";
        assert_eq!(healthy(text), Some(3));
        assert_eq!(healthy("HTTP/1.1 503 Busy\r\n\r\n"), None);
    }

    #[test]
    fn a_session_that_all_tell_of_ends_once() {
        let mut view = View {
            healthy: vec![BTreeSet::new(); 2],
            ..View::default()
        };
        for scheduler in 0..2 {
            view.note(scheduler, &session(3, false));
            view.note(scheduler, &session(3, true));
        }
        assert_eq!((view.ended.len(), &view.owners[&3][..]), (1, "invoker 7"));
    }
}
