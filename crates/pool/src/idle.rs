//! Idle containers: asks are taken back, then the container is paused, and after a while removed.
//!
//! Invariant: a container is asked to pause only when nothing runs in it and its leader has acknowledged that it
//! holds no ask of it.

use std::fmt::Debug;

use whiskraft_types::{ContainerId, Instant, SchedulerId};

use crate::container::Farewell;
use crate::{Change, Life, Output, Pool, WorkerId};

impl<A, D, R> Pool<A, D, R>
where
    A: Debug,
    R: Clone,
{
    /// A run has ended: the container goes if it may take no more, else its idle time begins.
    pub(crate) fn settle(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get(&worker) else {
            return;
        };
        if !container.running.is_empty() || !container.life.is_live() {
            return;
        }
        if let Some(reason) = container.retired.clone() {
            self.remove(worker, Farewell::Removed(reason), out);
        } else if container.timer.is_none() {
            self.arm_container(worker, now + self.settings.pause_grace);
        }
    }

    pub(crate) fn on_idle_timer(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let grace = self.settings.pause_grace;
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        if !container.running.is_empty() || container.retired.is_some() {
            // The end of the run looks again.
            return;
        }
        let due = container.used_at + grace;
        if due > now {
            self.arm_container(worker, due);
        } else if container.withdrawing {
            self.on_withdraw_overdue(now, worker, out);
        } else if container.asks > 0 {
            container.withdrawing = true;
            out.push(Output::Withdraw {
                to: container.leader,
                container: container.id,
            });
            self.arm_container(worker, now + grace);
        } else {
            self.rest(worker, out);
        }
    }

    /// The leader has let a withdraw go unanswered. Asking again could be answered twice, and the second answer be taken
    /// for that of a later withdraw; removing is always safe, as what arrives afterwards is refused.
    fn on_withdraw_overdue(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        if self.is_fenced(now) {
            // Nobody can be expected to answer.
            self.arm_container(worker, now + self.settings.pause_grace);
        } else {
            self.remove(
                worker,
                Farewell::Removed("its asks were not taken back".to_owned()),
                out,
            );
        }
    }

    pub(crate) fn on_withdraw_acked(
        &mut self,
        now: Instant,
        from: SchedulerId,
        container: ContainerId,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let Some(worker) = self.by_id.get(&container).copied() else {
            return;
        };
        let grace = self.settings.pause_grace;
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        if !container.withdrawing || container.leader != from || !container.life.is_live() {
            return;
        }
        container.withdrawing = false;
        container.asks = 0;
        let idle = container.running.is_empty() && container.used_at + grace <= now;
        if idle && container.retired.is_none() {
            self.rest(worker, out);
        } else {
            self.top_up(now, worker, out);
            self.settle(now, worker, out);
        }
    }

    /// Pauses an idle container without asks; one without code is worth nothing to anybody and goes.
    fn rest(&mut self, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        if self
            .containers
            .get(&worker)
            .is_some_and(|container| container.life == Life::Ready)
        {
            self.enter(worker, Life::Pausing);
            out.push(Output::Pause { worker });
        } else {
            self.remove(worker, Farewell::Removed("idle without code".to_owned()), out);
        }
    }

    pub(crate) fn on_paused(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get(&worker) else {
            return;
        };
        if container.life != Life::Pausing {
            return;
        }
        if let Some(reason) = container.retired.clone() {
            self.remove(worker, Farewell::Removed(reason), out);
            return;
        }
        let (id, key) = (container.id, container.key.clone());
        self.enter(worker, Life::Paused);
        self.arm_container(worker, now + self.settings.keep);
        self.report(id, &key, Change::Warm, out);
    }

    pub(crate) fn on_pause_failed(&mut self, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        if self
            .containers
            .get(&worker)
            .is_some_and(|container| container.life == Life::Pausing)
        {
            self.remove(
                worker,
                Farewell::Removed("it could not be paused".to_owned()),
                out,
            );
        }
    }

    pub(crate) fn on_kept_enough(&mut self, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        self.remove(
            worker,
            Farewell::Removed("unused for the time it is kept".to_owned()),
            out,
        );
    }
}
