//! Removal, whatever its cause: a scheduler's wish, eviction, death, the end of the session, a shutdown.
//!
//! A slot is free, and the memory too, when nothing is left of the container; a paused one holds no slot and is
//! reported before it goes, so that nobody resumes it meanwhile.

use std::fmt::Debug;

use whiskraft_types::{ActivationId, ContainerId, CreationError, Epoch, SchedulerId};

use crate::container::Farewell;
use crate::pool::{InFlight, Mode};
use crate::{Change, Life, Output, Pool, WorkerId};

/// Why a container ends when the activation in it was cancelled.
const CANCELLED: &str = "its activation was cancelled";

impl<A, D, R> Pool<A, D, R>
where
    A: Debug,
    R: Clone,
{
    /// Removes a container now; what runs in it is killed and ends through its owner task.
    pub(crate) fn remove(&mut self, worker: WorkerId, farewell: Farewell, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        let (life, id) = (container.life, container.id);
        match life {
            Life::Removing => return,
            Life::Waiting => {
                container.farewell = farewell;
                self.vanish(worker, out);
                return;
            }
            Life::Paused => {
                container.farewell = Farewell::Nothing;
                let key = container.key.clone();
                if let Farewell::Removed(reason) = farewell {
                    self.report(id, &key, Change::Removed { reason }, out);
                }
            }
            Life::Creating
            | Life::Fresh
            | Life::Initialising
            | Life::Ready
            | Life::Pausing
            | Life::Resuming => {
                container.farewell = farewell;
                if container.asks > 0 && !container.withdrawing && !container.orphaned {
                    // Saves the leader deliveries that would be refused; nobody waits for the ack.
                    out.push(Output::Withdraw {
                        to: container.leader,
                        container: id,
                    });
                }
            }
        }
        self.enter(worker, Life::Removing);
        out.push(Output::Remove { worker });
    }

    /// Lets a container take no more; it goes at once if nothing runs in it.
    pub(crate) fn retire(&mut self, worker: WorkerId, reason: &str, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        container.retired.get_or_insert_with(|| reason.to_owned());
        match container.life {
            Life::Waiting | Life::Paused => self.remove(worker, Farewell::Removed(reason.to_owned()), out),
            Life::Fresh | Life::Initialising | Life::Ready if container.running.is_empty() => {
                self.remove(worker, Farewell::Removed(reason.to_owned()), out);
            }
            Life::Fresh | Life::Initialising | Life::Ready => {
                if container.asks > 0 && !container.withdrawing {
                    container.withdrawing = true;
                    out.push(Output::Withdraw {
                        to: container.leader,
                        container: container.id,
                    });
                }
            }
            // The end of what is under way looks at `retired`.
            Life::Creating | Life::Pausing | Life::Resuming | Life::Removing => {}
        }
    }

    pub(crate) fn on_remove(
        &mut self,
        container: ContainerId,
        at_once: bool,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        const REASON: &str = "a scheduler removed it";
        let Some(worker) = self.by_id.get(&container).copied() else {
            return;
        };
        if at_once {
            self.remove(worker, Farewell::Removed(REASON.to_owned()), out);
        } else {
            self.retire(worker, REASON, out);
        }
    }

    /// The activation in its container was cancelled.
    pub(crate) fn on_stop(
        &mut self,
        from: SchedulerId,
        id: ActivationId,
        container: ContainerId,
        epoch: Epoch,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let Some(InFlight { worker, .. }) = self.in_flight.get(&id).copied() else {
            return;
        };
        let Some(known) = self.containers.get(&worker) else {
            return;
        };
        let is_meant = known.id == container && known.leader == from && known.epoch == epoch;
        // What else runs there must not suffer.
        if !is_meant || known.running.len() > 1 || known.life == Life::Removing {
            return;
        }
        tracing::debug!(activation = %id, %container, "cancelled; ending its container");
        out.push(Output::Stop { worker, id });
        self.remove(worker, Farewell::Removed(CANCELLED.to_owned()), out);
    }

    pub(crate) fn on_died(&mut self, worker: WorkerId, reason: String, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get(&worker) else {
            return;
        };
        tracing::debug!(%worker, container = %container.id, reason, "container died");
        match container.life {
            // A resume of a dead container fails by itself, and is served again with a new one.
            Life::Waiting | Life::Creating | Life::Resuming | Life::Removing => {}
            Life::Fresh | Life::Initialising | Life::Ready => {
                self.retire(worker, &reason, out);
            }
            Life::Pausing | Life::Paused => self.remove(worker, Farewell::Removed(reason), out),
        }
    }

    pub(crate) fn on_gone(&mut self, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        if self
            .containers
            .get(&worker)
            .is_some_and(|container| container.life == Life::Removing)
        {
            self.vanish(worker, out);
        }
    }

    /// Forgets a container of which nothing is left, and says so.
    pub(crate) fn vanish(&mut self, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let Some(mut container) = self.containers.remove(&worker) else {
            return;
        };
        for id in &container.running {
            tracing::error!(activation = %id, %worker, "container is gone before its activation has ended");
            self.in_flight.remove(id);
        }
        self.memory.leave(container.life, container.memory);
        self.waiting.remove(&worker);
        self.paused.remove(&(container.used_at, worker));
        if let Some(at) = container.timer.take() {
            self.timers.cancel(at, crate::timers::Timer::Container(worker));
        }
        if self.by_id.get(&container.id) == Some(&worker) {
            self.by_id.remove(&container.id);
        }
        self.queues.unlink(&container.key, worker);
        match std::mem::replace(&mut container.farewell, Farewell::Nothing) {
            Farewell::Nothing => {}
            Farewell::Removed(reason) => {
                self.report(container.id, &container.key, Change::Removed { reason }, out);
            }
            Farewell::Failed(error, message) => {
                self.report(
                    container.id,
                    &container.key,
                    Change::Failed { error, message },
                    out,
                );
            }
        }
        self.prune_queues();
        if self.containers.is_empty() && self.mode != Mode::Open {
            out.push(Output::Emptied);
        }
    }

    pub(crate) fn on_session_expired(&mut self, out: &mut Vec<Output<A, D, R>>) {
        if self.mode == Mode::Closed {
            return;
        }
        if self.mode == Mode::Open {
            self.mode = Mode::Closed;
        }
        self.lease = None;
        // The cluster has forgotten everything of this session and ended what it delivered here.
        self.results.clear();
        self.removals_held.clear();
        self.outbox.clear();
        let workers: Vec<WorkerId> = self.containers.keys().copied().collect();
        for worker in &workers {
            if let Some(container) = self.containers.get_mut(worker) {
                container.orphaned = true;
                container.farewell = Farewell::Nothing;
            }
            self.remove(*worker, Farewell::Nothing, out);
        }
        self.queues.clear();
        if workers.is_empty() {
            out.push(Output::Emptied);
        }
    }

    pub(crate) fn on_session_opened(&mut self) {
        if self.mode == Mode::Closed {
            self.mode = Mode::Open;
            self.lease = None;
            self.report_memory_now();
        }
    }

    pub(crate) fn on_drain(&mut self, out: &mut Vec<Output<A, D, R>>) {
        const REASON: &str = "the invoker shuts down";
        if self.mode == Mode::Draining {
            return;
        }
        self.mode = Mode::Draining;
        if self.containers.is_empty() {
            out.push(Output::Emptied);
            return;
        }
        for worker in self.containers.keys().copied().collect::<Vec<_>>() {
            if let Some(container) = self.containers.get_mut(&worker)
                && matches!(container.life, Life::Waiting | Life::Creating | Life::Resuming)
                && container.retired.is_none()
            {
                container.farewell = Farewell::Failed(CreationError::ShuttingDown, REASON.to_owned());
            }
            let starting = self
                .containers
                .get(&worker)
                .filter(|container| container.life == Life::Waiting);
            match starting.map(|container| container.farewell.clone()) {
                Some(farewell) => self.remove(worker, farewell, out),
                None => self.retire(worker, REASON, out),
            }
        }
    }

    pub(crate) fn on_drain_ended(&mut self, out: &mut Vec<Output<A, D, R>>) {
        for worker in self.containers.keys().copied().collect::<Vec<_>>() {
            let farewell = self
                .containers
                .get(&worker)
                .map(|container| container.farewell.clone());
            if let Some(farewell) = farewell {
                self.remove(worker, farewell, out);
            }
        }
    }
}
