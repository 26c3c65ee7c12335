//! `whiskraft status`: the cluster at a glance.
//!
//! Any scheduler knows the members, invokers and containers; how many activations wait in a queue is known to its
//! leader only. So every member is asked, and the answers are put together.

use std::time::Duration;

use clap::Args;
use whiskraft_client::Client;

use super::{call_failure, connect};
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::output;
use crate::signals::Signals;
use crate::units::parse_duration;

mod overview;
mod tables;

use overview::Overview;

/// Clears a terminal and puts the cursor at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

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
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again
    #[arg(long, short = 'w')]
    watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "watch", value_parser = parse_duration)]
    interval: Duration,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Carries the command out.
///
/// # Errors
/// If no scheduler answers.
pub(crate) async fn run(args: StatusArgs, config: &Config) -> Result<(), Failure> {
    let client = connect(config).await?;
    if !args.watch {
        return show(&look(&client).await?, args.json);
    }
    let mut signals = Signals::install()?;
    loop {
        tokio::select! {
            overview = look(&client) => match overview {
                Ok(overview) => {
                    if !args.json {
                        output::bytes(CLEAR.as_bytes());
                    }
                    show(&overview, args.json)?;
                }
                // A cluster that is electing a leader answers again soon; keep watching.
                Err(failure) => eprintln!("{failure}"),
            },
            _ = signals.next() => return Ok(()),
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            _ = signals.next() => return Ok(()),
        }
    }
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

fn show(overview: &Overview, json: bool) -> Result<(), Failure> {
    if json {
        output::json(&serde_json::to_value(overview).expect("the overview is plain data"));
    } else {
        output::line(tables::render(overview));
    }
    Ok(())
}
