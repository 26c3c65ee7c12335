//! The sync thread: one sync of the engine for everybody who waits, in order.
//!
//! Fed by the log stores of all groups. After a failed sync nobody knows what is on the disk, and a second one may
//! succeed without having written anything: the failure is final, everybody is told, and the node stops.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::engine::Engine;
use super::watchdog::{Patience, Watchdog};
use crate::clock;
use crate::fatal::Fatal;
use crate::types::{LogIdRecord, Types};
use crate::witness::OwnDisk;

/// Appends and votes that wait for a sync; the consensus core has a handful in flight, so this is never full.
const JOBS_MAX: usize = 4096;

/// Longest wait for the last sync when the node stops: longer than any on a disk that answers at all.
const END_MAX: Duration = Duration::from_secs(10);
/// Entries that wait for a sync.
pub(super) struct Unsynced {
    /// Told when they are there.
    pub(super) flushed: IOFlushed<Types>,
    /// The last of them, and where it is noted that the disk has confirmed it.
    pub(super) last: Option<(Arc<OwnDisk>, LogIdRecord)>,
}

/// Who waits for a sync.
enum Job {
    Log(Unsynced),
    Signal(oneshot::Sender<io::Result<()>>),
    /// The node stops: nothing after this is synced.
    End,
}

/// Asks the thread for syncs.
#[derive(Debug, Clone)]
pub(crate) struct SyncHandle {
    jobs: mpsc::Sender<Job>,
}

/// Owns the thread, and the one that watches it. Dropped, it lets the thread finish what it was asked before and waits
/// for its end, but not for a disk that does not answer. Whoever asks later hears that the thread has ended: a task that
/// outlived its runtime must not keep the store open.
#[derive(Debug)]
pub(crate) struct SyncThread {
    thread: Option<JoinHandle<()>>,
    jobs: mpsc::Sender<Job>,
    /// Closed when the thread ends.
    end: Receiver<()>,
    _watchdog: Watchdog,
}

impl SyncThread {
    /// Starts the thread, and gives the way to ask it; `delay` is added to each sync.
    pub(crate) fn start(
        engine: Arc<Engine>,
        fatal: Fatal,
        delay: Duration,
    ) -> io::Result<(Self, SyncHandle)> {
        Self::start_with(engine, fatal, delay, Patience::default())
    }

    /// The same, with another patience for the disk.
    pub(crate) fn start_with(
        engine: Arc<Engine>,
        fatal: Fatal,
        delay: Duration,
        patience: Patience,
    ) -> io::Result<(Self, SyncHandle)> {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let (running, end) = std::sync::mpsc::sync_channel(0);
        let watchdog = Watchdog::start(engine.calls(), fatal.clone(), patience)?;
        let run = move || {
            run(&engine, waiting, &fatal, delay);
            drop(running);
        };
        let thread = std::thread::Builder::new()
            .name("raft-sync".to_owned())
            .spawn(run)?;
        let owner = Self {
            thread: Some(thread),
            jobs: jobs.clone(),
            end,
            _watchdog: watchdog,
        };
        Ok((owner, SyncHandle { jobs }))
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        let deadline = clock::now() + END_MAX;
        // A full channel is being worked off by the thread, so there is room in a moment.
        while let Err(mpsc::error::TrySendError::Full(_)) = self.jobs.try_send(Job::End)
            && clock::now() < deadline
        {
            std::thread::yield_now();
        }
        if self.end.recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the disk does not answer: the store is not closed in order");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("sync thread panicked");
        }
    }
}

impl SyncHandle {
    /// Completes an append after the next sync.
    pub(super) async fn notify(&self, unsynced: Unsynced) -> io::Result<()> {
        self.jobs.send(Job::Log(unsynced)).await.map_err(|_| ended())
    }

    /// Waits for the next sync.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        let (done, waiting) = oneshot::channel();
        self.jobs.send(Job::Signal(done)).await.map_err(|_| ended())?;
        waiting.await.map_err(|_| ended())?
    }
}

fn ended() -> io::Error {
    io::Error::other("the sync thread has ended")
}

fn run(engine: &Engine, mut jobs: mpsc::Receiver<Job>, fatal: &Fatal, delay: Duration) {
    let calls = engine.calls();
    let mut batch = Vec::new();
    let mut failure: Option<(io::ErrorKind, String)> = None;
    let mut is_ending = false;
    while !is_ending && let Some(first) = jobs.blocking_recv() {
        batch.push(first);
        while let Ok(next) = jobs.try_recv() {
            batch.push(next);
        }
        is_ending = batch.iter().any(|job| matches!(job, Job::End));
        if failure.is_none() {
            let call = calls.begin("a sync of the log");
            clock::stall(delay);
            let synced = engine.sync();
            drop(call);
            if let Err(error) = synced {
                fatal.storage(&format!("sync of the log: {error}"));
                failure = Some((error.kind(), format!("sync of the log failed: {error}")));
            }
        }
        for job in batch.drain(..) {
            complete(job, failure.as_ref());
        }
    }
}

fn complete(job: Job, failure: Option<&(io::ErrorKind, String)>) {
    let result = match failure {
        None => Ok(()),
        Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
    };
    match job {
        Job::Log(Unsynced { flushed, last }) => {
            // Noted before anybody hears of it.
            if let (Ok(()), Some((disk, last))) = (&result, last) {
                disk.synced(last);
            }
            flushed.io_completed(result);
        }
        // Whoever asked may have been dropped meanwhile; the sync counts all the same.
        Job::Signal(done) => drop(done.send(result)),
        Job::End => {}
    }
}
