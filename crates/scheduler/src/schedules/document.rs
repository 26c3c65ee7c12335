//! The document of a schedule: checked and completed before it enters the log, read by whoever leads.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use whiskraft_proto::{InvalidMessage, Message, v1};
use whiskraft_state::DocumentKey;
use whiskraft_types::{ActionName, ActivationId, QueueKey};

use super::plan::{Missed, Plan, PlanError};

/// Kind of schedule documents.
pub(crate) const SCHEDULE: &str = "schedule";
/// Kind of the documents that say what became of schedules.
pub(super) const STATE: &str = "schedule-state";
/// Separates the ids of schedules from those of everything else that is hashed to an id.
const ID_DOMAIN: &[u8] = b"whiskraft-schedule-v1";

/// Why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScheduleError {
    /// The body is not a `Schedule` message.
    #[error("the body of a schedule document must be an encoded Schedule: {0}")]
    Undecodable(String),
    /// The action's name is malformed.
    #[error("schedule: {0}")]
    Field(#[from] InvalidMessage),
    /// The expression cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The arguments are no JSON object.
    #[error("the arguments of a schedule must be a JSON object: {0}")]
    Arguments(String),
}

/// A schedule that can be used.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    pub(super) queue: QueueKey,
    pub(super) plan: Plan,
    pub(super) arguments: Bytes,
    pub(super) paused: bool,
    pub(super) from_ms: u64,
}

impl Definition {
    /// Reads a document.
    ///
    /// # Errors
    /// Says what to change.
    pub(super) fn read(key: &DocumentKey, body: Bytes) -> Result<Self, ScheduleError> {
        let schedule =
            v1::Schedule::decode(body).map_err(|error| ScheduleError::Undecodable(error.to_string()))?;
        let action: ActionName = schedule.action.parse().map_err(InvalidMessage::from)?;
        let missed = match schedule.missed() {
            v1::MissedPolicy::Unspecified | v1::MissedPolicy::Skip => Missed::Skip,
            v1::MissedPolicy::RunOnce => Missed::RunOnce,
            v1::MissedPolicy::RunAll => Missed::RunAll,
        };
        let plan = Plan::new(&schedule.cron, missed)?;
        let arguments = if schedule.arguments.is_empty() {
            Bytes::from_static(b"{}")
        } else {
            schedule.arguments
        };
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&arguments)
            .map_err(|error| ScheduleError::Arguments(error.to_string()))?;
        Ok(Self {
            queue: QueueKey {
                namespace: key.namespace.clone(),
                action,
            },
            plan,
            arguments,
            paused: schedule.paused,
            from_ms: schedule.from_ms,
        })
    }
}

/// The body to store for a schedule that somebody wants stored: its slots begin now unless it says when.
///
/// # Errors
/// Says what to change.
pub(crate) fn stored(key: &DocumentKey, body: &Bytes, now_ms: u64) -> Result<Bytes, ScheduleError> {
    Definition::read(key, body.clone())?;
    let mut schedule =
        v1::Schedule::decode(body.clone()).map_err(|error| ScheduleError::Undecodable(error.to_string()))?;
    if schedule.from_ms == 0 {
        schedule.from_ms = now_ms;
    }
    Ok(schedule.encode_to_vec().into())
}

/// The activation of a slot: the same for everybody who fires it.
pub(super) fn slot_id(key: &DocumentKey, slot_ms: u64) -> ActivationId {
    let mut hash = Sha256::new();
    hash.update(ID_DOMAIN);
    for text in [key.namespace.as_str(), key.name.as_str()] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(slot_ms.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    ActivationId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> DocumentKey {
        DocumentKey {
            kind: SCHEDULE.to_owned(),
            namespace: "guest".parse().unwrap(),
            name: name.to_owned(),
        }
    }

    fn schedule() -> v1::Schedule {
        v1::Schedule {
            action: "guest/hello".to_owned(),
            cron: "*/5 * * * *".to_owned(),
            ..Default::default()
        }
    }

    fn store(schedule: &v1::Schedule) -> Result<v1::Schedule, String> {
        let body = Bytes::from(schedule.encode_to_vec());
        let stored = stored(&key("nightly"), &body, 77).map_err(|error| error.to_string())?;
        Ok(v1::Schedule::decode(stored).unwrap())
    }

    #[test]
    fn slots_begin_when_it_is_stored_unless_it_says_when() {
        assert_eq!(store(&schedule()).unwrap().from_ms, 77);
        let from = v1::Schedule {
            from_ms: 5,
            ..schedule()
        };
        assert_eq!(store(&from).unwrap().from_ms, 5);
    }

    #[test]
    fn each_mistake_is_named() {
        let mut action = schedule();
        action.action = "hello".to_owned();
        assert!(store(&action).unwrap_err().starts_with("schedule: "));
        let mut cron = schedule();
        cron.cron = "0 0 31 4 *".to_owned();
        assert!(store(&cron).unwrap_err().contains("never comes"));
        let mut arguments = schedule();
        arguments.arguments = Bytes::from_static(b"[1]");
        assert!(store(&arguments).unwrap_err().contains("must be a JSON object"));
    }

    #[test]
    fn a_slot_has_one_id_and_no_two_slots_share_one() {
        let id = slot_id(&key("a"), 1);
        assert_eq!(id, slot_id(&key("a"), 1));
        assert_ne!(id, slot_id(&key("a"), 2));
        assert_ne!(id, slot_id(&key("b"), 1));
    }
}
