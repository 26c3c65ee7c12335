//! `whiskraft queues`: every queue of the cluster, longest waiting first, and why it waits.

use clap::Args;
use serde_json::{Value, json};
use whiskraft_client::{Operator, QueueFilter, QueuesSnapshot};

use super::look::{LookArgs, look_again};
use super::shown::Queue;
use super::{call_failure, connect};
use crate::arguments::whole;
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::output;
use crate::source;

mod table;

/// Most queues shown, and listed by one scheduler.
const LIMIT_MAX: u64 = 10_000;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft queues                             # every queue, the one whose oldest activation waits longest first
  whiskraft queues --waiting --wide            # only where something waits; with the last decision and the details
  whiskraft queues --watch --limit 20          # again every second until Ctrl-C
  whiskraft queues -n guest --action hello     # one queue; without -n those of all namespaces
  whiskraft queues --json | jq '.queues[] | select(.wait_reason) | {action, wait_reason, wait_detail}'

CONTAINERS is running+starting/limit. WAITS FOR is the first thing that keeps the oldest activation from a container;
`whiskraft explain ID` says what would help.";

/// Arguments of `whiskraft queues`.
#[derive(Debug, Args)]
pub(crate) struct QueuesArgs {
    /// Only queues of this action: a name, or /namespace/[package/]name
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Only queues in which something waits
    #[arg(long)]
    waiting: bool,
    /// Most queues shown
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = whole::<u32, 1, LIMIT_MAX>)]
    limit: u32,
    /// Also the last scaling decision, and the reason in full
    #[arg(long)]
    wide: bool,
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Carries the command out.
///
/// # Errors
/// If no scheduler answers, or a name is malformed.
pub(crate) async fn run(args: QueuesArgs, config: &Config) -> Result<(), Failure> {
    let action = args.action.as_deref();
    let filter = QueueFilter {
        // Whoever names no namespace wants to see all of them.
        namespace: args.client.names_namespace().then(|| config.namespace.clone()),
        action: action
            .map(|name| source::action_name(name, &config.namespace))
            .transpose()?,
        waiting_only: args.waiting,
        limit: usize::try_from(args.limit).ok(),
    };
    let operator = connect(config).await?.operator();
    look_again(&args.look, async || show(&operator, &filter, &args).await).await
}

async fn show(operator: &Operator, filter: &QueueFilter, args: &QueuesArgs) -> Result<String, Failure> {
    let snapshot = operator.queues(filter).await.map_err(call_failure)?;
    Ok(if args.look.json {
        output::json_text(&to_json(&snapshot))
    } else {
        table::render(&snapshot, args.wide)
    })
}

fn to_json(snapshot: &QueuesSnapshot) -> Value {
    let ids = |ids: &[whiskraft_types::SchedulerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let silent: Vec<_> = snapshot
        .silent
        .iter()
        .map(|(scheduler, error)| json!({ "scheduler": scheduler.0, "error": error.to_string() }))
        .collect();
    json!({
        "queues": snapshot.queues.iter().map(Queue::new).collect::<Vec<_>>(),
        "queues_total": snapshot.queues_total,
        "queues_matching": snapshot.queues_matching,
        "waiting_total": snapshot.waiting_total,
        "answered": ids(&snapshot.answered),
        "fenced": ids(&snapshot.fenced),
        "silent": silent,
    })
}
