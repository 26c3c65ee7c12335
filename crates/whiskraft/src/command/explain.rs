//! `whiskraft explain`: where an activation is, why it waits, and what would help, in plain sentences.

use clap::Args;
use serde_json::{Value, json};
use whiskraft_client::{Client, Explained, Explanation, Progress};
use whiskraft_types::{ActivationId, NamespaceLimits, QueueKey};

use super::activation::{UNKNOWN, gone};
use super::advice::{Facts, advice, meaning};
use super::shown::{Queue, millis};
use super::{call_failure, connect};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;

pub(super) mod sentences;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft explain $(whiskraft invoke hello --no-wait)
  whiskraft explain 0123456789abcdef0123456789abcdef --json | jq .queue.wait_reason
  whiskraft explain 0123456789abcdef0123456789abcdef -n guest   # only if it is guest's; sooner in a large cluster

Every scheduler is asked; the one that knows most is believed. One that has ended is known until everybody who waits
for it has confirmed its result; until then `whiskraft activation get` prints its record.";

/// Arguments of `whiskraft explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Id of the activation: 32 hex digits
    id: ActivationId,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Carries the command out.
///
/// # Errors
/// If no scheduler knows the activation, or one that might did not answer.
pub(crate) async fn run(args: ExplainArgs, config: &Config) -> Result<(), Failure> {
    let client = connect(config).await?;
    let namespace = args.client.names_namespace().then_some(&config.namespace);
    let explained = client.operator().explain(args.id, namespace).await;
    let explained = explained.map_err(call_failure)?;
    let Some(best) = &explained.best else {
        return Err(unknown(args.id, &explained));
    };
    let Some(key) = &best.found.key else {
        return Err(gone(args.id));
    };
    let limit = containers_max(&client, key, best).await;
    if args.json {
        output::json(&to_json(args.id, key, best, limit));
    } else {
        output::line(sentences::describe(args.id, key, best, limit));
    }
    Ok(())
}

/// The namespace's limit, which the advice names; what nobody set is the default.
async fn containers_max(client: &Client, key: &QueueKey, best: &Explanation) -> Option<u32> {
    if best.found.progress != Progress::Waiting {
        return None;
    }
    // Without it the advice is less exact, no more.
    let limits = client.namespace(&key.namespace).await.ok()?;
    Some(limits.unwrap_or_else(NamespaceLimits::default).containers)
}

fn unknown(id: ActivationId, explained: &Explained) -> Failure {
    let silent: Vec<_> = explained
        .silent
        .iter()
        .map(|(id, error)| format!("scheduler {id} did not answer and may know it ({error})"))
        .collect();
    let text = format!("no scheduler that answered knows activation {id}");
    if silent.is_empty() {
        return Failure::new(Exit::Failed, text).advise(format!(
            "{UNKNOWN}; or it is of another namespace than the one given"
        ));
    }
    Failure::new(Exit::Unreachable, text).advise(silent.join("\n"))
}

fn to_json(id: ActivationId, key: &QueueKey, best: &Explanation, containers: Option<u32>) -> Value {
    let queue = best.queue.as_ref();
    let reason = queue
        .and_then(|queue| queue.wait_reason)
        .filter(|_| best.found.progress == Progress::Waiting);
    let facts = Facts {
        key,
        leader: queue.and_then(|queue| queue.queue.leader),
        containers,
    };
    json!({
        "activationId": id.to_string(),
        "state": best.found.progress.name(),
        "scheduler": best.found.scheduler.0,
        "namespace": key.namespace.to_string(),
        "action": key.action.to_string(),
        "epoch": best.found.epoch.0,
        "position": best.position,
        "waited_ms": millis(best.waited),
        "attempt": best.attempt,
        "durable": best.found.durable,
        "runs": best.found.runs,
        "container": best.container.map(|container| container.to_string()),
        "invoker": best.invoker.map(|invoker| invoker.0),
        "queue": queue.map(Queue::new),
        "because": reason.map(meaning),
        "advice": reason.map(|reason| advice(reason, &facts)),
    })
}
