//! Times in a histogram, and the percentiles that enough of them decide. The same bounds as in `whiskraft bench`.

use hdrhistogram::Histogram;

/// Percentiles are within 0.1 % of the true value.
const DIGITS: u8 = 3;
/// Finest time told apart.
const FINEST_NS: u64 = 100;
/// Longest time told apart, an hour; what takes longer counts as this.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Times of many activations.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(FINEST_NS, LONGEST_NS, DIGITS);
        Self(histogram.expect("bounds and digits are allowed"))
    }
}

impl Times {
    /// Takes one in.
    pub(crate) fn add(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Takes all of another in.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Percentiles in milliseconds, by name. One that no value lies beyond is left out: it would be the maximum in disguise.
    pub(crate) fn percentiles(&self) -> Vec<(&'static str, f64)> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        let is_known = |quantile: f64| self.0.len() as f64 * (1.0 - quantile) > 1.0 - 1e-6;
        [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)]
            .into_iter()
            .filter(|(_, quantile)| is_known(*quantile) || *quantile == 1.0 && !self.0.is_empty())
            .map(|(name, quantile)| (name, at(quantile)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut times = Times::default();
        assert!(times.percentiles().is_empty());
        (1..=1000).for_each(|n| times.add(n * 1_000_000));
        let found = times.percentiles();
        let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["p50", "p99", "p999", "max"]);
        assert!(
            found
                .iter()
                .zip([500.0, 990.0, 999.0, 1000.0])
                .all(|((_, ms), wanted)| (ms - wanted).abs() < 1.0)
        );
    }

    #[test]
    fn a_percentile_needs_a_value_beyond_it() {
        let mut times = Times::default();
        (0..10).for_each(|_| times.add(1_000_000));
        assert_eq!(times.percentiles().len(), 2, "the median and the maximum");
    }
}
