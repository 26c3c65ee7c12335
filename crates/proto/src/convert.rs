//! Between messages and `types`: `From` towards the wire, `TryFrom` from it, once, at the edge.
//!
//! A message that lacks a field or holds a value outside its range becomes an [`InvalidMessage`] that names the
//! field; whoever received it answers with a typed rejection and goes on.

use std::time::Duration;

use bytes::Bytes;
use whiskraft_types as types;
use whiskraft_types::{
    ActivationId, ByteSize, Epoch, InvokerId, NameError, ParseIdError, SchedulerId, SessionId,
};

use crate::v1;

/// Why a message cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// A required field is not set.
    #[error("field {field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field holds a value that is not allowed.
    #[error("field {field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with the value.
        reason: String,
    },
    /// A name breaks the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An id has the wrong form.
    #[error(transparent)]
    Id(#[from] ParseIdError),
}

/// The value of a message field that must be set.
///
/// # Errors
/// [`InvalidMessage::Missing`] with the field's name.
pub fn required<T>(value: Option<T>, field: &'static str) -> Result<T, InvalidMessage> {
    value.ok_or(InvalidMessage::Missing { field })
}

/// An activation id from its 16 bytes.
///
/// # Errors
/// [`InvalidMessage::Id`] for any other length.
pub fn activation_id(bytes: &[u8]) -> Result<ActivationId, InvalidMessage> {
    Ok(ActivationId::try_from(bytes)?)
}

/// The bytes of an activation id as they travel.
#[must_use]
pub fn activation_id_bytes(id: ActivationId) -> Bytes {
    // One allocation; a copy that is cloned, as the encoder does, costs a second one.
    Bytes::from_owner(*id.as_bytes())
}

/// An incarnation or controller identity from its 16 bytes.
///
/// # Errors
/// [`InvalidMessage::Invalid`] with the field's name for any other length.
pub fn identity(bytes: &[u8], field: &'static str) -> Result<[u8; 16], InvalidMessage> {
    bytes.try_into().map_err(|_| InvalidMessage::Invalid {
        field,
        reason: format!("{} bytes, must be 16", bytes.len()),
    })
}

impl From<&types::QueueKey> for v1::QueueKey {
    fn from(key: &types::QueueKey) -> Self {
        Self {
            namespace: key.namespace.to_string(),
            action: key.action.to_string(),
        }
    }
}

impl TryFrom<v1::QueueKey> for types::QueueKey {
    type Error = InvalidMessage;

    fn try_from(key: v1::QueueKey) -> Result<Self, InvalidMessage> {
        Ok(Self {
            namespace: key.namespace.parse()?,
            action: key.action.parse()?,
        })
    }
}

impl From<types::ContainerId> for v1::ContainerId {
    fn from(id: types::ContainerId) -> Self {
        Self {
            session: id.session.0,
            seq: id.seq,
        }
    }
}

impl From<v1::ContainerId> for types::ContainerId {
    fn from(id: v1::ContainerId) -> Self {
        Self {
            session: SessionId(id.session),
            seq: id.seq,
        }
    }
}

impl From<&types::ActionLimits> for v1::ActionLimits {
    fn from(limits: &types::ActionLimits) -> Self {
        Self {
            timeout_ms: u32::try_from(limits.timeout.as_millis()).unwrap_or(u32::MAX),
            memory_bytes: limits.memory.as_bytes(),
            logs_bytes: limits.logs.as_bytes(),
            concurrency: limits.concurrency,
            instances: limits.instances,
        }
    }
}

impl TryFrom<v1::ActionLimits> for types::ActionLimits {
    type Error = InvalidMessage;

    fn try_from(limits: v1::ActionLimits) -> Result<Self, InvalidMessage> {
        let positive = |field, value: u64| match value {
            0 => Err(InvalidMessage::Invalid {
                field,
                reason: "0, must be at least 1".to_owned(),
            }),
            _ => Ok(()),
        };
        positive("limits.timeout_ms", limits.timeout_ms.into())?;
        positive("limits.memory_bytes", limits.memory_bytes)?;
        positive("limits.concurrency", limits.concurrency.into())?;
        Ok(Self {
            timeout: Duration::from_millis(limits.timeout_ms.into()),
            memory: ByteSize::bytes(limits.memory_bytes),
            logs: ByteSize::bytes(limits.logs_bytes),
            concurrency: limits.concurrency,
            instances: limits.instances,
        })
    }
}

