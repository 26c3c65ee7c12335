//! Invokers that live and say nothing: each activation that one got ends within a bound, and its silence, or that a run
//! lasts suspiciously long, is told long before that.
//!
//! A look goes over the activations in flight, at most once per second and only while there are any. A delivery costs
//! one comparison: there is no timer and no list of deliveries.

use std::time::Duration;

use whiskraft_types::{ActivationId, ContainerId, Instant};

use super::MemoryQueue;
use super::ending::unanswered_text;
use crate::Output;
use crate::containers::{Container, Fate};
use crate::ledger::{Entry, Stage};

/// Shortest time between two looks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Times the average that a run has lasted when it is told. Its end is reported too, so the few that honestly last so
/// long count twice; the judge stands that, and of a run that never ends he hears in time.
const LATE_FACTOR: f64 = 32.0;

/// The first multiple of `grid` from `at` on.
fn on_grid(at: Instant, grid: Duration) -> Instant {
    let since = at.since_origin();
    let ahead = since
        .as_nanos()
        .checked_rem(grid.as_nanos())
        .filter(|past| *past > 0);
    let ahead = ahead.map(|past| grid.as_nanos() - past);
    at + ahead
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map_or(Duration::ZERO, Duration::from_nanos)
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// An invoker got an activation: somebody has to look whether it answers.
    pub(super) fn watch_sent(&mut self, now: Instant) {
        let at = on_grid(now + self.settings.silent_after, self.settings.look_grid);
        if self.watch_at.is_none_or(|due| due > at) {
            self.watch_at = Some(at);
        }
    }

    /// Longest time from a delivery to its end: an init and a run of full length and what is around them. The longest
    /// limit of any revision counts, as older ones may still run.
    fn answer_bound(&self) -> Duration {
        self.timeout_max.saturating_mul(2) + self.settings.answer_slack
    }

    /// When an activation in a container is conspicuous if nothing is heard of it: that its invoker is silent before the
    /// start, that it runs for very long after it.
    fn conspicuous_at(&self, entry: &Entry<P, R>, container: &Container) -> Option<Instant> {
        let silent_after = self.settings.silent_after;
        match entry.stage {
            // Nobody says a word during an init.
            Stage::Delivered(_) if !container.warmed => {
                Some(entry.heard_at + self.timeout_max + silent_after)
            }
            Stage::Delivered(_) => Some(entry.heard_at + silent_after),
            Stage::Started(_) => {
                let long = self.average.mean_ms()? * LATE_FACTOR / 1000.0;
                let long = Duration::try_from_secs_f64(long).unwrap_or(Duration::MAX);
                Some(entry.heard_at + long.max(silent_after))
            }
            Stage::Journaling { .. } | Stage::Held | Stage::Waiting | Stage::Delayed(_) => None,
            Stage::Adopted(_) | Stage::Ending(_) | Stage::Done(_) => None,
        }
    }

    /// Looks, if it is time to: tells of silent invokers and very long runs, and ends what was never answered.
    pub(super) fn watch(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        if self.watch_at.is_none_or(|at| at > now) {
            return;
        }
        let bound = self.answer_bound();
        let (mut overdue, mut told, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        for (container, entry) in self.ledger.in_flight() {
            let mut due = entry.sent_at + bound;
            if due <= now {
                // Of a long run the length was told and not that it never ends.
                let is_told = entry.is_silence_told && !matches!(entry.stage, Stage::Started(_));
                overdue.push((entry.ticket.id, container, is_told));
                continue;
            }
            // One whose container the table lost has a shorter wait of its own.
            let known = self.containers.find(container);
            let known = known.filter(|known| !matches!(known.fate, Fate::Gone(_)));
            let conspicuous_at = known
                .filter(|known| known.invoker.is_some() && !entry.is_silence_told)
                .and_then(|known| self.conspicuous_at(entry, known));
            match conspicuous_at {
                Some(at) if at <= now => told.push((entry.ticket.id, container)),
                Some(at) => due = due.min(at),
                None => {}
            }
            next = Some(next.map_or(due, |at| at.min(due)));
        }
        self.watch_at = next.map(|at| on_grid(at.max(now + WATCH_PAUSE), self.settings.look_grid));
        told.into_iter()
            .for_each(|(id, container)| self.tell_conspicuous(now, id, container, out));
        for (id, container, is_told) in overdue {
            self.end_overdue(now, id, container, is_told, out);
        }
    }

    fn tell_conspicuous(
        &mut self,
        now: Instant,
        id: ActivationId,
        container: ContainerId,
        out: &mut Vec<Output<P, R>>,
    ) {
        let invoker = self.containers.find(container).and_then(|known| known.invoker);
        let (Some(entry), Some(invoker)) = (self.ledger.find_mut(id), invoker) else {
            return;
        };
        entry.is_silence_told = true;
        out.push(if matches!(entry.stage, Stage::Started(_)) {
            let age = now.saturating_since(entry.heard_at);
            Output::Late {
                invoker,
                container,
                age,
            }
        } else {
            Output::Silent { invoker, container }
        });
    }

    fn end_overdue(
        &mut self,
        now: Instant,
        id: ActivationId,
        container: ContainerId,
        is_told: bool,
        out: &mut Vec<Output<P, R>>,
    ) {
        let bound = self.answer_bound();
        let invoker = self.containers.find(container).and_then(|known| known.invoker);
        tracing::warn!(queue = %self.key, activation = %id, %container, "invoker never answered");
        if let Some(invoker) = invoker.filter(|_| !is_told) {
            out.push(Output::Silent { invoker, container });
        }
        // If it runs again, then not there.
        self.containers.withdraw(container);
        self.lose(now, vec![id], &unanswered_text(invoker, bound), out);
        // It would hold its slot for ever: nothing tells whether it will ask again.
        if self.containers.end(container) {
            out.push(Output::RemoveContainer { container });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_at_multiples_of_the_grid_and_never_early() {
        let at = |ms| Instant::from_origin(Duration::from_millis(ms));
        let grid = Duration::from_millis(128);
        for (due, look) in [(0, 0), (1, 128), (127, 128), (128, 128), (129, 256)] {
            assert_eq!(on_grid(at(due), grid), at(look), "{due} ms");
        }
        assert_eq!(on_grid(at(5), Duration::ZERO), at(5));
    }
}
