//! From rows and events of the replicated tables to the messages that controllers, invokers and operators read.

use whiskraft_proto::v1;
use whiskraft_raft::ProposeError;
use whiskraft_state::{
    ContainerRecord, ContainerState, DocumentKey, DocumentRecord, Event, InvokerRecord, MemberRecord,
    NamespaceRecord, QueueRecord, Refusal, SessionOwner, SessionRecord,
};
use whiskraft_types::{ContainerId, InvokerId, NamespaceName, QueueKey, Rejection, SchedulerId, SessionId};

pub(crate) fn member(id: SchedulerId, record: Option<&MemberRecord>) -> v1::MemberInfo {
    record.map_or_else(
        || v1::MemberInfo {
            scheduler: id.0,
            removed: true,
            ..Default::default()
        },
        |record| v1::MemberInfo {
            scheduler: id.0,
            peer_address: record.peer_address.clone(),
            client_address: record.client_address.clone(),
            zone: record.zone.clone(),
            version: record.version.clone(),
            draining: record.draining,
            removed: false,
        },
    )
}

pub(crate) fn queue(key: &QueueKey, record: Option<&QueueRecord>) -> v1::QueueInfo {
    v1::QueueInfo {
        key: Some(key.into()),
        leader: record.and_then(|record| record.leader).map_or(0, |(id, _)| id.0),
        epoch: record.map_or(0, |record| record.epoch.0),
        revision: record.map_or(0, |record| record.revision.0),
        removed: record.is_none(),
    }
}

pub(crate) fn container(id: ContainerId, record: &ContainerRecord, removed: bool) -> v1::ContainerInfo {
    let state = match record.state {
        _ if removed => v1::container_info::State::Removed,
        // For whoever watches it is gone; that its invoker keeps results of it is between that one and queue leaders.
        ContainerState::Ended => v1::container_info::State::Removed,
        ContainerState::InProgress => v1::container_info::State::InProgress,
        ContainerState::Running => v1::container_info::State::Running,
        ContainerState::Warm => v1::container_info::State::Warm,
    };
    v1::ContainerInfo {
        container: Some(id.into()),
        key: Some((&record.key).into()),
        revision: record.revision.0,
        invoker: record.invoker.map_or(0, |(id, _)| id.0),
        state: state.into(),
    }
}

pub(crate) fn invoker(id: InvokerId, record: Option<&InvokerRecord>) -> v1::InvokerInfo {
    record.map_or_else(
        || v1::InvokerInfo {
            invoker: id.0,
            removed: true,
            ..Default::default()
        },
        |record| v1::InvokerInfo {
            invoker: id.0,
            session: record.session.0,
            healthy: record.healthy,
            memory_total_bytes: record.profile.memory.as_bytes(),
            memory_busy_bytes: record.busy.as_bytes(),
            memory_reclaimable_bytes: record.reclaimable.as_bytes(),
            tags: record.profile.tags.clone(),
            zone: record.profile.zone.clone(),
            removed: false,
            suspicion: String::new(),
        },
    )
}

fn namespace(name: &NamespaceName, record: Option<&NamespaceRecord>) -> v1::NamespaceInfo {
    v1::NamespaceInfo {
        name: name.to_string(),
        containers: record.map_or(0, |record| record.limits.containers),
        removed: record.is_none(),
        over_provision_percent: record.map_or(0, |record| record.limits.over_provision_percent),
        invocations_per_minute: record.and_then(|record| record.limits.invocations_per_minute),
        weight: record.map_or(0, |record| record.limits.weight),
    }
}

pub(crate) fn document_key(key: &DocumentKey) -> v1::DocumentKey {
    v1::DocumentKey {
        kind: key.kind.clone(),
        namespace: key.namespace.to_string(),
        name: key.name.clone(),
    }
}

fn document(key: &DocumentKey, record: Option<&DocumentRecord>) -> v1::DocumentInfo {
    v1::DocumentInfo {
        kind: key.kind.clone(),
        namespace: key.namespace.to_string(),
        name: key.name.clone(),
        revision: record.map_or(0, |record| record.revision.0),
        removed: record.is_none(),
    }
}

