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
/// Bad signs reported of one invoker besides.
const BAD_MAX: usize = 8;
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
        let is_run = matches!(observation, Observation::Run { .. });
        // One that is compared with nothing says no more than a run before it.
        let is_said = matches!(observation, Observation::Run { slowness: None })
            && matches!(seen.last(), Some(Observation::Run { .. }));
        let room = if is_run { RUNS_MAX } else { RUNS_MAX + BAD_MAX };
        if seen.len() < room && !is_said {
            seen.push(observation);
            self.next.get_or_insert(now + PAUSE);
        }
        // Bad signs are rare and wanted soon.
        if !is_run {
            self.next = Some(now);
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
    /// Compares a run with the average of its queue.
    pub(crate) fn note_run(&mut self, slot: Slot, invoker: InvokerId, duration: Duration) {
        let slowness = self.slowness(slot, invoker, duration);
        self.sightings
            .note(self.now, invoker, Observation::Run { slowness });
    }

    /// A run lasts many times as long as others and goes on.
    pub(crate) fn on_late(&mut self, slot: Slot, invoker: InvokerId, age: Duration) {
        if let Some(slowness) = self.slowness(slot, invoker, age) {
            self.sightings
                .note(self.now, invoker, Observation::Late { slowness });
        }
    }

    /// An activation was delivered there, and nothing was heard of it.
    pub(crate) fn on_silent(&mut self, invoker: InvokerId) {
        self.sightings.note(self.now, invoker, Observation::Silent);
    }

    /// A run against the average of its queue, if that has containers elsewhere too.
    fn slowness(&self, slot: Slot, invoker: InvokerId, duration: Duration) -> Option<f64> {
        let local = self.queues.get(slot)?;
        if local.invokers().all(|other| other == invoker) {
            return None;
        }
        let run = duration.as_secs_f64() * 1000.0;
        Some((run + NOISE_MS) / (local.queue.average_ms()? + NOISE_MS))
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

    const RUN: Observation = Observation::Run { slowness: Some(1.0) };

    #[test]
    fn a_few_runs_of_each_invoker_stand_for_the_rest() {
        let mut sightings = Sightings::default();
        let now = Instant::from_origin(Duration::from_secs(1));
        for _ in 0..100 {
            sightings.note(now, InvokerId(7), RUN);
        }
        assert_eq!(sightings.next(), Some(now + PAUSE));
        sightings.note(now, InvokerId(8), Observation::Silent);
        assert_eq!(sightings.next(), Some(now), "bad signs do not wait");
        let seen = sightings.take();
        assert_eq!(seen.len(), RUNS_MAX + 1);
        assert_eq!(seen.last(), Some(&(InvokerId(8), Observation::Silent)));
        assert_eq!(sightings.next(), None);
    }

    #[test]
    fn bad_signs_find_room_beside_runs_and_are_bounded_too() {
        let mut sightings = Sightings::default();
        for _ in 0..100 {
            sightings.note(Instant::ORIGIN, InvokerId(7), RUN);
        }
        for _ in 0..100 {
            sightings.note(Instant::ORIGIN, InvokerId(7), Observation::Silent);
        }
        let silent = sightings
            .take()
            .iter()
            .filter(|(_, seen)| *seen == Observation::Silent)
            .count();
        assert_eq!(silent, BAD_MAX);
    }

    #[test]
    fn runs_without_comparison_take_no_room_from_others() {
        let mut sightings = Sightings::default();
        let alone = Observation::Run { slowness: None };
        for seen in [alone, alone, alone, Observation::Silent, alone, RUN, alone] {
            sightings.note(Instant::ORIGIN, InvokerId(7), seen);
        }
        let seen: Vec<_> = sightings.take().into_iter().map(|(_, seen)| seen).collect();
        assert_eq!(seen, [alone, Observation::Silent, alone, RUN]);
    }
}
