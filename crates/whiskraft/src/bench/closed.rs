//! The closed loop: callers that wait for the answer to one activation before they ask for the next.
//!
//! It finds the highest rate that so many callers reach. Its latencies are those of callers who hold back when the cluster is
//! slow, and say nothing about a load that does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::call::Caller;
use super::schedule::Window;

/// Pause of a caller after a failure, so that refusals do not become a load of their own.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// Callers at work; dropped, they stop in their tracks.
#[derive(Debug)]
pub(super) struct Callers {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    caller: Arc<Caller>,
    window: Window,
    taken: AtomicU64,
    begun: AtomicU64,
    stopped: AtomicBool,
}

impl Callers {
    /// Lets so many begin, until the end of the window.
    pub(super) fn start(caller: Arc<Caller>, count: u32, window: Window) -> Self {
        let shared = Arc::new(Shared {
            caller,
            window,
            taken: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn(work(Arc::clone(&shared)));
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

async fn work(shared: Arc<Shared>) {
    let Shared { caller, window, .. } = &*shared;
    loop {
        let due = caller.clock.elapsed();
        if due >= window.to || shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        if window.contains(due) {
            shared.begun.fetch_add(1, Ordering::Relaxed);
        }
        let n = shared.taken.fetch_add(1, Ordering::Relaxed);
        caller.begin();
        if !caller.call(n, due).await {
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
}
