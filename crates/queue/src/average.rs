//! Average length of the last runs of an action.

use std::collections::VecDeque;
use std::time::Duration;

use whiskraft_types::Rare;

/// The last `len_max` samples. Holds no memory until the first.
#[derive(Debug, Clone)]
pub struct AverageRing {
    samples: Rare<VecDeque<f64>>,
    len_max: usize,
}

impl AverageRing {
    /// An average over at most `len_max` samples, at least one.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        Self {
            samples: Rare::new(),
            len_max: len_max.max(1),
        }
    }

    /// Takes a sample; the oldest one goes when there are too many.
    pub fn push(&mut self, sample: Duration) {
        if self.samples.len() == self.len_max {
            self.samples.pop_front();
        }
        self.samples.push_back(sample.as_secs_f64() * 1000.0);
    }

    /// The mean in milliseconds; `None` before the first sample.
    #[must_use]
    pub fn mean_ms(&self) -> Option<f64> {
        // Summed each time: ten additions cost less than the error of a running sum is worth.
        (!self.samples.is_empty()).then(|| self.samples.iter().sum::<f64>() / self.samples.len() as f64)
    }
}
