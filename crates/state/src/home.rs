//! The rate home of a namespace: the scheduler that counts its invocations per minute.
//!
//! Rendezvous hashing over the schedulers with a live session: all that have applied the same log name the same one, and
//! the end of a session moves only what that scheduler counted.

use whiskraft_types::{NamespaceName, SchedulerId};

use crate::state::State;

impl State {
    /// Members with a live session.
    pub fn live_schedulers(&self) -> impl Iterator<Item = SchedulerId> {
        let live = |id: &SchedulerId| self.scheduler_session(*id).is_some();
        self.members().map(|(id, _)| id).filter(live)
    }

    /// The scheduler that counts the invocations of a namespace; `None` while no session lives.
    #[must_use]
    pub fn rate_home(&self, namespace: &NamespaceName) -> Option<SchedulerId> {
        self.live_schedulers()
            .max_by_key(|id| (weight(namespace, *id), *id))
    }
}

fn weight(namespace: &NamespaceName, id: SchedulerId) -> u64 {
    let name = namespace.as_str().bytes().chain([0]);
    crate::hash::of(name.chain(id.0.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::world::{World, namespace};

    fn homes(world: &World) -> BTreeMap<NamespaceName, SchedulerId> {
        let names = (0..300).map(|n| namespace(&format!("n{n}")));
        names
            .filter_map(|name| Some((name.clone(), world.state.rate_home(&name)?)))
            .collect()
    }

    #[test]
    fn homes_are_spread_and_only_those_of_a_lost_scheduler_move() {
        let mut world = World::new();
        let before = homes(&world);
        for id in 1..=3 {
            let count = before.values().filter(|home| **home == SchedulerId(id)).count();
            assert!(
                (70..=130).contains(&count),
                "scheduler {id} counts for {count} of 300"
            );
        }
        let lost = SchedulerId(2);
        world.expire(&[world.state.scheduler_session(lost).unwrap()]);
        for (name, home) in homes(&world) {
            let was = before[&name];
            assert!(
                home != lost && (home == was || was == lost),
                "{name}: {was}, now {home}"
            );
        }
    }

    #[test]
    fn without_a_live_scheduler_there_is_no_home() {
        let mut world = World::new();
        let sessions = [1, 2, 3].map(|id| world.state.scheduler_session(SchedulerId(id)).unwrap());
        world.expire(&sessions);
        assert_eq!(world.state.rate_home(&namespace("guest")), None);
    }
}
