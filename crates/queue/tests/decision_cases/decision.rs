//! Cases of the decision table, given to the built-in rule as they are.

use std::time::Duration;

use whiskraft_queue::{BuiltInRule, Decision, DecisionRule as _, QueueState, Snapshot};

use crate::field::{Fields, Verdict, same};
use crate::flaw;

pub(crate) fn check(case: &Fields<'_>, flaw: Option<&str>) -> Result<Verdict, String> {
    let snapshot = snapshot(&case.object("in")?)?;
    let expected = decision(&case.object("expect")?)?;
    let found = BuiltInRule.decide(&snapshot);
    match flaw {
        None => same("decision", &expected, &found).map(|()| Verdict::AsOriginal),
        Some(flaw) => flaw::decision(flaw, &snapshot, expected, found),
    }
}

fn snapshot(fields: &Fields<'_>) -> Result<Snapshot, String> {
    let ratio = fields.float("over_provision_ratio")?;
    let is_over_allowed = fields.flag("allow_over_provision")?;
    let namespace_limit = fields.int("namespace_limit")?;
    let average = fields.value("average_duration_ms")?;
    Ok(Snapshot {
        state: state(fields.text("state")?)?,
        initialized: fields.flag("initialized")?,
        incoming: fields.int("incoming_msgs")?,
        waiting: fields.int("waiting_msgs")?,
        stale: fields.int("stale_msgs")?,
        existing: fields.int("existing")?,
        in_progress: fields.int("in_progress")?,
        existing_in_namespace: fields.int("existing_in_namespace")?,
        in_progress_in_namespace: fields.int("in_progress_in_namespace")?,
        average_ms: if average.is_null() {
            None
        } else {
            Some(fields.float("average_duration_ms")?)
        },
        namespace_limit,
        action_limit: fields.int("action_limit")?,
        concurrency: fields.int("max_concurrency")?,
        stale_threshold: Duration::from_millis(fields.millis("stale_threshold_ms")?),
        over_limit: is_over_allowed.then(|| (namespace_limit as f64 * ratio).ceil() as i64),
    })
}

fn state(name: &str) -> Result<QueueState, String> {
    Ok(match name {
        "Running" => QueueState::Running,
        "Idle" => QueueState::Idle,
        "NamespaceThrottled" => QueueState::NamespaceThrottled,
        "ActionThrottled" => QueueState::ActionThrottled,
        "Flushing" => QueueState::Flushing,
        "Removing" => QueueState::Draining,
        "Removed" => QueueState::Removed,
        other => return Err(format!("unknown state {other:?}")),
    })
}

fn decision(fields: &Fields<'_>) -> Result<Decision, String> {
    fields.only(&["decision", "num", "drop"])?;
    let count = fields.count32("num")?;
    let none = |decision| {
        if count == 0 {
            Ok(decision)
        } else {
            Err(format!("{decision:?} with {count}"))
        }
    };
    match fields.text("decision")? {
        "Skip" => none(Decision::Skip),
        "Pausing" => none(Decision::Pausing),
        "DisableNamespaceThrottling" => none(Decision::DisableNamespaceThrottling),
        "AddInitialContainer" => Ok(Decision::AddInitialContainer { count }),
        "AddContainer" => Ok(Decision::AddContainer { count }),
        "EnableNamespaceThrottling" => Ok(Decision::EnableNamespaceThrottling {
            count,
            drop: fields.flag("drop")?,
        }),
        other => Err(format!("unknown decision {other:?}")),
    }
}
