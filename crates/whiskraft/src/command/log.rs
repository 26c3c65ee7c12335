//! `whiskraft log`: the replicated log of a scheduler that is stopped, replayed to look at or to check.
//!
//! Replaying applies every entry as the scheduler did; the check holds the promises of the cluster against each
//! revision, with an auditor that keeps tables of its own.

mod describe;
mod summary;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use whiskraft_raft::{Content, History, HistoryError, StartError, Step};
use whiskraft_state::Audit;
use whiskraft_types::LogRevision;

use self::summary::Summary;
use crate::arguments::whole;
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::output;

/// Time after which a replay shows how far it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Entries between two looks at the clock.
const ENTRIES_PER_LOOK: u64 = 1024;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft log /var/lib/whiskraft --check             # every limit held at every revision? Exit code 4 if not
  whiskraft log /var/lib/whiskraft --from 1200 --to 1300
  whiskraft log /var/lib/whiskraft --summary
  whiskraft log /var/lib/whiskraft --json | jq 'select(.entry == \"reserve-places\")'

The scheduler must be stopped. Nothing in the directory is changed.";

/// Arguments of `whiskraft log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Data directory of a scheduler that is stopped
    #[arg(value_name = "DATA-DIR")]
    data_dir: PathBuf,
    /// Check the promises of the cluster at every revision instead of printing entries
    #[arg(long, conflicts_with_all = ["summary", "from", "to"])]
    check: bool,
    /// Print how many entries of each kind there are
    #[arg(long)]
    summary: bool,
    /// First revision to print [default: the first of the log]
    #[arg(long, value_name = "REVISION", value_parser = whole::<u64, 0, { u64::MAX }>)]
    from: Option<u64>,
    /// Last revision to print [default: the last of the log]
    #[arg(long, value_name = "REVISION", value_parser = whole::<u64, 0, { u64::MAX }>)]
    to: Option<u64>,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
/// If the directory is in use or cannot be read, or the check finds a violation.
pub(crate) fn run(args: &LogArgs) -> Result<(), Failure> {
    let history = History::open(&args.data_dir).map_err(history_failure)?;
    if args.check {
        return check(history, args.json);
    }
    let wanted = wanted(args.from, args.to, history.range())?;
    let mut progress = Progress::new(&history, !args.summary);
    let mut summary = Summary::default();
    let replayed = history.replay(|step| {
        progress.step(&step);
        if !wanted.contains(&step.revision) {
            return;
        }
        if args.summary {
            summary.take(&step);
        } else if args.json {
            output::line(describe::json(&step));
        } else {
            output::line(describe::line(&step));
        }
    });
    progress.end();
    replayed.map_err(history_failure)?;
    if args.summary {
        summary.print(args.json);
    }
    Ok(())
}

/// The revisions to show of a log that has the given first and last one.
fn wanted(
    from: Option<u64>,
    to: Option<u64>,
    (first, last): (LogRevision, LogRevision),
) -> Result<RangeInclusive<LogRevision>, Failure> {
    let there_is = match first <= last {
        true => format!("the log has revisions {first} to {last}"),
        false => "the log has no entries".to_owned(),
    };
    let refuse = |what: String| Err(Failure::new(Exit::Usage, format!("{what}: {there_is}")));
    for (option, revision) in [("--from", from), ("--to", to)] {
        if let Some(revision) = revision.map(LogRevision)
            && !(first..=last).contains(&revision)
        {
            return refuse(format!("{option} {revision} is not in the log"));
        }
    }
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return refuse(format!("--from {from} is behind --to {to}"));
    }
    Ok(from.map_or(first, LogRevision)..=to.map_or(last, LogRevision))
}

