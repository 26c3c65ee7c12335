//! Hot path: the tokens that this scheduler holds for a namespace with a rate limit, shared by its shards.
//! Budget per new activation of such a namespace: a few atomic operations; no lock, no allocation.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use whiskraft_queue::Taken;
use whiskraft_types::{Instant, NamespaceName};

/// Asks are for a tenth of a second: this part of a minute.
const BATCHES_PER_MINUTE: u32 = 600;
/// Longest time for which a refusal is believed that was given under another limit than the one in force here: the
/// tables of the two schedulers are about to agree.
const OTHER_LIMIT_MAX: Duration = Duration::from_millis(20);
/// Shortest time for which a refusal of the home is believed: it spares the home an ask per refused activation.
const EMPTY_MIN: Duration = Duration::from_millis(1);

/// What the home says to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) taken: Taken,
    /// The limit under which it was given; `None`: the home knows of none.
    pub(crate) per_minute: Option<u32>,
}

/// What a shard gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// A token; and whether it is time to ask for more.
    Token { is_low: bool },
    /// The home has said that there is none for so long.
    Refused(Duration),
    /// There is none here; the home has to be asked.
    Unknown,
}

/// The stock of one namespace.
#[derive(Debug)]
pub(crate) struct Stock {
    namespace: NamespaceName,
    per_minute: AtomicU32,
    tokens: AtomicU32,
    /// Activations that wait for the answer to an ask.
    ///
    /// It and `is_asking` have one order for all threads (`SeqCst`): whoever ends an ask looks here after it said so, and
    /// whoever comes to wait says so here before it looks there, so that one of the two sees the other.
    missed: AtomicU32,
    is_asking: AtomicBool,
    /// In microseconds since the clock's origin: until then the home has none.
    empty_until: AtomicU64,
}

impl Stock {
    pub(crate) fn new(namespace: NamespaceName, per_minute: u32) -> Self {
        Self {
            namespace,
            per_minute: AtomicU32::new(per_minute),
            tokens: AtomicU32::new(0),
            missed: AtomicU32::new(0),
            is_asking: AtomicBool::new(false),
            empty_until: AtomicU64::new(0),
        }
    }

    pub(crate) const fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    pub(crate) fn per_minute(&self) -> u32 {
        self.per_minute.load(Ordering::Relaxed)
    }

    /// The limit has changed: what was held under the old one is void, and so is what the home said.
    pub(crate) fn set_rate(&self, per_minute: u32) {
        // Before `settle` looks again: either it sees the new limit, or what it wrote is wiped out here.
        if self.per_minute.swap(per_minute, Ordering::SeqCst) != per_minute {
            self.tokens.store(0, Ordering::Relaxed);
            self.empty_until.store(0, Ordering::SeqCst);
        }
    }

