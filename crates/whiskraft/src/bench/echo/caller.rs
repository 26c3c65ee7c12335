//! Hot path: the controller. Keeps so many records in flight, each of which is followed by the next as soon as it is back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use whiskraft_proto::v1;

use super::link::{Link, LinkError};
use super::{GRACE, messages};
use crate::bench::arguments::Arguments;
use crate::bench::run_clock::RunClock;
use crate::bench::schedule::Window;
use crate::bench::times::Times;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) clock: RunClock,
    pub(super) window: Window,
    pub(super) in_flight: u32,
}

/// What became of the records of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// Sent within the window.
    pub(super) sent: u64,
    /// Of these, those that came back right.
    pub(super) done: u64,
    /// That came back right within the window.
    pub(super) done_in_window: u64,
    /// That came back with another payload or state, twice, or unasked.
    pub(super) wrong: u64,
    /// That did not come back.
    pub(super) lost: u64,
    /// Until those that were sent within the window were with the worker.
    pub(super) there: Times,
    /// Until they were back.
    pub(super) times: Times,
}

impl Counts {
    /// Counts a record that was due within the window and came back right.
    pub(super) fn note(
        &mut self,
        clock: &RunClock,
        due: Duration,
        now: Duration,
        record: &v1::ActivationRecord,
    ) {
        self.done += 1;
        let there_us = clock.until_stamp(due, record.start_ms);
        self.there
            .add(Duration::from_micros(u64::try_from(there_us).unwrap_or_default()));
        self.times.add(now.saturating_sub(due));
    }
}

/// The stream and its records.
#[derive(Debug)]
pub(super) struct Caller {
    link: Link,
    payloads: Arc<Arguments>,
    /// Number of the next record; never used twice on one stream.
    next: u64,
}

/// A record in flight.
#[derive(Debug)]
struct Flying {
    n: u64,
    sent: Duration,
    payload: Bytes,
}

/// A run under way.
#[derive(Debug)]
struct Round {
    load: Load,
    places: Vec<Option<Flying>>,
    flying: u32,
    counts: Counts,
}

impl Caller {
    /// A controller over this stream.
    pub(super) const fn new(link: Link, payloads: Arc<Arguments>) -> Self {
        Self {
            link,
            payloads,
            next: 0,
        }
    }

    /// Carries one run out, and waits for what is in flight at its end.
    pub(super) async fn run(&mut self, load: &Load) -> Result<Counts, LinkError> {
        let mut round = Round::new(*load);
        let limit = load.clock.at(load.window.to + GRACE);
        if let Ok(ended) = tokio::time::timeout_at(limit.into(), self.pump(&mut round)).await {
            ended?;
        }
        round.counts.lost = u64::from(round.flying);
        Ok(round.counts)
    }

    async fn pump(&mut self, round: &mut Round) -> Result<(), LinkError> {
        let began = round.load.clock.elapsed();
        for place in 0..round.load.in_flight {
            self.send(round, place, began)?;
        }
        while round.flying > 0 {
            let frame = self.link.results.message().await?.ok_or(LinkError::Ended)?;
            let now = round.load.clock.elapsed();
            for completed in frame.completed {
                if let Some(place) = round.take(completed, now)
                    && now < round.load.window.to
                {
                    self.send(round, place, now)?;
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, round: &mut Round, place: u32, now: Duration) -> Result<(), LinkError> {
        let n = self.next;
        self.next += 1;
        let payload = Bytes::from(self.payloads.text(n));
        round.put(place, n, now, payload.clone());
        self.link.send(messages::submission(n, place, payload))
    }
}

impl Round {
    fn new(load: Load) -> Self {
        Self {
            load,
            places: (0..load.in_flight).map(|_| None).collect(),
            flying: 0,
            counts: Counts::default(),
        }
    }

    fn put(&mut self, place: u32, n: u64, sent: Duration, payload: Bytes) {
        self.places[place as usize] = Some(Flying { n, sent, payload });
        self.flying += 1;
        self.counts.sent += u64::from(self.load.window.contains(sent));
    }

    /// Takes a result in; the place that it leaves free, if it is that of a record in flight.
    fn take(&mut self, completed: v1::CompletedActivation, now: Duration) -> Option<u32> {
        let Some((place, flying, record)) = self.find(completed) else {
            self.counts.wrong += 1;
            return None;
        };
        self.flying -= 1;
        if record.status() != v1::Status::Success || record.result != flying.payload {
            self.counts.wrong += 1;
            return Some(place);
        }
        let window = self.load.window;
        self.counts.done_in_window += u64::from(window.contains(now));
        if window.contains(flying.sent) {
            self.counts.note(&self.load.clock, flying.sent, now, &record);
        }
        Some(place)
    }

    fn find(&mut self, completed: v1::CompletedActivation) -> Option<(u32, Flying, v1::ActivationRecord)> {
        let record = completed.record?;
        let (n, place) = messages::read_id(&record.id)?;
        let flying = self
            .places
            .get_mut(place as usize)?
            .take_if(|flying| flying.n == n)?;
        Some((place, flying, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn back(n: u64, place: u32, payload: &'static str) -> v1::CompletedActivation {
        let submission = messages::submission(n, place, Bytes::from_static(payload.as_bytes()));
        messages::completed_activation(messages::completed(messages::deliver(submission), 1))
    }

    fn round() -> Round {
        let load = Load {
            clock: RunClock::start(),
            window: Window::after(MS(10), MS(10)),
            in_flight: 2,
        };
        let mut round = Round::new(load);
        round.put(0, 7, MS(5), Bytes::from_static(b"a"));
        round.put(1, 8, MS(12), Bytes::from_static(b"b"));
        round
    }

    #[test]
    fn a_result_counts_once_and_where_it_belongs() {
        let mut round = round();
        assert_eq!(round.take(back(7, 0, "a"), MS(11)), Some(0));
        assert_eq!(round.take(back(8, 1, "b"), MS(25)), Some(1));
        let counts = &round.counts;
        assert_eq!((counts.sent, counts.done, counts.done_in_window), (1, 1, 1));
        assert_eq!((counts.wrong, round.flying), (0, 0));
        assert_eq!(counts.times.percentiles().max_ms, Some(13.0));
    }

    #[test]
    fn what_is_not_what_was_sent_is_wrong() {
        let mut round = round();
        assert_eq!(round.take(back(7, 0, "b"), MS(11)), Some(0), "another payload");
        assert_eq!(round.take(back(7, 0, "a"), MS(11)), None, "twice");
        assert_eq!(round.take(back(9, 1, "b"), MS(11)), None, "another number");
        assert_eq!(round.take(back(8, 2, "b"), MS(11)), None, "no such place");
        assert_eq!(round.take(v1::CompletedActivation::default(), MS(11)), None);
        assert_eq!((round.counts.wrong, round.counts.done_in_window), (5, 0));
        assert_eq!(round.flying, 1);
    }
}
