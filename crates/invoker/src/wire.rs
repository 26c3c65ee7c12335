//! Between protocol messages and the pool's inputs and outputs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use whiskraft_pool::{
    Change, Completed, CreateContainer, Deliver, MemoryUse, RegisteredContainer, Registration, Report,
};
use whiskraft_proto::{InvalidMessage, activation_id, activation_id_bytes, required, v1};
use whiskraft_types::{ActionLimits, ByteSize, Epoch, Instant, Rejection, Revision, SchedulerId};

use crate::words::{ActionSpec, Delivery, Input, Record};

/// Annotation that decides whether an action is given the caller's key.
const PROVIDE_API_KEY: &str = "provide-api-key";
/// Annotation with the version that is shown to the action.
const VERSION: &str = "version";

pub(crate) fn create(create: v1::CreateContainer, now: Instant) -> Result<Input, InvalidMessage> {
    let action = required(create.action, "create.action")?;
    let limits = action.limits.unwrap_or_default();
    Ok(Input::Create(CreateContainer {
        container: required(create.container, "create.container")?.into(),
        key: required(create.key, "create.key")?.try_into()?,
        epoch: Epoch(create.epoch),
        leader: SchedulerId(create.leader),
        revision: Revision(create.revision),
        memory: ByteSize::bytes(limits.memory_bytes),
        concurrency: limits.concurrency,
        resume: create.resume.map(Into::into),
        evict_first: create.evict_first.into_iter().map(Into::into).collect(),
        deadline: now + Duration::from_millis(create.deadline_ms.into()),
        action: action_spec(action)
            .map(Arc::new)
            .map_err(|error| error.to_string()),
    }))
}

fn action_spec(action: v1::Action) -> Result<ActionSpec, InvalidMessage> {
    let code = match action.code_sha256.len() {
        0 => None,
        _ => Some(
            action
                .code_sha256
                .as_ref()
                .try_into()
                .map_err(|_| InvalidMessage::Invalid {
                    field: "action.code_sha256",
                    reason: format!("{} bytes, must be 32", action.code_sha256.len()),
                })?,
        ),
    };
    let annotation = |name: &str| {
        action
            .annotations
            .get(name)
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
    };
    let version = annotation(VERSION).and_then(|value| value.as_str().map(str::to_owned));
    Ok(ActionSpec {
        name: action.name.parse()?,
        code,
        limits: ActionLimits::try_from(required(action.limits, "action.limits")?)?,
        version: version.unwrap_or_else(|| "0.0.1".to_owned()),
        // An action without the annotation gets the key, as in OpenWhisk.
        provide_api_key: annotation(PROVIDE_API_KEY).is_none_or(|value| is_truthy(&value)),
        parameters: parameters(&action)?,
        kind: action.kind,
        main: action.main,
        binary: action.binary,
    })
}

