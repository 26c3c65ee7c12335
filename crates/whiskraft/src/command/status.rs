//! `whiskraft status`: the cluster at a glance.
//!
//! Any scheduler knows the members, invokers and containers; how many activations wait in a queue is known to its
//! leader only. So every member is asked, and the answers are put together.

use clap::Args;
use whiskraft_client::Client;

use super::look::{LookArgs, look_again};
use super::{call_failure, connect};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::output;

mod overview;
mod tables;

use overview::Overview;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft status
  whiskraft status --watch                     # again every second until Ctrl-C
  whiskraft status --json | jq '.queues[] | {action, leader, waiting}'
  whiskraft status -e 10.0.0.1:7401,10.0.0.2:7401";

/// Arguments of `whiskraft status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Carries the command out.
///
/// # Errors
/// If no scheduler answers.
pub(crate) async fn run(args: StatusArgs, config: &Config) -> Result<(), Failure> {
    let client = connect(config).await?;
    look_again(&args.look, async || {
        let overview = look(&client).await?;
        Ok(if args.look.json {
            output::json_text(&serde_json::to_value(&overview).expect("the overview is plain data"))
        } else {
            tables::render(&overview)
        })
    })
    .await
}

/// Asks every scheduler; one answer is enough for a view of the cluster.
async fn look(client: &Client) -> Result<Overview, Failure> {
    let first = client.status().await.map_err(call_failure)?;
    let answers = client
        .status_all()
        .await
        .into_iter()
        .filter_map(|(_, answer)| answer.ok());
    Ok(Overview::new(first, answers.collect()))
}

#[cfg(test)]
pub(super) mod tests {
    pub(in super::super) use super::overview::tests::status;
}
