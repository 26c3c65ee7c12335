//! Invokers that live and say nothing: each activation that one got ends within a bound, and its silence is told long
//! before that.
//!
//! A look goes over the activations in flight, at most once per second and only while there are any. A delivery costs
//! one comparison: there is no timer and no list of deliveries.

use std::time::Duration;

use whiskraft_types::{ActivationStatus, Instant};

use super::MemoryQueue;
use super::ending::unanswered_text;
use crate::Output;
use crate::containers::Fate;
use crate::ledger::Stage;

/// Shortest time between two looks.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

impl<P: Clone + PartialEq, R: Clone> MemoryQueue<P, R> {
    /// An invoker got an activation: somebody has to look whether it answers.
    pub(super) fn watch_sent(&mut self, now: Instant) {
        let at = now + self.settings.silent_after;
        if self.watch_at.is_none_or(|due| due > at) {
            self.watch_at = Some(at);
        }
    }

    /// Longest time from a delivery to its end: an init and a run of full length and what is around them. The longest
    /// limit of any revision counts, as older ones may still run.
    fn answer_bound(&self) -> Duration {
        self.timeout_max.saturating_mul(2) + self.settings.answer_slack
    }

    /// Looks, if it is time to: tells of silent invokers and ends what was never answered.
    pub(super) fn watch(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        if self.watch_at.is_none_or(|at| at > now) {
            return;
        }
        let bound = self.answer_bound();
        let silent_after = self.settings.silent_after;
        let (mut overdue, mut next) = (Vec::new(), None::<Instant>);
        for (container, entry) in self.ledger.in_flight_mut() {
            let mut due = entry.sent_at + bound;
            if due <= now {
                overdue.push((entry.ticket.id, container));
                continue;
            }
            if matches!(entry.stage, Stage::Delivered(_)) && !entry.is_silence_told {
                let silent_at = entry.sent_at + silent_after;
                // One whose container the table lost has a shorter wait of its own.
                let known = self.containers.find(container);
                let known = known.filter(|known| !matches!(known.fate, Fate::Gone(_)));
                match known.and_then(|known| known.invoker) {
                    Some(invoker) if silent_at <= now => {
                        entry.is_silence_told = true;
                        out.push(Output::Silent { invoker, container });
                    }
                    Some(_) => due = due.min(silent_at),
                    None => {}
                }
            }
            next = Some(next.map_or(due, |at| at.min(due)));
        }
        self.watch_at = next.map(|at| at.max(now + WATCH_PAUSE));
        for (id, container) in overdue {
            let invoker = self.containers.find(container).and_then(|known| known.invoker);
            tracing::warn!(queue = %self.key, activation = %id, %container, "invoker never answered");
            self.fail(
                now,
                id,
                ActivationStatus::WhiskError,
                unanswered_text(invoker, bound),
                out,
            );
            // It would hold its slot for ever: nothing tells whether it will ask again.
            if self.containers.end(container) {
                out.push(Output::RemoveContainer { container });
            }
        }
    }
}