fn check(history: History, as_json: bool) -> Result<(), Failure> {
    let mut progress = Progress::new(&history, false);
    let (first, last) = history.range();
    let mut audit = Audit::from(history.base());
    let mut entries: u64 = 0;
    let replayed = history.replay(|step| {
        progress.step(&step);
        entries += 1;
        if let Content::Command { command, applied } = &step.content {
            audit.observe(step.revision, command, applied);
        }
    });
    progress.end();
    let replayed = replayed.map_err(history_failure)?;
    audit.finish(&replayed.state);
    let mut found: Vec<String> = audit.violations().iter().map(ToString::to_string).collect();
    found.extend(replayed.differing_snapshots.iter().map(|revision| {
        format!("revision {revision}: the snapshot taken there is not what the log leads to")
    }));
    let violations = audit.violated() + replayed.differing_snapshots.len() as u64;
    let granted = audit.granted();
    if as_json {
        output::line(json!({
            "entries": entries, "from": first.0, "to": last.0, "granted": granted,
            "violations": violations, "found": found,
        }));
    } else {
        found.iter().for_each(output::line);
        output::line(format_args!(
            "{entries} entries from revision {first} to {last}, {granted} containers granted, {violations} violations"
        ));
    }
    match violations {
        0 => Ok(()),
        _ => Err(Failure::new(
            Exit::Violated,
            "the log breaks what the cluster promises",
        )),
    }
}

fn history_failure(error: HistoryError) -> Failure {
    let advice = match &error {
        HistoryError::Directory(StartError::Locked { .. }) => {
            Some("a log is read while nobody writes it; a copy of the directory can be read at any time")
        }
        HistoryError::Directory(_)
        | HistoryError::Read { .. }
        | HistoryError::Incomplete { .. }
        | HistoryError::Gap { .. } => None,
    };
    let failure = Failure::new(Exit::Refused, "cannot read the log").caused_by(error);
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}

/// Shows how far a replay is, once it takes long; not among lines that are printed.
struct Progress {
    bar: ProgressBar,
    first: u64,
    show_at: Option<Instant>,
    steps: u64,
}

impl Progress {
    fn new(history: &History, prints: bool) -> Self {
        let (first, last) = history.range();
        let len = (last.0 + 1).saturating_sub(first.0);
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} entries")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            bar: ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::hidden()).with_style(style),
            first: first.0,
            show_at: (!prints).then(|| clock::now() + PATIENCE),
            steps: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        self.steps += 1;
        if !self.steps.is_multiple_of(ENTRIES_PER_LOOK) {
            return;
        }
        if self.show_at.is_some_and(|at| clock::now() >= at) {
            self.show_at = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(step.revision.0 - self.first);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(from: Option<u64>, to: Option<u64>, log: (u64, u64)) -> Result<(u64, u64), String> {
        wanted(from, to, (LogRevision(log.0), LogRevision(log.1)))
            .map(|range| (range.start().0, range.end().0))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn revisions_of_the_log_are_shown_and_others_are_refused_with_what_there_is() {
        let log = (100, 200);
        assert_eq!(shown(None, None, log), Ok((100, 200)));
        assert_eq!(shown(Some(120), None, log), Ok((120, 200)));
        assert_eq!(shown(Some(100), Some(200), log), Ok((100, 200)));
        let refused = [
            (
                Some(99),
                None,
                "--from 99 is not in the log: the log has revisions 100 to 200",
            ),
            (
                Some(201),
                None,
                "--from 201 is not in the log: the log has revisions 100 to 200",
            ),
            (
                None,
                Some(99),
                "--to 99 is not in the log: the log has revisions 100 to 200",
            ),
            (
                Some(150),
                Some(201),
                "--to 201 is not in the log: the log has revisions 100 to 200",
            ),
            (
                Some(150),
                Some(149),
                "--from 150 is behind --to 149: the log has revisions 100 to 200",
            ),
        ];
        for (from, to, expected) in refused {
            assert_eq!(shown(from, to, log), Err(expected.to_owned()));
        }
        assert_eq!(
            shown(Some(3), None, (8, 7)),
            Err("--from 3 is not in the log: the log has no entries".to_owned())
        );
    }
}
