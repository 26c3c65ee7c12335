//! The report of a probe: its notes, as text for a terminal, as a page.

use std::collections::BTreeSet;

use super::{Finding, Probe};
use crate::bench::html::frame;
use crate::bench::notes::machine_notes;
use crate::bench::report::{Place, Report};
use crate::bench::table::{cell, digits, errors, latencies, notes, of_runs, table, used};
use crate::bench::usage::Used;

/// Sums runs up.
pub(crate) fn report(probe: Probe, place: Place, runs: Vec<Finding>) -> Report<Probe, Finding> {
    let used: Vec<&Used> = runs.iter().map(|run| &run.used).collect();
    let mut notes = machine_notes(&place, &used);
    if place.in_memory {
        notes.push(
            "the schedulers' data is on a file system in memory: a sync costs nothing there".to_owned(),
        );
    }
    Report::of(probe, place, runs, notes)
}

/// Renders a report.
pub(crate) fn render(report: &Report<Probe, Finding>) -> String {
    let mut parts = vec![title(report)];
    parts.extend(figures(report));
    parts.extend(latencies(report, "TIME", |_| true));
    parts.extend(used(report));
    parts.extend(errors(report, ("", 0)));
    parts.extend(notes(report));
    parts.join("\n")
}

/// The page.
pub(crate) fn page(report: &Report<Probe, Finding>) -> String {
    frame(report, &title(report), &render(report), "")
}

fn title(report: &Report<Probe, Finding>) -> String {
    format!("{}{}", report.plan.header(), of_runs(report.runs.len()))
}

fn figures(report: &Report<Probe, Finding>) -> Option<String> {
    let named: BTreeSet<&str> = report
        .runs
        .iter()
        .flat_map(|run| run.figures.keys().copied())
        .collect();
    let rows = named.into_iter().map(|name| {
        let cells = vec![cell(report.summary.get(name), digits)];
        (name.replace('_', " "), cells)
    });
    table("FIGURE", &[""], rows.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Puts, What};
    use super::*;
    use crate::bench::kind::Kind;
    use crate::bench::reasons::Reasons;
    use crate::bench::report::tests::{report as load, run};
    use crate::bench::times::Times;

    fn finding(ms: u64) -> Finding {
        let mut times = Times::default();
        (0..99).for_each(|_| times.add(Duration::from_millis(ms)));
        let mut reasons = Reasons::default();
        reasons.note("it was refused".to_owned());
        Finding::new(99, reasons, run(1).used)
            .with([("puts_per_s", 10.0 * ms as f64)])
            .timed(Kind::Put, times)
            .timed(Kind::Watched, Times::default())
    }

    fn puts(runs: Vec<Finding>) -> Report<Probe, Finding> {
        let probe = Puts {
            clients: 8,
            connections: 2,
            what: What::Action,
            keys: 10,
            bytes: 200,
            warm_up: Duration::ZERO,
            time: Duration::from_secs(1),
        };
        report(Probe::Puts(probe), load(vec![run(1)]).place, runs)
    }

    #[test]
    fn a_report_has_figures_times_use_and_what_failed() {
        let text = render(&puts(vec![finding(2), finding(4), finding(3)]));
        for part in [
            "8 clients",
            "3 runs: median (min–max)",
            "puts per s",
            "30.0 (20.0–40.0)",
            "3.00 ms (2.00 ms–4.00 ms)",
            "scheduler × 3",
            "3 × it was refused",
            "note: processes that are not watched",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(
            !text.contains("watched  "),
            "what was not timed has no row:\n{text}"
        );
    }

    #[test]
    fn json_and_page_have_every_figure() {
        let report = puts(vec![finding(2)]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["plan"]["puts"]["what"], "action");
        assert_eq!(
            (&json["runs"][0]["done"], &json["runs"][0]["failed"]),
            (&99.into(), &1.into())
        );
        assert_eq!(json["summary"]["latency.put.p50_ms"]["median"], 2.0);
        assert_eq!(json["summary"]["puts_per_s"]["median"], 20.0);
        let page = page(&report);
        assert_eq!(page.matches("<svg ").count(), 1);
        assert!(page.contains(">put</text>") && page.ends_with("</html>\n"));
    }
}
