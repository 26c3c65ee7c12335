//! Stands in for the crate `base2histogram`, in which openraft counts batches and stages.
//!
//! That crate makes 26 MiB of tables in each process, for sixteen widths of which openraft uses one, and nobody here reads what is
//! counted. This has what openraft calls, and no table: [`Histogram`] and [`PercentileStats`].

use std::fmt;
use std::marker::PhantomData;

/// Buckets for each power of two: a value is told to within a quarter of it.
const PER_POWER: u64 = 4;
/// Bits of a value that tell buckets of a power of two apart.
const SPLIT_BITS: u32 = PER_POWER.ilog2();

/// How often which values were recorded. Room is made for the largest one only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    samples: u64,
    tag: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// One without samples.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: Vec::new(),
            samples: 0,
            tag: PhantomData,
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = bucket(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(times);
        }
        self.samples = self.samples.saturating_add(times);
    }

    /// Values below which the usual shares of the samples are.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.samples,
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }

    /// The lowest value of the bucket of the sample that has so many thousandths of all up to it; 0 without samples.
    fn permille(&self, permille: u64) -> u64 {
        let wanted = u128::from(self.samples) * u128::from(permille);
        let wanted = wanted.div_ceil(1000).max(1);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        });
        reached.map_or(0, lowest)
    }
}

/// The bucket of a value: the value itself as long as it is small, then so many of equal width for each power of two.
fn bucket(value: u64) -> usize {
    let power = value.checked_ilog2().unwrap_or(0);
    if power < SPLIT_BITS {
        return usize::try_from(value).unwrap_or_default();
    }
    let shift = power - SPLIT_BITS;
    let bucket = u64::from(shift) * PER_POWER + (value >> shift);
    usize::try_from(bucket).unwrap_or_default()
}

/// The lowest value of a bucket.
fn lowest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PER_POWER {
        return bucket;
    }
    let shift = bucket / PER_POWER - 1;
    (PER_POWER + bucket % PER_POWER) << shift
}

/// Values below which shares of the samples are, each the lowest of its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// Samples recorded.
    pub samples: u64,
    /// One thousandth of them.
    pub p0_1: u64,
    /// One hundredth.
    pub p1: u64,
    /// 5 %.
    pub p5: u64,
    /// 10 %.
    pub p10: u64,
    /// Half.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p0_1,
            p1,
            p5,
            p10,
            p50,
            p90,
            p99,
            p99_9,
        } = self;
        write!(
            f,
            "{samples} samples, p0.1 {p0_1}, p1 {p1}, p5 {p5}, p10 {p10}, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}"
        )
    }
}

/// Several histograms, one below the other.
#[derive(Debug)]
pub struct AsciiChart<T = ()>(Vec<(String, Histogram<T>)>);

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> AsciiChart<T> {
    /// One without histograms.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a histogram.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }

    /// A line for each.
    #[must_use]
    pub const fn detailed(&self) -> impl fmt::Display {
        Lines(self)
    }
}

struct Lines<'a, T>(&'a AsciiChart<T>);

impl<T> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.0.iter();
        lines.try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_a_quarter_wide() {
        let mut before = None;
        for value in (0..4096)
            .chain((12..64).flat_map(|power| [(1 << power) - 1, 1 << power, (3 << power) / 2]))
            .chain([u64::MAX])
        {
            let bucket = bucket(value);
            assert!(lowest(bucket) <= value, "{value}");
            assert!(value - lowest(bucket) <= value / 4, "{value}");
            assert!(value > 4096 || before <= Some(bucket), "{value}");
            before = Some(bucket);
        }
        assert_eq!(bucket(u64::MAX), 251);
    }

    #[test]
    fn percentiles_are_of_all_samples() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        (0..900).for_each(|_| histogram.record(2));
        (0..99).for_each(|_| histogram.record(64));
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p90), (1000, 2, 2, 2));
        assert_eq!((stats.p99, stats.p99_9), (64, 64));
        assert_eq!(histogram.permille(1000), 7 << 61);
        assert!(stats.to_string().starts_with("1000 samples, p0.1 2,"), "{stats}");
    }

    #[test]
    fn a_chart_has_a_line_for_each() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(7, 3);
        let chart = AsciiChart::new().add("a", histogram).add("b", Histogram::new());
        let text = chart.detailed().to_string();
        let begins: Vec<_> = text.lines().map(|line| line.split(',').next()).collect();
        assert_eq!(begins, [Some("a: 3 samples"), Some("b: 0 samples")]);
    }

    #[test]
    fn room_is_made_for_what_comes() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.counts.capacity(), 0);
        histogram.record(3);
        assert_eq!(histogram.counts, [0, 0, 0, 1]);
    }
}