impl From<types::ActivationStatus> for v1::Status {
    fn from(status: types::ActivationStatus) -> Self {
        match status {
            types::ActivationStatus::Success => Self::Success,
            types::ActivationStatus::ApplicationError => Self::ApplicationError,
            types::ActivationStatus::DeveloperError => Self::DeveloperError,
            types::ActivationStatus::WhiskError => Self::WhiskError,
        }
    }
}

impl TryFrom<v1::Status> for types::ActivationStatus {
    type Error = InvalidMessage;

    fn try_from(status: v1::Status) -> Result<Self, InvalidMessage> {
        match status {
            v1::Status::Unspecified => Err(InvalidMessage::Missing { field: "status" }),
            v1::Status::Success => Ok(Self::Success),
            v1::Status::ApplicationError => Ok(Self::ApplicationError),
            v1::Status::DeveloperError => Ok(Self::DeveloperError),
            v1::Status::WhiskError => Ok(Self::WhiskError),
        }
    }
}

impl From<types::ActivationRecord<Bytes>> for v1::ActivationRecord {
    fn from(record: types::ActivationRecord<Bytes>) -> Self {
        Self {
            id: activation_id_bytes(record.id),
            status: v1::Status::from(record.status).into(),
            result: record.result,
            logs: record.logs,
            start_ms: record.start_ms,
            end_ms: record.end_ms,
            init_ms: record.init_ms,
            wait_ms: record.wait_ms,
            timed_out: record.timed_out,
            invoker: record.ran_on.map(|(invoker, _)| invoker.0),
            container: record.ran_on.map(|(_, container)| container.into()),
            run: record.run,
            cancelled: record.cancelled,
        }
    }
}

impl TryFrom<v1::ActivationRecord> for types::ActivationRecord<Bytes> {
    type Error = InvalidMessage;

    fn try_from(record: v1::ActivationRecord) -> Result<Self, InvalidMessage> {
        Ok(Self {
            id: activation_id(&record.id)?,
            status: record.status().try_into()?,
            ran_on: record
                .invoker
                .map(InvokerId)
                .zip(record.container.map(Into::into)),
            result: record.result,
            logs: record.logs,
            start_ms: record.start_ms,
            end_ms: record.end_ms,
            init_ms: record.init_ms,
            wait_ms: record.wait_ms,
            timed_out: record.timed_out,
            run: record.run.max(1),
            cancelled: record.cancelled,
        })
    }
}

impl From<types::CreationError> for v1::CreationError {
    fn from(error: types::CreationError) -> Self {
        match error {
            types::CreationError::NoAvailableInvokers => Self::NoAvailableInvokers,
            types::CreationError::NoAvailableResources => Self::NoAvailableResources,
            types::CreationError::ResourceNotEnough => Self::ResourceNotEnough,
            types::CreationError::Whisk => Self::Whisk,
            types::CreationError::Unknown => Self::Unknown,
            types::CreationError::ShuttingDown => Self::ShuttingDown,
            types::CreationError::Timeout => Self::Timeout,
            types::CreationError::ZeroNamespaceLimit => Self::ZeroNamespaceLimit,
            types::CreationError::NonExecutable => Self::NonExecutable,
            types::CreationError::Fetch => Self::Fetch,
            types::CreationError::BlackBox => Self::BlackBox,
            types::CreationError::InvalidLimit => Self::InvalidLimit,
        }
    }
}

impl From<v1::CreationError> for types::CreationError {
    /// A kind that this release does not know counts as `Unknown`, which is retryable.
    fn from(error: v1::CreationError) -> Self {
        match error {
            v1::CreationError::Unspecified | v1::CreationError::Unknown => Self::Unknown,
            v1::CreationError::NoAvailableInvokers => Self::NoAvailableInvokers,
            v1::CreationError::NoAvailableResources => Self::NoAvailableResources,
            v1::CreationError::ResourceNotEnough => Self::ResourceNotEnough,
            v1::CreationError::Whisk => Self::Whisk,
            v1::CreationError::ShuttingDown => Self::ShuttingDown,
            v1::CreationError::Timeout => Self::Timeout,
            v1::CreationError::ZeroNamespaceLimit => Self::ZeroNamespaceLimit,
            v1::CreationError::NonExecutable => Self::NonExecutable,
            v1::CreationError::Fetch => Self::Fetch,
            v1::CreationError::BlackBox => Self::BlackBox,
            v1::CreationError::InvalidLimit => Self::InvalidLimit,
        }
    }
}

