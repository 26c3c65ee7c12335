//! Hot path: the controller that sends at a fixed rate, whatever comes back, over the streams of several servers in turn.
//!
//! The thread that sends and the tasks that wait are those of [`open`](crate::bench::open), as under a load of activations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::Streaming;
use whiskraft_proto::v1;

use super::caller::Counts;
use super::link::Link;
use super::{GRACE, IN_FLIGHT_MAX, messages};
use crate::bench::arguments::Arguments;
use crate::bench::open::Sender;
use crate::bench::run_clock::RunClock;
use crate::bench::schedule::{Schedule, Window};
use crate::bench::work::{UnderWay, Work};
use crate::exit::Failure;

type Back = oneshot::Sender<v1::ActivationRecord>;

/// Streams, and who waits for records that are under way on them.
#[derive(Debug)]
pub(super) struct Paced {
    shared: Arc<Shared>,
    /// One per stream.
    _readers: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    submissions: Vec<mpsc::Sender<v1::Submission>>,
    payloads: Arc<Arguments>,
    waiting: Mutex<HashMap<u64, Back>>,
}

/// What is sent in one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) clock: RunClock,
    pub(super) window: Window,
    pub(super) rate: u32,
    /// Number of the first record; none is used twice on one stream.
    pub(super) first: u64,
}

/// One run.
struct Run {
    shared: Arc<Shared>,
    pace: Pace,
    under_way: UnderWay,
    counts: Mutex<Counts>,
}

impl Paced {
    /// Reads these streams until it is dropped.
    pub(super) fn new(links: Vec<Link>, payloads: Arc<Arguments>) -> Self {
        let (submissions, results): (Vec<_>, Vec<_>) = links
            .into_iter()
            .map(|link| (link.submissions, link.results))
            .unzip();
        let shared = Arc::new(Shared {
            submissions,
            payloads,
            waiting: Mutex::default(),
        });
        let mut readers = JoinSet::new();
        for results in results {
            readers.spawn(read(results, Arc::clone(&shared)));
        }
        Self {
            shared,
            _readers: readers,
        }
    }

    /// Carries one run out, and waits for what is under way at its end.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) async fn run(&self, pace: Pace) -> Result<Counts, Failure> {
        let run = Arc::new(Run {
            shared: Arc::clone(&self.shared),
            pace,
            under_way: UnderWay::default(),
            counts: Mutex::default(),
        });
        let schedule = Schedule::new(f64::from(pace.rate), pace.window);
        let under_way_max = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        let sender = Sender::start(Arc::clone(&run), schedule, pace.window, under_way_max)?;
        let sent = sender.finish().await;
        let limit = pace.clock.at(pace.window.to + GRACE);
        // What has not come back by then counts as lost.
        let _ = tokio::time::timeout_at(limit.into(), run.under_way.idle()).await;
        let mut counts = std::mem::take(&mut *lock(&run.counts));
        counts.sent = sent.sent;
        counts.lost += u64::from(run.under_way.count());
        Ok(counts)
    }
}

impl Work for Run {
    fn clock(&self) -> RunClock {
        self.pace.clock
    }

    fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    async fn carry_out(&self, n: u64, due: Duration) -> bool {
        let n = self.pace.first + n;
        let payload = Bytes::from(self.shared.payloads.text(n));
        let Some(record) = self.shared.send(n, payload.clone()).await else {
            lock(&self.counts).lost += 1;
            return false;
        };
        let (now, window) = (self.pace.clock.elapsed(), self.pace.window);
        let is_right = record.status() == v1::Status::Success && record.result == payload;
        let mut counts = lock(&self.counts);
        counts.wrong += u64::from(!is_right);
        if is_right {
            counts.done_in_window += u64::from(window.contains(now));
            if window.contains(due) {
                counts.note(&self.pace.clock, due, now, &record);
            }
        }
        is_right
    }
}

impl Shared {
    /// Sends a record and waits until it is back; `None` if its stream has ended.
    async fn send(&self, n: u64, payload: Bytes) -> Option<v1::ActivationRecord> {
        let (back, record) = oneshot::channel();
        lock(&self.waiting).insert(n, back);
        let stream = usize::try_from(n).ok()? % self.submissions.len();
        // There is room for all that may be under way.
        let sent = self.submissions[stream].try_send(messages::submission(n, 0, payload));
        sent.ok()?;
        record.await.ok()
    }
}

async fn read(mut results: Streaming<v1::ResultFrame>, shared: Arc<Shared>) {
    while let Ok(Some(frame)) = results.message().await {
        for record in frame
            .completed
            .into_iter()
            .filter_map(|completed| completed.record)
        {
            let back = messages::read_id(&record.id).and_then(|(n, _)| lock(&shared.waiting).remove(&n));
            // Nobody waits any more for what comes after the end of its run.
            if let Some(back) = back {
                let _ = back.send(record);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
