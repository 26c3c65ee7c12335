//! Leaders that die, and leaders that hand over.

use std::collections::BTreeSet;

use whiskraft_queue::{Input, KnownContainer};
use whiskraft_types::{InvokerId, Revision};

use crate::world::{World, queue};

impl World {
    pub(crate) fn lose_leader(&mut self, pick: u8) {
        self.settle_pending(pick);
        let calls = &self.calls;
        self.stopping.retain(|id| calls[id].terms.durable);
        self.follow();
    }

    /// The old leader delivers nothing any more and tells the new one all it knows.
    pub(crate) fn hand_off(&mut self, pick: u8) {
        self.tell(Input::Draining(true));
        let moved = self.queue.export(self.now);
        self.settle_pending(pick);
        self.follow();
        self.tell(Input::Import(moved));
    }

    fn follow(&mut self) {
        self.epoch = self.epoch.next();
        self.queue = queue(self.epoch, self.on_loss, &self.settings, self.now);
        self.asked.clear();
        self.asks.clear();
        self.fenced = false;
        let now = self.now;
        for call in self.calls.values_mut() {
            call.lost_at.get_or_insert(now);
        }
        self.recovering = true;
        self.hosts.values_mut().for_each(|host| host.registered = false);
        let holds = |id: &InvokerId| {
            self.table.values().any(|at| at == id)
                || !self.hosts[id].results.is_empty()
                || !self.hosts[id].running.is_empty()
        };
        let expected: Vec<_> = self.hosts.keys().copied().filter(holds).collect();
        let lost: BTreeSet<_> = self.ghosts.values().copied().collect();
        let containers = self.table.iter().map(|(container, at)| KnownContainer {
            container: *container,
            invoker: Some(*at),
            revision: Revision(1),
            running: true,
        });
        let takeover = Input::Takeover {
            expected,
            lost: lost.into_iter().collect(),
            containers: containers.collect(),
            recovers: true,
        };
        self.tell(takeover);
    }
}
