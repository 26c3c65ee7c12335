//! The retry policy of an action: flags for the annotations that the schedulers read.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::arguments::whole;
use crate::units::{parse_duration, parse_time, show_duration};

/// What happens to durable activations of the action that fail.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Failed runs of durable activations")]
pub(super) struct RetryArgs {
    /// Most runs of one activation; above 1, one that fails runs again, and after the last run it becomes a dead letter
    #[arg(long, value_name = "N", value_parser = whole::<u32, 1, 100>)]
    retry_attempts: Option<u32>,
    /// Pause before the second run; it doubles with every further one
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "retry_attempts")]
    retry_backoff: Option<Duration>,
    /// Longest pause between two runs
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "retry_attempts")]
    retry_backoff_max: Option<Duration>,
    /// No further run of an activation that was accepted longer ago
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "retry_attempts")]
    retry_max_age: Option<Duration>,
    /// Run it again also when its invoker or container was lost while it may have begun: for actions to which a second
    /// start does no harm
    #[arg(long)]
    retry_on_loss: bool,
}

impl RetryArgs {
    /// The annotations that say it; those that were not asked for are left out.
    pub(super) fn annotations(&self) -> BTreeMap<String, Value> {
        let time = |time: Option<Duration>| time.map(|time| json!(show_duration(time)));
        let given = [
            ("retry-attempts", self.retry_attempts.map(|runs| json!(runs))),
            ("retry-backoff", time(self.retry_backoff)),
            ("retry-backoff-max", time(self.retry_backoff_max)),
            ("retry-max-age", time(self.retry_max_age)),
            ("retry-on-loss", self.retry_on_loss.then_some(json!(true))),
        ];
        given
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_becomes_an_annotation() {
        assert!(RetryArgs::default().annotations().is_empty());
        let policy = RetryArgs {
            retry_attempts: Some(5),
            retry_backoff: Some(Duration::from_millis(1500)),
            retry_backoff_max: Some(Duration::from_secs(60)),
            retry_max_age: Some(Duration::from_secs(3600)),
            retry_on_loss: true,
        };
        assert_eq!(
            json!(policy.annotations()),
            json!({
                "retry-attempts": 5,
                "retry-backoff": "1s 500ms",
                "retry-backoff-max": "1m",
                "retry-max-age": "1h",
                "retry-on-loss": true,
            })
        );
    }
}
