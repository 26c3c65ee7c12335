//! Whether the queue may act: fences, and moves to another scheduler.

use std::collections::BTreeSet;

use whiskraft_types::Instant;

use super::MemoryQueue;
use crate::Output;

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// Whether anything may be delivered.
    pub(super) fn may_hand_out(&self) -> bool {
        !self.is_fenced && !self.is_draining && !self.ledger.is_full(&self.settings)
    }

    pub(super) fn on_fence(&mut self, now: Instant, is_fenced: bool, out: &mut Vec<Output<P, R>>) {
        self.is_fenced = is_fenced;
        if is_fenced {
            return;
        }
        let mut ended = BTreeSet::new();
        for (id, end) in self.deferred.take_out() {
            // One run ends once, however often that was noted.
            if ended.insert(id) {
                self.finish(now, id, end, out);
            }
        }
        for (id, verdict) in self.verdicts.take_out() {
            self.on_journaled(now, id, verdict, out);
        }
        self.resume(now, out);
    }

    pub(super) fn on_draining(&mut self, now: Instant, is_draining: bool, out: &mut Vec<Output<P, R>>) {
        self.is_draining = is_draining;
        if !is_draining {
            self.resume(now, out);
        }
    }

    /// It may act again: what became possible meanwhile is done.
    fn resume(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        self.try_release(now, out);
        self.pump(now, out);
        self.decide_soon(now);
    }
}
