//! The actor: owns the pool, the session, the links and the owner tasks of containers. One loop, one clock reading
//! per turn; events go into the pool, outputs come out and leave as one frame per scheduler and turn.
//!
//! It never waits for a link or an owner task: their channels are filled with `try_send`, and each has an answer for
//! being full (the link is cut and says everything again; an owner task cannot have more orders than its channel).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use whiskraft_pool::WorkerId;
use whiskraft_proto::v1;
use whiskraft_types::{Instant, SchedulerId, SessionId};

use crate::backend::{BackendEvent, Instance};
use crate::clock;
use crate::config::InvokerConfig;
use crate::event::{Event, LinkEvent, LinkUp};
use crate::invoker::StopReason;
use crate::keepalives::Keepalives;
use crate::link::Announced;
use crate::outgoing::Outgoing;
use crate::run::Right;
use crate::session::{OpenError, Opened, Opener};
use crate::wire;
use crate::words::{Input, Output, Pool};
use crate::worker::{Host, Order};

/// Events taken per turn: enough to fill frames under load, few enough to keep deadlines.
const EVENTS_PER_TURN: usize = 256;
/// Deaths of containers whose creation has not been told yet; a creation takes one channel hop longer.
const EARLY_DEATHS_MAX: usize = 256;

/// A link's task and, while it is open, its sending ends.
pub(crate) struct Link {
    pub(crate) address: String,
    pub(crate) task: JoinHandle<()>,
    pub(crate) serial: u64,
    pub(crate) up: Option<LinkUp>,
}

/// An owner task.
pub(crate) struct Owner {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) instance: Option<Instance>,
}

/// See the module.
pub(crate) struct Actor {
    pub(crate) config: InvokerConfig,
    pub(crate) pool: Pool,
    pub(crate) host: Arc<Host>,
    pub(crate) opener: Arc<Opener>,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) deaths: Option<mpsc::Receiver<BackendEvent>>,
    pub(crate) shutdown: oneshot::Receiver<()>,
    pub(crate) addresses: watch::Sender<Vec<String>>,
    pub(crate) announced: watch::Sender<Option<Announced>>,
    /// For runs whose init outlasted the lease they were accepted under.
    pub(crate) right: watch::Sender<Right>,
    pub(crate) keepalives: Option<Keepalives>,
    pub(crate) links: BTreeMap<SchedulerId, Link>,
    pub(crate) workers: BTreeMap<WorkerId, Owner>,
    pub(crate) by_instance: BTreeMap<Instance, WorkerId>,
    pub(crate) early_deaths: BTreeSet<Instance>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) outgoing: Outgoing,
    /// When to look for members again.
    pub(crate) refresh_at: Instant,
    pub(crate) refreshing: bool,
    /// When reports without ack go out again.
    pub(crate) repeat_at: Instant,
    pub(crate) phase: Phase,
    /// Newest report that was counted; repetitions are not.
    pub(crate) reported: u64,
    /// Opens the next session, after the last one has ended.
    pub(crate) session_task: Option<JoinHandle<()>>,
    /// First serial number of the next link.
    pub(crate) next_serial: u64,
}

/// What the actor is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Working.
    Serving,
    /// Shutting down: containers get until then.
    Draining { until: Instant },
    /// The grace is over: removals get until then.
    Ending { until: Instant },
    /// No container is left: results and reports get until then to be acknowledged.
    Parting { until: Instant },
    /// Everything is said: a scheduler gets until then to end the session.
    Leaving { until: Instant },
    /// Done.
    Stopped,
}

impl Actor {
    /// Runs until the shutdown is complete or no session can be had.
    pub(crate) async fn run(mut self, first: Opened) -> StopReason {
        self.on_opened(clock::now(), first);
        let reason = self.serve().await;
        for link in self.links.values() {
            link.task.abort();
        }
        if let Some(task) = self.session_task.take() {
            task.abort();
        }
        self.host.backend.shutdown().await;
        reason
    }

