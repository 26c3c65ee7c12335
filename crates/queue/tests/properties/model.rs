//! The reference model of one leadership: a list per stage, nothing clever.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{ActivationId, Instant, InvokerId};

/// Where the model thinks an activation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Held,
    Waiting,
    InFlight,
    Done,
}

/// What one leadership should know.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) stages: BTreeMap<ActivationId, Stage>,
    /// Order of the first acceptance, then of that by this leader.
    order: BTreeMap<ActivationId, (Instant, usize)>,
    seq: usize,
    /// Invokers that must register before held ones move.
    pub(crate) expected: BTreeSet<InvokerId>,
}

impl Model {
    /// Taken, or known already; `at` is the moment of the first acceptance. One that only an invoker had told of gets
    /// its place now.
    pub(crate) fn accepted(&mut self, id: ActivationId, attempt: u32, at: Instant, is_first_here: bool) {
        if let Some(stage) = self.stages.get(&id) {
            if is_first_here
                && *stage == Stage::InFlight
                && let Some(place) = self.order.get_mut(&id)
            {
                place.0 = place.0.min(at);
            }
            return;
        }
        let held = attempt > 1 && !self.expected.is_empty();
        self.stages
            .insert(id, if held { Stage::Held } else { Stage::Waiting });
        self.order.insert(id, (at, self.seq));
        self.seq += 1;
    }

    /// The activation went to a container; panics if it jumped the queue.
    pub(crate) fn delivered(&mut self, id: ActivationId) {
        let first = self.count_first();
        assert_eq!(
            first,
            Some(id),
            "invariant 6: hand-outs keep the order of arrival"
        );
        self.stages.insert(id, Stage::InFlight);
    }

    fn count_first(&self) -> Option<ActivationId> {
        let waiting = self.stages.iter().filter(|(_, stage)| **stage == Stage::Waiting);
        waiting.map(|(id, _)| *id).min_by_key(|id| self.order[id])
    }

    /// It is certainly not started, and somebody has submitted it here.
    pub(crate) fn given_back(&mut self, id: ActivationId, is_submitted: bool) {
        if self.stages.get(&id) != Some(&Stage::InFlight) {
            return;
        }
        if is_submitted {
            self.stages.insert(id, Stage::Waiting);
        } else {
            self.stages.remove(&id);
        }
    }

    pub(crate) fn adopted(&mut self, id: ActivationId, now: Instant) {
        let is_new = !self.stages.contains_key(&id);
        let stage = self.stages.entry(id).or_insert(Stage::InFlight);
        if matches!(stage, Stage::Held | Stage::Waiting) {
            *stage = Stage::InFlight;
        }
        if is_new {
            self.order.insert(id, (now, self.seq));
            self.seq += 1;
        }
    }

    pub(crate) fn done(&mut self, id: ActivationId) {
        self.stages.insert(id, Stage::Done);
    }

    /// The invoker that had it is gone; an activation that nobody has told of stays unknown.
    pub(crate) fn lost(&mut self, id: ActivationId) {
        if self.stages.get(&id) == Some(&Stage::InFlight) {
            self.stages.insert(id, Stage::Done);
        }
    }

    pub(crate) fn settled(&mut self, invoker: InvokerId) {
        if self.expected.remove(&invoker) && self.expected.is_empty() {
            self.release();
        }
    }

    /// Held ones join the others at their place of arrival.
    fn release(&mut self) {
        self.stages
            .values_mut()
            .filter(|stage| **stage == Stage::Held)
            .for_each(|stage| *stage = Stage::Waiting);
    }

    pub(crate) fn count(&self, wanted: Stage) -> usize {
        self.stages.values().filter(|stage| **stage == wanted).count()
    }
}
