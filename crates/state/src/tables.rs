//! The replicated tables: exactly what a snapshot holds, in this order.

use serde::{Deserialize, Serialize};
use whiskraft_types::{ContainerId, InvokerId, LogRevision, NamespaceName, QueueKey, SchedulerId, SessionId};

use crate::command::DocumentKey;
use crate::record::{
    BlobHash, BlobRecord, ContainerRecord, DocumentRecord, InvokerRecord, MemberRecord, NamespaceRecord,
    QueueRecord, SessionRecord,
};
use crate::rows::Rows;

/// All rows. The order of the fields is the serialised format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tables {
    /// Log revision of the last command.
    pub(crate) revision: LogRevision,
    pub(crate) members: Rows<SchedulerId, MemberRecord>,
    pub(crate) sessions: Rows<SessionId, SessionRecord>,
    pub(crate) queues: Rows<QueueKey, QueueRecord>,
    pub(crate) containers: Rows<ContainerId, ContainerRecord>,
    pub(crate) invokers: Rows<InvokerId, InvokerRecord>,
    pub(crate) namespaces: Rows<NamespaceName, NamespaceRecord>,
    pub(crate) documents: Rows<DocumentKey, DocumentRecord>,
    pub(crate) blobs: Rows<BlobHash, BlobRecord>,
}

impl Tables {
    /// Most slots that a namespace may use: its own limit or the default one.
    pub(crate) fn slots_max(&self, namespace: &NamespaceName) -> u32 {
        self.namespaces.get(namespace).map_or_else(
            || whiskraft_types::NamespaceLimits::default().containers,
            |record| record.limits.containers,
        )
    }

    /// The same with the excess for actions without containers.
    pub(crate) fn slots_over_max(&self, namespace: &NamespaceName) -> u32 {
        self.namespaces.get(namespace).map_or_else(
            || whiskraft_types::NamespaceLimits::default().containers_over(),
            |record| record.limits.containers_over(),
        )
    }
}
