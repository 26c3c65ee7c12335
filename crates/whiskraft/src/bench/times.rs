//! Times in a histogram: percentiles, and the curve that a plot draws.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles are within 0.1 % of the true value.
const DIGITS: u8 = 3;
/// Finest time told apart; clocks on machines worth measuring are finer.
const FINEST_NS: u64 = 100;
/// Longest time told apart, an hour; what takes longer counts as this.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Points of a curve within each further nine (from 90 to 99 %, and so on).
const POINTS_PER_NINE: u32 = 10;
/// Nines after which a curve ends: one of a million.
const NINES_MAX: u32 = 6;

/// Times of many activations.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    histogram: Histogram<u64>,
    max: Duration,
}

/// Percentiles in milliseconds. One that too few values decide is not known: it would be the maximum in disguise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// How many values there are.
    pub(crate) count: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p90_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) p999_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
}

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(FINEST_NS, LONGEST_NS, DIGITS);
        Self {
            histogram: histogram.expect("bounds and digits are allowed"),
            max: Duration::ZERO,
        }
    }
}

impl Times {
    /// Takes one in.
    pub(crate) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanos);
        self.max = self.max.max(time);
    }

    /// Takes all of another in.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all histograms have the same bounds");
        self.max = self.max.max(other.max);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The percentiles that there are enough values for.
    pub(crate) fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.count(),
            p50_ms: self.at(0.5),
            p90_ms: self.at(0.9),
            p99_ms: self.at(0.99),
            p999_ms: self.at(0.999),
            max_ms: (self.count() > 0).then(|| millis(self.max)),
        }
    }

    /// Pairs of a quantile and its time in milliseconds, closer together towards 1, up to the last that is known.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let steps = 0..NINES_MAX * POINTS_PER_NINE;
        let quantiles = steps.map(|step| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(POINTS_PER_NINE)));
        quantiles
            .map_while(|quantile| Some((quantile, self.at(quantile)?)))
            .collect()
    }

    /// The time that this part of the values does not exceed, if at least one does.
    fn at(&self, quantile: f64) -> Option<f64> {
        let above = self.count() as f64 * (1.0 - quantile);
        // A whole value above, but for the rounding of the quantile.
        let is_known = above > 1.0 - 1e-6;
        is_known.then(|| {
            let nanos = self.histogram.value_at_quantile(quantile);
            millis(Duration::from_nanos(nanos).min(self.max))
        })
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: Option<f64>, wanted: f64) -> bool {
        found.is_some_and(|found| (found - wanted).abs() <= wanted / 500.0)
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut times = Times::default();
        (1..=10_000).for_each(|n| times.add(Duration::from_micros(n)));
        times.add(Duration::from_secs(2));
        let found = times.percentiles();
        assert_eq!(found.count, 10_001);
        assert!(
            is_near(found.p50_ms, 5.0) && is_near(found.p90_ms, 9.0) && is_near(found.p99_ms, 9.9),
            "{found:?}"
        );
        assert!(is_near(found.p999_ms, 9.99), "{found:?}");
        assert_eq!(found.max_ms, Some(2000.0), "the maximum is exact");
    }

    #[test]
    fn a_percentile_needs_a_value_beyond_it() {
        let mut times = Times::default();
        assert_eq!(times.percentiles(), Percentiles::default());
        assert!(times.curve().is_empty());
        (0..100).for_each(|_| times.add(Duration::from_nanos(70_500)));
        let found = times.percentiles();
        assert!(
            is_near(found.p99_ms, 0.0705),
            "one of a hundred is enough: {found:?}"
        );
        assert_eq!(found.p999_ms, None);
        assert!(times.curve().iter().all(|(quantile, _)| *quantile < 0.9901));
    }

    #[test]
    fn what_is_merged_counts_once() {
        let (mut one, mut two) = (Times::default(), Times::default());
        one.add(Duration::from_millis(1));
        two.add(Duration::from_millis(3));
        one.merge(&two);
        let found = one.percentiles();
        assert_eq!((found.count, found.max_ms), (2, Some(3.0)));
        assert!(is_near(found.p50_ms, 1.0), "{found:?}");
    }
}
