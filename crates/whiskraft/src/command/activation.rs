//! `whiskraft activation`: state or record of an activation by its id, and ending one.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use whiskraft_client::{
    ActivationRecord, CallError, CancelOutcome, Client, FoundActivation, Progress, ResultError,
};
use whiskraft_types::{ActivationId, NamespaceName};

use super::{call_failure, connect};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::units::{parse_time, show_moment};

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft activation get $(whiskraft invoke hello --no-wait)
  whiskraft activation get 0123456789abcdef0123456789abcdef --wait 30s | jq .response.result
  whiskraft activation cancel 0123456789abcdef0123456789abcdef

Any scheduler answers for a durable activation (--no-wait, --durable, --idempotency-key): it is known before, during and
after its run, until its record expires; from then on it is `gone` (exit code 5), and later unknown.
One that is not durable is known to the scheduler that leads its queue. Its record goes to whoever waits for it; one that
nobody confirmed is kept there for 10 minutes unless scheduler.queue.result-keep says otherwise. Records of both kinds
are kept in the journal as well while scheduler.journal.archive says so.";

/// What it may mean that no scheduler knows an activation.
pub(super) const UNKNOWN: &str = "\
it was never accepted; or it is not durable, has ended, and its record is gone: with the confirmation of whoever waited \
for it, after the time that scheduler.queue.result-keep says, or with the scheduler that kept it";

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
    /// Print the record of an activation, or the state it is in, as JSON
    #[command(after_help = EXAMPLES)]
    Get {
        /// Its id: 32 hex digits
        id: ActivationId,
        /// Wait so long for its end
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        wait: Option<Duration>,
    },
    /// End an activation: one that has not begun never does, one that runs is stopped; harmless to repeat
    #[command(after_help = EXAMPLES)]
    Cancel {
        /// Its id: 32 hex digits
        id: ActivationId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Carries the command out.
///
/// # Errors
/// If no scheduler knows the activation, its record has expired, or it had ended before it was to be cancelled.
pub(crate) async fn run(args: ActivationArgs, config: &Config) -> Result<(), Failure> {
    let client = connect(config).await?;
    match args.command {
        ActivationCommand::Get { id, wait } => get(&client, &config.namespace, id, wait).await,
        ActivationCommand::Cancel { id, json } => cancel(&client, &config.namespace, id, json).await,
    }
}

async fn get(
    client: &Client,
    namespace: &NamespaceName,
    id: ActivationId,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    if let Some(wait) = wait {
        let waited = client.result(namespace, id, wait).await;
        waited.map_err(|error| result_failure(id, error, namespace, wait))?;
    }
    let found = client.find_activation(namespace, id).await;
    let found = found.map_err(|error| unsure(id, error))?;
    let found = found.ok_or_else(|| unknown(id, namespace))?;
    if found.progress == Progress::Gone {
        return Err(gone(id));
    }
    output::json(&found_json(id, &found));
    Ok(())
}

async fn cancel(
    client: &Client,
    namespace: &NamespaceName,
    id: ActivationId,
    json: bool,
) -> Result<(), Failure> {
    let outcome = client.cancel(namespace, id).await.map_err(call_failure)?;
    let (name, text) = match outcome {
        CancelOutcome::Unknown => return Err(unknown(id, namespace)),
        CancelOutcome::BeforeStart => ("before-start", "is cancelled and never begins".to_owned()),
        CancelOutcome::Stopping => ("stopping", "may have begun; it is being stopped".to_owned()),
        CancelOutcome::Ended => match ended(client, namespace, id).await? {
            Some(record) if record.cancelled => ("ended", "was cancelled before".to_owned()),
            Some(record) => return Err(too_late(id, &format!(" with {}", record.status.text()))),
            None => return Err(too_late(id, "")),
        },
    };
    if json {
        output::json(&json!({ "activationId": id.to_string(), "outcome": name }));
    } else {
        output::line(format_args!("activation {id} {text}"));
    }
    Ok(())
}

/// The record of one that has ended, if it is kept.
async fn ended(
    client: &Client,
    namespace: &NamespaceName,
    id: ActivationId,
) -> Result<Option<Box<ActivationRecord>>, Failure> {
    let found = client.find_activation(namespace, id).await;
    Ok(match found.map_err(call_failure)?.map(|found| found.progress) {
        Some(Progress::Done(record)) => Some(record),
        _ => None,
    })
}

fn too_late(id: ActivationId, how: &str) -> Failure {
    Failure::new(Exit::Failed, format!("activation {id} had ended before{how}"))
}

fn unknown(id: ActivationId, namespace: &NamespaceName) -> Failure {
    let text = format!("no scheduler knows activation {id} of namespace {namespace}");
    Failure::new(Exit::Failed, text).advise(UNKNOWN)
}

/// Somebody who may know it could not be asked.
fn unsure(id: ActivationId, error: CallError) -> Failure {
    match error {
        CallError::Unreachable { .. } => Failure::new(
            Exit::Unreachable,
            format!(
                "no scheduler that answered knows activation {id}, and one that may know it did not answer"
            ),
        )
        .caused_by(error),
        other => call_failure(other),
    }
}

/// The failure of a look at one whose record has expired.
pub(super) fn gone(id: ActivationId) -> Failure {
    let text = format!("activation {id} is gone: it has ended, and its record has expired");
    Failure::new(Exit::Gone, text)
        .advise("records are kept as long as scheduler.journal.retention says, 24 hours by default")
}

fn result_failure(
    id: ActivationId,
    error: ResultError,
    namespace: &NamespaceName,
    wait: Duration,
) -> Failure {
    match error {
        ResultError::Unknown { .. } => unknown(id, namespace),
        ResultError::Gone { .. } => gone(id),
        ResultError::NotYet { found, .. } => {
            let state = found.progress.name();
            let text = format!("activation {id} has not ended within {wait:?}; it is {state}");
            Failure::new(Exit::Failed, text).advise(format!("see `whiskraft explain {id}`, or wait longer"))
        }
        ResultError::Call(error) => unsure(id, error),
    }
}

/// A record, or the state of one that has not ended, with what is known beside.
pub(super) fn found_json(id: ActivationId, found: &FoundActivation) -> Value {
    let mut json = match &found.progress {
        Progress::Done(record) => record_json(record),
        _ => json!({ "activationId": id.to_string() }),
    };
    let moment = |at: Option<std::time::SystemTime>| at.map(show_moment);
    json["state"] = found.progress.name().into();
    json["queue"] = found.key.as_ref().map(ToString::to_string).into();
    json["durable"] = found.durable.into();
    json["runs"] = found.runs.into();
    json["accepted"] = moment(found.accepted).into();
    json["notBefore"] = moment(found.not_before).into();
    json["deadLetter"] = found.dead_letter.into();
    json
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
        "cancelled": record.cancelled,
        "run": record.run,
        "invoker": record.ran_on.map(|(invoker, _)| invoker.0),
        "container": record.ran_on.map(|(_, container)| container.to_string()),
        "logs": record.logs,
    })
}
