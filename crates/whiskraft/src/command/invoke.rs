//! `whiskraft invoke`: one activation of an action or a source file, or many with a report.

mod promise;

use std::fs::File;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use sha2::{Digest, Sha256};
use whiskraft_client::{
    ActionError, ActionSpec, ActivationRecord, Client, Expect, InvokeError, InvokeOptions, StoredAction,
};
use whiskraft_types::{ActionName, ActivationId, ActivationStatus, Rejection};

use self::promise::PromiseArgs;
use super::activation::record_json;
use super::notice::{Obstacle, with_notice};
use super::{action_failure, connect};
use crate::arguments::{pairs, parse_pair, parse_rate, payload, whole};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::load::{self, Plan, Template};
use crate::output;
use crate::source;
use crate::units::parse_time;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft invoke hello -p name=Ada              # the action guest/hello; prints its result
  whiskraft invoke examples/hello.py -p name=Ada  # stores the file as guest/hello if it changed, then runs it
  whiskraft invoke /whisk.system/echo --param-file - < arguments.json
  whiskraft invoke hello --no-wait                # prints the activation id once a majority has it on disk; then
                                                  # `whiskraft activation get ID --wait 30s`, `explain ID`, `activation cancel ID`
  whiskraft invoke bill --no-wait --not-before +2h --idempotency-key order-7 -p order=7   # run twice, it bills once
  whiskraft invoke bill --durable -p order=8      # waits for the result, and whatever dies, the record can be read
  Many invocations with a report (and --json for scripts); {i} is the number of the invocation, {id} its id:
  whiskraft invoke hello --repeat 2000 --concurrency 16 -p 'name=Ada {i}' --expect 'greeting=Hello, Ada {i}!'
  whiskraft invoke hello --repeat 6000 --rate 200 --concurrency 64 --records runs.ndjson";

/// Variable in which every runtime tells an action its activation.
const CALLER: &str = "__OW_ACTIVATION_ID";

/// Arguments of `whiskraft invoke`.
#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    /// Name of an action, /namespace/[package/]name, or a source file
    target: String,
    /// Argument, JSON or text; may be repeated
    #[arg(long = "param", short = 'p', value_name = "KEY=VALUE", value_parser = parse_pair)]
    params: Vec<(String, Value)>,
    /// File with the arguments as JSON; - is standard input
    #[arg(long, short = 'P', value_name = "FILE")]
    param_file: Option<PathBuf>,
    /// Runtime of a source file [default: by its extension and content]
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Longest wait for the result
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    timeout: Duration,
    /// Return when it is accepted, and print its id
    #[arg(long, conflicts_with = "repeat")]
    no_wait: bool,
    #[command(flatten)]
    promise: PromiseArgs,
    /// Print JSON: the whole record, or the report of a run
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Arguments of a run of many invocations.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many invocations")]
struct RunArgs {
    /// Invoke so many times and print a report; the exit code is 0 only if every result was right
    #[arg(long, value_name = "N", value_parser = whole::<NonZeroU64, 1, { u64::MAX }>)]
    repeat: Option<NonZeroU64>,
    /// Most invocations under way at once
    #[arg(long, value_name = "N", default_value_t = 8, requires = "repeat", value_parser = whole::<u32, 1, 10_000>)]
    concurrency: u32,
    /// Invocations per second; latency then counts from when each was due [default: the next when one ends]
    #[arg(long, value_name = "PER_SECOND", requires = "repeat", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Field that every result must have to be right, JSON or text; may be repeated
    #[arg(long, value_name = "FIELD=VALUE", requires = "repeat", value_parser = parse_pair)]
    expect: Vec<(String, Value)>,
    /// Write one JSON line per activation to this file, as they end
    #[arg(long, value_name = "FILE", requires = "repeat")]
    records: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short = 'q', requires = "repeat")]
    quiet: bool,
}

/// Carries the command out.
///
/// # Errors
/// If the activation does not end with success, or not every one of a run is right.
pub(crate) async fn run(args: InvokeArgs, config: &Config) -> Result<(), Failure> {
    let payload = payload(args.param_file.as_deref(), &args.params)?;
    let target = Target::read(&args, config)?;
    let client = connect(config).await?;
    let action = target.store(&client).await?;
    if let Some(repeat) = args.run.repeat {
        return run_many(&client, args, config, action, repeat, payload).await;
    }
    let id = args.promise.id(&config.namespace, &action);
    let options = InvokeOptions {
        deadline: args.timeout,
        caller: caller(),
        ..InvokeOptions::default()
    };
    let options = args.promise.apply(id, options);
    if args.no_wait {
        // Nobody waits for it, so nobody is its caller.
        let options = InvokeOptions {
            caller: None,
            ..options
        };
        let invocation = client.submit(&config.namespace, &action, payload, options).await;
        let invocation =
            invocation.map_err(|error| invoke_failure("the activation was not submitted", error, None))?;
        output::line(invocation.id());
        return Ok(());
    }
    let call = client.invoke(&config.namespace, &action, payload, options);
    let record = with_notice(&client, &config.namespace, id, call)
        .await
        .map_err(|(error, obstacle)| {
            invoke_failure("the activation did not end with a result", error, obstacle)
        })?;
    show(&record, args.json)
}

