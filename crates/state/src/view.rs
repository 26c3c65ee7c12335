//! Reading the state: rows by key, and ordered ranges of them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use whiskraft_types::{
    ByteSize, ContainerId, InvokerId, LogRevision, NamespaceLimits, NamespaceName, QueueKey, SchedulerId,
    SessionId,
};

use crate::command::DocumentKey;
use crate::counts::Counts;
use crate::event::Event;
use crate::record::{
    BlobHash, BlobRecord, ContainerRecord, DocumentRecord, InvokerRecord, MemberRecord, NamespaceRecord,
    QueueRecord, SessionRecord,
};
use crate::state::State;
use crate::table_kind::TableKind;

impl State {
    /// Log revision of the last command.
    #[must_use]
    pub fn revision(&self) -> LogRevision {
        self.tables.revision
    }

    /// All schedulers.
    pub fn members(&self) -> impl Iterator<Item = (SchedulerId, &MemberRecord)> {
        self.tables.members.iter().map(|(id, row)| (*id, row))
    }

    /// A scheduler.
    #[must_use]
    pub fn member(&self, id: SchedulerId) -> Option<&MemberRecord> {
        self.tables.members.get(&id)
    }

    /// All live sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionRecord)> {
        self.tables.sessions.iter().map(|(id, row)| (*id, row))
    }

    /// A live session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&SessionRecord> {
        self.tables.sessions.get(&id)
    }

    /// The live session of a scheduler.
    #[must_use]
    pub fn scheduler_session(&self, id: SchedulerId) -> Option<SessionId> {
        self.index.scheduler_session(id)
    }

    /// All queues.
    pub fn queues(&self) -> impl Iterator<Item = (&QueueKey, &QueueRecord)> {
        self.tables.queues.iter()
    }

    /// Number of queues.
    #[must_use]
    pub fn queues_len(&self) -> usize {
        self.tables.queues.len()
    }

    /// A queue.
    #[must_use]
    pub fn queue(&self, key: &QueueKey) -> Option<&QueueRecord> {
        self.tables.queues.get(key)
    }

    /// The key with the texts of its names that the tables have already, as far as they have them: who keeps it keeps no others.
    #[must_use]
    pub fn shared_key(&self, key: &QueueKey) -> QueueKey {
        if let Some(known) = self.tables.queues.key_of(key) {
            return known.clone();
        }
        let of_namespace = |row: &QueueKey| row.namespace.cmp(&key.namespace);
        let neighbour = self.tables.queues.range(of_namespace).next();
        let namespace = neighbour.map_or(&key.namespace, |(row, _)| &row.namespace);
        let action = self.index.shared_action(&key.action).unwrap_or(&key.action);
        QueueKey {
            namespace: namespace.clone(),
            action: action.clone(),
        }
    }

    /// Queues that a session leads.
    pub fn queues_of(&self, session: SessionId) -> impl Iterator<Item = (&QueueKey, &QueueRecord)> {
        self.index
            .queues_of(Some(session))
            .filter_map(|key| Some((key, self.queue(key)?)))
    }

    /// Number of queues that a session leads.
    #[must_use]
    pub fn queues_led(&self, session: SessionId) -> u32 {
        self.index.queues_led(session)
    }

    /// All containers.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerId, &ContainerRecord)> {
        self.tables.containers.iter().map(|(id, row)| (*id, row))
    }

    /// Number of containers.
    #[must_use]
    pub fn containers_len(&self) -> usize {
        self.tables.containers.len()
    }

    /// A container.
    #[must_use]
    pub fn container(&self, id: ContainerId) -> Option<&ContainerRecord> {
        self.tables.containers.get(&id)
    }

    /// Containers of a queue, whichever revision they run; also after the queue is gone.
    pub fn containers_of(&self, key: &QueueKey) -> impl Iterator<Item = (ContainerId, &ContainerRecord)> {
        self.index
            .containers_of(key)
            .filter_map(|id| Some((id, self.container(id)?)))
    }

    /// Containers of all queues of a namespace.
    pub fn containers_in(
        &self,
        name: &NamespaceName,
    ) -> impl Iterator<Item = (ContainerId, &ContainerRecord)> {
        self.index
            .containers_in(name)
            .filter_map(|id| Some((id, self.container(id)?)))
    }

    /// The live schedulers that lead queues of a namespace, by the first `len_max` of these queues: so many tell all of
    /// them in practice, and as a rule the first few do.
    #[must_use]
    pub fn leaders_in(&self, name: &NamespaceName, len_max: usize) -> BTreeSet<SchedulerId> {
        let live = self.live_schedulers().count();
        let queues = self.tables.queues.range(|key| key.namespace.cmp(name));
        let named = queues.take(len_max).filter_map(|(_, row)| row.leader);
        let mut leaders = BTreeSet::new();
        for (id, session) in named {
            if self.scheduler_session(id) == Some(session) {
                leaders.insert(id);
            }
            if leaders.len() == live {
                break;
            }
        }
        leaders
    }

    /// Containers that were placed on an invoker.
    pub fn containers_on(&self, invoker: InvokerId) -> impl Iterator<Item = (ContainerId, &ContainerRecord)> {
        self.index
            .containers_on(invoker)
            .filter_map(|id| Some((id, self.container(id)?)))
    }

    /// Memory of the containers in progress and running that are placed on an invoker.
    #[must_use]
    pub fn promised_on(&self, invoker: InvokerId) -> ByteSize {
        self.index.promised_on(invoker)
    }

    /// Memory of all containers that are placed on an invoker and have not ended, paused ones too.
    #[must_use]
    pub fn held_on(&self, invoker: InvokerId) -> ByteSize {
        self.index.held_on(invoker)
    }

    /// All invokers with a live session.
    pub fn invokers(&self) -> impl Iterator<Item = (InvokerId, &InvokerRecord)> {
        self.tables.invokers.iter().map(|(id, row)| (*id, row))
    }

    /// An invoker with a live session.
    #[must_use]
    pub fn invoker(&self, id: InvokerId) -> Option<&InvokerRecord> {
        self.tables.invokers.get(&id)
    }

    /// Namespaces with limits of their own.
    pub fn namespaces(&self) -> impl Iterator<Item = (&NamespaceName, &NamespaceRecord)> {
        self.tables.namespaces.iter()
    }

    /// What a namespace may use: its own limits or the default ones.
    #[must_use]
    pub fn namespace_limits(&self, name: &NamespaceName) -> NamespaceLimits {
        self.tables
            .namespaces
            .get(name)
            .map(|record| record.limits.clone())
            .unwrap_or_default()
    }

    /// Containers of a namespace.
    #[must_use]
    pub fn namespace_counts(&self, name: &NamespaceName) -> Counts {
        self.index.namespace_counts(name)
    }

    /// Namespaces that have containers, with their counts.
    pub fn namespaces_counted(&self) -> impl Iterator<Item = (&NamespaceName, &Counts)> {
        self.index.namespaces_counted()
    }

    /// Containers of a queue.
    #[must_use]
    pub fn queue_counts(&self, key: &QueueKey) -> Counts {
        self.index.queue_counts(key)
    }

    /// Whether a namespace uses all the slots it may.
    #[must_use]
    pub fn is_namespace_throttled(&self, name: &NamespaceName) -> bool {
        self.index.is_throttled(name)
    }

    /// Whether a queue is full.
    #[must_use]
    pub fn is_action_throttled(&self, key: &QueueKey) -> bool {
        self.queue(key).is_some_and(|queue| queue.throttled)
    }

    /// A document.
    #[must_use]
    pub fn document(&self, key: &DocumentKey) -> Option<&DocumentRecord> {
        self.tables.documents.get(key)
    }

    /// Documents of a kind in a namespace whose names come after the given one, by name.
    pub fn documents<'a>(
        &'a self,
        kind: &'a str,
        namespace: &'a NamespaceName,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a DocumentKey, &'a DocumentRecord)> {
        self.tables.documents.range(move |key| {
            let name = if after.is_none_or(|after| key.name.as_str() > after) {
                Ordering::Equal
            } else {
                Ordering::Less
            };
            key.kind
                .as_str()
                .cmp(kind)
                .then_with(|| key.namespace.cmp(namespace))
                .then(name)
        })
    }

    /// All documents, by kind, namespace and name.
    pub fn all_documents(&self) -> impl Iterator<Item = (&DocumentKey, &DocumentRecord)> {
        self.tables.documents.iter()
    }

    /// Documents of a kind in all namespaces, by namespace and name.
    pub fn documents_of<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a DocumentKey, &'a DocumentRecord)> {
        self.tables
            .documents
            .range(move |key| key.kind.as_str().cmp(kind))
    }

    /// A blob of which at least one chunk is stored.
    #[must_use]
    pub fn blob(&self, hash: &BlobHash) -> Option<&BlobRecord> {
        self.tables.blobs.get(hash)
    }

    /// All blobs of which at least one chunk is stored.
    pub fn blobs(&self) -> impl Iterator<Item = (BlobHash, &BlobRecord)> {
        self.tables.blobs.iter().map(|(id, row)| (*id, row))
    }

    /// The whole state as events: what a watcher that starts now has to know.
    pub fn snapshot(&self) -> impl Iterator<Item = Event> {
        TableKind::ALL.into_iter().flat_map(|kind| self.snapshot_of(kind))
    }

    /// One table as events.
    pub fn snapshot_of(&self, kind: TableKind) -> Box<dyn Iterator<Item = Event> + Send + '_> {
        match kind {
            TableKind::Members => Box::new(
                self.members()
                    .map(|(id, row)| Event::Member(id, Some(row.clone()))),
            ),
            TableKind::Sessions => Box::new(
                self.sessions()
                    .map(|(id, row)| Event::Session(id, Some(row.clone()))),
            ),
            TableKind::Queues => Box::new(
                self.queues()
                    .map(|(key, row)| Event::Queue(key.clone(), Some(row.clone()))),
            ),
            TableKind::Containers => Box::new(self.containers().map(|(id, row)| Event::Container {
                id,
                record: row.clone(),
                before: None,
                removed: false,
            })),
            TableKind::Invokers => Box::new(
                self.invokers()
                    .map(|(id, row)| Event::Invoker(id, Some(row.clone()))),
            ),
            TableKind::Throttles => Box::new(self.snapshot_of_throttles()),
            TableKind::Namespaces => Box::new(
                self.namespaces()
                    .map(|(name, row)| Event::Namespace(name.clone(), Some(row.clone()))),
            ),
            TableKind::Documents => {
                let rows = self.tables.documents.iter();
                Box::new(rows.map(|(key, row)| Event::Document(key.clone(), Some(row.clone()))))
            }
        }
    }

    fn snapshot_of_throttles(&self) -> impl Iterator<Item = Event> {
        let namespaces = self
            .index
            .throttled()
            .map(|name| Event::NamespaceThrottle(name.clone(), true));
        let full = self.queues().filter(|(_, queue)| queue.throttled);
        namespaces.chain(full.map(|(key, _)| Event::ActionThrottle(key.clone(), true)))
    }
}
