//! What runs showed, as JSON: each of them, and the median, lowest and highest of every figure.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::times::Times;
use crate::usage::{self, Used};

/// Processors that others may use before it is worth a note.
const OTHERS_CORES: f64 = 0.1;
/// Share of late activations from which on the load generator is the one that is measured.
const LATE_SHARE: f64 = 0.01;

/// Figures of one run, by name.
#[derive(Debug, Default)]
pub(crate) struct Run {
    figures: BTreeMap<String, f64>,
    /// What went wrong, with how often.
    errors: BTreeMap<String, u64>,
}

impl Run {
    pub(crate) fn put(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    pub(crate) fn put_times(&mut self, kind: &str, times: &Times) {
        for (percentile, ms) in times.percentiles() {
            self.put(&format!("latency.{kind}.{percentile}_ms"), ms);
        }
    }

    /// What the servers used while so many activations ended, and what else ran beside them.
    pub(crate) fn put_used(&mut self, used: &Used, done: u64, resident_mib: &[f64]) {
        self.put("used.servers.cores", used.servers_cores);
        self.put("used.load.cores", used.load_cores);
        self.put("others_cores", used.others_cores);
        if done > 0 {
            self.put(
                "used.servers.cpu_us_per_activation",
                used.servers_cpu_s * 1e6 / done as f64,
            );
        }
        self.put("used.servers.resident_mib", resident_mib.iter().sum());
        self.put(
            "used.servers.resident_max_mib",
            resident_mib.iter().copied().fold(0.0, f64::max),
        );
    }

    pub(crate) fn put_errors(&mut self, errors: BTreeMap<String, u64>) {
        self.errors = errors;
    }

    fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or_default()
    }
}

/// A measurement as it is written.
#[derive(Debug)]
pub(crate) struct Report {
    plan: Map<String, Value>,
    load_before: Option<f64>,
    processor: String,
    runs: Vec<Run>,
    notes: Vec<String>,
}

impl Report {
    /// A report of what is asked for, before the first run.
    pub(crate) fn new(plan: Map<String, Value>) -> Self {
        let (load_before, processor) = usage::machine();
        Self {
            plan,
            load_before,
            processor,
            runs: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Something that a reader has to know before believing the figures.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Takes a run in, and tells a person of it.
    pub(crate) fn add(&mut self, run: Run) {
        let shown = [
            "achieved_per_s",
            "not_done",
            "latency.queueing.p50_ms",
            "latency.end_to_end.p50_ms",
            "latency.end_to_end.p99_ms",
        ];
        let shown = shown.iter().chain(&[
            "latency.acceptance.p50_ms",
            "latency.acceptance.p99_ms",
            "latency.watch.p50_ms",
        ]);
        let shown = shown.chain(&[
            "latency.watch.p99_ms",
            "used.servers.cpu_us_per_activation",
            "used.servers.resident_mib",
        ]);
        let shown = shown.filter_map(|name| Some(format!("{name} {:.2}", run.figures.get(*name)?)));
        eprintln!(
            "run {}: {}",
            self.runs.len() + 1,
            shown.collect::<Vec<_>>().join(", ")
        );
        for (error, times) in &run.errors {
            eprintln!("run {}: {times} × {error}", self.runs.len() + 1);
        }
        self.runs.push(run);
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(mut self, file: &Path) -> Result<()> {
        self.add_notes();
        let names: std::collections::BTreeSet<&String> =
            self.runs.iter().flat_map(|run| run.figures.keys()).collect();
        let summary: Map<String, Value> = names
            .into_iter()
            .filter_map(|name| {
                Some((
                    name.clone(),
                    spread(
                        self.runs
                            .iter()
                            .filter_map(|run| run.figures.get(name).copied())
                            .collect(),
                    )?,
                ))
            })
            .collect();
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| json!({ "figures": run.figures, "errors": run.errors }))
            .collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let report = json!({
            "plan": self.plan,
            "place": { "cores": cores, "processor": self.processor, "load_before": self.load_before },
            "runs": runs,
            "summary": summary,
            "notes": self.notes,
        });
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    fn add_notes(&mut self) {
        let sum = |name: &str| self.runs.iter().map(|run| run.figure(name)).sum::<f64>();
        let most = |name: &str| self.runs.iter().map(|run| run.figure(name)).fold(0.0, f64::max);
        let mut notes = Vec::new();
        let (due, not_done, late, held_back) = (sum("due"), sum("not_done"), sum("late"), sum("held_back"));
        if not_done > 0.0 {
            notes.push(format!("{not_done} of {due} that were due did not end well before the run was given up, or were never sent; latencies are of the others"));
        }
        if held_back > 0.0 {
            notes.push(format!("{held_back} had to wait because as many as allowed were under way; their latency counts from when they were due"));
        }
        if late > due * LATE_SHARE && held_back == 0.0 {
            notes.push(format!("{late} of {due} reached the client library more than 1 ms late: the load generator is part of these figures"));
        }
        let others = most("others_cores");
        if others > OTHERS_CORES {
            notes.push(format!(
                "processes that are not watched used up to {others:.1} processors"
            ));
        }
        for run in &self.runs {
            notes.extend(
                run.errors
                    .iter()
                    .map(|(error, times)| format!("{times} × {error}")),
            );
        }
        self.notes.append(&mut notes);
    }
}

fn spread(mut values: Vec<f64>) -> Option<Value> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    };
    Some(json!({ "median": median, "min": min, "max": max }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_median_and_the_extremes() {
        assert_eq!(spread(vec![]), None);
        assert_eq!(
            spread(vec![3.0, 1.0, 2.0]),
            Some(json!({ "median": 2.0, "min": 1.0, "max": 3.0 }))
        );
        assert_eq!(
            spread(vec![1.0, 2.0]),
            Some(json!({ "median": 1.5, "min": 1.0, "max": 2.0 }))
        );
    }
}
