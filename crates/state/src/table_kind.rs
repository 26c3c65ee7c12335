//! Names of the tables that can be watched.

use crate::event::Event;

/// A table, as a watcher names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKind {
    /// Schedulers.
    Members,
    /// Leases.
    Sessions,
    /// Queues and their leaders.
    Queues,
    /// Containers and reserved slots.
    Containers,
    /// Worker hosts.
    Invokers,
    /// Namespaces at their limit and full queues.
    Throttles,
    /// Limits of namespaces.
    Namespaces,
    /// Documents without their bytes.
    Documents,
}

impl TableKind {
    /// All tables, in the order of a snapshot: what a row refers to comes before it.
    pub const ALL: [Self; 8] = [
        Self::Members,
        Self::Sessions,
        Self::Invokers,
        Self::Namespaces,
        Self::Documents,
        Self::Queues,
        Self::Containers,
        Self::Throttles,
    ];
}

impl Event {
    /// The table that the event belongs to.
    #[must_use]
    pub const fn table(&self) -> TableKind {
        match self {
            Self::Member(..) => TableKind::Members,
            Self::Session(..) => TableKind::Sessions,
            Self::Queue(..) | Self::HandedOver { .. } => TableKind::Queues,
            Self::Container { .. } => TableKind::Containers,
            Self::Invoker(..) => TableKind::Invokers,
            Self::NamespaceThrottle(..) | Self::ActionThrottle(..) => TableKind::Throttles,
            Self::Namespace(..) => TableKind::Namespaces,
            Self::Document(..) => TableKind::Documents,
        }
    }
}
