//! The closed loop: callers that wait for the answer to one activation before they ask for the next.
//!
//! It finds the highest rate that so many callers reach. Its latencies are those of callers who hold back when the cluster is
//! slow, and say nothing about a load that does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::schedule::Window;
use super::work::Work;

/// Pause of a caller after a failure, so that refusals do not become a load of their own.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// Callers at work; dropped, they stop in their tracks.
pub(super) struct Callers<W> {
    shared: Arc<Shared<W>>,
    tasks: JoinSet<()>,
}

struct Shared<W> {
    work: Arc<W>,
    window: Window,
    taken: AtomicU64,
    begun: AtomicU64,
    stopped: AtomicBool,
}

impl<W: Work> Callers<W> {
    /// Lets so many begin, until the end of the window.
    pub(super) fn start(work: Arc<W>, count: u32, window: Window) -> Self {
        let shared = Arc::new(Shared {
            work,
            window,
            taken: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn(call(Arc::clone(&shared)));
        }
        Self { shared, tasks }
    }

    /// Makes the present activations the last.
    pub(super) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits for all callers. How many activations began within the window.
    pub(super) async fn finish(mut self) -> u64 {
        while let Some(joined) = self.tasks.join_next().await {
            joined.expect("a caller does not panic");
        }
        self.shared.begun.load(Ordering::Relaxed)
    }
}

async fn call<W: Work>(shared: Arc<Shared<W>>) {
    let Shared { work, window, .. } = &*shared;
    loop {
        let due = work.clock().elapsed();
        if due >= window.to || shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        if window.contains(due) {
            shared.begun.fetch_add(1, Ordering::Relaxed);
        }
        let n = shared.taken.fetch_add(1, Ordering::Relaxed);
        work.under_way().begin();
        if !work.call(n, due).await {
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
}
