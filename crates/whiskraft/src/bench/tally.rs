//! Counts what became of the activations of a run.
//!
//! What is due in the measured window counts towards latencies and errors; what *ends* in it counts towards the rate that
//! was achieved. [`Tallies`] spreads the counting over several locks, so that it is no bottleneck of its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::kind::Kind;
use super::reasons::Reasons;
use super::schedule::Window;
use super::times::Times;

/// An activation that is handed to the SDK later than this after it was due is late: the load itself could not keep up.
pub(super) const LATE: Duration = Duration::from_millis(1);
/// Locks that the counting is spread over.
const SHARDS: usize = 8;
/// Points that rates over time have at most.
const POINTS_MAX: u32 = 120;
/// Shortest part of a run for which a rate is told.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How one activation ended. Times are from the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    /// When it was due.
    pub(super) due: Duration,
    /// When it was handed to the SDK.
    pub(super) sent: Duration,
    /// When a durable one was accepted.
    pub(super) accepted: Option<Duration>,
    /// When it ended, or was forgotten.
    pub(super) at: Duration,
    /// Whether it was durable.
    pub(super) is_durable: bool,
    /// Its end.
    pub(super) outcome: Outcome,
}

impl Ended {
    /// Of something that is no activation: it was handed over at once, and failed if there is a reason.
    pub(super) fn plain(due: Duration, at: Duration, failed: Option<String>) -> Self {
        Self {
            due,
            sent: due,
            accepted: None,
            at,
            is_durable: false,
            outcome: match failed {
                None => Outcome::Done { queueing_us: None },
                Some(reason) => Outcome::Failed { reason },
            },
        }
    }
}

/// The end of an activation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// With its own result, which says how long after it was due it began, in microseconds: negative if the invoker's clock
    /// is behind. `None`: the result does not say.
    Done { queueing_us: Option<i64> },
    /// It was accepted durably, and nobody waits for it.
    Forgotten,
    /// In some other way.
    Failed { reason: String },
}

/// What happened in one part of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    /// Activations that were due.
    pub(crate) due: u64,
    /// That ended well.
    pub(crate) done: u64,
    /// That ended otherwise.
    pub(crate) failed: u64,
}

/// Counts of a run.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    window: Window,
    /// Length of what one point tells.
    pub(super) interval: Duration,
    /// Times of activations that were due in the window, and ended well; times of sending, of all.
    pub(super) times: BTreeMap<Kind, Times>,
    /// Due in the window and ended.
    pub(super) ended: u64,
    /// Of these, those that ended well.
    pub(super) done: u64,
    /// Ended well within the window.
    pub(super) done_in_window: u64,
    /// Of those due in the window, those that did not end well, by reason.
    pub(super) reasons: Reasons,
    /// Of those due in the window, those sent later than [`LATE`].
    pub(super) late: u64,
    /// Ended well with a result that does not say when it began.
    pub(super) unstamped: u64,
    /// Began before they were due, by the invoker's clock.
    pub(super) too_early: u64,
    /// Parts of the run one after the other.
    pub(super) points: Vec<Point>,
}

impl Tally {
    pub(super) fn new(window: Window) -> Self {
        let times = Kind::OF_ACTIVATIONS.map(|kind| (kind, Times::default()));
        Self {
            window,
            interval: interval(window.to),
            times: times.into(),
            ended: 0,
            done: 0,
            done_in_window: 0,
            reasons: Reasons::default(),
            late: 0,
            unstamped: 0,
            too_early: 0,
            points: Vec::new(),
        }
    }

    /// Takes one in.
    pub(super) fn add(&mut self, ended: Ended) {
        let is_good = !matches!(ended.outcome, Outcome::Failed { .. });
        self.point(ended.due, |point| point.due += 1);
        self.point(ended.at, |point| match is_good {
            true => point.done += 1,
            false => point.failed += 1,
        });
        if is_good && self.window.contains(ended.at) {
            self.done_in_window += 1;
        }
        if self.window.contains(ended.due) {
            self.add_measured(ended);
        }
    }

