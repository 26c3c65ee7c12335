//! Hot path: an activation from delivery to result, and the asks that bring the next one.
//!
//! Budget per activation: one entry in `in_flight` and one in the results, no text built, no lookup by queue key.

use std::fmt::Debug;
use std::time::Duration;

use whiskraft_types::{ActivationId, Instant, Lease};

use crate::pool::{InFlight, Mode};
use crate::results::Stored;
use crate::timers::Timer;
use crate::{Completed, Deliver, Finished, Life, Output, Pool, WorkerId};

impl<A, D, R> Pool<A, D, R>
where
    A: Debug,
    R: Clone,
{
    pub(crate) fn on_deliver(&mut self, now: Instant, deliver: Deliver<D>, out: &mut Vec<Output<A, D, R>>) {
        if self.answer_repeated(now, &deliver, out) {
            return;
        }
        let accepted = self.accept(now, &deliver);
        let Deliver {
            from,
            id,
            container,
            epoch,
            run: _,
            content,
        } = deliver;
        match accepted {
            Ok((worker, start_by, init)) => {
                // Its leader has settled the run before.
                if let Some(emptied) = self.results.remove(&id) {
                    self.tell_held_end(emptied, out);
                }
                out.push(Output::Run {
                    worker,
                    id,
                    init,
                    start_by,
                    content,
                });
            }
            Err(reason) => {
                tracing::debug!(activation = %id, %container, reason, "refused");
                out.push(Output::Refused {
                    to: from,
                    id,
                    container,
                    epoch,
                    reason: reason.to_owned(),
                });
            }
        }
    }

    /// Answers a delivery of a run that is in flight or has a result here, or of an earlier run of that activation: it is not
    /// started. False for every other delivery. A run whose result was acknowledged is not known here any more: see
    /// [`Deliver::run`] for why none comes.
    fn answer_repeated(
        &mut self,
        now: Instant,
        deliver: &Deliver<D>,
        out: &mut Vec<Output<A, D, R>>,
    ) -> bool {
        let running = self.in_flight.get(&deliver.id).copied();
        let known = match running {
            // Nobody will hear of its result.
            Some(here) if self.is_orphaned(here.worker) => None,
            Some(here) => Some(here.run),
            None => self.results.find(&deliver.id).map(|stored| stored.run),
        };
        if known.is_none_or(|known| known < deliver.run) {
            return false;
        }
        if !self.is_from_leader(deliver) {
            // Nobody listens to an answer, and "refused" would be a lie.
            return true;
        }
        if let Some(here) = self.in_flight.get_mut(&deliver.id) {
            // Its end is the answer.
            here.again = Some((deliver.container, deliver.epoch));
        } else {
            self.answer_with_result(now, deliver, out);
        }
        if let Some(worker) = self.by_id.get(&deliver.container).copied() {
            if let Some(container) = self.containers.get_mut(&worker) {
                container.asks = container.asks.saturating_sub(1);
            }
            self.top_up(now, worker, out);
        }
        true
    }

    fn answer_with_result(&mut self, now: Instant, deliver: &Deliver<D>, out: &mut Vec<Output<A, D, R>>) {
        let is_fenced = self.is_fenced(now);
        let Some(stored) = self.results.find(&deliver.id) else {
            return;
        };
        stored.sent = !is_fenced;
        if is_fenced {
            self.held_back = true;
            return;
        }
        out.push(Output::Completed(Completed {
            to: deliver.from,
            container: deliver.container,
            key: stored.key.clone(),
            epoch: deliver.epoch,
            record: stored.record.clone(),
            credits: 0,
        }));
    }

    fn is_orphaned(&self, worker: WorkerId) -> bool {
        self.containers
            .get(&worker)
            .is_none_or(|container| container.orphaned)
    }

    /// Whether a delivery of an activation that is known here comes from the leader of now.
    fn is_from_leader(&mut self, deliver: &Deliver<D>) -> bool {
        let in_flight = self.in_flight.get(&deliver.id).map(|here| here.worker);
        // Where it was delivered may be gone; its queue is that of its run.
        let worker = self.by_id.get(&deliver.container).copied().or(in_flight);
        let leadership = match worker.and_then(|worker| self.containers.get(&worker)) {
            Some(container) => Some((container.leader, container.epoch)),
            None => {
                let key = self.results.find(&deliver.id).map(|stored| &stored.key);
                let queue = key.and_then(|key| self.queues.find(key));
                queue.map(|queue| (queue.leader, queue.epoch))
            }
        };
        leadership == Some((deliver.from, deliver.epoch))
    }

    /// Takes an activation into its container: owner, last moment to start it, and whether the code has to be loaded.
    fn accept(
        &mut self,
        now: Instant,
        deliver: &Deliver<D>,
    ) -> Result<(WorkerId, Instant, bool), &'static str> {
        const NOT_HERE: &str = "the container is not here";
        let start_by = self
            .lease
            .as_ref()
            .and_then(Lease::fenced_at)
            .filter(|at| now < *at);
        let worker = *self.by_id.get(&deliver.container).ok_or(NOT_HERE)?;
        let container = self.containers.get_mut(&worker).ok_or(NOT_HERE)?;
        if container.epoch != deliver.epoch || container.leader != deliver.from {
            return Err("the delivery is of another epoch of the queue");
        }
        if container.asks == 0 {
            return Err("the container has no open ask");
        }
        // Answered, whatever the answer is worth.
        container.asks -= 1;
        if container.retired.is_some() || !matches!(container.life, Life::Fresh | Life::Ready) {
            return Err("the container is on its way out");
        }
        if self.mode != Mode::Open {
            return Err("the invoker shuts down");
        }
        if self.in_flight.contains_key(&deliver.id) {
            // The container is as good as before, but the same delivery must not come back at once.
            let at = now + self.settings.pull_retry;
            self.timers.arm(at, Timer::AskAgain(worker));
            return Err("an earlier run of it has not ended here");
        }
        let Some(start_by) = start_by else {
            self.held_back = true;
            return Err("the invoker is fenced");
        };
        container.running.push(deliver.id);
        let init = container.life == Life::Fresh;
        let here = InFlight {
            worker,
            run: deliver.run,
            again: None,
        };
        self.in_flight.insert(deliver.id, here);
        if init {
            self.enter(worker, Life::Initialising);
        }
        Ok((worker, start_by, init))
    }

    pub(crate) fn on_initialised(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        if self
            .containers
            .get(&worker)
            .is_some_and(|container| container.life == Life::Initialising)
        {
            self.enter(worker, Life::Ready);
            self.top_up(now, worker, out);
        }
    }

    pub(crate) fn on_begun(&mut self, worker: WorkerId, id: ActivationId, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get(&worker) else {
            return;
        };
        if container.running.contains(&id) && !container.orphaned {
            out.push(Output::Started {
                to: container.leader,
                id,
                container: container.id,
                epoch: container.epoch,
            });
        }
    }

    pub(crate) fn on_finished(
        &mut self,
        now: Instant,
        finished: Finished<R>,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let Finished {
            worker,
            id,
            record,
            len,
            reusable,
            healthy,
        } = finished;
        self.judge(now, healthy);
        let Some(InFlight { run, .. }) = self.end_run(now, worker, id, reusable) else {
            return;
        };
        let fenced = self.is_fenced(now);
        let Some(container) = self.containers.get(&worker) else {
            return;
        };
        if !container.orphaned {
            let (to, epoch, container_id, key) = (
                container.leader,
                container.epoch,
                container.id,
                container.key.clone(),
            );
            let stored = Stored {
                key: key.clone(),
                container: container_id,
                run,
                record: record.clone(),
                sent: !fenced,
                len,
            };
            self.results.insert(id, stored);
            if fenced {
                self.held_back = true;
            } else {
                let credits = self.take_asks(now, worker);
                let container = container_id;
                out.push(Output::Completed(Completed {
                    to,
                    container,
                    key,
                    epoch,
                    record,
                    credits,
                }));
            }
        }
        self.settle(now, worker, out);
    }

    pub(crate) fn on_not_started(
        &mut self,
        now: Instant,
        worker: WorkerId,
        id: ActivationId,
        reusable: bool,
        reason: String,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let Some(InFlight { again, .. }) = self.end_run(now, worker, id, reusable) else {
            return;
        };
        let Some(container) = self.containers.get(&worker) else {
            return;
        };
        if !container.orphaned {
            let (to, epoch) = (container.leader, container.epoch);
            // One answer: a second one would be taken for that of a delivery to come.
            let again = again.filter(|(_, of)| *of == epoch);
            let container = again.map_or(container.id, |(at, _)| at);
            out.push(Output::Refused {
                to,
                id,
                container,
                epoch,
                reason,
            });
        }
        self.top_up(now, worker, out);
        self.settle(now, worker, out);
    }

    /// Takes an activation out of its container; what ran, `None` if it was not there.
    fn end_run(
        &mut self,
        now: Instant,
        worker: WorkerId,
        id: ActivationId,
        reusable: bool,
    ) -> Option<InFlight> {
        let here = self.in_flight.get(&id).filter(|here| here.worker == worker);
        let Some(here) = here.copied() else {
            tracing::error!(activation = %id, %worker, "end of an activation that does not run here");
            return None;
        };
        self.in_flight.remove(&id);
        let container = self.containers.get_mut(&worker)?;
        container.running.retain(|running| *running != id);
        container.used_at = now;
        if !reusable && container.retired.is_none() {
            container.retired = Some("an activation left it unusable".to_owned());
        }
        if container.life == Life::Initialising {
            // The code was not loaded; the next activation, if there may be one, starts with that.
            self.enter(worker, Life::Fresh);
        }
        Some(here)
    }

    pub(crate) fn on_results_acked(
        &mut self,
        now: Instant,
        ids: &[ActivationId],
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let was_full = self.results.is_full();
        for id in ids {
            if let Some(container) = self.results.remove(id) {
                self.tell_held_end(container, out);
            }
        }
        if was_full && !self.results.is_full() {
            self.top_up_all(now, out);
        }
    }

    /// Asks that a container gets now; they count as open from here on.
    pub(crate) fn take_asks(&mut self, now: Instant, worker: WorkerId) -> u32 {
        let (fenced, full) = (self.is_fenced(now), self.results.is_full());
        let Some(container) = self.containers.get_mut(&worker) else {
            return 0;
        };
        let room = container.room();
        if room == 0 || self.mode != Mode::Open {
            return 0;
        }
        if fenced || full {
            self.held_back = true;
            return 0;
        }
        container.asks += room;
        room
    }

    pub(crate) fn top_up(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let count = self.take_asks(now, worker);
        if count == 0 {
            return;
        }
        let Some(container) = self.containers.get(&worker) else {
            return;
        };
        out.push(Output::Credit {
            to: container.leader,
            container: container.id,
            key: container.key.clone(),
            epoch: container.epoch,
            count,
            warmed: container.is_warmed(),
        });
    }

    fn top_up_all(&mut self, now: Instant, out: &mut Vec<Output<A, D, R>>) {
        if !std::mem::take(&mut self.held_back) {
            return;
        }
        let workers: Vec<WorkerId> = self.containers.keys().copied().collect();
        for worker in workers {
            self.top_up(now, worker, out);
        }
    }

    pub(crate) fn on_lease_renewed(
        &mut self,
        now: Instant,
        sent_at: Instant,
        ttl: Duration,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        if self.mode == Mode::Closed {
            return;
        }
        let lease = self.lease.get_or_insert_with(|| Lease::new(ttl));
        lease.acknowledge(sent_at);
        if self.held_back && !self.is_fenced(now) {
            self.send_held_results(out);
            self.top_up_all(now, out);
        }
    }

    /// Sends the results that came while the invoker was fenced.
    fn send_held_results(&mut self, out: &mut Vec<Output<A, D, R>>) {
        for (_, stored) in self.results.all().filter(|(_, stored)| !stored.sent) {
            let Some(queue) = self.queues.find(&stored.key) else {
                continue;
            };
            stored.sent = true;
            out.push(Output::Completed(Completed {
                to: queue.leader,
                container: stored.container,
                key: stored.key.clone(),
                epoch: queue.epoch,
                record: stored.record.clone(),
                credits: 0,
            }));
        }
    }
}
