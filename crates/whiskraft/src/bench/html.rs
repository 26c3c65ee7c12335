//! A report as one page that needs nothing else: tables, and plots as inline SVG.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::kind::Kind;
use super::plan::Load;
use super::plot::{Axis, Line, Plot, Scale, escape};
use super::report::{Place, Report, Run, RunReport};
use super::table::{header, render};
use crate::units::show_ms;

/// The look, for light and dark.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
pre{overflow-x:auto;font-size:13px;line-height:1.35}\
svg{width:100%;height:auto;margin:.6rem 0}\
svg text{font:11px system-ui,sans-serif;fill:currentColor}\
svg .title{font-size:13px;font-weight:600}\
svg .grid{stroke:currentColor;stroke-opacity:.15;fill:none}\
svg .shade{fill:currentColor;fill-opacity:.07}\
svg .line{fill:none;stroke-width:1.8}\
table{border-collapse:collapse;font-size:13px}td,th{padding:.15rem .6rem;text-align:right}";

/// The page of a load.
pub(crate) fn page(report: &Report) -> String {
    let mut middle = String::new();
    for (n, run) in report.runs.iter().enumerate() {
        middle.push('\n');
        middle.push_str(&rate_plot(report, run, n + 1).svg());
    }
    middle.push_str("\n<h2>Runs</h2>\n");
    middle.push_str(&runs(report));
    frame(
        report,
        &header(&report.plan, report.runs.len()),
        &render(report),
        &middle,
    )
}

/// The page of any measurement: what was measured, its figures as text, its times as a plot, what else there is, the report.
pub(super) fn frame<P: Serialize, R: Run + Serialize>(
    report: &Report<P, R>,
    title: &str,
    text: &str,
    middle: &str,
) -> String {
    let (title, text, place) = (escape(title), escape(text), escape(&place(&report.place)));
    let json = serde_json::to_string_pretty(report).expect("the report is plain data");
    let (plot, json) = (latency_plot(&report.curves).svg(), escape(&json));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>whiskraft bench</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n<body>\n\
         <h1>whiskraft bench</h1>\n<p>{title}</p>\n<p>{place}</p>\n<pre>{text}</pre>\n{plot}{middle}\
         <h2>Everything as JSON</h2>\n<details><summary>show</summary><pre>{json}</pre></details>\n</body></html>\n"
    )
}

fn place(place: &Place) -> String {
    let load = place
        .load_before
        .map_or_else(|| "?".to_owned(), |load| format!("{load:.2}"));
    let started = if place.started_here {
        ", started for this, on loopback"
    } else {
        ""
    };
    format!(
        "{}; version {}; {} processors ({}), load average {load} before; clock to {} ns; {} schedulers, {} invokers{started}",
        place.at,
        place.version,
        place.cores,
        place.processor,
        place.clock_resolution_ns,
        place.schedulers,
        place.invokers
    )
}

/// Time against the share of those that took longer, both on scales that show the tail.
fn latency_plot(curves: &BTreeMap<Kind, Vec<(f64, f64)>>) -> Plot {
    let line = |(kind, curve): (&Kind, &Vec<(f64, f64)>)| Line {
        name: kind.text().to_owned(),
        points: curve
            .iter()
            .map(|(quantile, ms)| (1.0 / (1.0 - quantile), *ms))
            .collect(),
    };
    Plot {
        title: "times, all runs together".to_owned(),
        x: Axis {
            label: "percentile",
            scale: Scale::Log,
            mark: percentile,
        },
        y: Axis {
            label: "latency",
            scale: Scale::Log,
            mark: milliseconds,
        },
        lines: curves.iter().map(line).collect(),
        shaded_to: None,
    }
}

/// One in `share` is above: 10 is the 90th percentile.
fn percentile(share: f64) -> String {
    let percent = 100.0 - 100.0 / share;
    format!("{}", (percent * 1e6).round() / 1e6)
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 0.9 => format!("{:.0} µs", ms * 1000.0),
        ms if ms < 900.0 => format!("{ms:.0} ms"),
        ms => format!("{:.0} s", ms / 1000.0),
    }
}

/// What was due, ended well and failed, per second over the time of a run.
fn rate_plot(report: &Report, run: &RunReport, n: usize) -> Plot {
    let interval = run.interval_s;
    // The last part may be a shorter one, of which the rate would look lower than it was.
    let whole = ((report.plan.warm_up + report.plan.time).as_secs_f64() / interval + 1e-6) as usize;
    let line = |name: &str, count: fn(&super::tally::Point) -> u64| Line {
        name: name.to_owned(),
        points: run
            .points
            .iter()
            .take(whole)
            .enumerate()
            .map(|(n, point)| ((n as f64 + 0.5) * interval, count(point) as f64 / interval))
            .collect(),
    };
    let due = match report.plan.load {
        Load::Open { .. } => "due",
        Load::Closed { .. } => "asked",
    };
    let mut lines = vec![line(due, |point| point.due), line("done", |point| point.done)];
    if run.points.iter().any(|point| point.failed > 0) {
        lines.push(line("failed", |point| point.failed));
    }
    Plot {
        title: format!("activations per second, run {n} (shaded: warm-up)"),
        x: Axis {
            label: "seconds since the start",
            scale: Scale::Linear,
            mark: |value| format!("{}", (value * 1e3).round() / 1e3),
        },
        y: Axis {
            label: "per second",
            scale: Scale::Linear,
            mark: |value| format!("{value:.0}"),
        },
        lines,
        shaded_to: Some(report.plan.warm_up.as_secs_f64()),
    }
}

/// A row for each run.
fn runs(report: &Report) -> String {
    let mut table =
        "<table><tr><th>run</th><th>offered/s</th><th>achieved/s</th><th>not done</th><th>late</th>"
            .to_owned();
    for kind in report.curves.keys() {
        for percentile in ["p50", "p99"] {
            let _ = write!(table, "<th>{} {percentile}</th>", kind.text());
        }
    }
    table.push_str("</tr>\n");
    for (n, run) in report.runs.iter().enumerate() {
        let _ = write!(
            table,
            "<tr><td>{}</td><td>{:.0}</td><td>{:.0}</td><td>{}</td><td>{}</td>",
            n + 1,
            run.offered_per_s,
            run.achieved_per_s,
            run.due.saturating_sub(run.done),
            run.late
        );
        for kind in report.curves.keys() {
            let times = run.latency.get(kind).copied().unwrap_or_default();
            for ms in [times.p50_ms, times.p99_ms] {
                let _ = write!(table, "<td>{}</td>", ms.map_or_else(|| "-".to_owned(), show_ms));
            }
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</table>\n");
    table
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, run};
    use super::*;

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = page(&report(vec![run(1), run(3)]));
        assert_eq!(page.matches("<svg ").count(), 3, "latencies and two runs");
        assert_eq!(page.matches("<svg ").count(), page.matches("</svg>").count());
        for part in ["<script", "http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(part), "{part:?}");
        }
        assert!(page.contains("a &lt;fast&gt; one"), "texts are escaped");
        assert!(page.contains(">failed</text>") && page.contains("end to end p99"));
        assert!(page.ends_with("</html>\n"));
    }

    #[test]
    fn marks_are_in_words_of_the_reader() {
        assert_eq!(
            [1.0, 10.0, 1000.0, 1e6].map(percentile),
            ["0", "90", "99.9", "99.9999"]
        );
        assert_eq!(
            [0.01, 1.0, 100.0, 1000.0].map(milliseconds),
            ["10 µs", "1 ms", "100 ms", "1 s"]
        );
    }
}
