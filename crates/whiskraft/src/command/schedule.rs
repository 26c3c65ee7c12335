//! `whiskraft schedule`: actions that run by the clock.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Cell, CellAlignment, Table, presets};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use whiskraft_client::{
    Client, Expect, MissedPolicy, ScheduleError, ScheduleSpec, ScheduleSummary, StoredSchedule,
};
use whiskraft_types::NamespaceName;

use super::{call_failure, connect};
use crate::arguments::{parse_pair, payload};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::units::{parse_moment, show_moment};
use crate::{clock, cron, source};

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft schedule put report --action report --cron '0 6 * * 1-5' -p lang=en    # on weekdays at six, UTC
  whiskraft schedule put sweep --action sweep --cron '*/10 * * * * *'              # six fields: every ten seconds
  whiskraft schedule put bill --action bill --cron @daily --missed run-all        # also what an outage has missed
  whiskraft schedule list
  whiskraft schedule get report                 # what is stored, what became of it, and the next times
  whiskraft schedule pause report               # whiskraft schedule resume report
  whiskraft schedule delete report

Fields are minute, hour, day of month, month, day of week (0 or 7 is Sunday), in UTC; @hourly, @daily, @weekly, @monthly
and @yearly stand for the usual ones. Each time that an expression names becomes one durable activation, whichever
schedulers die; `schedule get` names the last one. Its record is read with `whiskraft activation get`.";

/// Schedules asked for at once while listing; the largest page there is.
const PAGE_LEN: u32 = 1000;
/// Schedules read at the same time for a list.
const READS_MAX: usize = 16;
/// Coming slots shown.
const SLOTS_SHOWN: usize = 3;

/// Arguments of `whiskraft schedule`.
#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    command: ScheduleCommand,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// Create a schedule or replace it
    #[command(after_help = EXAMPLES)]
    Put(Box<PutArgs>),
    /// Show a schedule, what became of it so far, and its next times, as JSON
    #[command(after_help = EXAMPLES)]
    Get {
        /// Its name
        name: String,
    },
    /// Show the schedules of the namespace
    #[command(after_help = EXAMPLES)]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a schedule; what it has started goes on
    #[command(after_help = EXAMPLES)]
    Delete {
        /// Its name
        name: String,
    },
    /// Let no time of a schedule be due until it is resumed
    #[command(after_help = EXAMPLES)]
    Pause {
        /// Its name
        name: String,
    },
    /// Go on with the times from now; those that lay in the pause never run
    #[command(after_help = EXAMPLES)]
    Resume {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
struct PutArgs {
    /// Its name
    name: String,
    /// What to run: the name of an action, or /namespace/[package/]name
    #[arg(long, value_name = "NAME")]
    action: String,
    /// When, in UTC: five fields as of cron, six with the second before them, or @hourly and the like
    #[arg(long, value_name = "EXPRESSION", value_parser = parse_cron)]
    cron: String,
    /// Argument of every run, JSON or text; may be repeated
    #[arg(long = "param", short = 'p', value_name = "KEY=VALUE", value_parser = parse_pair)]
    params: Vec<(String, Value)>,
    /// File with the arguments as a JSON object; - is standard input
    #[arg(long, short = 'P', value_name = "FILE")]
    param_file: Option<PathBuf>,
    /// What happens to times that nobody could keep, as in an outage
    #[arg(long, value_enum, value_name = "POLICY", default_value = "skip")]
    missed: Missed,
    /// Times after this one count, which may lie in the past [default: from now on]
    #[arg(long, value_name = "TIME|+DURATION", value_parser = parse_from)]
    from: Option<SystemTime>,
    /// Store it paused
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Missed {
    /// They are counted and never run
    Skip,
    /// The newest of them runs
    RunOnce,
    /// All of them run, in order
    RunAll,
}

impl From<Missed> for MissedPolicy {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Skip => Self::Skip,
            Missed::RunOnce => Self::RunOnce,
            Missed::RunAll => Self::RunAll,
        }
    }
}

fn parse_cron(text: &str) -> Result<String, String> {
    cron::parse(text, clock::wall())
}

fn parse_from(text: &str) -> Result<SystemTime, String> {
    parse_moment(text, clock::wall())
}

/// Carries the command out.
///
/// # Errors
/// If the arguments are wrong, the cluster cannot be reached, or the schedule does not exist.
pub(crate) async fn run(args: ScheduleArgs, config: &Config) -> Result<(), Failure> {
    let namespace = &config.namespace;
    match args.command {
        ScheduleCommand::Put(args) => put(*args, config).await,
        ScheduleCommand::Get { name } => {
            let client = connect(config).await?;
            let stored = client.get_schedule(namespace, &name).await;
            output::json(&to_json(&stored.map_err(failure)?, clock::wall()));
            Ok(())
        }
        ScheduleCommand::List { json } => list(&connect(config).await?, namespace, json).await,
        ScheduleCommand::Delete { name } => {
            let client = connect(config).await?;
            let deleted = client.delete_schedule(namespace, &name, Expect::Anything).await;
            deleted.map_err(failure)?;
            output::line(format_args!("deleted {name}"));
            Ok(())
        }
        ScheduleCommand::Pause { name } => pause(config, &name, true).await,
        ScheduleCommand::Resume { name } => pause(config, &name, false).await,
    }
}

