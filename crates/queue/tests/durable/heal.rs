//! The end of every run: faults stop, everybody works until nothing is left to do.

use std::time::Duration;

use whiskraft_types::InvokerId;

use crate::world::{Answer, Event, HOSTS, World};

impl World {
    /// Ends all faults and lets everybody do its work until nothing is left to do.
    pub(crate) fn heal(&mut self) {
        self.apply(Event::Fence(false));
        for _ in 0..400 {
            self.apply(Event::Recover);
            (1..=HOSTS).for_each(|at| self.apply(Event::Connect(at as u8 - 1)));
            (0..HOSTS).for_each(|at| self.apply(Event::Grant(at as u8)));
            self.work();
            let is_open = |answer: &Option<Answer>| answer.is_none();
            let open: Vec<_> = self
                .calls
                .iter()
                .filter(|(_, call)| is_open(&call.answer))
                .map(|(id, _)| *id)
                .collect();
            open.iter().for_each(|id| self.submit(*id));
            let rows = self.rows.values().any(|row| row.ended.is_none());
            if open.is_empty() && !rows && self.pending.is_empty() && self.queue.open_len() == 0 {
                break;
            }
            self.advance(Duration::from_millis(500));
        }
        (0..=u8::MAX).for_each(|_| self.apply(Event::Confirm(0)));
        while !self.asked.is_empty() {
            self.grant(0);
        }
        for container in self.table.keys().copied().collect::<Vec<_>>() {
            self.end_container(container);
        }
        self.advance(Duration::from_secs(3600));
    }

    /// Everything that can be done now.
    fn work(&mut self) {
        for _ in 0..8 {
            (0..8).for_each(|_| self.apply(Event::Ask(0)));
            (1..=HOSTS).for_each(|at| {
                while !self.hosts[&InvokerId(at)].inbox.is_empty() {
                    self.read_at(InvokerId(at));
                }
            });
            (0..self.runs(false).len()).for_each(|_| self.start(0));
            self.runs(true)
                .into_iter()
                .for_each(|at| self.complete_at(at, true));
            while !self.pending.is_empty() || !self.marks.is_empty() {
                self.journal(0, 7);
            }
        }
    }
}
