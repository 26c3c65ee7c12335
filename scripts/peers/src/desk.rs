//! The desk at which activations of a run are handed out and their results come back.
//!
//! Producers get tickets from it, containers hold them there, results end there. It knows no peer. What is due in the measured
//! part of the run counts towards latencies; what *ends* in it counts towards the rate. The same as `whiskraft bench` counts.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc::{Sender, error::TrySendError};

use crate::clock;
use crate::ticket::Ticket;
use crate::times::Times;
use crate::window::Window;

/// Locks that the counting is spread over.
const SHARDS: usize = 8;
/// An activation that reaches its producer later than this after it was due is late: the load itself did not keep up.
const LATE_NS: u64 = 1_000_000;
/// Different errors kept of a run; one that fails in more ways is understood from the first ones.
const ERRORS_MAX: usize = 20;

/// Where tickets wait for the producer that is to submit them.
pub(crate) type Producers = Vec<Sender<Ticket>>;

/// Shared by producers, containers and the ones that listen for results.
#[derive(Debug)]
pub(crate) struct Desk {
    hold: Duration,
    producers: Producers,
    run: RwLock<Arc<Run>>,
    errors: Mutex<BTreeMap<String, u64>>,
}

/// Counts of the current run.
#[derive(Debug)]
pub(crate) struct Run {
    number: u32,
    pub(crate) window: Window,
    /// Whether the end of one activation begins the next.
    is_closed: bool,
    next: AtomicU64,
    under_way: AtomicU64,
    late: AtomicU64,
    due: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
}

/// What is told of a run when it is over.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Handed out, of those due in the window.
    pub(crate) due: u64,
    /// Of these, those that ended well, then or later.
    pub(crate) done: u64,
    /// Ended well in the window, whenever they were due.
    pub(crate) done_in_window: u64,
    /// Of those due in the window, those that reached their producer late.
    pub(crate) late: u64,
    /// From due until a container took it.
    pub(crate) queueing: Times,
    /// From due until the result was back.
    pub(crate) end_to_end: Times,
}

/// An activation that a container has held.
#[derive(Debug)]
pub(crate) struct Served {
    /// Who waits for its result.
    pub(crate) producer: u32,
    pub(crate) result: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shard {
    under_way: HashSet<u64>,
    tally: Tally,
}

impl Desk {
    /// A desk whose containers hold every activation for so long.
    pub(crate) fn new(hold: Duration, producers: Producers) -> Self {
        let before_the_first = Run::new(
            0,
            Window {
                begin: 0,
                from: 0,
                to: 0,
            },
            false,
        );
        Self {
            hold,
            producers,
            run: RwLock::new(Arc::new(before_the_first)),
            errors: Mutex::default(),
        }
    }

    /// Begins a run: whatever belongs to an earlier one counts no more.
    pub(crate) fn begin(&self, window: Window, is_closed: bool) -> Arc<Run> {
        self.take_errors();
        let mut current = self.run.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Run::new(current.number + 1, window, is_closed));
        Arc::clone(&current)
    }

    /// Hands the next activation of a run to a producer; `false` if that producer has no room, and nothing happened.
    pub(crate) fn hand_out(&self, run: &Run, due: u64) -> bool {
        let n = run.next.load(Relaxed);
        let to = (n % self.producers.len() as u64) as usize;
        let Ok(place) = self.producers[to].try_reserve() else {
            return false;
        };
        // In the closed loop's first round an activation that has ended already may have taken the number.
        if run.next.compare_exchange(n, n + 1, Relaxed, Relaxed).is_err() {
            return false;
        }
        place.send(run.ticket(n, to as u32, due));
        true
    }

    /// A producer is about to submit it; `false` if its run is over.
    pub(crate) fn submitted(&self, ticket: &Ticket) -> bool {
        let run = self.current();
        let is_late = clock::now().saturating_sub(ticket.due) > LATE_NS;
        if is_late && run.number == ticket.run && run.window.contains(ticket.due) {
            run.late.fetch_add(1, Relaxed);
        }
        run.number == ticket.run
    }

    /// A producer could not submit it: it makes room for another one in the open loop, and its caller in the closed loop is gone.
    pub(crate) fn failed(&self, ticket: &Ticket) {
        let run = self.current();
        if run.number == ticket.run && lock(run.shard(ticket.n)).under_way.remove(&ticket.n) {
            run.under_way.fetch_sub(1, Relaxed);
        }
    }

    /// What a container does with a message: it holds it, and has a result of the same size; `None` for one of an earlier run.
    pub(crate) async fn serve(&self, message: &[u8]) -> Option<Served> {
        let began = clock::now();
        let ticket = match Ticket::read(message) {
            Ok(ticket) if ticket.run == self.current().number => ticket,
            Ok(_) => return None,
            Err(error) => {
                self.trouble(&error);
                return None;
            }
        };
        if !self.hold.is_zero() {
            tokio::time::sleep(self.hold).await;
        }
        Some(Served {
            producer: ticket.producer,
            result: Ticket::result(message, began),
        })
    }

