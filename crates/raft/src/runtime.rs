//! Small runtimes of their own: one for group 0 and the peer service, so that request load cannot starve heartbeats,
//! and one for the lanes, so that their bulk cannot either.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;

/// Worker threads. One: each message wakes several tasks one after the other, and between two threads that costs more than it
/// gains.
const WORKERS: usize = 1;
/// How long a stop waits for blocking work, the writing of a snapshot above all.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The runtime. Dropped, it ends all tasks and waits for its threads, which is allowed anywhere.
#[derive(Debug)]
pub(crate) struct Runtime {
    inner: Option<tokio::runtime::Runtime>,
    handle: tokio::runtime::Handle,
}

impl Runtime {
    /// Starts the threads.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let inner = builder
            .worker_threads(WORKERS)
            .thread_name(name)
            .enable_all()
            .build()?;
        let handle = inner.handle().clone();
        Ok(Self {
            inner: Some(inner),
            handle,
        })
    }

    /// A way to run tasks on it.
    pub(crate) fn handle(&self) -> tokio::runtime::Handle {
        self.handle.clone()
    }

    /// Runs a task.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// Runs blocking work on a thread for it.
    pub(crate) fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn_blocking(work)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        // A runtime may not be waited for on a thread of another one, and that is where nodes are dropped.
        let stop = std::thread::Builder::new().spawn(move || inner.shutdown_timeout(STOP_MAX));
        if stop.is_ok_and(|stop| stop.join().is_err()) {
            tracing::error!("runtime of consensus panicked while it stopped");
        }
    }
}