    fn add_measured(&mut self, ended: Ended) {
        self.ended += 1;
        let since = |at: Duration| at.saturating_sub(ended.due);
        let (sending, end_to_end) = (since(ended.sent), since(ended.at));
        self.time(Kind::Sending, sending);
        self.late += u64::from(sending > LATE);
        if let Some(accepted) = ended.accepted {
            self.time(Kind::DurableAcceptance, since(accepted));
        }
        match ended.outcome {
            Outcome::Failed { reason } => return self.reasons.note(reason),
            Outcome::Forgotten => {}
            Outcome::Done { queueing_us } => {
                let (queueing, whole) = match ended.is_durable {
                    false => (Kind::Queueing, Kind::EndToEnd),
                    true => (Kind::DurableQueueing, Kind::DurableEndToEnd),
                };
                self.time(whole, end_to_end);
                match queueing_us {
                    None => self.unstamped += 1,
                    Some(us) => {
                        self.too_early += u64::from(us < 0);
                        self.time(queueing, Duration::from_micros(us.max(0).unsigned_abs()));
                    }
                }
            }
        }
        self.done += 1;
    }

    fn time(&mut self, kind: Kind, time: Duration) {
        self.times.entry(kind).or_default().add(time);
    }

    /// The points end with the window: what comes later is no rate of this load.
    fn point(&mut self, at: Duration, change: impl FnOnce(&mut Point)) {
        if at >= self.window.to {
            return;
        }
        let index = (at.as_nanos() / self.interval.as_nanos()) as usize;
        if self.points.len() <= index {
            self.points.resize(index + 1, Point::default());
        }
        change(&mut self.points[index]);
    }

    fn merge(&mut self, other: Self) {
        for (kind, times) in &other.times {
            self.times.entry(*kind).or_default().merge(times);
        }
        self.ended += other.ended;
        self.done += other.done;
        self.done_in_window += other.done_in_window;
        self.late += other.late;
        self.unstamped += other.unstamped;
        self.too_early += other.too_early;
        self.reasons.merge(other.reasons);
        let len = self.points.len().max(other.points.len());
        self.points.resize(len, Point::default());
        for (point, more) in self.points.iter_mut().zip(other.points) {
            point.due += more.due;
            point.done += more.done;
            point.failed += more.failed;
        }
    }
}

/// A round length of which the run has not too many.
fn interval(run: Duration) -> Duration {
    let parts = (run / POINTS_MAX).as_nanos().div_ceil(INTERVAL_MIN.as_nanos());
    INTERVAL_MIN * u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
}

/// Tallies that many tasks add to at once.
#[derive(Debug)]
pub(super) struct Tallies(Vec<Mutex<Tally>>);

