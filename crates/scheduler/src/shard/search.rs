//! Looks for one activation in all queues, and says all that its queue knows of it.

use std::ops::ControlFlow;

use whiskraft_proto::v1;
use whiskraft_queue::{ActivationState, Outcome};
use whiskraft_types::{ActivationId, ContainerId, NamespaceName};

use crate::message::{Found, Record};
use crate::shard::actor::Shard;
use crate::shard::local::LocalQueue;
use crate::shard::walk::Visitor;

/// Looks for an activation.
pub(crate) struct Search {
    id: ActivationId,
    namespace: Option<NamespaceName>,
    /// What was found.
    pub(crate) explained: Option<Explained>,
}

/// What a queue knows of an activation, and the queue.
pub(crate) struct Explained {
    pub(crate) found: Found,
    /// How many are served before it, while it waits.
    pub(crate) position: Option<usize>,
    /// Since its acceptance, while it waits.
    pub(crate) waited_ms: u64,
    pub(crate) attempt: u32,
    pub(crate) container: Option<ContainerId>,
    /// Where that is; zero if not known.
    pub(crate) invoker: u64,
    pub(crate) queue: v1::QueueStatus,
}

impl Search {
    /// In the queues of a namespace, or in all.
    pub(crate) const fn new(id: ActivationId, namespace: Option<NamespaceName>) -> Self {
        Self {
            id,
            namespace,
            explained: None,
        }
    }
}

impl Visitor for Search {
    fn visit(&mut self, shard: &Shard, local: &LocalQueue) -> ControlFlow<(), usize> {
        if self
            .namespace
            .as_ref()
            .is_some_and(|namespace| local.key().namespace != *namespace)
        {
            return ControlFlow::Continue(0);
        }
        let Some(state) = local.queue.find(self.id) else {
            return ControlFlow::Continue(1);
        };
        self.explained = Some(shard.explain(local, self.id, state));
        ControlFlow::Break(())
    }
}

impl Shard {
    fn explain(&self, local: &LocalQueue, id: ActivationId, state: ActivationState<Record>) -> Explained {
        let (container, ran_on) = match &state {
            ActivationState::Journaling
            | ActivationState::Waiting
            | ActivationState::Delayed(_)
            | ActivationState::Ending => (None, None),
            ActivationState::Delivered(container) | ActivationState::Started(container) => {
                (Some(*container), local.dealings.places.get(container).copied())
            }
            ActivationState::Done(Outcome::Record(record)) => {
                let (invoker, container) = record.ran_on.unzip();
                (container, invoker)
            }
            ActivationState::Done(Outcome::Failure { .. } | Outcome::Cancelled) => (None, None),
        };
        let accepted = local.queue.accepted(id);
        let waited_ms = match (&state, accepted) {
            (ActivationState::Waiting, Some((at, _))) => {
                u64::try_from(self.now.saturating_since(at).as_millis()).unwrap_or(u64::MAX)
            }
            _ => 0,
        };
        Explained {
            position: local.queue.position(id),
            waited_ms,
            attempt: accepted.map_or(0, |(_, attempt)| attempt),
            container,
            invoker: ran_on.map_or(0, |invoker| invoker.0),
            queue: self.status_of(local),
            found: self.found(local, id, state),
        }
    }
}