    /// A result is back. The first one counts; a peer may deliver twice.
    pub(crate) fn done(&self, result: &[u8]) {
        let (now, run) = (clock::now(), self.current());
        match Ticket::read(result) {
            Ok(ticket) if ticket.run == run.number => {
                if run.done(&ticket, now) && run.is_closed && now < run.window.to {
                    self.again(&run, now);
                }
            }
            Ok(_) => {}
            Err(error) => self.trouble(&error),
        }
    }

    /// Something went wrong; the run goes on, and its report tells of it.
    pub(crate) fn trouble(&self, error: &dyn std::fmt::Display) {
        let text = format!("{error:#}");
        let mut errors = lock(&self.errors);
        let has_room = errors.len() < ERRORS_MAX || errors.contains_key(&text);
        *errors
            .entry(if has_room { text } else { "other errors".to_owned() })
            .or_default() += 1;
    }

    /// Errors since it was last asked.
    pub(crate) fn take_errors(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut lock(&self.errors))
    }

    /// The closed loop's next one: there is room, since as many producers' places as callers are there.
    fn again(&self, run: &Run, now: u64) {
        let n = run.next.fetch_add(1, Relaxed);
        let to = (n % self.producers.len() as u64) as usize;
        match self.producers[to].try_send(run.ticket(n, to as u32, now)) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => self.trouble(&"a producer has no room for the next activation"),
        }
    }

    fn current(&self) -> Arc<Run> {
        Arc::clone(&self.run.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Run {
    fn new(number: u32, window: Window, is_closed: bool) -> Self {
        Self {
            number,
            window,
            is_closed,
            next: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            late: AtomicU64::new(0),
            due: AtomicU64::new(0),
            shards: Default::default(),
        }
    }

    /// How many have neither come back nor been given up.
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way.load(Relaxed)
    }

    /// How many ended well in the window so far.
    pub(crate) fn done_in_window(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| lock(shard).tally.done_in_window)
            .sum()
    }

    /// The counts so far.
    pub(crate) fn tally(&self) -> Tally {
        let mut all = Tally {
            due: self.due.load(Relaxed),
            late: self.late.load(Relaxed),
            ..Tally::default()
        };
        for shard in &self.shards {
            let Shard { tally, .. } = &*lock(shard);
            all.done += tally.done;
            all.done_in_window += tally.done_in_window;
            all.queueing.merge(&tally.queueing);
            all.end_to_end.merge(&tally.end_to_end);
        }
        all
    }

    fn ticket(&self, n: u64, producer: u32, due: u64) -> Ticket {
        lock(self.shard(n)).under_way.insert(n);
        self.under_way.fetch_add(1, Relaxed);
        self.due.fetch_add(u64::from(self.window.contains(due)), Relaxed);
        Ticket {
            run: self.number,
            producer,
            n,
            due,
            began: 0,
        }
    }

    fn done(&self, ticket: &Ticket, now: u64) -> bool {
        let mut shard = lock(self.shard(ticket.n));
        if !shard.under_way.remove(&ticket.n) {
            return false;
        }
        self.under_way.fetch_sub(1, Relaxed);
        shard.tally.done_in_window += u64::from(self.window.contains(now));
        if self.window.contains(ticket.due) {
            shard.tally.done += 1;
            shard.tally.queueing.add(ticket.began.saturating_sub(ticket.due));
            shard.tally.end_to_end.add(now - ticket.due);
        }
        true
    }

    fn shard(&self, n: u64) -> &Mutex<Shard> {
        &self.shards[n as usize % SHARDS]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> (Desk, tokio::sync::mpsc::Receiver<Ticket>) {
        let (producer, tickets) = tokio::sync::mpsc::channel(2);
        (Desk::new(Duration::ZERO, vec![producer]), tickets)
    }

    const ALWAYS: Window = Window {
        begin: 0,
        from: 0,
        to: u64::MAX,
    };

    #[tokio::test]
    async fn a_result_counts_once_and_only_in_its_run() {
        let (desk, mut tickets) = desk();
        let run = desk.begin(ALWAYS, false);
        assert!(desk.hand_out(&run, 1));
        let ticket = tickets.recv().await.unwrap();
        let result = desk.serve(&ticket.message(200)).await.unwrap().result;
        desk.done(&result);
        desk.done(&result);
        assert_eq!(
            (run.tally().done, run.tally().done_in_window, run.under_way()),
            (1, 1, 0)
        );
        let next = desk.begin(ALWAYS, false);
        desk.done(&result);
        assert_eq!(next.tally().done, 0);
        assert!(desk.serve(&ticket.message(200)).await.is_none());
    }

    #[tokio::test]
    async fn the_closed_loop_goes_on_and_a_full_producer_is_told() {
        let (desk, mut tickets) = desk();
        let run = desk.begin(ALWAYS, true);
        assert!(desk.hand_out(&run, 0) && desk.hand_out(&run, 0));
        assert!(!desk.hand_out(&run, 0), "there is room for two");
        let ticket = tickets.recv().await.unwrap();
        desk.done(&ticket.message(0));
        assert_eq!((run.under_way(), run.tally().due), (2, 3));
        assert!(desk.take_errors().is_empty());
    }
}
