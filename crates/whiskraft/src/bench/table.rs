//! A report as text for a terminal.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::kind::Kind;
use super::plan::{Load, Plan};
use super::report::{Report, Run};
use super::spread::{Spread, latency_name, usage_name};
use crate::units::show_ms;

/// Columns of latencies, with their names in a summary.
const PERCENTILES: [(&str, &str); 5] = [
    ("P50", "p50"),
    ("P90", "p90"),
    ("P99", "p99"),
    ("P99.9", "p999"),
    ("MAX", "max"),
];
/// Columns of what is used, with their names in a summary.
const USED: [(&str, &str); 6] = [
    ("CPU SECONDS", "cpu_s"),
    ("PER 1000 DONE", "cpu_s_per_1000"),
    ("CORES", "cores"),
    ("RESIDENT MIB", "resident_mib"),
    ("WAITS/S", "voluntary_per_s"),
    ("PREEMPTIONS/S", "involuntary_per_s"),
];

/// Renders a report.
pub(crate) fn render(report: &Report) -> String {
    let mut parts = vec![header(&report.plan, report.runs.len()), rates(report)];
    let is_stage = |kind: &Kind| kind.is_stage();
    parts.extend(latencies(report, "FROM WHEN IT WAS DUE", |kind| !is_stage(kind)));
    parts.extend(latencies(report, "STAGES OF A CREATION", is_stage));
    parts.extend(used(report));
    let unfinished = report.runs.iter().map(|run| run.unfinished).sum();
    let given_up = ("had not ended when the run was given up", unfinished);
    parts.extend(errors(report, given_up));
    parts.extend(notes(report));
    parts.join("\n")
}

/// What has to be known before the figures are believed, a line each.
pub(super) fn notes<P, R>(report: &Report<P, R>) -> impl Iterator<Item = String> {
    report.notes.iter().map(|note| format!("note: {note}"))
}

/// How many runs there were, if it was not one.
pub(super) fn of_runs(runs: usize) -> String {
    match runs {
        1 => String::new(),
        runs => format!(", {runs} runs: median (min–max)"),
    }
}

/// What was measured, in words.
pub(super) fn header(plan: &Plan, runs: usize) -> String {
    let load = match plan.load {
        Load::Open { rate } => format!("{rate}/s offered"),
        Load::Closed { callers } => format!("{callers} callers"),
    };
    let durable = match (plan.durable_percent, plan.forget) {
        (0, _) => "blocking".to_owned(),
        (share, false) => format!("{share} % durable"),
        (share, true) if plan.delay.is_zero() => format!("{share} % durable and not waited for"),
        (share, true) => format!(
            "{share} % durable, which begin {:?} later and are not waited for",
            plan.delay
        ),
    };
    let runs = of_runs(runs);
    let begin = if plan.cold {
        ", without queues and containers at first"
    } else {
        ""
    };
    format!(
        "{load} for {:?} after {:?}; {} actions in {} namespaces, runs of {} ms, {} bytes, {durable}{begin}{runs}",
        plan.time, plan.warm_up, plan.actions, plan.namespaces, plan.run_ms, plan.payload_bytes
    )
}

fn rates(report: &Report) -> String {
    let figure = |name: &str| match report.summary.get(name) {
        Some(spread) => shown(spread, |value| format!("{value:.0}")),
        None => "-".to_owned(),
    };
    format!(
        "offered {}/s, achieved {}/s; not done {}, sent late {}, held back {}; containers {}",
        figure("offered_per_s"),
        figure("achieved_per_s"),
        figure("not_done"),
        figure("late"),
        figure("held_back"),
        figure("containers")
    )
}

/// Times of the wanted kinds, under this heading.
pub(super) fn latencies<P, R: Run>(
    report: &Report<P, R>,
    heading: &str,
    is_wanted: impl Fn(&Kind) -> bool,
) -> Option<String> {
    let kinds: BTreeSet<Kind> = report
        .runs
        .iter()
        .flat_map(|run| run.times().keys().copied())
        .collect();
    let columns = PERCENTILES.map(|(column, _)| column);
    let rows = kinds.into_iter().filter(is_wanted).map(|kind| {
        let cells = PERCENTILES.map(|(_, name)| cell(report.summary.get(&latency_name(kind, name)), show_ms));
        (kind.text().to_owned(), cells.to_vec())
    });
    table(heading, &columns, rows.collect())
}

