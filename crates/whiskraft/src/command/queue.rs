//! `whiskraft queue`: gives one queue to another scheduler.

use clap::{Args, Subcommand};
use serde_json::json;
use whiskraft_types::{QueueKey, SchedulerId};

use super::{call_failure, connect};
use crate::arguments::whole;
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::output;
use crate::source;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft queue move hello --to 2               # the queue of action hello in namespace guest
  whiskraft queue move guest/hello -n anna --to 2 # what anna calls in namespace guest

What waits in it keeps its order, what runs goes on where it runs, and callers notice nothing but a pause of
milliseconds. `whiskraft queues` shows who leads which queue.";

/// Arguments of `whiskraft queue`.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    order: QueueOrder,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// What to do with a queue.
#[derive(Debug, Subcommand)]
enum QueueOrder {
    /// Give it to another scheduler
    #[command(after_help = EXAMPLES)]
    Move(MoveArgs),
}

/// Arguments of `whiskraft queue move`.
#[derive(Debug, Args)]
struct MoveArgs {
    /// Action of the queue: a name, or /namespace/[package/]name. The namespace of the callers is that of --namespace
    #[arg(value_name = "ACTION")]
    action: String,
    /// Number of the scheduler that leads it next, as `whiskraft status` shows it
    #[arg(long, value_name = "ID", value_parser = whole::<u64, 1, { u64::MAX }>)]
    to: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
///
/// # Errors
/// If the cluster refuses, or a name is malformed.
pub(crate) async fn run(args: QueueArgs, config: &Config) -> Result<(), Failure> {
    let QueueOrder::Move(order) = args.order;
    let key = QueueKey {
        namespace: config.namespace.clone(),
        action: source::action_name(&order.action, &config.namespace)?,
    };
    let operator = connect(config).await?.operator();
    let to = SchedulerId(order.to);
    let moved = operator.move_queue(&key, to).await.map_err(call_failure)?;
    let took = moved.took.as_secs_f64() * 1000.0;
    if order.json {
        output::json(&json!({
            "namespace": key.namespace.to_string(),
            "action": key.action.to_string(),
            "scheduler": to.0,
            "epoch": moved.epoch.0,
            "activations": moved.activations,
            "took_ms": took,
        }));
    } else {
        output::line(&format!(
            "scheduler {to} leads queue {key} in epoch {} with the {} activations that were in it; it took {took:.0} ms",
            moved.epoch, moved.activations
        ));
    }
    Ok(())
}
