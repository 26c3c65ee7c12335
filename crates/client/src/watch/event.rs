//! Typed changes of the replicated tables.

use whiskraft_proto::{InvalidMessage, required, v1};
use whiskraft_types::{
    ActionName, ByteSize, ContainerId, Epoch, InvokerId, NamespaceLimits, NamespaceName, QueueKey, Revision,
    SchedulerId, SessionId,
};

/// A table that can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Schedulers.
    Members,
    /// Queues with leader and epoch.
    Queues,
    /// Containers and the slots reserved for them.
    Containers,
    /// Invokers with health and memory.
    Invokers,
    /// Throttles of namespaces and queues.
    Throttles,
    /// Namespaces and their limits.
    Namespaces,
    /// Documents (names and revisions, not bodies).
    Documents,
    /// Sessions.
    Sessions,
}

impl Table {
    pub(crate) const fn to_wire(self) -> v1::Table {
        match self {
            Self::Members => v1::Table::Members,
            Self::Queues => v1::Table::Queues,
            Self::Containers => v1::Table::Containers,
            Self::Invokers => v1::Table::Invokers,
            Self::Throttles => v1::Table::Throttles,
            Self::Namespaces => v1::Table::Namespaces,
            Self::Documents => v1::Table::Documents,
            Self::Sessions => v1::Table::Sessions,
        }
    }
}

/// What is now true of one row. A row that went away says so with `removed`.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// A scheduler.
    Member(Member),
    /// A queue.
    Queue(Queue),
    /// A container.
    Container(Container),
    /// An invoker.
    Invoker(Invoker),
    /// A throttle.
    Throttle(Throttle),
    /// A namespace.
    Namespace(Namespace),
    /// A document.
    Document(Document),
    /// A session.
    Session(Session),
}

/// A scheduler of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub scheduler: SchedulerId,
    /// Where other schedulers reach it.
    pub peer_address: String,
    /// Where clients and invokers reach it; `None` until it announced itself.
    pub client_address: Option<String>,
    /// Zone, or empty.
    pub zone: String,
    /// Release.
    pub version: String,
    /// Whether it hands its queues over and takes no new ones.
    pub draining: bool,
    /// Whether it left the cluster.
    pub removed: bool,
}

/// A queue and who leads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The queue.
    pub key: QueueKey,
    /// Its leader; `None` while nobody leads.
    pub leader: Option<SchedulerId>,
    /// Epoch of that leadership.
    pub epoch: Epoch,
    /// Newest revision of the action.
    pub revision: Revision,
    /// Whether the queue is gone.
    pub removed: bool,
}

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// A slot is reserved, the container is being created.
    InProgress,
    /// It asks for activations or runs them.
    Running,
    /// Idle and kept.
    Warm,
    /// Gone.
    Removed,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The container.
    pub container: ContainerId,
    /// The queue it serves.
    pub key: QueueKey,
    /// Revision of the action it runs.
    pub revision: Revision,
    /// Where it is; `None`: not placed yet.
    pub invoker: Option<InvokerId>,
    /// How far it is.
    pub state: ContainerState,
}

/// An invoker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoker {
    /// Its number.
    pub invoker: InvokerId,
    /// Its session; `None` when it has no live one.
    pub session: Option<SessionId>,
    /// Whether it takes containers.
    pub healthy: bool,
    /// Memory for containers.
    pub memory_total: ByteSize,
    /// Memory that containers use.
    pub memory_busy: ByteSize,
    /// Tags.
    pub tags: Vec<String>,
    /// Zone, or empty.
    pub zone: String,
    /// Whether it is gone.
    pub removed: bool,
}

/// A throttle of a namespace, or of one action in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// Invocation namespace.
    pub namespace: NamespaceName,
    /// The action; `None`: the namespace as a whole.
    pub action: Option<ActionName>,
    /// Whether new activations are refused.
    pub throttled: bool,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: NamespaceName,
    /// What it may use.
    pub limits: NamespaceLimits,
    /// Whether it is gone.
    pub removed: bool,
}

/// A document: name and revision, not its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Kind: `action`, …
    pub kind: String,
    /// Namespace it belongs to.
    pub namespace: String,
    /// `[package/]name`.
    pub name: String,
    /// Its revision.
    pub revision: Revision,
    /// Whether it is gone.
    pub removed: bool,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session.
    pub session: SessionId,
    /// `scheduler 1`, `invoker 3`.
    pub owner: String,
    /// Whether it ended.
    pub removed: bool,
}