/// What processes used.
pub(super) fn used<P, R: Run>(report: &Report<P, R>) -> Option<String> {
    let roles: BTreeMap<&String, u64> = report
        .runs
        .iter()
        .flat_map(|run| &run.used().roles)
        .map(|(role, usage)| (role, usage.processes))
        .collect();
    let columns = USED.map(|(column, _)| column);
    let rows = roles.into_iter().map(|(role, processes)| {
        let cells = USED.map(|(_, name)| cell(report.summary.get(&usage_name(role, name)), digits));
        let name = match processes {
            1 => role.clone(),
            count => format!("{role} × {count}"),
        };
        (name, cells.to_vec())
    });
    table("USED BY", &columns, rows.collect())
}

/// What failed, a line for each reason; one that no run tells by itself comes with its count.
pub(super) fn errors<P, R: Run>(report: &Report<P, R>, more: (&str, u64)) -> Option<String> {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in report.runs.iter().flat_map(Run::errors) {
        *all.entry(reason).or_default() += count;
    }
    if more.1 > 0 {
        *all.entry(more.0).or_default() += more.1;
    }
    let lines: Vec<String> = all
        .into_iter()
        .map(|(reason, count)| format!("{count} × {reason}"))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// `None` for a table without rows.
pub(super) fn table(first: &str, columns: &[&str], rows: Vec<(String, Vec<Cell>)>) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let header = std::iter::once(Cell::new(first)).chain(
        columns
            .iter()
            .map(|column| Cell::new(column).set_alignment(CellAlignment::Right)),
    );
    table.set_header(header);
    for (name, cells) in rows {
        table.add_row(std::iter::once(Cell::new(name)).chain(cells));
    }
    Some(table.trim_fmt())
}

/// A figure as it is [shown].
pub(super) fn cell(spread: Option<&Spread>, show: impl Fn(f64) -> String) -> Cell {
    let text = spread.map_or_else(|| "-".to_owned(), |spread| shown(spread, show));
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The median, with the extremes if they differ from it as they are shown.
pub(super) fn shown(spread: &Spread, show: impl Fn(f64) -> String) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(show);
    if min == median && max == median {
        return median;
    }
    format!("{median} ({min}–{max})")
}

/// About three digits.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, run};
    use super::*;

    fn squeezed(text: &str) -> Vec<String> {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn one_run_is_shown_as_it_was() {
        let lines = squeezed(&render(&report(vec![run(2)])));
        let wanted = [
            "100/s offered for 1s after 500ms; 1 actions in 1 namespaces, runs of 0 ms, 0 bytes, blocking",
            "offered 100/s, achieved 99/s; not done 1, sent late 2, held back 0; containers 4",
            "FROM WHEN IT WAS DUE P50 P90 P99 P99.9 MAX",
            "end to end 2.00 ms 2.00 ms - - 2.00 ms",
            "USED BY CPU SECONDS PER 1000 DONE CORES RESIDENT MIB WAITS/S PREEMPTIONS/S",
            "scheduler × 3 0.5000 5.00 0.5000 120 1000 20.0",
            "1 × no result within the deadline",
        ];
        for line in wanted {
            assert!(
                lines.iter().any(|found| found == line),
                "no {line:?} in {lines:#?}"
            );
        }
        assert!(lines.iter().any(|line| line.starts_with("note: ")));
    }

    #[test]
    fn several_runs_are_shown_with_their_spread() {
        let text = render(&report(vec![run(2), run(4), run(3)]));
        assert!(text.contains("3 runs: median (min–max)"), "{text}");
        assert!(text.contains("3.00 ms (2.00 ms–4.00 ms)"), "{text}");
        assert!(
            text.contains("achieved 99/s"),
            "equal figures have no spread: {text}"
        );
        assert!(text.contains("3 × no result within the deadline"), "{text}");
    }
}