    /// Takes a token for one activation.
    pub(crate) fn take(&self, now: Instant) -> Take {
        let taken = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                tokens.checked_sub(1)
            });
        let empty_for = Duration::from_micros(self.empty_until.load(Ordering::Relaxed))
            .saturating_sub(now.since_origin());
        match taken {
            Ok(before) => Take::Token {
                is_low: empty_for.is_zero() && before - 1 <= self.batch() / 2,
            },
            Err(_) if empty_for.is_zero() => Take::Unknown,
            Err(_) => Take::Refused(empty_for),
        }
    }

    /// An activation that had taken a token was not accepted.
    pub(crate) fn give_back(&self) {
        self.tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// An activation waits for the answer of the home.
    pub(crate) fn note_missed(&self) {
        self.missed.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the caller shall ask: nobody else does.
    pub(crate) fn begin_ask(&self) -> bool {
        !self.is_asking.swap(true, Ordering::SeqCst)
    }

    /// The ask is over; true if the caller shall ask again, because somebody has come to wait meanwhile.
    pub(crate) fn end_ask(&self) -> bool {
        self.is_asking.swap(false, Ordering::SeqCst);
        self.is_missed() && self.begin_ask()
    }

    /// Nobody will carry out the ask that has begun: the next activation may begin another.
    pub(crate) fn abandon_ask(&self) {
        self.is_asking.store(false, Ordering::SeqCst);
    }

    /// Whether an activation has come to wait since the last ask.
    pub(crate) fn is_missed(&self) -> bool {
        self.missed.load(Ordering::SeqCst) > 0
    }

    /// Tokens to ask for, and how many activations wait for them.
    pub(crate) fn wanted(&self) -> (u32, u32) {
        let missed = self.missed.swap(0, Ordering::SeqCst);
        let held = self.tokens.load(Ordering::Relaxed);
        (missed.saturating_add(self.batch()).saturating_sub(held), missed)
    }

    /// What the home said to an ask. A refusal under a limit that is none any more, or not yet, holds for a moment only:
    /// one of a rate of zero would hold for a minute.
    pub(crate) fn settle(&self, now: Instant, wanted: u32, answer: Answer) {
        let Taken { granted, retry_after } = answer.taken;
        self.tokens.fetch_add(granted, Ordering::Relaxed);
        if granted >= wanted {
            return;
        }
        let refuse_for = |time: Duration| {
            let until = now + time.max(EMPTY_MIN);
            let until = u64::try_from(until.since_origin().as_micros()).unwrap_or(u64::MAX);
            self.empty_until.swap(until, Ordering::SeqCst);
        };
        let is_of_now = || answer.per_minute == Some(self.per_minute.load(Ordering::SeqCst));
        if is_of_now() {
            refuse_for(retry_after);
        }
        // Looked at again: the limit may have changed meanwhile.
        if !is_of_now() {
            refuse_for(retry_after.min(OTHER_LIMIT_MAX));
        }
    }

    fn batch(&self) -> u32 {
        self.per_minute().div_ceil(BATCHES_PER_MINUTE).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    fn answer(per_minute: u32, granted: u32, retry_after: u64) -> Answer {
        Answer {
            taken: Taken {
                granted,
                retry_after: Duration::from_millis(retry_after),
            },
            per_minute: Some(per_minute),
        }
    }

    fn stock(per_minute: u32) -> Stock {
        Stock::new("guest".parse().unwrap(), per_minute)
    }

    #[test]
    fn an_empty_stock_asks_before_it_refuses_and_believes_the_answer_for_its_time() {
        let stock = stock(60);
        assert_eq!(stock.take(at(0)), Take::Unknown);
        stock.note_missed();
        assert!(stock.begin_ask() && !stock.begin_ask());
        assert_eq!(stock.wanted(), (2, 1));
        stock.settle(at(0), 2, answer(60, 1, 500));
        assert!(!stock.end_ask());
        assert_eq!(stock.take(at(0)), Take::Token { is_low: false });
        assert_eq!(stock.take(at(100)), Take::Refused(Duration::from_millis(400)));
        assert_eq!(stock.take(at(500)), Take::Unknown);
    }

    #[test]
    fn a_stock_that_runs_low_asks_for_a_tenth_of_a_second() {
        let stock = stock(6000);
        assert!(stock.begin_ask());
        assert_eq!(stock.wanted(), (10, 0));
        stock.settle(at(0), 10, answer(6000, 10, 0));
        let low: Vec<bool> = (0..10)
            .map(|_| stock.take(at(0)) == Take::Token { is_low: true })
            .collect();
        assert_eq!(low, [[false; 4].as_slice(), &[true; 6]].concat());
    }

    #[test]
    fn who_comes_while_an_ask_is_under_way_is_asked_for_next() {
        let stock = stock(60);
        assert!(stock.begin_ask());
        stock.wanted();
        stock.note_missed();
        assert!(stock.end_ask());
        assert_eq!(stock.wanted(), (2, 1));
        assert!(!stock.end_ask());
    }

    #[test]
    fn who_comes_to_wait_as_an_ask_ends_is_asked_for_by_one_of_the_two() {
        let stocks: Vec<_> = (0..2_000).map(|_| (stock(60), AtomicU32::new(0))).collect();
        let meet = |place: &AtomicU32| {
            place.fetch_add(1, Ordering::SeqCst);
            let mut looks = 0_u32;
            while place.load(Ordering::SeqCst) < 2 {
                looks += 1;
                match looks % 1000 {
                    0 => std::thread::yield_now(),
                    _ => std::hint::spin_loop(),
                }
            }
        };
        stocks.iter().for_each(|(stock, _)| assert!(stock.begin_ask()));
        let ends = || {
            stocks
                .iter()
                .map(|(stock, place)| (meet(place), stock.end_ask()).1)
        };
        let comes = |(stock, place): &(Stock, AtomicU32)| {
            meet(place);
            stock.note_missed();
            stock.begin_ask()
        };
        let (ended, came): (Vec<bool>, Vec<bool>) = std::thread::scope(|scope| {
            let ended = scope.spawn(|| ends().collect());
            let came = stocks.iter().map(comes).collect();
            (ended.join().unwrap(), came)
        });
        assert!(ended.iter().zip(&came).all(|(ended, came)| ended != came));
    }

    #[test]
    fn a_new_limit_voids_what_was_held_and_what_was_said() {
        let stock = stock(60);
        stock.settle(at(0), 9, answer(60, 1, 60_000));
        stock.set_rate(60);
        assert_eq!(stock.take(at(0)), Take::Token { is_low: false });
        stock.give_back();
        stock.set_rate(600);
        assert_eq!(stock.take(at(0)), Take::Unknown);
    }

    #[test]
    fn a_refusal_under_another_limit_holds_for_a_moment() {
        let stock = stock(600);
        // The home had not heard of the new limit yet, or this scheduler had not when it asked.
        stock.settle(at(0), 1, answer(0, 0, 60_000));
        assert_eq!(stock.take(at(0)), Take::Refused(OTHER_LIMIT_MAX));
        assert_eq!(stock.take(at(20)), Take::Unknown);
        stock.settle(at(20), 1, answer(600, 0, 100));
        assert_eq!(stock.take(at(20)), Take::Refused(Duration::from_millis(100)));
    }
}