impl From<types::ThrottleScope> for v1::throttled::Scope {
    fn from(scope: types::ThrottleScope) -> Self {
        match scope {
            types::ThrottleScope::Namespace => Self::Namespace,
            types::ThrottleScope::Action => Self::Action,
            types::ThrottleScope::Stream => Self::Stream,
            types::ThrottleScope::Rate => Self::Rate,
            types::ThrottleScope::Results => Self::Results,
        }
    }
}

impl From<types::WaitReason> for v1::WaitReason {
    fn from(reason: types::WaitReason) -> Self {
        use types::WaitReason as W;

        match reason {
            W::Fenced => Self::Fenced,
            W::Draining => Self::Draining,
            W::HeldBack => Self::HeldBack,
            W::TakingOver => Self::TakingOver,
            W::ResultsOwed => Self::ResultsOwed,
            W::NamespaceLimitZero => Self::NamespaceLimitZero,
            W::ActionBroken => Self::ActionBroken,
            W::NoInvoker => Self::NoInvoker,
            W::NoMemory => Self::NoMemory,
            W::CreationFailing => Self::CreationFailing,
            W::ContainerStarting => Self::ContainerStarting,
            W::NamespaceLimit => Self::NamespaceLimit,
            W::ActionLimit => Self::ActionLimit,
            W::ContainersBusy => Self::ContainersBusy,
            W::Deciding => Self::Deciding,
        }
    }
}