async fn put(args: PutArgs, config: &Config) -> Result<(), Failure> {
    let Value::Object(arguments) = payload(args.param_file.as_deref(), &args.params)? else {
        return Err(Failure::new(
            Exit::Usage,
            "the arguments of a schedule must be a JSON object",
        ));
    };
    let spec = ScheduleSpec {
        action: source::action_name(&args.action, &config.namespace)?,
        cron: args.cron,
        arguments: arguments.into_iter().collect(),
        missed: args.missed.into(),
        paused: args.paused,
        from: args.from,
    };
    let client = connect(config).await?;
    let stored = client.put_schedule(&config.namespace, &args.name, &spec, Expect::Anything);
    let revision = stored.await.map_err(failure)?;
    let next = next(&spec, clock::wall());
    output::line(format_args!(
        "{} runs {} at {} and is at revision {revision}; {}",
        args.name,
        spec.action,
        spec.cron,
        match next.first() {
            _ if spec.paused => "it is paused".to_owned(),
            Some(first) => format!("next at {}", show_moment(*first)),
            None => "no time of it is still to come".to_owned(),
        }
    ));
    Ok(())
}

async fn pause(config: &Config, name: &str, paused: bool) -> Result<(), Failure> {
    let client = connect(config).await?;
    let revision = client.pause_schedule(&config.namespace, name, paused).await;
    let revision = revision.map_err(failure)?;
    let how = if paused { "is paused" } else { "goes on" };
    output::line(format_args!("{name} {how}, at revision {revision}"));
    Ok(())
}

async fn list(client: &Client, namespace: &NamespaceName, json: bool) -> Result<(), Failure> {
    let mut names: Vec<ScheduleSummary> = Vec::new();
    let mut after = None;
    loop {
        let page = client.list_schedules(namespace, after.as_deref(), PAGE_LEN).await;
        let page = page.map_err(failure)?;
        names.extend(page.schedules);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let found: Vec<StoredSchedule> = stream::iter(names)
        .map(|summary| read(client, namespace, summary.name))
        .buffered(READS_MAX)
        .try_filter_map(async |found| Ok(found))
        .try_collect()
        .await?;
    let now = clock::wall();
    if json {
        output::json(&Value::Array(
            found.iter().map(|found| to_json(found, now)).collect(),
        ));
    } else {
        output::line(table(&found, now));
    }
    Ok(())
}

/// `None`: it was deleted since it was listed.
async fn read(
    client: &Client,
    namespace: &NamespaceName,
    name: String,
) -> Result<Option<StoredSchedule>, Failure> {
    match client.get_schedule(namespace, &name).await {
        Ok(stored) => Ok(Some(stored)),
        Err(ScheduleError::NotFound { .. }) => Ok(None),
        Err(error) => Err(failure(error)),
    }
}

/// The next times; none while it is paused, or if a newer release wrote an expression that this one cannot read.
fn next(spec: &ScheduleSpec, now: SystemTime) -> Vec<SystemTime> {
    let after = spec.from.unwrap_or(now).max(now);
    match spec.paused {
        true => Vec::new(),
        false => cron::next_slots(&spec.cron, after, SLOTS_SHOWN).unwrap_or_default(),
    }
}

fn table(found: &[StoredSchedule], now: SystemTime) -> String {
    if found.is_empty() {
        return "no schedules".to_owned();
    }
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "SCHEDULE",
        "ACTION",
        "CRON",
        "MISSED",
        "NEXT",
        "FIRED",
        "SKIPPED",
        "LAST ERROR",
    ]);
    table.add_rows(found.iter().map(|found| {
        let next = match next(&found.spec, now).first() {
            _ if found.spec.paused => "paused".to_owned(),
            Some(first) => show_moment(*first),
            None => "never".to_owned(),
        };
        let error = Some(found.progress.last_error.as_str()).filter(|error| !error.is_empty());
        vec![
            Cell::new(&found.name),
            Cell::new(&found.spec.action),
            Cell::new(&found.spec.cron),
            Cell::new(missed(found.spec.missed)),
            Cell::new(next),
            right(found.progress.fired.to_string()),
            right(found.progress.skipped.to_string()),
            Cell::new(error.unwrap_or("-")),
        ]
    }));
    table.trim_fmt()
}

fn to_json(stored: &StoredSchedule, now: SystemTime) -> Value {
    let (spec, progress) = (&stored.spec, &stored.progress);
    let next: Vec<_> = next(spec, now).into_iter().map(show_moment).collect();
    json!({
        "name": stored.name,
        "revision": stored.revision.0,
        "action": spec.action.as_str(),
        "cron": spec.cron,
        "arguments": spec.arguments,
        "missed": missed(spec.missed),
        "paused": spec.paused,
        "from": spec.from.map(show_moment),
        "next": next,
        "settled": progress.settled.map(show_moment),
        "fired": progress.fired,
        "skipped": progress.skipped,
        "last_activation": progress.last.map(|id| id.to_string()),
        "last_error": Some(&progress.last_error).filter(|error| !error.is_empty()),
    })
}

const fn missed(missed: MissedPolicy) -> &'static str {
    match missed {
        MissedPolicy::Skip => "skip",
        MissedPolicy::RunOnce => "run-once",
        MissedPolicy::RunAll => "run-all",
    }
}

fn failure(error: ScheduleError) -> Failure {
    match error {
        ScheduleError::Call(error) => call_failure(error),
        ScheduleError::Invalid { .. } => Failure::new(Exit::Usage, error.to_string()),
        ScheduleError::NotFound { .. } => Failure::new(Exit::Failed, error.to_string())
            .advise("see what there is with `whiskraft schedule list`"),
        ScheduleError::Conflict { .. } => Failure::new(Exit::Failed, error.to_string()),
    }
}
