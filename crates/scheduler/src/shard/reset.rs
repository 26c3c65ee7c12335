//! A shard that may have missed something starts anew from the tables.

use std::collections::BTreeSet;

use whiskraft_queue::Input;
use whiskraft_state::{Event, State};
use whiskraft_types::{InvokerId, QueueKey};

use crate::shard::actor::Shard;
use crate::shard::led::Led;
use crate::shard::local::Slot;
use crate::shard::mirror::Mirror;

impl Shard {
    /// Starts anew from the tables as they are.
    pub(crate) fn reset(&mut self, state: &State) {
        self.follows = true;
        // A session newer than these tables is not ended but unknown.
        let newest = state.revision();
        let cut = self
            .outbox
            .cut_ended(|session| session.0 <= newest.0 && state.session(session).is_none());
        cut.into_iter().for_each(|invoker| self.disconnect(invoker));
        self.led = Led::of(state.queues().map(|(key, _)| key).filter(|key| self.is_mine(key)));
        let mut mirror = Mirror::default();
        for (id, record) in state.containers().filter(|(_, record)| self.is_mine(&record.key)) {
            mirror.put(self.now, id, record);
        }
        self.mirror
            .replace(self.now, mirror, |session| state.session(session).is_some());
        let full: BTreeSet<_> = state
            .snapshot_of(whiskraft_state::TableKind::Throttles)
            .filter_map(|event| match event {
                Event::NamespaceThrottle(namespace, true) => Some(namespace),
                _ => None,
            })
            .collect();
        self.full = full;
        let mut keys: BTreeSet<QueueKey> = self.queues.iter().map(|local| local.key().clone()).collect();
        keys.extend(
            self.own
                .iter()
                .flat_map(|session| state.queues_of(*session))
                .map(|(key, _)| key.clone()),
        );
        keys.retain(|key| self.is_mine(key));
        for key in &keys {
            self.on_leadership(key, state.queue(key));
        }
        for slot in self.queues.slots() {
            self.reset_queue(slot, state);
        }
        let parked = self.parked.take_all();
        self.replay(parked);
    }

    /// Tells a queue that lived through the gap what it may have missed.
    fn reset_queue(&mut self, slot: Slot, state: &State) {
        self.refresh_rate(slot);
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        let key = local.key().clone();
        let places: Vec<_> = local
            .dealings
            .places
            .iter()
            .map(|(container, invoker)| (*container, *invoker))
            .collect();
        let gone: BTreeSet<InvokerId> = places
            .iter()
            .map(|(_, invoker)| *invoker)
            .filter(|invoker| state.invoker(*invoker).is_none())
            .collect();
        for invoker in gone {
            self.step(slot, Input::InvokerGone { invoker });
        }
        for (container, _) in places
            .into_iter()
            .filter(|(id, _)| state.container(*id).is_none())
        {
            if let Some(local) = self.queues.get_mut(slot) {
                local.forget_place(container);
            }
            self.step(slot, Input::ContainerRemoved { container });
        }
        let rows: Vec<_> = state
            .containers_of(&key)
            .map(|(id, record)| (id, record.clone()))
            .collect();
        for (id, record) in rows {
            self.on_container(id, &record, false, &BTreeSet::new());
        }
        self.step(slot, Input::NamespaceFull(self.full.contains(&key.namespace)));
        self.note_limit(&key.namespace);
    }
}