    async fn serve(&mut self) -> StopReason {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        let mut shutdown_asked = false;
        loop {
            let deadline = clock::at(self.next_deadline());
            tokio::select! {
                biased;
                // Deadlines first: a channel that is never empty must not delay keepalives.
                () = tokio::time::sleep_until(deadline) => {}
                // A dropped handle means the same as a call of `shutdown`.
                _ = &mut self.shutdown, if !shutdown_asked => {
                    shutdown_asked = true;
                    self.on_shutdown(clock::now());
                }
                death = next_death(&mut self.deaths) => self.on_death(clock::now(), death),
                _ = self.events.recv_many(&mut events, EVENTS_PER_TURN) => {
                    let now = clock::now();
                    for event in events.drain(..) {
                        if let Err(error) = self.on_event(now, event) {
                            return StopReason::NoSession(error);
                        }
                    }
                }
            }
            let now = clock::now();
            self.on_deadlines(now);
            self.outgoing.flush(now, &mut self.links);
            if self.phase == Phase::Stopped {
                return StopReason::Shutdown;
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let mut next = self.refresh_at.min(self.repeat_at);
        next = self.pool.next_deadline().map_or(next, |at| next.min(at));
        next = self
            .keepalives
            .as_ref()
            .map_or(next, |keepalives| next.min(keepalives.next_deadline()));
        match self.phase {
            Phase::Serving | Phase::Stopped => next,
            Phase::Draining { until }
            | Phase::Ending { until }
            | Phase::Parting { until }
            | Phase::Leaving { until } => next.min(until),
        }
    }

    fn on_deadlines(&mut self, now: Instant) {
        if self.pool.next_deadline().is_some_and(|at| at <= now) {
            self.step(now, Input::Tick);
        }
        self.send_keepalive(now);
        if now >= self.repeat_at {
            self.repeat_at = now + self.config.report_repeat;
            if self.pool.unreported_len() > 0 {
                self.step(now, Input::RepeatReports);
            }
        }
        if now >= self.refresh_at {
            self.refresh_members(now);
        }
        self.on_phase(now);
    }

    fn on_event(&mut self, now: Instant, event: Event) -> Result<(), OpenError> {
        match event {
            Event::Link {
                scheduler,
                serial,
                event,
            } => self.on_link(now, scheduler, serial, event),
            Event::Worker(input) => self.on_worker(now, input),
            Event::Instance(worker, instance) => self.on_instance(now, worker, instance),
            Event::Session(opened) => {
                self.session_task = None;
                self.on_opened(now, opened?);
            }
            Event::Look(answer) => {
                // An error means that nobody waits for it any more.
                let _ = answer.send(self.look(now));
            }
            Event::Members(members) => {
                self.refreshing = false;
                self.on_members(members);
            }
        }
        Ok(())
    }

    fn on_link(&mut self, now: Instant, scheduler: SchedulerId, serial: u64, event: LinkEvent) {
        let Some(link) = self.links.get_mut(&scheduler) else {
            return;
        };
        match event {
            LinkEvent::Up(up) => {
                link.serial = serial;
                if self
                    .announced
                    .borrow()
                    .as_ref()
                    .is_some_and(|now| now.session == up.session)
                {
                    link.up = Some(up);
                    self.on_link_up(now, scheduler);
                }
            }
            LinkEvent::Expired(session) => {
                if self.session() == Some(session) {
                    self.on_expired(now);
                }
            }
            LinkEvent::OtherCluster { session, reason } => {
                if self.session() == Some(session) {
                    self.on_other_cluster(now, scheduler, &reason);
                }
            }
            // From here on frames of a connection that was cut mean nothing.
            _ if link.serial != serial || link.up.is_none() => {}
            LinkEvent::Control(frame) => self.on_control(now, scheduler, frame),
            LinkEvent::Pull(frame) => self.on_pull(now, scheduler, frame),
            LinkEvent::Down => link.up = None,
        }
    }

    fn on_link_up(&mut self, now: Instant, scheduler: SchedulerId) {
        if let Some(keepalives) = &mut self.keepalives {
            keepalives.link_opened(now, scheduler);
            if keepalives.home() == Some(scheduler) {
                self.outgoing.memory(scheduler, self.pool.memory_use());
            }
        }
        self.step(now, Input::PullOpened { scheduler });
        self.step(now, Input::RepeatReports);
    }

    fn on_control(&mut self, now: Instant, from: SchedulerId, frame: v1::ControlDown) {
        if let Some(ack) = frame.keepalive_ack
            && let Some(keepalives) = &mut self.keepalives
            && let Some(sent_at) = keepalives.acked(from, ack.seq)
        {
            let ttl = keepalives.ttl();
            self.step(now, Input::LeaseRenewed { sent_at, ttl });
            self.right.send_replace(Right {
                session: self.session(),
                until: self.pool.fenced_at(),
            });
        }
        if !frame.report_acks.is_empty() {
            self.step(
                now,
                Input::ReportsAcked {
                    seqs: frame.report_acks,
                },
            );
        }
        self.on_members(frame.schedulers);
        for create in frame.create {
            let leader = SchedulerId(create.leader);
            if !self.links.contains_key(&leader) {
                self.refresh_members(now);
            }
            let input = wire::create(create, now);
            self.step_parsed(now, from, input);
        }
        for remove in frame.remove {
            if let Some(container) = remove.container {
                self.step(
                    now,
                    Input::Remove {
                        container: container.into(),
                        now: remove.now,
                    },
                );
            }
        }
        if frame.expired.is_some() {
            self.on_expired(now);
        }
    }

    fn on_pull(&mut self, now: Instant, from: SchedulerId, frame: v1::PullDown) {
        // Leadership first: it decides which deliveries count.
        for reregister in frame.reregister {
            let input = wire::reregister(from, reregister);
            self.step_parsed(now, from, input);
        }
        if !frame.completed_acks.is_empty() {
            let ids = frame
                .completed_acks
                .iter()
                .filter_map(|id| whiskraft_proto::activation_id(id).ok());
            let ids = ids.collect();
            self.step(now, Input::ResultsAcked { ids });
        }
        for deliver in frame.deliver {
            let input = wire::deliver(from, deliver, now);
            self.step_parsed(now, from, input);
        }
        for stop in frame.stops {
            let input = wire::stop(from, stop);
            self.step_parsed(now, from, input);
        }
        for ack in frame.withdraw_acks {
            if let Some(container) = ack.container {
                self.step(
                    now,
                    Input::WithdrawAcked {
                        from,
                        container: container.into(),
                    },
                );
            }
        }
        for rejected in frame.rejected {
            match wire::rejected(from, rejected) {
                Ok(Some(input)) => self.step(now, input),
                Ok(None) => {}
                Err(error) => tracing::warn!(scheduler = %from, %error, "message not understood"),
            }
        }
    }

    fn step_parsed(
        &mut self,
        now: Instant,
        from: SchedulerId,
        input: Result<Input, whiskraft_proto::InvalidMessage>,
    ) {
        match input {
            Ok(input) => self.step(now, input),
            Err(error) => tracing::warn!(scheduler = %from, %error, "message not understood"),
        }
    }

    fn on_worker(&mut self, now: Instant, input: Input) {
        if let Input::Finished(finished) = &input {
            let record = &finished.record;
            self.host.metrics.ended(record.activation.status(), record.run_us);
        }
        if let Input::Gone { worker } | Input::CreationFailed { worker, .. } = &input
            && let Some(owner) = self.workers.remove(worker)
            && let Some(instance) = owner.instance
        {
            self.by_instance.remove(&instance);
        }
        self.step(now, input);
    }

    fn on_instance(&mut self, now: Instant, worker: WorkerId, instance: Instance) {
        if let Some(owner) = self.workers.get_mut(&worker) {
            owner.instance = Some(instance);
            self.by_instance.insert(instance, worker);
        }
        if self.early_deaths.remove(&instance) {
            self.step(
                now,
                Input::Died {
                    worker,
                    reason: "it died at its start".to_owned(),
                },
            );
        }
    }

    fn on_death(&mut self, now: Instant, BackendEvent::Died { instance, reason }: BackendEvent) {
        if let Some(worker) = self.by_instance.get(&instance).copied() {
            tracing::warn!(%worker, %instance, reason, "container died");
            self.step(now, Input::Died { worker, reason });
            return;
        }
        self.early_deaths.insert(instance);
        if self.early_deaths.len() > EARLY_DEATHS_MAX {
            self.early_deaths.pop_first();
        }
    }

    /// Feeds the pool and carries out what it wants.
    pub(crate) fn step(&mut self, now: Instant, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.pool.step(now, input, &mut outputs);
        for output in outputs.drain(..) {
            self.count(&output);
            self.carry_out(now, output);
        }
        self.outputs = outputs;
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.announced
            .borrow()
            .as_ref()
            .map(|announced| announced.session)
    }
}

/// The next death; never, once the backend has closed its channel.
async fn next_death(deaths: &mut Option<mpsc::Receiver<BackendEvent>>) -> BackendEvent {
    if let Some(receiver) = deaths {
        if let Some(death) = receiver.recv().await {
            return death;
        }
        *deaths = None;
    }
    std::future::pending().await
}
