//! `whiskraft action`: store, show, list and delete actions.

mod retry;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use whiskraft_client::{Client, Expect, StoredAction};
use whiskraft_types::{ActionLimits, ByteSize};

use self::retry::RetryArgs;
use super::{action_failure, connect};
use crate::arguments::{MOST, pairs, parse_pair, whole};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::output;
use crate::source;
use crate::units::parse_duration;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft action put hello examples/hello.py
  whiskraft action put resize ./resize --memory 512MiB --timeout 2m --concurrency 4   # an executable
  whiskraft action put report app.zip --kind python:3 -p lang=en
  whiskraft action put bill bill.py --retry-attempts 5 --retry-backoff 1s --retry-backoff-max 60s   # see dead-letters
  whiskraft action get hello            # whiskraft action get hello --code > hello.py
  whiskraft action list
  whiskraft action delete hello";

/// Actions asked for at once while listing; the largest page there is.
const PAGE_LEN: u32 = 1000;

/// Arguments of `whiskraft action`.
#[derive(Debug, Args)]
pub(crate) struct ActionArgs {
    #[command(subcommand)]
    command: ActionCommand,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum ActionCommand {
    /// Create an action or replace it
    Put(Box<PutArgs>),
    /// Show an action, or print its code
    Get {
        /// Name, or /namespace/[package/]name
        name: String,
        /// Print the code instead of the description
        #[arg(long)]
        code: bool,
    },
    /// List the actions of the namespace, one per line
    List,
    /// Delete an action; its queue ends, what runs is finished
    Delete {
        /// Name, or /namespace/[package/]name
        name: String,
    },
}

#[derive(Debug, Args)]
struct PutArgs {
    /// Name, or /namespace/[package/]name
    name: String,
    /// Source file, zip archive or executable
    file: PathBuf,
    /// Runtime [default: by extension and content of the file]
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Function to call [default: main]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    main: String,
    /// Memory of a container [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Longest run [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Log bytes kept per activation [default: 10MiB]
    #[arg(long, value_name = "SIZE")]
    logs: Option<ByteSize>,
    /// Activations that one container runs at once [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<u32, 1, MOST>)]
    concurrency: Option<u32>,
    /// Most containers per invocation namespace [default: the namespace's limit]
    #[arg(long, value_name = "N", value_parser = whole::<u32, 1, MOST>)]
    instances: Option<u32>,
    /// Default argument, JSON or text; the caller's win; may be repeated
    #[arg(long = "param", short = 'p', value_name = "KEY=VALUE", value_parser = parse_pair)]
    parameters: Vec<(String, Value)>,
    /// Annotation, JSON or text; may be repeated
    #[arg(long = "annotation", short = 'a', value_name = "KEY=VALUE", value_parser = parse_pair)]
    annotations: Vec<(String, Value)>,
    #[command(flatten)]
    retry: RetryArgs,
}

impl PutArgs {
    fn limits(&self) -> ActionLimits {
        let default = ActionLimits::default();
        ActionLimits {
            timeout: self.timeout.unwrap_or(default.timeout),
            memory: self.memory.unwrap_or(default.memory),
            logs: self.logs.unwrap_or(default.logs),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            instances: self.instances,
        }
    }
}

/// Carries the command out.
///
/// # Errors
/// If the arguments are wrong, the cluster cannot be reached, or the action does not exist.
pub(crate) async fn run(args: ActionArgs, config: &Config) -> Result<(), Failure> {
    match args.command {
        ActionCommand::Put(args) => put(*args, config).await,
        ActionCommand::Get { name, code } => {
            let name = source::action_name(&name, &config.namespace)?;
            let client = connect(config).await?;
            let action = client.get_action(&name).await.map_err(action_failure)?;
            if code {
                return print_code(&client, &action).await;
            }
            output::json(&describe(&action));
            Ok(())
        }
        ActionCommand::List => list(&connect(config).await?, config).await,
        ActionCommand::Delete { name } => {
            let name = source::action_name(&name, &config.namespace)?;
            let client = connect(config).await?;
            client
                .delete_action(&name, Expect::Anything)
                .await
                .map_err(action_failure)?;
            output::line(format_args!("deleted {name}"));
            Ok(())
        }
    }
}

async fn put(args: PutArgs, config: &Config) -> Result<(), Failure> {
    let name = source::action_name(&args.name, &config.namespace)?;
    let mut spec = source::read(&args.file, name, args.kind.as_deref())?;
    spec.limits = args.limits();
    spec.main = args.main;
    spec.parameters = pairs(&args.parameters);
    spec.annotations = pairs(&args.annotations);
    spec.annotations.extend(args.retry.annotations());
    let client = connect(config).await?;
    let revision = client
        .put_action(&spec, Expect::Anything)
        .await
        .map_err(action_failure)?;
    output::line(format_args!(
        "{} ({}, {} bytes) is at revision {revision}",
        spec.name,
        spec.kind,
        spec.code.len()
    ));
    Ok(())
}

async fn list(client: &Client, config: &Config) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = client
            .list_actions(&config.namespace, after.as_deref(), PAGE_LEN)
            .await
            .map_err(action_failure)?;
        for action in &page.actions {
            output::line(format_args!("{}\trevision {}", action.name, action.revision));
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

async fn print_code(client: &Client, action: &StoredAction) -> Result<(), Failure> {
    output::bytes(&client.action_code(action).await.map_err(action_failure)?);
    Ok(())
}

fn describe(action: &StoredAction) -> Value {
    let limits = &action.limits;
    let hash: String = action
        .code_sha256
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({
        "name": action.name.as_str(),
        "revision": action.revision.0,
        "kind": action.kind,
        "main": if action.main.is_empty() { "main" } else { &action.main },
        "binary": action.binary,
        "code_sha256": hash,
        "limits": {
            "timeout_ms": u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            "memory": limits.memory.to_string(),
            "logs": limits.logs.to_string(),
            "concurrency": limits.concurrency,
            "instances": limits.instances,
        },
        "parameters": action.parameters,
        "annotations": action.annotations,
    })
}