/// The activation that this process is part of, if an action has started it.
fn caller() -> Option<ActivationId> {
    std::env::var(CALLER).ok()?.parse().ok()
}

/// What is invoked.
enum Target {
    Stored(ActionName),
    File(Box<ActionSpec>),
}

impl Target {
    fn read(args: &InvokeArgs, config: &Config) -> Result<Self, Failure> {
        let text = &args.target;
        if let Some(path) = source::as_file(text) {
            let name = source::name_of_file(&path, &config.namespace)?;
            return Ok(Self::File(Box::new(source::read(
                &path,
                name,
                args.kind.as_deref(),
            )?)));
        }
        if source::looks_like_file(text) && text.contains('/') {
            return Err(Failure::new(Exit::Usage, format!("there is no file {text}")));
        }
        Ok(Self::Stored(source::action_name(text, &config.namespace)?))
    }

    /// Stores a file unless the cluster has it already, and names the action.
    async fn store(self, client: &Client) -> Result<ActionName, Failure> {
        let mut spec = match self {
            Self::Stored(name) => return Ok(name),
            Self::File(spec) => spec,
        };
        match client.get_action(&spec.name).await {
            Ok(stored) if is_same(&stored, &spec) => return Ok(spec.name),
            // What `action put` said about limits and parameters stays.
            Ok(stored) => {
                spec.limits = stored.limits;
                spec.parameters = stored.parameters;
                spec.annotations = stored.annotations;
            }
            Err(ActionError::NotFound { .. }) => {}
            Err(error) => return Err(action_failure(error)),
        }
        let revision = client
            .put_action(&spec, Expect::Anything)
            .await
            .map_err(action_failure)?;
        eprintln!("stored {} ({}) at revision {revision}", spec.name, spec.kind);
        Ok(spec.name)
    }
}

fn is_same(stored: &StoredAction, spec: &ActionSpec) -> bool {
    stored.code_sha256[..] == Sha256::digest(&spec.code)[..]
        && stored.kind == spec.kind
        && stored.main == spec.main
        && stored.binary == spec.binary
}

/// Logs go to standard error, the result to standard output, so that it can be piped.
fn show(record: &ActivationRecord, json: bool) -> Result<(), Failure> {
    if json {
        output::json(&record_json(record));
    } else {
        record.logs.iter().for_each(|line| eprintln!("{line}"));
        let result = serde_json::from_slice(&record.result);
        output::json(&result.unwrap_or_else(|_| String::from_utf8_lossy(&record.result).into()));
    }
    if record.status == ActivationStatus::Success {
        return Ok(());
    }
    // The result, already printed, tells the rest.
    Err(Failure::new(
        Exit::Failed,
        format!("activation {} ended with {}", record.id, record.status.text()),
    ))
}

async fn run_many(
    client: &Client,
    args: InvokeArgs,
    config: &Config,
    action: ActionName,
    repeat: NonZeroU64,
    payload: Value,
) -> Result<(), Failure> {
    let records = args.run.records.as_deref().map(create).transpose()?;
    let expect = pairs(&args.run.expect);
    let plan = Plan {
        namespace: config.namespace.clone(),
        action,
        repeat,
        concurrency: args.run.concurrency,
        rate: args.run.rate,
        payload: Template::new(payload),
        expect: expect
            .into_iter()
            .map(|(field, value)| (field, Template::new(value)))
            .collect(),
        deadline: args.timeout,
        durability: args.promise.durability(),
        caller: caller(),
        quiet: args.run.quiet,
    };
    let report = load::run(client.clone(), plan, records).await?;
    if args.json {
        output::json(&serde_json::to_value(&report).expect("the report is plain data"));
    } else {
        output::line(&report);
    }
    if report.is_all_right() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!("{} of {} results were right", report.right, report.asked),
    ))
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot write records to {}", path.display())).caused_by(error)
    })
}

/// The failure of an invocation; `obstacle` is what kept it from running.
fn invoke_failure(what: &str, error: InvokeError, obstacle: Option<Obstacle>) -> Failure {
    let exit = match &error {
        InvokeError::Payload(_) | InvokeError::Options(_) => Exit::Usage,
        InvokeError::NotAccepted { .. } | InvokeError::NotConfirmed { .. } => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let mut advice = match &error {
        InvokeError::Rejected {
            rejection: Rejection::NoAction { action },
            ..
        } => Some(format!(
            "list what there is with `whiskraft action list`, or store it: whiskraft action put {action} FILE"
        )),
        InvokeError::NotConfirmed { id, .. } => Some(format!(
            "ask for it with `whiskraft activation get {id}`; with --idempotency-key the same command can be repeated"
        )),
        InvokeError::KeyConflict { id, .. } => Some(format!("see `whiskraft activation get {id}`")),
        InvokeError::Deadline { id, .. } => Some(format!(
            "it goes on; ask for it with `whiskraft activation get {id}`, see `whiskraft explain {id}`, or raise --timeout"
        )),
        _ => None,
    };
    if let Some(Obstacle { text, .. }) = obstacle {
        advice = Some(advice.map_or_else(|| text.clone(), |advice| format!("{text}\n{advice}")));
    }
    let failure = Failure::new(exit, what).caused_by(error);
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}