fn session(id: SessionId, record: Option<&SessionRecord>) -> v1::SessionInfo {
    let owner = record.map(|record| match &record.owner {
        SessionOwner::Scheduler(id) => format!("scheduler {id}"),
        SessionOwner::Invoker { id, .. } => format!("invoker {id}"),
    });
    v1::SessionInfo {
        session: id.0,
        removed: owner.is_none(),
        owner: owner.unwrap_or_default(),
    }
}

/// The table an event belongs to.
pub(crate) const fn table(event: &Event) -> v1::Table {
    match event {
        Event::Member(..) => v1::Table::Members,
        Event::Session(..) => v1::Table::Sessions,
        Event::Queue(..) | Event::HandedOver { .. } => v1::Table::Queues,
        Event::Container { .. } => v1::Table::Containers,
        Event::Invoker(..) => v1::Table::Invokers,
        Event::NamespaceThrottle(..) | Event::ActionThrottle(..) => v1::Table::Throttles,
        Event::Namespace(..) => v1::Table::Namespaces,
        Event::Document(..) => v1::Table::Documents,
    }
}

/// An event as watchers read it.
pub(crate) fn event(event: &Event) -> v1::WatchEvent {
    use v1::watch_event::Event as E;

    let event = match event {
        Event::Member(id, record) => E::Member(member(*id, record.as_ref())),
        Event::Session(id, record) => E::Session(session(*id, record.as_ref())),
        Event::Queue(key, record) => E::Queue(queue(key, record.as_ref())),
        Event::Container {
            id, record, removed, ..
        } => E::Container(container(*id, record, *removed)),
        Event::Invoker(id, record) => E::Invoker(invoker(*id, record.as_ref())),
        Event::NamespaceThrottle(name, throttled) => E::Throttle(v1::ThrottleInfo {
            namespace: name.to_string(),
            action: String::new(),
            throttled: *throttled,
        }),
        Event::ActionThrottle(key, throttled) => E::Throttle(v1::ThrottleInfo {
            namespace: key.namespace.to_string(),
            action: key.action.to_string(),
            throttled: *throttled,
        }),
        Event::Namespace(name, record) => E::Namespace(namespace(name, record.as_ref())),
        Event::Document(key, record) => E::Document(document(key, record.as_ref())),
        // Watchers see the change of leader that follows.
        Event::HandedOver { .. } => return v1::WatchEvent { event: None },
    };
    v1::WatchEvent { event: Some(event) }
}

/// What a refused command means to whoever asked for it.
pub(crate) fn refusal(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::NoAction { action } => Rejection::NoAction { action },
        Refusal::Held { .. } => Rejection::Conflict,
        Refusal::NoScheduler | Refusal::NoSession { .. } => Rejection::Unavailable {
            reason: refusal.to_string(),
        },
        Refusal::StaleEpoch { .. }
        | Refusal::Conflict { .. }
        | Refusal::MissingBlob { .. }
        | Refusal::NotFound
        | Refusal::Invalid { .. } => Rejection::Invalid {
            reason: refusal.to_string(),
        },
    }
}

/// A proposal that failed: whether or not it takes effect, asking again is right, as every command is idempotent.
pub(crate) fn propose_error(error: &ProposeError) -> Rejection {
    match error {
        ProposeError::Full(reason) => Rejection::StorageFull {
            reason: reason.clone(),
        },
        ProposeError::Unavailable(_) | ProposeError::Unknown(_) => Rejection::Unavailable {
            reason: error.to_string(),
        },
    }
}

/// An answer to a command that no rule allows; somebody has to look.
pub(crate) fn unexpected(what: &'static str) -> Rejection {
    tracing::error!(command = what, "answer of the wrong kind to a command");
    Rejection::Unavailable {
        reason: format!("unexpected answer to {what}; see this scheduler's log"),
    }
}
