//! The open loop: a thread of its own that hands every activation to the SDK when it is due.
//!
//! A thread, because Tokio's timers count milliseconds; what they would add to every latency is more than some of the
//! latencies. It never waits for an answer. Only when as many activations are under way as the plan allows does it wait for
//! room; what is due meanwhile is sent as soon as there is some, and its latency still counts from when it was due.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;

use super::schedule::{Schedule, Window};
use super::work::Work;
use crate::exit::{Exit, Failure};

/// How late the system may wake the thread, in nanoseconds; by default it takes 50,000.
const SLACK_NS: NonZeroU64 = NonZeroU64::new(1000).expect("not zero");
/// Time between two looks for room while there is none.
const ROOM_LOOK: Duration = Duration::from_micros(200);

/// What the thread did, of what is due in the measured window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Handed to the SDK.
    pub(super) sent: u64,
    /// Of these, those that had to wait because too many others were under way.
    pub(super) held_back: u64,
    /// Whether it was stopped before its end.
    pub(super) interrupted: bool,
}

/// The thread. Dropping it stops it after the activation it is at.
#[derive(Debug)]
pub(super) struct Sender {
    thread: Option<JoinHandle<Sent>>,
    /// Dropped to stop the thread.
    stop: Option<SyncSender<()>>,
}

impl Sender {
    /// Starts to send.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        work: Arc<impl Work>,
        schedule: Schedule,
        window: Window,
        under_way_max: u32,
    ) -> Result<Self, Failure> {
        let (stop, stopped) = sync_channel(1);
        let runtime = Handle::current();
        let pace = move || {
            let pacer = Pacer {
                work,
                schedule,
                window,
                under_way_max,
                runtime,
                stopped,
            };
            pacer.run()
        };
        let thread = std::thread::Builder::new()
            .name("bench-sender".to_owned())
            .spawn(pace);
        let thread =
            thread.map_err(|error| Failure::new(Exit::Refused, "cannot start a thread").caused_by(error))?;
        Ok(Self {
            thread: Some(thread),
            stop: Some(stop),
        })
    }

    /// Sends nothing more.
    pub(super) fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits until everything has been sent that will be.
    pub(super) async fn finish(mut self) -> Sent {
        let thread = self.thread.take().expect("finished once");
        let joined = tokio::task::spawn_blocking(|| thread.join()).await;
        joined
            .expect("the wait is not cancelled")
            .expect("the sender does not panic")
    }
}

struct Pacer<W> {
    work: Arc<W>,
    schedule: Schedule,
    window: Window,
    under_way_max: u32,
    runtime: Handle,
    stopped: Receiver<()>,
}

impl<W: Work> Pacer<W> {
    fn run(self) -> Sent {
        // Refused, it is only less precise, which the report shows.
        let _ = rustix::thread::set_current_timer_slack(Some(SLACK_NS));
        let mut sent = Sent::default();
        let mut n = 0;
        while let Some(due) = self.schedule.due(n) {
            let Some(had_room) = self.wait(due) else {
                sent.interrupted = !self.is_over();
                break;
            };
            if self.window.contains(due) {
                sent.sent += 1;
                sent.held_back += u64::from(!had_room);
            }
            self.send(n, due);
            n += 1;
        }
        sent
    }

    fn send(&self, n: u64, due: Duration) {
        let work = Arc::clone(&self.work);
        work.under_way().begin();
        self.runtime.spawn(async move { work.call(n, due).await });
    }

    /// Waits until a moment, and then for room. Whether there was room at once; `None`: nothing more is to be sent.
    fn wait(&self, due: Duration) -> Option<bool> {
        loop {
            let left = due.saturating_sub(self.work.clock().elapsed());
            if left.is_zero() {
                break;
            }
            self.pause(left)?;
        }
        let mut had_room = true;
        while self.work.under_way().count() >= self.under_way_max {
            had_room = false;
            if self.is_over() {
                return None;
            }
            self.pause(ROOM_LOOK)?;
        }
        // Behind time there was no pause in which a stop would have been seen.
        (self.stopped.try_recv() == Err(TryRecvError::Empty)).then_some(had_room)
    }

    fn is_over(&self) -> bool {
        self.work.clock().elapsed() >= self.window.to
    }

    /// `None` if it was stopped meanwhile.
    fn pause(&self, time: Duration) -> Option<()> {
        (self.stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout)).then_some(())
    }
}
