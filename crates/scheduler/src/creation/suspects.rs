//! Invokers that get no containers for a while, and then one at a time until they have shown that they work, because of what became of the work they were given.
//!
//! The creation actor judges; everybody else in the process may look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use whiskraft_queue::{Judge, JudgeSettings, Observation, Standing, Suspicion};
use whiskraft_types::{Instant, InvokerId};

/// The present ones, for operators; a cheap copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct SuspectsView {
    now: Arc<Mutex<BTreeMap<InvokerId, Suspicion>>>,
}

impl SuspectsView {
    /// Whom this scheduler suspects, and why.
    pub(crate) fn suspects(&self) -> BTreeMap<InvokerId, Suspicion> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The judge and his last word.
#[derive(Debug)]
pub(crate) struct Suspects {
    judge: Judge,
    present: BTreeMap<InvokerId, Suspicion>,
    view: SuspectsView,
}

impl Suspects {
    pub(crate) const fn new(settings: JudgeSettings, view: SuspectsView) -> Self {
        Self {
            judge: Judge::new(settings),
            present: BTreeMap::new(),
            view,
        }
    }

    pub(crate) fn observe(&mut self, now: Instant, invoker: InvokerId, observation: Observation) {
        self.judge.observe(now, invoker, observation);
    }

    /// Those of the last [`Self::refresh`].
    pub(crate) const fn all(&self) -> &BTreeMap<InvokerId, Suspicion> {
        &self.present
    }

    /// When the next of them changes by itself.
    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        self.judge.next_change(now)
    }

    /// Judges anew, and says what has changed.
    pub(crate) fn refresh(&mut self, now: Instant) {
        let present = self.judge.suspects(now);
        if present == self.present {
            return;
        }
        let is_passed_over = |suspicion: &Suspicion| suspicion.standing == Standing::PassedOver;
        for (invoker, suspicion) in present.iter().filter(|(_, now)| is_passed_over(now)) {
            if !self.present.get(invoker).is_some_and(is_passed_over) {
                let reason = suspicion.reason.name();
                tracing::warn!(%invoker, reason, "invoker gets no containers while others can take them");
            }
        }
        for invoker in self
            .present
            .keys()
            .filter(|invoker| !present.contains_key(invoker))
        {
            tracing::info!(%invoker, "invoker is trusted again");
        }
        self.present.clone_from(&present);
        *self.view.now.lock().unwrap_or_else(PoisonError::into_inner) = present;
    }
}
