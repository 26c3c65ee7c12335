//! `whiskraft drain`: a scheduler gives its queues away, so that it can be stopped without anybody noticing.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use whiskraft_client::Operator;
use whiskraft_types::SchedulerId;

use super::{call_failure, connect};
use crate::arguments::whole;
use crate::cli::ClientArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::units::parse_duration;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft drain 2            # its queues move to the others; then stop it, upgrade it, start it again
  whiskraft drain 2 --undo     # it is given queues again
  whiskraft drain 2 --wait 0s  # only give the order

The order is part of the cluster's state: it stands until --undo, also while the scheduler is down. `whiskraft status`
shows who drains. The last scheduler that could lead queues is never drained.";

/// Time between two looks at how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Arguments of `whiskraft drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Number of the scheduler, as `whiskraft status` shows it
    #[arg(value_parser = whole::<u64, 1, { u64::MAX }>)]
    scheduler: u64,
    /// Take the order back
    #[arg(long)]
    undo: bool,
    /// How long to wait until it leads no queue
    #[arg(long, value_name = "TIME", default_value = "60s", conflicts_with = "undo", value_parser = parse_duration)]
    wait: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Carries the command out.
///
/// # Errors
/// If the cluster refuses, or queues are left when the wait is over.
pub(crate) async fn run(args: DrainArgs, config: &Config) -> Result<(), Failure> {
    let scheduler = SchedulerId(args.scheduler);
    let operator = connect(config).await?.operator();
    if args.undo {
        operator.undrain(scheduler).await.map_err(call_failure)?;
        say(
            &args,
            None,
            &format!("scheduler {scheduler} is given queues again"),
        );
        return Ok(());
    }
    let left = drain(&operator, scheduler, args.wait).await?;
    if left == 0 {
        say(
            &args,
            Some(0),
            &format!(
                "scheduler {scheduler} leads no queues and is given none until `whiskraft drain {scheduler} --undo`"
            ),
        );
        return Ok(());
    }
    if args.wait.is_zero() {
        say(
            &args,
            Some(left),
            &format!("scheduler {scheduler} drains; it still leads {left} queues"),
        );
        return Ok(());
    }
    let text = format!(
        "scheduler {scheduler} still leads {left} queues after {:?}",
        args.wait
    );
    Err(Failure::new(Exit::Failed, text).advise(format!(
        "the order stands: run it again to go on waiting, or take it back with `whiskraft drain {scheduler} --undo`"
    )))
}

/// Gives the order and waits; says how many queues are left.
async fn drain(operator: &Operator, scheduler: SchedulerId, wait: Duration) -> Result<u64, Failure> {
    let mut left = operator.drain(scheduler).await.map_err(call_failure)?;
    let bar = ProgressBar::new(left).with_style(style());
    bar.set_message(format!("queues of scheduler {scheduler} moved"));
    let waiting = async {
        while left > 0 {
            tokio::time::sleep(LOOK_INTERVAL).await;
            // Repeating the order changes nothing, and tells how many are left.
            left = operator.drain(scheduler).await.map_err(call_failure)?;
            // Queues made before every scheduler knew of the order may come on top.
            bar.set_length(bar.length().unwrap_or(0).max(left));
            bar.set_position(bar.length().unwrap_or(0) - left);
        }
        Ok(())
    };
    let ended = tokio::time::timeout(wait, waiting).await;
    bar.finish_and_clear();
    ended.unwrap_or(Ok(()))?;
    Ok(left)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}").expect("the template is valid")
}

fn say(args: &DrainArgs, queues_left: Option<u64>, text: &str) {
    if args.json {
        output::json(&json!({
            "scheduler": args.scheduler,
            "draining": !args.undo,
            "queues_left": queues_left,
        }));
    } else {
        output::line(text);
    }
}
