//! The commands that talk to a cluster and end.

pub(crate) mod action;
pub(crate) mod activation;
mod advice;
pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod drain;
pub(crate) mod explain;
pub(crate) mod invoke;
pub(crate) mod letters;
pub(crate) mod log;
mod look;
pub(crate) mod namespace;
mod notice;
pub(crate) mod queue;
pub(crate) mod queues;
pub(crate) mod runtime;
pub(crate) mod schedule;
mod shown;
pub(crate) mod status;

use std::time::Duration;

use whiskraft_client::{ActionError, CallError, Client, ConnectError, Settings};

use crate::config::Config;
use crate::exit::{Exit, Failure};

/// Longest wait for a scheduler that can be used: several elections, and short enough for somebody at a terminal.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// What to do when no scheduler answers.
const UNREACHABLE_ADVICE: &str = "is it running? Name schedulers with --endpoints host:7401,… or start one on this machine with `whiskraft dev`";

/// A client of the cluster that the settings name.
///
/// # Errors
/// If no scheduler there answers.
pub(crate) async fn connect(config: &Config) -> Result<Client, Failure> {
    connect_with(&config.endpoints, Settings::default()).await
}

/// A client of the cluster at these endpoints, with settings of its own but for how long it waits.
///
/// # Errors
/// If no scheduler there answers.
pub(crate) async fn connect_with(endpoints: &[String], settings: Settings) -> Result<Client, Failure> {
    let settings = Settings {
        connect_deadline: CONNECT_WAIT_MAX,
        ..settings
    };
    let client = Client::builder()
        .endpoints(endpoints.iter().cloned())
        .settings(settings)
        .connect()
        .await;
    client.map_err(|error| match error {
        ConnectError::NoEndpoint | ConnectError::BadEndpoint { .. } => {
            Failure::new(Exit::Usage, "cannot use the endpoints").caused_by(error)
        }
        ConnectError::NoScheduler { .. } => Failure::new(Exit::Unreachable, "cannot reach the cluster")
            .caused_by(error)
            .advise(UNREACHABLE_ADVICE),
        ConnectError::WrongCluster { .. } => {
            Failure::new(Exit::Unreachable, "cannot use the cluster").caused_by(error)
        }
    })
}

/// The failure of a question to the cluster.
pub(crate) fn call_failure(error: CallError) -> Failure {
    let exit = match error {
        CallError::Unreachable { .. } => Exit::Unreachable,
        CallError::NoSuchScheduler { .. } | CallError::Rejected { .. } | CallError::BadAnswer { .. } => {
            Exit::Failed
        }
    };
    Failure::new(exit, "the cluster did not do it").caused_by(error)
}

/// The failure of an operation on an action.
pub(crate) fn action_failure(error: ActionError) -> Failure {
    match error {
        ActionError::Call(error) => call_failure(error),
        ActionError::Invalid { .. } => Failure::new(Exit::Usage, error.to_string()),
        ActionError::Conflict { .. } | ActionError::NotFound { .. } => {
            Failure::new(Exit::Failed, error.to_string())
        }
    }
}
