//! The tables of a new cluster that is made from those of another one.

use whiskraft_types::{Epoch, LogRevision};

use crate::index::Index;
use crate::record::QueueRecord;
use crate::rows::Rows;
use crate::state::State;

impl State {
    /// What a new cluster keeps, which goes on behind a revision that the old one never reached: documents, blobs,
    /// namespaces, and queues that nobody leads. Whatever hung on processes of the old cluster is not there.
    #[must_use]
    pub fn restored(mut self, revision: LogRevision) -> Self {
        let tables = &mut self.tables;
        tables.revision = revision;
        tables.members = Rows::default();
        tables.sessions = Rows::default();
        tables.containers = Rows::default();
        tables.invokers = Rows::default();
        let mut queues = Rows::default();
        for (key, queue) in tables.queues.iter() {
            let queue = QueueRecord {
                leader: None,
                epoch: Epoch(revision.0),
                revision: queue.revision,
                throttled: false,
            };
            queues.insert(key.clone(), queue);
        }
        tables.queues = queues;
        let index = Index::of(&self.tables);
        Self { index, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{World, queue};
    use crate::{ContainerState, Response};

    const FAR: LogRevision = LogRevision(1 << 32);

    #[test]
    fn what_hung_on_processes_is_gone_and_what_was_stored_is_kept() {
        let mut world = World::new();
        let key = queue("guest", "hello");
        let old = world.ensure(&key);
        world.run(&key, 1);
        world.limit_namespace("guest", 7);
        assert!(
            world
                .state
                .containers()
                .any(|(_, row)| row.state == ContainerState::Running)
        );

        let before = world.state.clone();
        let mut world = World {
            state: before.clone().restored(FAR),
        };
        let state = &world.state;
        assert_eq!(state.revision(), FAR);
        assert_eq!(
            (
                state.members().count(),
                state.sessions().count(),
                state.invokers().count()
            ),
            (0, 0, 0)
        );
        assert_eq!(state.containers_len(), 0);
        assert!(state.all_documents().eq(before.all_documents()));
        assert!(state.namespaces().eq(before.namespaces()));
        assert_eq!(state.queue(&key).unwrap().leader, None);

        // The first scheduler of the new cluster leads it, in an epoch that the old one never had.
        world.apply(crate::Command::PutMember {
            id: whiskraft_types::SchedulerId(1),
            member: crate::world::member(1),
        });
        world.open_scheduler(1, 9);
        let new = world.ensure(&key);
        assert!(new.epoch.0 > FAR.0 && new.epoch > old.epoch);
        assert_eq!(new.revision, old.revision);
        // All slots are free again.
        assert_eq!(world.reserve(&key, 7).len(), 7);
    }

    #[test]
    fn a_session_of_the_old_cluster_is_unknown() {
        let mut world = World::new();
        let session = world.state.sessions().next().unwrap().0;
        world.state = world.state.restored(FAR);
        let closed = world.respond(crate::Command::CloseSession { session });
        assert!(matches!(closed, Response::Refused(_)));
    }
}