impl Tallies {
    pub(super) fn new(window: Window) -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(Tally::new(window))).collect())
    }

    /// Takes in how activation `n` ended.
    pub(super) fn add(&self, n: u64, ended: Ended) {
        let shard = &self.0[(n % SHARDS as u64) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner).add(ended);
    }

    /// What has ended well so far within the window.
    pub(super) fn done_in_window(&self) -> u64 {
        let locked = self.0.iter().map(|shard| shard.lock());
        locked
            .map(|shard| shard.unwrap_or_else(PoisonError::into_inner).done_in_window)
            .sum()
    }

    /// All of it; begins anew.
    pub(super) fn take(&self, window: Window) -> Tally {
        let mut sum = Tally::new(window);
        for shard in &self.0 {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            sum.merge(std::mem::replace(&mut *shard, Tally::new(window)));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::reasons::REASONS_MAX;
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A second after a warm-up of one.
    fn window() -> Window {
        Window::after(MS(1000), MS(1000))
    }

    fn done(due_ms: u64, at_ms: u64) -> Ended {
        Ended {
            due: MS(due_ms),
            sent: MS(due_ms),
            accepted: None,
            at: MS(at_ms),
            is_durable: false,
            outcome: Outcome::Done {
                queueing_us: Some(300),
            },
        }
    }

    fn count(tally: &Tally, kind: Kind) -> u64 {
        tally.times[&kind].count()
    }

    #[test]
    fn latencies_are_of_what_is_due_in_the_window_and_the_rate_of_what_ends_in_it() {
        let mut tally = Tally::new(window());
        for (due, at) in [(10, 20), (990, 1010), (1000, 1990), (1500, 1501), (1999, 2500)] {
            tally.add(done(due, at));
        }
        assert_eq!((tally.ended, tally.done, tally.done_in_window), (3, 3, 3));
        assert_eq!(
            (count(&tally, Kind::EndToEnd), count(&tally, Kind::Queueing)),
            (3, 3)
        );
        let whole = tally.times[&Kind::EndToEnd].percentiles();
        assert_eq!(whole.max_ms, Some(990.0), "the stall is in the latency");
    }

    #[test]
    fn failures_have_reasons_and_no_latency() {
        let mut tally = Tally::new(window());
        for n in 0..30 {
            let reason = format!("reason {}", n / 2 * n);
            let outcome = Outcome::Failed { reason };
            tally.add(Ended {
                outcome,
                ..done(1100, 1200)
            });
        }
        assert_eq!((tally.ended, tally.done, tally.done_in_window), (30, 0, 0));
        let reasons = tally.reasons.clone().into_counts();
        assert_eq!(
            reasons.values().sum::<u64>(),
            30,
            "every one is counted, however many kinds there are"
        );
        assert!(reasons.len() <= REASONS_MAX + 1);
        assert_eq!(count(&tally, Kind::EndToEnd), 0);
        assert_eq!(tally.points[12].failed, 30);
    }

    #[test]
    fn durable_ones_are_timed_until_acceptance_and_apart() {
        let mut tally = Tally::new(window());
        let durable = Ended {
            is_durable: true,
            accepted: Some(MS(1105)),
            ..done(1100, 1200)
        };
        tally.add(durable.clone());
        tally.add(Ended {
            outcome: Outcome::Forgotten,
            at: MS(1105),
            ..durable
        });
        let counts = Kind::OF_ACTIVATIONS.map(|kind| count(&tally, kind));
        assert_eq!(counts, [0, 0, 2, 1, 1, 2]);
        assert_eq!(tally.done, 2);
    }

    #[test]
    fn what_the_load_or_the_clocks_did_wrong_is_counted() {
        let mut tally = Tally::new(window());
        let late = Ended {
            sent: MS(1102),
            outcome: Outcome::Done { queueing_us: None },
            ..done(1100, 1200)
        };
        tally.add(late);
        tally.add(Ended {
            outcome: Outcome::Done {
                queueing_us: Some(-20),
            },
            ..done(1100, 1200)
        });
        assert_eq!((tally.late, tally.unstamped, tally.too_early), (1, 1, 1));
        assert_eq!(tally.times[&Kind::Queueing].percentiles().max_ms, Some(0.0));
    }

    #[test]
    fn shards_add_up_and_begin_anew() {
        let tallies = Tallies::new(window());
        (0..100).for_each(|n| tallies.add(n, done(1000 + n, 1001 + n)));
        assert_eq!(tallies.done_in_window(), 100);
        let tally = tallies.take(window());
        assert_eq!((tally.done, count(&tally, Kind::Sending)), (100, 100));
        assert_eq!(tally.points.iter().map(|point| point.due).sum::<u64>(), 100);
        assert_eq!(tallies.take(window()).ended, 0);
    }

    #[test]
    fn a_run_of_any_length_has_a_bounded_number_of_points() {
        assert_eq!(interval(MS(500)), MS(100));
        assert_eq!(interval(MS(12_000)), MS(100));
        assert_eq!(interval(MS(12_001)), MS(200));
        assert_eq!(interval(Duration::from_secs(3600)), Duration::from_secs(30));
    }
}
