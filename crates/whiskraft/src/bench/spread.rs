//! Figures over several runs: each by its name, with the median and the extremes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::kind::Kind;
use super::times::Percentiles;
use super::usage::Used;

/// A figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len().is_multiple_of(2) {
            true => f64::midpoint(values[middle - 1], values[middle]),
            false => values[middle],
        };
        Some(Self { median, min, max })
    }
}

impl Used {
    /// What was used, by name.
    pub(super) fn figures(&self) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        for (role, usage) in &self.roles {
            all.extend([
                (usage_name(role, "cpu_s"), usage.cpu_s),
                (usage_name(role, "cores"), usage.cores),
                (usage_name(role, "resident_mib"), usage.resident_mib),
                (usage_name(role, "resident_max_mib"), usage.resident_max_mib),
                (usage_name(role, "voluntary_per_s"), usage.voluntary_per_s),
                (usage_name(role, "involuntary_per_s"), usage.involuntary_per_s),
            ]);
            all.extend(
                usage
                    .cpu_s_per_1000
                    .map(|cpu| (usage_name(role, "cpu_s_per_1000"), cpu)),
            );
        }
        let machine = [
            ("machine_cores", self.machine_cores),
            ("others_cores", self.others_cores),
        ];
        let known = machine
            .into_iter()
            .filter_map(|(name, cores)| Some((name.to_owned(), cores?)));
        all.extend(known);
        all.push(("stood_still_s".to_owned(), self.stood_still_s));
        all
    }
}

/// The known percentiles, by name.
pub(super) fn latency_figures(kind: Kind, times: &Percentiles) -> Vec<(String, f64)> {
    let times = [
        ("p50", times.p50_ms),
        ("p90", times.p90_ms),
        ("p99", times.p99_ms),
        ("p999", times.p999_ms),
        ("max", times.max_ms),
    ];
    let known = times.into_iter().filter_map(|(name, ms)| Some((name, ms?)));
    known.map(|(name, ms)| (latency_name(kind, name), ms)).collect()
}

/// Name of a latency.
pub(super) fn latency_name(kind: Kind, percentile: &str) -> String {
    let kind = kind.text().replace(' ', "_");
    format!("latency.{kind}.{percentile}_ms")
}

/// Name of what a role used.
pub(super) fn usage_name(role: &str, what: &str) -> String {
    format!("used.{role}.{what}")
}

/// Every figure over all runs that have it.
pub(super) fn spreads(runs: impl Iterator<Item = Vec<(String, f64)>>) -> BTreeMap<String, Spread> {
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.flatten() {
        figures.entry(name).or_default().push(value);
    }
    let spread = |(name, values)| Some((name, Spread::of(values)?));
    figures.into_iter().filter_map(spread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        let runs = [4.0, 1.0, 2.0, 3.0].map(|value| vec![("rate".to_owned(), value)]);
        let spread = spreads(runs.into_iter())["rate"];
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of(vec![3.0, 9.0, 5.0]).unwrap().median, 5.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
