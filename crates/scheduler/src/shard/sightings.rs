//! What this shard sees of invokers: how long runs take there compared with the same queue's elsewhere, and who never
//! answers. Passed on at most once a second, a few of each, so that it costs the hot path next to nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_queue::Observation;
use whiskraft_types::{Instant, InvokerId};

use crate::shard::actor::Shard;
use crate::shard::local::Slot;

/// Time between two reports.
const PAUSE: Duration = Duration::from_secs(1);
/// Runs reported of one invoker each time; they stand for the rest.
const RUNS_MAX: usize = 8;
/// Added to both sides of the comparison: below it a difference is noise of the machine.
const NOISE_MS: f64 = 5.0;

/// What was not reported yet.
#[derive(Debug, Default)]
pub(crate) struct Sightings {
    seen: BTreeMap<InvokerId, Vec<Observation>>,
    next: Option<Instant>,
}

impl Sightings {
    /// When to report.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next
    }

    fn note(&mut self, now: Instant, invoker: InvokerId, observation: Observation) {
        let seen = self.seen.entry(invoker).or_default();
        if seen.len() < RUNS_MAX {
            seen.push(observation);
            self.next.get_or_insert(now + PAUSE);
        }
    }

    fn take(&mut self) -> Vec<(InvokerId, Observation)> {
        self.next = None;
        let seen = std::mem::take(&mut self.seen).into_iter();
        seen.flat_map(|(invoker, seen)| seen.into_iter().map(move |one| (invoker, one)))
            .collect()
    }
}

impl Shard {
    /// Compares a run with the average of its queue, if that has containers elsewhere too.
    pub(crate) fn note_run(&mut self, slot: Slot, invoker: InvokerId, duration: Duration) {
        let average = self.queues.get(slot).and_then(|local| {
            let is_elsewhere = local.invokers().any(|other| other != invoker);
            is_elsewhere.then(|| local.queue.average_ms()).flatten()
        });
        if let Some(average) = average {
            let run = duration.as_secs_f64() * 1000.0;
            let slowness = (run + NOISE_MS) / (average + NOISE_MS);
            self.sightings
                .note(self.now, invoker, Observation::Run { slowness });
        }
    }

    /// An activation was delivered there, and nothing was heard of it.
    pub(crate) fn on_silent(&mut self, invoker: InvokerId) {
        self.sightings.note(self.now, invoker, Observation::Silent);
    }

    /// Passes on what was seen, if it is time to.
    pub(crate) fn report_sightings(&mut self) {
        if self.sightings.next.is_some_and(|next| next <= self.now) {
            let seen = self.sightings.take();
            self.parts.creation.observed(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_runs_of_each_invoker_stand_for_the_rest() {
        let mut sightings = Sightings::default();
        let now = Instant::from_origin(Duration::from_secs(1));
        for _ in 0..100 {
            sightings.note(now, InvokerId(7), Observation::Run { slowness: 1.0 });
        }
        sightings.note(now, InvokerId(8), Observation::Silent);
        assert_eq!(sightings.next(), Some(now + PAUSE));
        let seen = sightings.take();
        assert_eq!(seen.len(), RUNS_MAX + 1);
        assert_eq!(seen.last(), Some(&(InvokerId(8), Observation::Silent)));
        assert_eq!(sightings.next(), None);
    }
}