impl From<types::Rejection> for v1::Rejection {
    fn from(rejection: types::Rejection) -> Self {
        use types::Rejection as R;
        use v1::rejection::Kind;

        let kind = match rejection {
            R::NotLeader(to) => Kind::NotLeader(v1::NotLeader {
                leader: to.leader.map_or(0, |id| id.0),
                epoch: to.epoch.0,
            }),
            R::NoQueue => Kind::NoQueue(v1::NoQueue {}),
            R::Throttled {
                scope,
                limit,
                retry_after,
            } => Kind::Throttled(v1::Throttled {
                scope: v1::throttled::Scope::from(scope).into(),
                limit,
                retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
            }),
            R::TooLarge { len, len_max } => Kind::TooLarge(v1::TooLarge { len, len_max }),
            R::Draining => Kind::Draining(v1::Draining {}),
            R::Conflict => Kind::Conflict(v1::Conflict {}),
            R::Unavailable { reason } => Kind::Unavailable(v1::Unavailable { reason }),
            R::Invalid { reason } => Kind::Invalid(v1::Invalid { reason }),
            R::StorageFull { reason } => Kind::StorageFull(v1::StorageFull { reason }),
            R::NoAction { action } => Kind::NoAction(v1::NoAction { action }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Rejection> for types::Rejection {
    type Error = InvalidMessage;

    fn try_from(rejection: v1::Rejection) -> Result<Self, InvalidMessage> {
        use v1::rejection::Kind;

        Ok(match required(rejection.kind, "rejection.kind")? {
            Kind::NotLeader(to) => Self::NotLeader(types::NotLeader {
                leader: (to.leader != 0).then_some(SchedulerId(to.leader)),
                epoch: Epoch(to.epoch),
            }),
            Kind::NoQueue(_) => Self::NoQueue,
            Kind::Throttled(throttled) => Self::Throttled {
                scope: match throttled.scope() {
                    v1::throttled::Scope::Unspecified => {
                        return Err(InvalidMessage::Missing {
                            field: "throttled.scope",
                        });
                    }
                    v1::throttled::Scope::Namespace => types::ThrottleScope::Namespace,
                    v1::throttled::Scope::Action => types::ThrottleScope::Action,
                    v1::throttled::Scope::Stream => types::ThrottleScope::Stream,
                    v1::throttled::Scope::Rate => types::ThrottleScope::Rate,
                    v1::throttled::Scope::Results => types::ThrottleScope::Results,
                },
                limit: throttled.limit,
                retry_after: Duration::from_millis(throttled.retry_after_ms.into()),
            },
            Kind::TooLarge(large) => Self::TooLarge {
                len: large.len,
                len_max: large.len_max,
            },
            Kind::Draining(_) => Self::Draining,
            Kind::Conflict(_) => Self::Conflict,
            Kind::Unavailable(v1::Unavailable { reason }) => Self::Unavailable { reason },
            Kind::Invalid(v1::Invalid { reason }) => Self::Invalid { reason },
            Kind::StorageFull(v1::StorageFull { reason }) => Self::StorageFull { reason },
            Kind::NoAction(v1::NoAction { action }) => Self::NoAction { action },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use whiskraft_types::{
        ActivationRecord, ActivationStatus, ContainerId, CreationError, NotLeader, QueueKey, Rejection,
        ThrottleScope,
    };

    use super::*;

    #[test]
    fn every_creation_error_round_trips() {
        for error in CreationError::ALL {
            assert_eq!(CreationError::from(v1::CreationError::from(error)), error);
        }
    }

    #[test]
    fn every_rejection_round_trips() {
        let throttled = |scope, limit| Rejection::Throttled {
            scope,
            limit,
            retry_after: Duration::from_millis(250),
        };
        let all = [
            Rejection::NotLeader(NotLeader {
                leader: Some(SchedulerId(2)),
                epoch: Epoch(7),
            }),
            Rejection::NotLeader(NotLeader {
                leader: None,
                epoch: Epoch(7),
            }),
            Rejection::NoQueue,
            throttled(ThrottleScope::Namespace, Some(30)),
            throttled(ThrottleScope::Action, Some(10_000)),
            throttled(ThrottleScope::Stream, None),
            throttled(ThrottleScope::Rate, Some(0)),
            throttled(ThrottleScope::Results, Some(7)),
            Rejection::TooLarge { len: 10, len_max: 5 },
            Rejection::Draining,
            Rejection::StorageFull {
                reason: "disk".to_owned(),
            },
            Rejection::Conflict,
            Rejection::Unavailable {
                reason: "fenced".to_owned(),
            },
            Rejection::Invalid {
                reason: "not JSON".to_owned(),
            },
            Rejection::NoAction {
                action: "guest/hello".to_owned(),
            },
        ];
        for rejection in all {
            assert_eq!(
                Rejection::try_from(v1::Rejection::from(rejection.clone())),
                Ok(rejection)
            );
        }
    }

    #[test]
    fn record_round_trips() {
        let record = ActivationRecord {
            id: ActivationId::from_bytes([3; 16]),
            status: ActivationStatus::DeveloperError,
            result: Bytes::from_static(b"{\"error\":1}"),
            logs: vec!["a".to_owned()],
            start_ms: 1,
            end_ms: 2,
            init_ms: Some(1),
            wait_ms: 4,
            timed_out: true,
            ran_on: Some((
                InvokerId(0),
                ContainerId {
                    session: SessionId(9),
                    seq: 1,
                },
            )),
            run: 2,
            cancelled: true,
        };
        assert_eq!(
            ActivationRecord::try_from(v1::ActivationRecord::from(record.clone())),
            Ok(record)
        );
    }

    #[test]
    fn a_bad_message_names_its_field() {
        assert!(
            QueueKey::try_from(v1::QueueKey {
                namespace: " x".into(),
                action: "a/b".into()
            })
            .is_err()
        );
        assert_eq!(
            ActivationRecord::try_from(v1::ActivationRecord {
                id: vec![0; 16].into(),
                ..Default::default()
            }),
            Err(InvalidMessage::Missing { field: "status" }),
        );
        let limits = v1::ActionLimits {
            timeout_ms: 1,
            memory_bytes: 1,
            ..Default::default()
        };
        assert_eq!(
            types::ActionLimits::try_from(limits).map_err(|error| error.to_string()),
            Err("field limits.concurrency: 0, must be at least 1".to_owned()),
        );
    }
}
