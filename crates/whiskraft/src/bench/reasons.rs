//! Why things failed, with how often.

use std::collections::BTreeMap;

/// Different reasons kept; a run that fails in more ways than this is understood from the first ones.
pub(super) const REASONS_MAX: usize = 20;

/// Counts by reason. Every failure is counted, however many reasons there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    /// Counts one more.
    pub(super) fn note(&mut self, reason: String) {
        self.add(reason, 1);
    }

    /// Takes all of another in.
    pub(super) fn merge(&mut self, other: Self) {
        for (reason, count) in other.0 {
            self.add(reason, count);
        }
    }

    /// All of them.
    pub(super) fn into_counts(self) -> BTreeMap<String, u64> {
        self.0
    }

    fn add(&mut self, reason: String, count: u64) {
        let room = self.0.len() < REASONS_MAX || self.0.contains_key(&reason);
        let reason = if room { reason } else { "other".to_owned() };
        *self.0.entry(reason).or_default() += count;
    }
}
