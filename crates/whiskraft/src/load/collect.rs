//! The collector of a run: judges every outcome, keeps the statistics, shows progress, writes one line per
//! activation if asked to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::report::{Gap, Latency, Report};
use super::template::Template;

/// Latencies are counted in microseconds with this many digits; three are within 0.1 %.
const HISTOGRAM_DIGITS: u8 = 3;
/// Longest latency told apart, an hour; what takes longer counts as this.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Different reasons kept; a run that fails in more ways than this is understood from the first ones.
const REASONS_MAX: usize = 20;
/// Without a terminal, a line of progress after each of so many equal parts.
const PROGRESS_LINES: u64 = 10;

/// How one invocation ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Number of the invocation, from 1.
    pub(crate) n: u64,
    /// Activation id, if it got one.
    pub(crate) id: String,
    /// Time from when it was due.
    pub(crate) latency: Duration,
    /// Since the start of the run.
    pub(crate) at: Duration,
    /// What came back.
    pub(crate) outcome: Outcome,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A record: status text, whether it is success, and the result.
    Record {
        status: &'static str,
        success: bool,
        result: Value,
    },
    /// No record: why, without anything that differs between activations.
    Nothing { reason: String, detail: String },
}

/// One line of `--records`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    n: u64,
    id: &'a str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    latency_ms: f64,
    at_ms: f64,
}

/// Statistics of a run under way.
pub(crate) struct Collector {
    asked: u64,
    expect: BTreeMap<String, Template>,
    right: u64,
    wrong: u64,
    lost: u64,
    latencies: Histogram<u64>,
    newest: Duration,
    gap: Gap,
    reasons: BTreeMap<String, u64>,
    bar: ProgressBar,
    records: Option<File>,
}

impl Collector {
    /// A collector for `asked` invocations whose results must hold the fields of `expect`.
    pub(crate) fn new(
        asked: u64,
        expect: BTreeMap<String, Template>,
        records: Option<File>,
        quiet: bool,
    ) -> Self {
        Self {
            asked,
            expect,
            right: 0,
            wrong: 0,
            lost: 0,
            latencies: Histogram::new_with_max(LATENCY_MAX_US, HISTOGRAM_DIGITS)
                .expect("bound and digits are allowed"),
            newest: Duration::ZERO,
            gap: Gap::default(),
            reasons: BTreeMap::new(),
            bar: if quiet {
                ProgressBar::hidden()
            } else {
                progress_bar(asked)
            },
            records,
        }
    }

    /// Takes one outcome in.
    ///
    /// # Errors
    /// If its line cannot be written.
    pub(crate) fn add(&mut self, ended: &Ended) -> io::Result<()> {
        let verdict = self.judge(ended);
        self.latencies
            .saturating_record(u64::try_from(ended.latency.as_micros()).unwrap_or(u64::MAX));
        self.measure_gap(ended.at);
        self.show_progress();
        match &mut self.records {
            Some(file) => file.write_all(&line(ended, verdict)),
            None => Ok(()),
        }
    }

