//! What one run of a probe showed, as numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bench::kind::Kind;
use crate::bench::reasons::Reasons;
use crate::bench::report::{Curve, Run, percentiles};
use crate::bench::spread::latency_figures;
use crate::bench::times::{Percentiles, Times};
use crate::bench::usage::Used;

/// What one run showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// What was measured and ended well.
    pub(crate) done: u64,
    /// What ended otherwise.
    pub(crate) failed: u64,
    /// Why, with how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Counts, rates and sizes, by name.
    pub(crate) figures: BTreeMap<&'static str, f64>,
    /// Percentiles of times.
    pub(crate) latency: BTreeMap<Kind, Percentiles>,
    /// What processes used.
    pub(crate) used: Used,
    /// The times themselves.
    #[serde(skip)]
    pub(crate) times: BTreeMap<Kind, Curve>,
}

impl Finding {
    /// So much was done, and the rest was not, for these reasons.
    pub(super) fn new(done: u64, reasons: Reasons, used: Used) -> Self {
        let errors = reasons.into_counts();
        Self {
            done,
            failed: errors.values().sum(),
            errors,
            figures: BTreeMap::new(),
            latency: BTreeMap::new(),
            used,
            times: BTreeMap::new(),
        }
    }

    /// With these figures more.
    pub(super) fn with(mut self, figures: impl IntoIterator<Item = (&'static str, f64)>) -> Self {
        self.figures.extend(figures);
        self
    }

    /// With these times more.
    pub(super) fn timed(mut self, kind: Kind, times: Times) -> Self {
        if times.count() > 0 {
            self.times.insert(kind, Curve(times));
            self.latency = percentiles(&self.times);
        }
        self
    }
}

impl Run for Finding {
    fn figures(&self) -> Vec<(String, f64)> {
        let named = self
            .figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        let mut all: Vec<_> = named.collect();
        all.push(("failed".to_owned(), self.failed as f64));
        all.extend(
            self.latency
                .iter()
                .flat_map(|(kind, times)| latency_figures(*kind, times)),
        );
        all.extend(self.used.figures());
        all
    }

    fn times(&self) -> &BTreeMap<Kind, Curve> {
        &self.times
    }

    fn used(&self) -> &Used {
        &self.used
    }

    fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    fn is_usable(&self) -> bool {
        self.done > 0
    }
}
