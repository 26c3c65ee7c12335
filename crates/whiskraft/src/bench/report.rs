//! What runs showed, as numbers: each of them, and medians with their spread over all.

use std::collections::BTreeMap;

use serde::Serialize;

use super::kind::Kind;
use super::notes::notes;
use super::plan::Plan;
use super::procfs;
use super::run_clock::resolution;
use super::spread::{Spread, latency_figures, spreads};
use super::tally::Point;
use super::times::{Percentiles, Times};
use super::usage::Used;
use crate::clock;
use crate::units::show_moment;

/// What one run showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RunReport {
    /// Whether a signal ended it early.
    pub(crate) interrupted: bool,
    /// Length of the measured window, in seconds.
    pub(crate) window_s: f64,
    /// Activations that were due within it.
    pub(crate) due: u64,
    /// Of these, those that ended well, then or later.
    pub(crate) done: u64,
    /// Of these, those that ended otherwise.
    pub(crate) failed: u64,
    /// Of these, those that had not ended when the run was given up.
    pub(crate) unfinished: u64,
    /// Of these, those that were never sent, because too many others were under way until the end.
    pub(crate) never_sent: u64,
    /// Of these, those that were sent later because too many others were under way.
    pub(crate) held_back: u64,
    /// Of these, those that were handed to the SDK more than a millisecond late, for whatever reason.
    pub(crate) late: u64,
    /// Due per second.
    pub(crate) offered_per_s: f64,
    /// Ended well per second, within the window.
    pub(crate) achieved_per_s: f64,
    /// Why activations failed, with how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Results that did not say when they began.
    pub(crate) unstamped: u64,
    /// Results that began before they were due, by the invoker's clock.
    pub(crate) too_early: u64,
    /// By how many microseconds the wall clock was set during the run; queueing latencies may be off by so much.
    pub(crate) clock_step_us: i64,
    /// Times of what ended well.
    pub(crate) latency: BTreeMap<Kind, Percentiles>,
    /// What processes used.
    pub(crate) used: Used,
    /// Containers that ran when the window ended, in the whole cluster.
    pub(crate) containers: Option<u64>,
    /// Length of what one point tells, in seconds.
    pub(crate) interval_s: f64,
    /// The run in parts, from its start to the end of the window.
    pub(crate) points: Vec<Point>,
    /// The times themselves, for curves over all runs.
    #[serde(skip)]
    pub(crate) times: BTreeMap<Kind, Curve>,
}

/// Times that compare as equal: a report is what it says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Curve(pub(crate) Times);

impl PartialEq for Curve {
    fn eq(&self, other: &Self) -> bool {
        self.0.curve() == other.0.curve()
    }
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Place {
    /// Release of the program that made the load.
    pub(crate) version: String,
    /// Processors of the machine.
    pub(crate) cores: u64,
    /// Their name.
    pub(crate) processor: String,
    /// Load average before the first run.
    pub(crate) load_before: Option<f64>,
    /// Shortest time that the clock tells apart, in nanoseconds.
    pub(crate) clock_resolution_ns: u64,
    /// Schedulers of the cluster.
    pub(crate) schedulers: u64,
    /// Invokers of the cluster.
    pub(crate) invokers: u64,
    /// Whether the processes were started for the measurement.
    pub(crate) started_here: bool,
    /// Whether each run had new ones.
    pub(crate) new_per_run: bool,
    /// Whether their data is known to be on a file system in memory.
    pub(crate) in_memory: bool,
    /// Moment of the first run, in UTC.
    pub(crate) at: String,
}

/// What a run of any measurement showed.
pub(crate) trait Run {
    /// Figures that are compared over runs, by name.
    fn figures(&self) -> Vec<(String, f64)>;
    /// The times themselves.
    fn times(&self) -> &BTreeMap<Kind, Curve>;
    /// What processes used.
    fn used(&self) -> &Used;
    /// What failed, with how often.
    fn errors(&self) -> &BTreeMap<String, u64>;
    /// Whether its figures are worth something.
    fn is_usable(&self) -> bool;
}

/// Everything that a measurement showed: a load of activations, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report<P = Plan, R = RunReport> {
    /// What was asked for.
    pub(crate) plan: P,
    /// Where.
    pub(crate) place: Place,
    /// Each run.
    pub(crate) runs: Vec<R>,
    /// Figures over all runs, by name.
    pub(crate) summary: BTreeMap<String, Spread>,
    /// Quantiles and times in milliseconds, of all runs together.
    pub(crate) curves: BTreeMap<Kind, Vec<(f64, f64)>>,
    /// What has to be known before the figures are believed.
    pub(crate) notes: Vec<String>,
}

impl Run for RunReport {
    fn figures(&self) -> Vec<(String, f64)> {
        let mut all = vec![
            ("offered_per_s".to_owned(), self.offered_per_s),
            ("achieved_per_s".to_owned(), self.achieved_per_s),
            ("not_done".to_owned(), self.due.saturating_sub(self.done) as f64),
            ("late".to_owned(), self.late as f64),
            ("held_back".to_owned(), self.held_back as f64),
        ];
        for (kind, times) in &self.latency {
            all.extend(latency_figures(*kind, times));
        }
        all.extend(self.used.figures());
        all.extend(
            self.containers
                .map(|count| ("containers".to_owned(), count as f64)),
        );
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
        !self.interrupted && self.done > 0
    }
}