fn parameters(action: &v1::Action) -> Result<Map<String, Value>, InvalidMessage> {
    let mut parameters = Map::new();
    for (name, text) in &action.parameters {
        let value = serde_json::from_str(text).map_err(|error| InvalidMessage::Invalid {
            field: "action.parameters",
            reason: format!("{name}: {error}"),
        })?;
        parameters.insert(name.clone(), value);
    }
    Ok(parameters)
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

pub(crate) fn deliver(
    from: SchedulerId,
    deliver: v1::Deliver,
    now: Instant,
) -> Result<Input, InvalidMessage> {
    Ok(Input::Deliver(Deliver {
        from,
        id: activation_id(&deliver.id)?,
        container: required(deliver.container, "deliver.container")?.into(),
        epoch: Epoch(deliver.epoch),
        // A scheduler that knows nothing of runs says none.
        run: deliver.run.max(1),
        content: Delivery {
            run: deliver.run.max(1),
            payload: deliver.payload,
            waited_ms: deliver.waited_ms,
            received_at: now,
            transaction: deliver.transaction,
            api_key: deliver.api_key,
        },
    }))
}

pub(crate) fn stop(from: SchedulerId, stop: v1::StopActivation) -> Result<Input, InvalidMessage> {
    Ok(Input::Stop {
        from,
        id: activation_id(&stop.id)?,
        container: required(stop.container, "stop.container")?.into(),
        epoch: Epoch(stop.epoch),
    })
}

pub(crate) fn reregister(from: SchedulerId, message: v1::Reregister) -> Result<Input, InvalidMessage> {
    let key = required(message.key, "reregister.key")?.try_into()?;
    Ok(Input::Reregister {
        from,
        key,
        epoch: Epoch(message.epoch),
    })
}

/// What a refused pull means. `None`: a change of leader, which its own message will announce, or a frame that took
/// no ask with it.
pub(crate) fn rejected(
    from: SchedulerId,
    message: v1::PullRejected,
) -> Result<Option<Input>, InvalidMessage> {
    let key = required(message.key, "rejected.key")?.try_into()?;
    let rejection = Rejection::try_from(required(message.rejection, "rejected.rejection")?)?;
    tracing::debug!(scheduler = %from, queue = %key, %rejection, "pull refused");
    Ok(match rejection {
        Rejection::NoQueue | Rejection::NoAction { .. } => Some(Input::QueueGone { from, key }),
        Rejection::NotLeader(_) => None,
        Rejection::Throttled { .. }
        | Rejection::TooLarge { .. }
        | Rejection::Draining
        | Rejection::Conflict
        | Rejection::StorageFull { .. }
        | Rejection::Unavailable { .. }
        | Rejection::Invalid { .. } => {
            let container = message.container.map(Into::into);
            container.map(|container| Input::PullRefused { from, container })
        }
    })
}

pub(crate) fn completed(completed: Completed<Record>) -> v1::Completed {
    v1::Completed {
        container: Some(completed.container.into()),
        key: Some((&completed.key).into()),
        epoch: completed.epoch.0,
        run_us: completed.record.run_us,
        record: Some(completed.record.activation),
        credits: completed.credits,
    }
}

pub(crate) fn registration(registration: Registration<Record>) -> v1::Register {
    v1::Register {
        key: Some((&registration.key).into()),
        epoch: registration.epoch.0,
        containers: registration.containers.into_iter().map(registered).collect(),
        unacknowledged: registration
            .unacknowledged
            .into_iter()
            .map(|record| record.activation)
            .collect(),
    }
}

fn registered(container: RegisteredContainer) -> v1::RegisteredContainer {
    v1::RegisteredContainer {
        container: Some(container.container.into()),
        revision: container.revision.0,
        in_flight: container.in_flight.into_iter().map(activation_id_bytes).collect(),
        credits: container.credits,
        warmed: container.warmed,
    }
}

pub(crate) fn report(report: Report) -> v1::ContainerReport {
    use v1::container_report::Change as Wire;

    v1::ContainerReport {
        seq: report.seq,
        container: Some(report.container.into()),
        key: Some((&report.key).into()),
        change: Some(match report.change {
            Change::Running => Wire::Running(v1::ContainerRunning {}),
            Change::Warm => Wire::Warm(v1::ContainerWarm {}),
            Change::Ended { reason } => Wire::Ended(v1::ContainerEnded { reason }),
            Change::Removed { reason } => Wire::Removed(v1::ContainerRemoved { reason }),
            Change::Failed { error, message } => {
                let error = v1::CreationError::from(error).into();
                Wire::Failed(v1::ContainerCreationFailed { error, message })
            }
        }),
    }
}

pub(crate) fn memory(memory: MemoryUse) -> v1::MemoryReport {
    v1::MemoryReport {
        total_bytes: memory.total.as_bytes(),
        busy_bytes: memory.busy.as_bytes(),
        reclaimable_bytes: memory.reclaimable.as_bytes(),
        healthy: memory.healthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Action;

    fn action(annotations: &[(&str, &str)]) -> v1::Action {
        v1::Action {
            name: "guest/hello".into(),
            kind: "sh".into(),
            limits: Some((&ActionLimits::default()).into()),
            annotations: annotations
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn key_is_given_unless_the_annotation_is_falsy() {
        let provides =
            |annotations: &[(&str, &str)]| action_spec(action(annotations)).unwrap().provide_api_key;
        assert!(provides(&[]));
        for (text, expected) in [
            ("true", true),
            ("false", false),
            ("0", false),
            ("\"\"", false),
            ("null", false),
        ] {
            assert_eq!(provides(&[(PROVIDE_API_KEY, text)]), expected, "{text}");
        }
    }

    #[test]
    fn useless_action_is_kept_with_its_reason() {
        let message = v1::CreateContainer {
            container: Some(v1::ContainerId { session: 1, seq: 1 }),
            key: Some(v1::QueueKey {
                namespace: "guest".into(),
                action: "guest/hello".into(),
            }),
            action: Some(v1::Action {
                code_sha256: vec![1].into(),
                ..action(&[])
            }),
            ..Default::default()
        };
        let Ok(Input::Create(create)) = create(message, Instant::ORIGIN) else {
            panic!("not a create")
        };
        assert_eq!(
            create.action,
            Err("field action.code_sha256: 1 bytes, must be 32".to_owned()) as Action
        );
    }
}
