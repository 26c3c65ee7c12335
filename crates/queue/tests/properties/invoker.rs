//! An invoker as the queue's protocol wants it: reads deliveries in order, says what it starts, keeps results until
//! they are acknowledged.

use std::collections::{BTreeMap, VecDeque};

use whiskraft_queue::{RegisteredContainer, RunEnd, Unacknowledged};
use whiskraft_types::{ActivationId, ContainerId, Revision};

#[derive(Debug, Default)]
pub(crate) struct Invoker {
    /// Whether its pull stream stands.
    pub(crate) connected: bool,
    /// Whether the present leader has its `Register` of this stream.
    pub(crate) registered: bool,
    /// Deliveries on the wire.
    pub(crate) inbox: VecDeque<(ActivationId, ContainerId)>,
    /// Delivered here and not finished; whether started.
    pub(crate) running: BTreeMap<ActivationId, (ContainerId, bool)>,
    /// Finished, not acknowledged.
    pub(crate) results: BTreeMap<ActivationId, ContainerId>,
    /// Containers that pull, with their open asks and revision.
    pub(crate) containers: BTreeMap<ContainerId, (u32, Revision)>,
}

impl Invoker {
    /// Whether its frames reach the present leader.
    pub(crate) fn is_heard(&self) -> bool {
        self.connected && self.registered
    }

    /// Takes the next delivery off the wire. One for a container that is gone is refused, and named.
    pub(crate) fn read(&mut self) -> Option<Result<(), (ActivationId, ContainerId)>> {
        let (id, container) = self.inbox.pop_front()?;
        let Some((credits, _)) = self.containers.get_mut(&container) else {
            return Some(Err((id, container)));
        };
        assert!(*credits > 0, "{container} got more than it asked for");
        *credits -= 1;
        assert!(
            self.running.insert(id, (container, false)).is_none(),
            "{id} delivered twice"
        );
        Some(Ok(()))
    }

    /// What it reports of the queue; deliveries on the wire are void from here on.
    pub(crate) fn register(&mut self) -> (Vec<RegisteredContainer>, Vec<Unacknowledged<String>>) {
        self.inbox.clear();
        let of = |container: ContainerId| {
            let here = self.running.iter().filter(move |(_, (at, _))| *at == container);
            here.map(|(id, _)| *id).collect()
        };
        let containers = self
            .containers
            .iter()
            .map(|(container, (credits, revision))| RegisteredContainer {
                container: *container,
                revision: *revision,
                in_flight: of(*container),
                credits: *credits,
                warmed: true,
            });
        let results = self.results.keys().map(|id| Unacknowledged {
            id: *id,
            run: 1,
            end: RunEnd::Success,
            record: id.to_string(),
        });
        (containers.collect(), results.collect())
    }
}