impl Place {
    /// This machine, now, and a cluster of so many schedulers and invokers.
    pub(crate) fn here(schedulers: u64, invokers: u64) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from) as u64,
            processor: procfs::processor(),
            load_before: procfs::load_average(),
            clock_resolution_ns: u64::try_from(resolution().as_nanos()).unwrap_or(u64::MAX),
            schedulers,
            invokers,
            started_here: false,
            new_per_run: false,
            in_memory: false,
            at: show_moment(clock::wall()),
        }
    }
}

impl Report {
    /// Sums the runs of a load up.
    pub(crate) fn new(plan: Plan, place: Place, runs: Vec<RunReport>) -> Self {
        let notes = notes(&plan, &place, &runs);
        Self::of(plan, place, runs, notes)
    }
}

impl<P, R: Run> Report<P, R> {
    /// Sums runs up.
    pub(super) fn of(plan: P, place: Place, runs: Vec<R>, notes: Vec<String>) -> Self {
        let mut times: BTreeMap<Kind, Times> = BTreeMap::new();
        for (kind, Curve(more)) in runs.iter().flat_map(Run::times) {
            times.entry(*kind).or_default().merge(more);
        }
        let curve = |(kind, times): (Kind, Times)| (kind, times.curve());
        Self {
            notes,
            plan,
            place,
            summary: spreads(runs.iter().map(Run::figures)),
            curves: times
                .into_iter()
                .map(curve)
                .filter(|(_, curve)| !curve.is_empty())
                .collect(),
            runs,
        }
    }

    /// Whether the figures of every run are worth something.
    pub(crate) fn is_usable(&self) -> bool {
        self.runs.iter().all(Run::is_usable)
    }
}

/// Percentiles of times.
pub(super) fn percentiles(times: &BTreeMap<Kind, Curve>) -> BTreeMap<Kind, Percentiles> {
    times
        .iter()
        .map(|(kind, Curve(times))| (*kind, times.percentiles()))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::plan::tests::plan;
    use super::super::usage::Usage;
    use super::*;

    /// A run of a second with 100 activations of `ms` milliseconds, of which one failed.
    pub(in crate::bench) fn run(ms: u64) -> RunReport {
        let mut times = Times::default();
        (0..99).for_each(|_| times.add(Duration::from_millis(ms)));
        let usage = Usage {
            processes: 3,
            gone: 0,
            cpu_s: 0.5,
            cores: 0.5,
            cpu_s_per_1000: Some(5.0),
            resident_mib: 120.0,
            resident_max_mib: 45.0,
            voluntary_per_s: 1000.0,
            involuntary_per_s: 20.0,
        };
        RunReport {
            interrupted: false,
            window_s: 1.0,
            due: 100,
            done: 99,
            failed: 1,
            unfinished: 0,
            never_sent: 0,
            held_back: 0,
            late: 2,
            offered_per_s: 100.0,
            achieved_per_s: 99.0,
            errors: [("no result within the deadline".to_owned(), 1)].into(),
            unstamped: 0,
            too_early: 0,
            clock_step_us: 0,
            latency: [(Kind::EndToEnd, times.percentiles())].into(),
            used: Used {
                over_s: 1.0,
                roles: [("scheduler".to_owned(), usage)].into(),
                machine_cores: Some(1.5),
                others_cores: Some(0.25),
                stolen_cores: Some(0.0),
                stood_still_s: 0.001,
            },
            containers: Some(4),
            interval_s: 0.5,
            points: vec![
                Point {
                    due: 50,
                    done: 49,
                    failed: 1,
                };
                2
            ],
            times: [(Kind::EndToEnd, Curve(times))].into(),
        }
    }

    pub(in crate::bench) fn report(runs: Vec<RunReport>) -> Report {
        let place = Place {
            version: "0.1.0".to_owned(),
            cores: 2,
            processor: "a <fast> one".to_owned(),
            load_before: Some(0.5),
            clock_resolution_ns: 30,
            schedulers: 3,
            invokers: 2,
            started_here: true,
            new_per_run: false,
            in_memory: false,
            at: "2026-01-02T03:04:05.000Z".to_owned(),
        };
        Report::new(plan(), place, runs)
    }

    #[test]
    fn a_summary_has_medians_and_the_extremes() {
        let report = report(vec![run(5), run(1), run(3)]);
        let spread = report.summary["latency.end_to_end.p50_ms"];
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 5.0));
        assert_eq!(report.summary["used.scheduler.cpu_s_per_1000"].median, 5.0);
        assert_eq!(report.summary["not_done"].max, 1.0);
        assert!(!report.summary.contains_key("latency.queueing.p50_ms"));
        assert!(
            !report.summary.contains_key("latency.end_to_end.p999_ms"),
            "99 values have no p99.9"
        );
        assert!(report.is_usable());
    }

    #[test]
    fn a_report_is_json_with_every_figure() {
        let json = serde_json::to_value(report(vec![run(2), run(2)])).unwrap();
        assert_eq!(json["plan"]["load"]["open"]["rate"], 100.0);
        assert_eq!(json["runs"][1]["latency"]["end_to_end"]["p50_ms"], 2.0);
        assert_eq!(json["summary"]["achieved_per_s"]["median"], 99.0);
        assert!(json["curves"]["end_to_end"].as_array().unwrap().len() > 10);
        assert_eq!(json["plan"]["time"], 1.0);
    }
}