impl TryFrom<v1::WatchEvent> for WatchEvent {
    type Error = InvalidMessage;

    fn try_from(event: v1::WatchEvent) -> Result<Self, InvalidMessage> {
        use v1::watch_event::Event;

        Ok(match required(event.event, "watch_event.event")? {
            Event::Member(member) => Self::Member(member.into()),
            Event::Queue(queue) => Self::Queue(queue.try_into()?),
            Event::Container(container) => Self::Container(container.try_into()?),
            Event::Invoker(invoker) => Self::Invoker(invoker.into()),
            Event::Throttle(throttle) => Self::Throttle(throttle.try_into()?),
            Event::Namespace(namespace) => Self::Namespace(namespace.try_into()?),
            Event::Document(document) => Self::Document(Document {
                kind: document.kind,
                namespace: document.namespace,
                name: document.name,
                revision: Revision(document.revision),
                removed: document.removed,
            }),
            Event::Session(session) => Self::Session(Session {
                session: SessionId(session.session),
                owner: session.owner,
                removed: session.removed,
            }),
        })
    }
}

impl From<v1::MemberInfo> for Member {
    fn from(member: v1::MemberInfo) -> Self {
        Self {
            scheduler: SchedulerId(member.scheduler),
            peer_address: member.peer_address,
            client_address: Some(member.client_address).filter(|address| !address.is_empty()),
            zone: member.zone,
            version: member.version,
            draining: member.draining,
            removed: member.removed,
        }
    }
}

impl TryFrom<v1::NamespaceInfo> for Namespace {
    type Error = InvalidMessage;

    fn try_from(namespace: v1::NamespaceInfo) -> Result<Self, InvalidMessage> {
        let default = NamespaceLimits::default();
        // Zero: an older release said nothing.
        let or = |value: u32, default| if value == 0 { default } else { value };
        Ok(Self {
            name: namespace.name.parse()?,
            limits: NamespaceLimits {
                containers: namespace.containers,
                over_provision_percent: or(namespace.over_provision_percent, default.over_provision_percent),
                invocations_per_minute: namespace.invocations_per_minute,
                weight: or(namespace.weight, default.weight),
            },
            removed: namespace.removed,
        })
    }
}

impl TryFrom<v1::QueueInfo> for Queue {
    type Error = InvalidMessage;

    fn try_from(queue: v1::QueueInfo) -> Result<Self, InvalidMessage> {
        Ok(Self {
            key: required(queue.key, "queue.key")?.try_into()?,
            leader: (queue.leader != 0).then_some(SchedulerId(queue.leader)),
            epoch: Epoch(queue.epoch),
            revision: Revision(queue.revision),
            removed: queue.removed,
        })
    }
}

impl TryFrom<v1::ContainerInfo> for Container {
    type Error = InvalidMessage;

    fn try_from(container: v1::ContainerInfo) -> Result<Self, InvalidMessage> {
        use v1::container_info::State;

        let state = match container.state() {
            State::Unspecified => {
                return Err(InvalidMessage::Missing {
                    field: "container.state",
                });
            }
            State::InProgress => ContainerState::InProgress,
            State::Running => ContainerState::Running,
            State::Warm => ContainerState::Warm,
            State::Removed => ContainerState::Removed,
        };
        Ok(Self {
            container: required(container.container, "container.container")?.into(),
            key: required(container.key, "container.key")?.try_into()?,
            revision: Revision(container.revision),
            invoker: (container.invoker != 0).then_some(InvokerId(container.invoker)),
            state,
        })
    }
}

impl From<v1::InvokerInfo> for Invoker {
    fn from(invoker: v1::InvokerInfo) -> Self {
        Self {
            invoker: InvokerId(invoker.invoker),
            session: (invoker.session != 0).then_some(SessionId(invoker.session)),
            healthy: invoker.healthy,
            memory_total: ByteSize::bytes(invoker.memory_total_bytes),
            memory_busy: ByteSize::bytes(invoker.memory_busy_bytes),
            tags: invoker.tags,
            zone: invoker.zone,
            removed: invoker.removed,
        }
    }
}

impl TryFrom<v1::ThrottleInfo> for Throttle {
    type Error = InvalidMessage;

    fn try_from(throttle: v1::ThrottleInfo) -> Result<Self, InvalidMessage> {
        let action = match throttle.action.as_str() {
            "" => None,
            name => Some(name.parse()?),
        };
        Ok(Self {
            namespace: throttle.namespace.parse()?,
            action,
            throttled: throttle.throttled,
        })
    }
}
