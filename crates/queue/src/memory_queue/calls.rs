//! Who waits for whom in this queue, and what that means for those that wait. Looked at only while calls wait and no
//! container can be added: what nobody called costs nothing.

use std::time::Duration;

use whiskraft_types::{ActivationId, Instant};

use super::MemoryQueue;
use crate::containers::Fate;
use crate::ledger::Stage;
use crate::{Call, Calls, Output, comes_free};

/// Time for which the judgement over several queues holds: it is asked for again at every decision.
const KNOT_AGE_MAX: Duration = Duration::from_millis(400);

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// What this queue knows of calls; of each kind at most as many as it has activations without an outcome.
    #[must_use]
    pub fn calls(&self) -> Calls {
        let is_unsettled = self.is_fenced || self.is_draining || !self.expected.is_empty();
        let is_here = |at| {
            let known = self.containers.find(at);
            known.is_some_and(|known| !matches!(known.fate, Fate::Gone(_)))
        };
        let calls = self.ledger.called().map(|(caller, entry)| Call {
            caller,
            id: entry.ticket.id,
            waits: matches!(entry.stage, Stage::Held | Stage::Waiting),
        });
        Calls {
            is_free: is_unsettled
                || self.reserving > 0
                || self.containers.has_room(self.action.concurrency.max(1)),
            in_flight: self
                .ledger
                .ids_where(|stage| stage.container().is_some_and(is_here)),
            calls: calls.collect(),
        }
    }

    /// Whether this queue has containers, none can be added, and none comes free because all work for callers that
    /// wait for this queue.
    pub(super) fn is_knotted(&self, now: Instant, out: &mut Vec<Output<P, R>>) -> bool {
        if !self.ledger.has_called() || self.waiting.is_empty() || !self.is_at_limit() {
            return false;
        }
        let own = self.calls();
        if own.is_free || own.in_flight.is_empty() || !own.calls.iter().any(|call| call.waits) {
            return false;
        }
        let own = [own];
        if !comes_free(&own, 0) {
            return true;
        }
        out.push(Output::Entangled);
        self.knotted_at
            .is_some_and(|at| now.saturating_since(at) < KNOT_AGE_MAX)
    }

    /// What the calls of all queues show.
    pub(super) fn on_knotted(&mut self, now: Instant, is_knotted: bool) {
        self.knotted_at = is_knotted.then_some(now);
        if is_knotted && self.starved.is_none() {
            self.decide_soon(now);
        }
    }

    /// Whether this queue, which has containers, may have no more.
    fn is_at_limit(&self) -> bool {
        let counts = self.containers.counts();
        let own = counts.running + counts.in_progress;
        self.is_namespace_full || self.action.instances.is_some_and(|limit| own >= limit as usize)
    }

    /// What waits and was called, oldest first.
    pub(super) fn waiting_calls(&self) -> Vec<ActivationId> {
        self.waiting.ids_where(|ticket| self.is_called(ticket.id))
    }

    /// Whether another activation waits for this one.
    pub(super) fn is_called(&self, id: ActivationId) -> bool {
        self.ledger.find(id).is_some_and(|entry| entry.is_called())
    }
}
