//! The end of every run: faults stop, everybody works until nothing is left to do.

use std::time::Duration;

use whiskraft_types::{ContainerId, InvokerId};

use crate::invoker::Invoker;
use crate::world::{Event, INVOKERS, LIMIT, World};

impl World {
    /// Ends all faults and lets everybody do its work until nothing is left to do.
    pub(crate) fn heal(&mut self) {
        self.apply(Event::Fence(false));
        self.apply(Event::Drain(false));
        self.apply(Event::Others(0));
        for _ in 0..400 {
            (0..INVOKERS as u8).for_each(|pick| self.apply(Event::Connect(pick)));
            self.apply(Event::Grant(u8::MAX));
            for _ in 0..LIMIT {
                self.apply(Event::Place(0));
                self.apply(Event::Ready(0));
            }
            let idle = |world: &Self, at: &InvokerId, container: &ContainerId| {
                let invoker = &world.invokers[at];
                invoker.containers[container].0 == 0
                    && !invoker.running.values().any(|(on, _)| on == container)
            };
            for (at, container) in self.pulling() {
                if idle(self, &at, &container) {
                    self.ask((at, container), 1);
                }
            }
            (0..INVOKERS).for_each(|at| {
                while !self.invokers[&InvokerId(at + 1)].inbox.is_empty() {
                    self.read(InvokerId(at + 1));
                }
            });
            self.running(false).into_iter().for_each(|at| self.start(at));
            self.running(true)
                .into_iter()
                .for_each(|at| self.complete(at, true, 0));
            let open: Vec<_> = self
                .calls
                .iter()
                .filter(|(_, call)| call.answer.is_none())
                .map(|(id, _)| *id)
                .collect();
            open.iter().for_each(|id| self.submit(*id));
            (0..=u8::MAX).for_each(|_| self.apply(Event::Confirm(0)));
            self.advance(Duration::from_millis(500));
            // What invokers never answer ends by itself.
            let is_mute = |invoker: &Invoker| invoker.running.keys().any(|id| self.mute.contains(id));
            let waits = self.invokers.values().any(is_mute);
            if open.is_empty() && self.asked.is_empty() && !waits {
                break;
            }
        }
        while let Some(free) = self.pulling().first().copied() {
            let before = self.pulling().len();
            self.apply(Event::Pause(0));
            assert!(self.pulling().len() < before, "{free:?} cannot be paused");
        }
        for container in self.table.keys().copied().collect::<Vec<_>>() {
            self.remove_row(container);
        }
        self.advance(Duration::from_secs(3600));
    }
}
