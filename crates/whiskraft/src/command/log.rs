//! `whiskraft log`: the replicated log of a scheduler that is stopped, replayed to look at or to check.
//!
//! Replaying applies every entry as the scheduler did; the check holds the promises of the cluster against each
//! revision, with an auditor that keeps tables of its own.

mod describe;
mod summary;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use whiskraft_raft::{Content, History, HistoryError, StartError, Step};
use whiskraft_state::Audit;

use self::summary::Summary;
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
  whiskraft log /var/lib/whiskraft --json | jq 'select(.entry == \"reserve-slots\")'

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
    /// First revision to print
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    from: u64,
    /// Last revision to print
    #[arg(long, value_name = "REVISION", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
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
    let mut progress = Progress::new(&history, !args.summary);
    let mut summary = Summary::default();
    let replayed = history.replay(|step| {
        progress.step(&step);
        if !(args.from..=args.to).contains(&step.revision.0) {
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
