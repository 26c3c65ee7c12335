//! Notices a disk that does not answer: a write or sync that began and does not end would keep the node up for ever,
//! silent and with everybody waiting for it.
//!
//! The watchdog is a thread of its own, since the threads of consensus may all be held by such calls. It counts its own
//! turns and reads no clock: a process that was stopped for a minute has not waited.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fatal::Fatal;

/// Calls into the engine that have begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    next: AtomicU64,
    under_way: Mutex<BTreeMap<u64, &'static str>>,
}

/// A call that has begun; dropped when it has ended.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    calls: &'a Calls,
    number: u64,
}

impl Calls {
    fn under_way(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a call begins.
    pub(crate) fn begin(&self, what: &'static str) -> Call<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.under_way().insert(number, what);
        Call { calls: self, number }
    }

    /// The call that has been under way for longest.
    fn oldest(&self) -> Option<(u64, &'static str)> {
        let under_way = self.under_way();
        under_way.first_key_value().map(|(number, what)| (*number, *what))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.calls.under_way().remove(&self.number);
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Time between two looks.
    pub(crate) turn: Duration,
    /// Looks at one call after which the node stops.
    pub(crate) stop: u32,
    /// Looks at one call after which the process ends in any case.
    pub(crate) abort: u32,
    /// Ends the process.
    pub(crate) end: fn(),
}

impl Default for Patience {
    /// 20 s, as docs/fault-scenarios.md (F06) has it; a stop in order takes 30 s more at most.
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(1),
            stop: 20,
            abort: 60,
            // Whatever waits for the disk would hold up an exit.
            end: || std::process::abort(),
        }
    }
}

/// Owns the thread; dropped, it ends it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    thread: Option<JoinHandle<()>>,
    leash: Option<SyncSender<()>>,
}

impl Watchdog {
    /// Starts the thread.
    pub(crate) fn start(calls: Arc<Calls>, fatal: Fatal, patience: Patience) -> io::Result<Self> {
        let (leash, is_let_go) = mpsc::sync_channel::<()>(0);
        let mut watch = Watch::default();
        let run = move || {
            while is_let_go.recv_timeout(patience.turn) == Err(RecvTimeoutError::Timeout) {
                watch.look(&calls, &fatal, &patience);
            }
        };
        let thread = std::thread::Builder::new()
            .name("raft-watchdog".to_owned())
            .spawn(run)?;
        Ok(Self {
            thread: Some(thread),
            leash: Some(leash),
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.leash.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("watchdog of the disk panicked");
        }
    }
}

/// How often which call was seen.
#[derive(Debug, Default)]
struct Watch {
    seen: Option<u64>,
    looks: u32,
}

impl Watch {
    fn look(&mut self, calls: &Calls, fatal: &Fatal, patience: &Patience) {
        let oldest = calls.oldest();
        let number = oldest.map(|(number, _)| number);
        if number != self.seen {
            (self.seen, self.looks) = (number, 0);
        }
        let Some((_, what)) = oldest else { return };
        self.looks += 1;
        if self.looks == patience.stop {
            let waited = patience.turn * patience.stop;
            fatal.storage(&format!(
                "{what} has not ended for {waited:?}: the disk does not answer; look at it and start again"
            ));
        } else if self.looks == patience.abort {
            tracing::error!(
                what,
                "the disk does not answer and holds up the stop; the process ends"
            );
            (patience.end)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ENDED: AtomicU64 = AtomicU64::new(0);

    fn patience() -> Patience {
        Patience {
            end: || {
                ENDED.fetch_add(1, Ordering::Relaxed);
            },
            ..Patience::default()
        }
    }

    #[test]
    fn a_call_that_does_not_end_stops_the_node_and_then_the_process() {
        let (calls, fatal, patience) = (Calls::default(), Fatal::new(), patience());
        let mut watch = Watch::default();
        for _ in 0..100 {
            // One after the other, each for 19 s.
            let _call = calls.begin("a write");
            (0..19).for_each(|_| watch.look(&calls, &fatal, &patience));
        }
        watch.look(&calls, &fatal, &patience);
        assert_eq!(fatal.reason(), None);

        let hung = calls.begin("a sync");
        let _later = calls.begin("a write");
        (0..20).for_each(|_| watch.look(&calls, &fatal, &patience));
        let reason = fatal.reason().unwrap().to_string();
        assert!(reason.contains("a sync has not ended for 20s"), "{reason}");
        (20..59).for_each(|_| watch.look(&calls, &fatal, &patience));
        assert_eq!(ENDED.load(Ordering::Relaxed), 0);
        watch.look(&calls, &fatal, &patience);
        assert_eq!(ENDED.load(Ordering::Relaxed), 1);
        drop(hung);
        watch.look(&calls, &fatal, &patience);
        assert_eq!(ENDED.load(Ordering::Relaxed), 1);
    }
}
