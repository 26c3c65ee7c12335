//! `whiskraft activation get`: state or record of an activation by its id.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use whiskraft_client::{ActivationRecord, Progress};
use whiskraft_types::ActivationId;

use super::{call_failure, connect};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft activation get $(whiskraft invoke hello --no-wait)

A record goes to whoever waits for it, and with the last one's confirmation no scheduler has it any more: after an
`invoke` that printed its result there is none to get. A record that nobody confirmed is kept in the memory of the
scheduler that leads the queue, for 10 minutes unless scheduler.queue.result-keep says otherwise, the newest 10000 of a
queue, and is gone with that scheduler.";

/// What it may mean that no scheduler knows an activation.
pub(super) const UNKNOWN: &str = "\
it was never accepted, or it has ended and its record is gone: with the confirmation of whoever waited for it, after the \
time that scheduler.queue.result-keep says, or with the scheduler that kept it";

/// Arguments of `whiskraft activation`.
#[derive(Debug, Args)]
pub(crate) struct ActivationArgs {
    #[command(subcommand)]
    command: ActivationCommand,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum ActivationCommand {
    /// Print the record of an activation, or the state it is in; one whose caller has its result is not known any more
    Get {
        /// Its id: 32 hex digits
        id: ActivationId,
    },
}

/// Carries the command out.
///
/// # Errors
/// If no scheduler knows the activation.
pub(crate) async fn run(args: ActivationArgs, config: &Config) -> Result<(), Failure> {
    let ActivationCommand::Get { id } = args.command;
    let client = connect(config).await?;
    let found = client
        .find_activation(&config.namespace, id)
        .await
        .map_err(call_failure)?;
    let Some(found) = found else {
        let text = format!(
            "no scheduler knows activation {id} of namespace {}",
            config.namespace
        );
        return Err(Failure::new(Exit::Failed, text).advise(UNKNOWN));
    };
    let state = match found.progress {
        Progress::Done(record) => {
            output::json(&record_json(&record));
            return Ok(());
        }
        Progress::Waiting => "waiting",
        Progress::Delivered => "delivered",
        Progress::Started => "started",
    };
    output::json(&json!({ "activationId": id.to_string(), "state": state, "queue": found.key.to_string() }));
    Ok(())
}

/// A record with the field names of OpenWhisk's activation records.
pub(crate) fn record_json(record: &ActivationRecord) -> Value {
    let result: Value = serde_json::from_slice(&record.result)
        .unwrap_or_else(|_| String::from_utf8_lossy(&record.result).into());
    json!({
        "activationId": record.id.to_string(),
        "start": record.start_ms,
        "end": record.end_ms,
        "duration": record.end_ms.saturating_sub(record.start_ms),
        "initTime": record.init_ms,
        "waitTime": record.wait_ms,
        "statusCode": record.status.code(),
        "response": {
            "status": record.status.text(),
            "success": record.status.code() == 0,
            "result": result,
        },
        "timeout": record.timed_out,
        "invoker": record.ran_on.map(|(invoker, _)| invoker.0),
        "container": record.ran_on.map(|(_, container)| container.to_string()),
        "logs": record.logs,
    })
}
