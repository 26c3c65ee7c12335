//! Schedules as callers write and read them, and their stored form.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::Value;
use whiskraft_proto::{Message, activation_id, v1};
use whiskraft_types::{ActionName, ActivationId, Revision};

use crate::durability::unix_ms;
use crate::find::moment;

/// What happens to slots that nobody could fire in time, as after an outage of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedPolicy {
    /// They are counted and never run.
    #[default]
    Skip,
    /// The newest of them runs.
    RunOnce,
    /// All of them run, in order.
    RunAll,
}

/// A schedule: an action that is to be run at the times of a cron expression.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleSpec {
    /// What is run, in the namespace that the schedule is stored in.
    pub action: ActionName,
    /// Five fields (minute, hour, day of month, month, day of week), or six with the second before them, or `@hourly`
    /// and the like; in UTC. Each time it names is a slot.
    pub cron: String,
    /// Arguments of every run.
    pub arguments: BTreeMap<String, Value>,
    /// What happens to slots that were missed.
    pub missed: MissedPolicy,
    /// Whether no slot is due for now.
    pub paused: bool,
    /// Slots after this moment are due; `None`: after it is stored.
    pub from: Option<SystemTime>,
}

/// What became of a schedule so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScheduleProgress {
    /// Every slot up to here was fired, or skipped by the policy; `None`: none was due yet.
    pub settled: Option<SystemTime>,
    /// Slots that were fired.
    pub fired: u64,
    /// Slots that were skipped, up to 10,000 counted per outage.
    pub skipped: u64,
    /// Activation of the last slot that was fired.
    pub last: Option<ActivationId>,
    /// Why the last slot could not be fired; empty when it was.
    pub last_error: String,
}

/// A stored schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSchedule {
    /// Its name in its namespace.
    pub name: String,
    /// Revision of this content.
    pub revision: Revision,
    /// What was stored; [`from`](ScheduleSpec::from) is known now.
    pub spec: ScheduleSpec,
    /// What became of it.
    pub progress: ScheduleProgress,
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleSummary {
    /// Its name in its namespace.
    pub name: String,
    /// Revision of its content.
    pub revision: Revision,
}

/// A part of the schedules of a namespace, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulePage {
    /// The schedules.
    pub schedules: Vec<ScheduleSummary>,
    /// Where the next page starts; `None`: this is the last one.
    pub next: Option<String>,
}

impl ScheduleSpec {
    /// A schedule without arguments that skips what it missed.
    #[must_use]
    pub fn new(action: ActionName, cron: impl Into<String>) -> Self {
        Self {
            action,
            cron: cron.into(),
            arguments: BTreeMap::new(),
            missed: MissedPolicy::default(),
            paused: false,
            from: None,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let missed = match self.missed {
            MissedPolicy::Skip => v1::MissedPolicy::Skip,
            MissedPolicy::RunOnce => v1::MissedPolicy::RunOnce,
            MissedPolicy::RunAll => v1::MissedPolicy::RunAll,
        };
        let arguments = match self.arguments.is_empty() {
            true => Bytes::new(),
            false => Value::Object(self.arguments.clone().into_iter().collect())
                .to_string()
                .into(),
        };
        let schedule = v1::Schedule {
            action: self.action.to_string(),
            cron: self.cron.clone(),
            arguments,
            missed: missed.into(),
            paused: self.paused,
            from_ms: self.from.map_or(0, unix_ms),
        };
        schedule.encode_to_vec().into()
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, String> {
        let schedule =
            v1::Schedule::decode(body).map_err(|error| format!("the document is no schedule: {error}"))?;
        let missed = match schedule.missed() {
            v1::MissedPolicy::Unspecified | v1::MissedPolicy::Skip => MissedPolicy::Skip,
            v1::MissedPolicy::RunOnce => MissedPolicy::RunOnce,
            v1::MissedPolicy::RunAll => MissedPolicy::RunAll,
        };
        let arguments = match schedule.arguments.is_empty() {
            true => BTreeMap::new(),
            false => serde_json::from_slice(&schedule.arguments)
                .map_err(|error| format!("its arguments are no JSON object: {error}"))?,
        };
        Ok(Self {
            action: schedule.action.parse().map_err(|error| format!("{error}"))?,
            cron: schedule.cron,
            arguments,
            missed,
            paused: schedule.paused,
            from: moment(schedule.from_ms),
        })
    }

    /// Whether what is stored is this; the cluster fills in a start that was left open.
    pub(crate) fn is_stored_as(&self, stored: &Self) -> bool {
        let from = self.from.or(stored.from);
        *stored == Self { from, ..self.clone() }
    }
}

impl ScheduleProgress {
    pub(crate) fn decode(body: Bytes) -> Result<Self, String> {
        let state =
            v1::ScheduleState::decode(body).map_err(|error| format!("the state of the schedule: {error}"))?;
        let last = match state.last_id.is_empty() {
            true => None,
            false => Some(activation_id(&state.last_id).map_err(|error| error.to_string())?),
        };
        Ok(Self {
            settled: moment(state.slot_ms),
            fired: state.fired,
            skipped: state.skipped,
            last,
            last_error: state.last_error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_is_stored_is_what_was_meant() {
        let plain = ScheduleSpec::new("guest/hello".parse().unwrap(), "*/5 * * * *");
        let full = ScheduleSpec {
            arguments: [("n".to_owned(), Value::from(7))].into(),
            missed: MissedPolicy::RunAll,
            paused: true,
            from: Some(UNIX_EPOCH + Duration::from_secs(9)),
            ..plain.clone()
        };
        for spec in [plain, full] {
            assert_eq!(ScheduleSpec::decode(spec.encode()), Ok(spec));
        }
    }

    #[test]
    fn a_start_that_was_left_open_is_still_the_same_schedule() {
        let meant = ScheduleSpec::new("guest/hello".parse().unwrap(), "@hourly");
        let stored = ScheduleSpec {
            from: Some(UNIX_EPOCH + Duration::from_secs(9)),
            ..meant.clone()
        };
        assert!(meant.is_stored_as(&stored));
        assert!(!stored.is_stored_as(&meant));
        let other = ScheduleSpec {
            cron: "@daily".to_owned(),
            ..stored
        };
        assert!(!meant.is_stored_as(&other));
    }
}