    fn judge(&mut self, ended: &Ended) -> &'static str {
        match &ended.outcome {
            Outcome::Nothing { reason, .. } => {
                self.lost += 1;
                self.note(reason.clone());
                "lost"
            }
            Outcome::Record {
                status,
                success: false,
                ..
            } => {
                self.wrong += 1;
                self.note(format!("ended with {status}"));
                "wrong"
            }
            Outcome::Record { result, .. } => {
                let differs = self
                    .expect
                    .iter()
                    .find(|(field, wanted)| result.get(field) != Some(&wanted.fill(ended.n, &ended.id)))
                    .map(|(field, _)| field.clone());
                let Some(field) = differs else {
                    self.right += 1;
                    return "right";
                };
                self.wrong += 1;
                self.note(format!("field {field:?} of the result is not as expected"));
                "wrong"
            }
        }
    }

    fn note(&mut self, reason: String) {
        let room = self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&reason);
        *self
            .reasons
            .entry(if room { reason } else { "other".to_owned() })
            .or_default() += 1;
    }

    /// Outcomes of different workers may arrive slightly out of order; such a one ends no gap.
    fn measure_gap(&mut self, at: Duration) {
        let length = millis(at.saturating_sub(self.newest));
        if length > self.gap.longest_ms {
            let after = self.right + self.wrong + self.lost - 1;
            self.gap = Gap {
                longest_ms: length,
                began_ms: millis(self.newest),
                after,
            };
        }
        self.newest = self.newest.max(at);
    }

    fn show_progress(&self) {
        let made = self.right + self.wrong + self.lost;
        self.bar.set_position(made);
        if self.wrong + self.lost > 0 {
            self.bar
                .set_message(format!("{} wrong, {} lost", self.wrong, self.lost));
        }
        let part = (self.asked / PROGRESS_LINES).max(1);
        let is_plain = self.bar.is_hidden() && !io::stderr().is_terminal() && self.bar.length().is_some();
        if is_plain && made.is_multiple_of(part) {
            eprintln!(
                "{made} of {} done, {} wrong, {} lost",
                self.asked, self.wrong, self.lost
            );
        }
    }

    /// Ends the run and sums it up.
    pub(crate) fn finish(self, action: String) -> Report {
        self.bar.finish_and_clear();
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let made = self.right + self.wrong + self.lost;
        let seconds = self.newest.as_secs_f64();
        Report {
            action,
            asked: self.asked,
            made,
            right: self.right,
            wrong: self.wrong,
            lost: self.lost,
            wall_ms: millis(self.newest),
            per_second: if seconds > 0.0 { made as f64 / seconds } else { 0.0 },
            latency: Latency {
                p50_ms: at(0.5),
                p90_ms: at(0.9),
                p99_ms: at(0.99),
                p999_ms: at(0.999),
                max_ms: self.latencies.max() as f64 / 1000.0,
            },
            gap: self.gap,
            reasons: self.reasons,
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn progress_bar(asked: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec:.0} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(asked).with_style(style)
}

fn line(ended: &Ended, verdict: &'static str) -> Vec<u8> {
    let (status, result, error) = match &ended.outcome {
        Outcome::Record { status, result, .. } => (Some(*status), Some(result), None),
        Outcome::Nothing { detail, .. } => (None, None, Some(detail.as_str())),
    };
    let (latency_ms, at_ms) = (millis(ended.latency), millis(ended.at));
    let line = Line {
        n: ended.n,
        id: &ended.id,
        verdict,
        status,
        result,
        error,
        latency_ms,
        at_ms,
    };
    let mut text = serde_json::to_vec(&line).expect("the line holds nothing but JSON");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn collector(asked: u64) -> Collector {
        let expect = BTreeMap::from([("text".to_owned(), Template::new(json!("run {i}")))]);
        Collector::new(asked, expect, None, true)
    }

    fn record(n: u64, at_ms: u64, success: bool, text: &str) -> Ended {
        let status = if success { "success" } else { "application error" };
        let outcome = Outcome::Record {
            status,
            success,
            result: json!({"text": text}),
        };
        let at = Duration::from_millis(at_ms);
        Ended {
            n,
            id: "ab".to_owned(),
            latency: Duration::from_millis(2),
            at,
            outcome,
        }
    }

    #[test]
    fn outcomes_are_right_wrong_or_lost() {
        let mut collector = collector(4);
        let reason = "no result".to_owned();
        let nothing = Outcome::Nothing {
            reason,
            detail: "activation ab: no result".to_owned(),
        };
        collector.add(&record(1, 10, true, "run 1")).unwrap();
        collector.add(&record(2, 11, true, "run 1")).unwrap();
        collector.add(&record(3, 12, false, "run 3")).unwrap();
        collector
            .add(&Ended {
                outcome: nothing,
                ..record(4, 13, true, "")
            })
            .unwrap();
        let report = collector.finish("guest/x".to_owned());
        assert_eq!((report.right, report.wrong, report.lost), (1, 2, 1));
        assert!(!report.is_all_right());
        assert_eq!(report.reasons.len(), 3);
        assert_eq!(report.reasons.get("no result"), Some(&1));
    }

    #[test]
    fn longest_gap_is_found_with_its_place() {
        let mut collector = collector(4);
        for (n, at) in [(1, 10), (2, 15), (3, 515), (4, 514)] {
            collector.add(&record(n, at, true, &format!("run {n}"))).unwrap();
        }
        let report = collector.finish("guest/x".to_owned());
        assert!(report.is_all_right());
        assert_eq!(
            report.gap,
            Gap {
                longest_ms: 500.0,
                began_ms: 15.0,
                after: 2
            }
        );
        assert_eq!(report.wall_ms, 515.0);
    }

    #[test]
    fn percentiles_are_those_of_the_latencies() {
        let mut collector = Collector::new(100, BTreeMap::new(), None, true);
        for n in 1..=100 {
            let latency = Duration::from_millis(if n == 100 { 2500 } else { n });
            collector
                .add(&Ended {
                    latency,
                    ..record(n, n, true, "x")
                })
                .unwrap();
        }
        let latency = collector.finish("guest/x".to_owned()).latency;
        let is_near = |found: f64, wanted: f64| (found - wanted).abs() < wanted / 100.0;
        assert!(
            is_near(latency.p50_ms, 50.0) && is_near(latency.p99_ms, 99.0),
            "{latency:?}"
        );
        assert!(is_near(latency.max_ms, 2500.0), "{latency:?}");
    }

    #[test]
    fn interrupted_run_is_not_all_right() {
        let mut collector = collector(2);
        collector.add(&record(1, 1, true, "run 1")).unwrap();
        let report = collector.finish("guest/x".to_owned());
        assert!(!report.is_all_right());
        assert!(
            report
                .to_string()
                .contains("1 of 2 right, 0 wrong, 0 lost (interrupted after 1)")
        );
    }

    #[test]
    fn records_hold_one_json_line_per_activation() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut collector = Collector::new(1, BTreeMap::new(), Some(file.reopen().unwrap()), true);
        collector.add(&record(1, 10, true, "x")).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let line: Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["verdict"], &line["id"]), (&json!("right"), &json!("ab")));
        assert_eq!(text.lines().count(), 1);
    }
}
