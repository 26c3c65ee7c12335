//! What the wire alone showed, as numbers and as text.

use std::collections::BTreeMap;

use comfy_table::Cell;
use serde::Serialize;

use super::caller::Counts;
use super::frames::PerFrame;
use super::{EchoPlan, LoadPlan};
use crate::bench::kind::Kind;
use crate::bench::notes::machine_notes;
use crate::bench::report::Place;
use crate::bench::schedule::Window;
use crate::bench::spread::{Spread, latency_figures, latency_name, spreads, usage_name};
use crate::bench::table::{cell, digits, of_runs, table};
use crate::bench::times::Percentiles;
use crate::bench::usage::{OWN_ROLE, Used};
use crate::units::show_ms;

/// Columns of times, with their names.
const PERCENTILES: [(&str, &str); 4] = [("P50", "p50"), ("P99", "p99"), ("P99.9", "p999"), ("MAX", "max")];
/// Columns of processor time, with the roles.
const ROLES: [(&str, &str); 3] = [
    ("CONTROLLER", OWN_ROLE),
    ("SERVER", "server"),
    ("WORKER", "worker"),
];

/// What one run showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct EchoRun {
    /// Length of the measured window, in seconds.
    pub(crate) window_s: f64,
    /// Records sent within it.
    pub(crate) sent: u64,
    /// Of these, those that came back right, then or later.
    pub(crate) done: u64,
    /// Of all, those that came back with another payload or state, twice, or unasked.
    pub(crate) wrong: u64,
    /// Of all, those that did not come back.
    pub(crate) lost: u64,
    /// Came back right per second, within the window.
    pub(crate) achieved_per_s: f64,
    /// From when a record was sent, or due at a fixed rate, until it was with the worker.
    pub(crate) there: Percentiles,
    /// From then until it was back.
    pub(crate) latency: Percentiles,
    /// What processes used.
    pub(crate) used: Used,
}

/// All runs of one load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Case {
    /// Records of one message.
    pub(crate) per_frame: PerFrame,
    /// When they are sent.
    #[serde(flatten)]
    pub(crate) load: LoadPlan,
    /// Each run.
    pub(crate) runs: Vec<EchoRun>,
    /// Figures over all runs, by name.
    pub(crate) summary: BTreeMap<String, Spread>,
}

/// Everything that a measurement showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct EchoReport {
    /// What was asked for.
    pub(crate) plan: EchoPlan,
    /// Where.
    pub(crate) place: Place,
    /// Each load.
    pub(crate) cases: Vec<Case>,
    /// What has to be known before the figures are believed.
    pub(crate) notes: Vec<String>,
}

impl EchoRun {
    pub(super) fn new(window: Window, counts: &Counts, used: Used) -> Self {
        let window_s = window.to.saturating_sub(window.from).as_secs_f64();
        Self {
            window_s,
            sent: counts.sent,
            done: counts.done,
            wrong: counts.wrong,
            lost: counts.lost,
            achieved_per_s: counts.done_in_window as f64 / window_s,
            there: counts.there.percentiles(),
            latency: counts.times.percentiles(),
            used,
        }
    }

    fn figures(&self) -> Vec<(String, f64)> {
        let mut all = vec![
            ("achieved_per_s".to_owned(), self.achieved_per_s),
            ("wrong".to_owned(), self.wrong as f64),
            ("lost".to_owned(), self.lost as f64),
        ];
        all.extend(latency_figures(Kind::Queueing, &self.there));
        all.extend(latency_figures(Kind::EndToEnd, &self.latency));
        all.extend(self.used.figures());
        all
    }
}

impl Case {
    pub(super) fn new(per_frame: PerFrame, load: LoadPlan, runs: Vec<EchoRun>) -> Self {
        Self {
            per_frame,
            load,
            summary: spreads(runs.iter().map(EchoRun::figures)),
            runs,
        }
    }
}

impl EchoReport {
    pub(super) fn new(plan: EchoPlan, place: Place, cases: Vec<Case>) -> Self {
        let used: Vec<&Used> = cases
            .iter()
            .flat_map(|case| &case.runs)
            .map(|run| &run.used)
            .collect();
        let mut notes = machine_notes(&place, &used);
        if plan
            .loads
            .iter()
            .any(|load| matches!(load, LoadPlan::InFlight(_)))
        {
            let note = "latencies are of records that follow each other, and grow with the number in flight";
            notes.push(note.to_owned());
        }
        Self {
            notes,
            plan,
            place,
            cases,
        }
    }

    /// Whether something came back in every run, and nothing wrong, and nothing is missing.
    pub(crate) fn is_usable(&self) -> bool {
        let mut runs = self.cases.iter().flat_map(|case| &case.runs);
        runs.all(|run| run.done > 0 && run.wrong == 0 && run.lost == 0)
    }
}

/// Renders a report.
pub(crate) fn render(report: &EchoReport) -> String {
    let plan = &report.plan;
    let runs = of_runs(plan.runs as usize);
    let mut parts = vec![format!(
        "raw tonic, controller → {} → worker and back, for {:?} after {:?}; {} bytes{runs}",
        match plan.servers {
            1 => "server".to_owned(),
            servers => format!("{servers} servers"),
        },
        plan.time,
        plan.warm_up,
        plan.payload_bytes
    )];
    let columns = std::iter::once("PER SECOND").chain(PERCENTILES.map(|(column, _)| column));
    let columns: Vec<_> = columns.collect();
    parts.extend(rows(report, "LOAD, PER FRAME", &columns, |summary| {
        let mut cells = vec![cell(summary.get("achieved_per_s"), |rate| format!("{rate:.0}"))];
        cells.extend(
            PERCENTILES.map(|(_, name)| cell(summary.get(&latency_name(Kind::EndToEnd, name)), show_ms)),
        );
        cells
    }));
    let columns = PERCENTILES.map(|(column, _)| column);
    parts.extend(rows(report, "UNTIL THE WORKER HAS IT", &columns, |summary| {
        let of = |(_, name)| cell(summary.get(&latency_name(Kind::Queueing, name)), show_ms);
        PERCENTILES.map(of).to_vec()
    }));
    let columns = ROLES.map(|(column, _)| column);
    parts.extend(rows(report, "CPU SECONDS PER 1000", &columns, |summary| {
        let cells = ROLES.map(|(_, role)| cell(summary.get(&usage_name(role, "cpu_s_per_1000")), digits));
        cells.to_vec()
    }));
    let sum = |count: fn(&EchoRun) -> u64| -> u64 {
        report.cases.iter().flat_map(|case| &case.runs).map(count).sum()
    };
    parts.push(format!(
        "{} records back, {} wrong, {} lost",
        sum(|run| run.done),
        sum(|run| run.wrong),
        sum(|run| run.lost)
    ));
    parts.extend(report.notes.iter().map(|note| format!("note: {note}")));
    parts.join("\n")
}

fn rows(
    report: &EchoReport,
    first: &str,
    columns: &[&str],
    cells: impl Fn(&BTreeMap<String, Spread>) -> Vec<Cell>,
) -> Option<String> {
    let row = |case: &Case| {
        let name = format!("{}, {}", case.load, case.per_frame.text());
        (name, cells(&case.summary))
    };
    table(first, columns, report.cases.iter().map(row).collect())
}
