//! The pool: one `match` over inputs; the arms live in the modules named after what they do.
//!
//! Driven by the invoker's actor, which calls [`Pool::step`] for every input and again with [`Input::Tick`] when
//! [`Pool::next_deadline`] has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use whiskraft_types::{ActivationId, ByteSize, ContainerId, Epoch, Instant, Lease, QueueKey, Revision};

use crate::container::Container;
use crate::health::Health;
use crate::memory::MemoryAccount;
use crate::outbox::Outbox;
use crate::queues::Queues;
use crate::results::Results;
use crate::timers::{Timer, Timers};
use crate::{Change, Input, Life, MemoryUse, Output, PoolSettings, Report, WorkerId};

/// Everything an invoker decides. See the crate's documentation.
#[derive(Debug)]
pub struct Pool<A, D, R> {
    pub(crate) settings: PoolSettings,
    pub(crate) containers: BTreeMap<WorkerId, Container<A>>,
    pub(crate) by_id: BTreeMap<ContainerId, WorkerId>,
    /// Delivered and not finished.
    pub(crate) in_flight: BTreeMap<ActivationId, InFlight>,
    pub(crate) queues: Queues,
    pub(crate) results: Results<R>,
    pub(crate) outbox: Outbox,
    /// Removals, and failures of resumed ones, that are told when the last result of their container is acknowledged.
    pub(crate) removals_held: BTreeMap<ContainerId, (QueueKey, Change)>,
    pub(crate) memory: MemoryAccount,
    /// Paused containers, the longest unused first: the order of eviction.
    pub(crate) paused: BTreeSet<(Instant, WorkerId)>,
    /// Admitted containers that wait for memory; the first one is served first.
    pub(crate) waiting: BTreeSet<WorkerId>,
    pub(crate) health: Health,
    pub(crate) timers: Timers,
    pub(crate) mode: Mode,
    pub(crate) lease: Option<Lease>,
    /// Asks or results were held back because of fencing or full results; look at all containers when that ends.
    pub(crate) held_back: bool,
    pub(crate) next_worker: u64,
    reported: Option<(Instant, MemoryUse)>,
    memory_timer: Option<Instant>,
    content: std::marker::PhantomData<fn(D)>,
}

/// An activation that was delivered and has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) worker: WorkerId,
    /// Which run of it.
    pub(crate) run: u32,
    /// Where it was delivered again meanwhile, for the last time, and in which epoch: there its leader waits for an answer.
    pub(crate) again: Option<(ContainerId, Epoch)>,
}

/// What the invoker as a whole is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No session; what is left of the last one is being removed.
    Closed,
    /// A session is open.
    Open,
    /// Shutting down.
    Draining,
}

/// One container, for status pages and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Its owner.
    pub worker: WorkerId,
    /// Its id.
    pub container: ContainerId,
    /// Its queue.
    pub key: QueueKey,
    /// Revision of its action.
    pub revision: Revision,
    /// Where it is in its life.
    pub life: Life,
    /// What runs in it.
    pub running: Vec<ActivationId>,
    /// Its open asks.
    pub asks: u32,
    /// Its memory.
    pub memory: ByteSize,
}

impl<A, D, R> Pool<A, D, R>
where
    A: Debug,
    R: Clone,
{
    /// A pool without session and containers.
    #[must_use]
    pub fn new(settings: PoolSettings) -> Self {
        Self {
            containers: BTreeMap::new(),
            by_id: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            queues: Queues::default(),
            results: Results::new(settings.results_bytes_max.as_bytes(), settings.results_len_max),
            outbox: Outbox::default(),
            removals_held: BTreeMap::new(),
            memory: MemoryAccount::new(settings.memory),
            paused: BTreeSet::new(),
            waiting: BTreeSet::new(),
            health: Health::new(settings.health_retry),
            timers: Timers::default(),
            mode: Mode::Closed,
            lease: None,
            held_back: false,
            next_worker: 1,
            reported: None,
            memory_timer: None,
            content: std::marker::PhantomData,
            settings,
        }
    }

    /// Advances the pool by one input; what the shell has to do is appended to `out`, in order.
    pub fn step(&mut self, now: Instant, input: Input<A, D, R>, out: &mut Vec<Output<A, D, R>>) {
        match input {
            Input::Deliver(deliver) => self.on_deliver(now, deliver, out),
            Input::Initialised { worker } => self.on_initialised(now, worker, out),
            Input::Begun { worker, id } => self.on_begun(worker, id, out),
            Input::Finished(finished) => self.on_finished(now, finished, out),
            Input::NotStarted {
                worker,
                id,
                reusable,
                reason,
            } => {
                self.on_not_started(now, worker, id, reusable, reason, out);
            }
            Input::Stop {
                from,
                id,
                container,
                epoch,
            } => self.on_stop(from, id, container, epoch, out),
            Input::ResultsAcked { ids } => self.on_results_acked(now, &ids, out),

            Input::Create(create) => self.on_create(now, create, out),
            Input::Created { worker } => self.on_created(now, worker, out),
            Input::CreationFailed {
                worker,
                error,
                message,
            } => {
                self.on_creation_failed(now, worker, error, message, out);
            }
            Input::Resumed { worker } => self.on_resumed(now, worker, out),
            Input::ResumeFailed { worker } => self.on_resume_failed(now, worker, out),

            Input::WithdrawAcked { from, container } => self.on_withdraw_acked(now, from, container, out),
            Input::Paused { worker } => self.on_paused(now, worker, out),
            Input::PauseFailed { worker } => self.on_pause_failed(worker, out),

            Input::Remove {
                container,
                now: at_once,
            } => self.on_remove(container, at_once, out),
            Input::Died { worker, reason } => self.on_died(worker, reason, out),
            Input::Gone { worker } => self.on_gone(worker, out),

            Input::Reregister { from, key, epoch } => self.on_reregister(now, from, &key, epoch, out),
            Input::PullOpened { scheduler } => self.on_pull_opened(now, scheduler, out),
            Input::PullRefused { from, container } => self.on_pull_refused(now, from, container),
            Input::QueueGone { from, key } => self.on_queue_gone(from, &key, out),

            Input::ReportsAcked { seqs } => self.on_reports_acked(&seqs, out),
            Input::RepeatReports => self.repeat_reports(out),

            Input::SessionOpened => self.on_session_opened(),
            Input::LeaseRenewed { sent_at, ttl } => self.on_lease_renewed(now, sent_at, ttl, out),
            Input::SessionExpired => self.on_session_expired(out),
            Input::Drain => self.on_drain(out),
            Input::DrainEnded => self.on_drain_ended(out),

            Input::Tick => self.on_tick(now, out),
        }
        self.start_waiting(out);
        self.report_memory(now, out);
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether the invoker has no right to start anything.
    #[must_use]
    pub fn is_fenced(&self, now: Instant) -> bool {
        self.lease.as_ref().is_none_or(|lease| lease.is_fenced(now))
    }

    /// The first moment at which it has none, unless a keepalive is acknowledged; `None` if it has none already.
    #[must_use]
    pub fn fenced_at(&self) -> Option<Instant> {
        self.lease.as_ref().and_then(Lease::fenced_at)
    }

    /// Whether no container is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Results that no scheduler has acknowledged.
    #[must_use]
    pub fn unacknowledged_len(&self) -> usize {
        self.results.len()
    }

    /// Reports that no scheduler has acknowledged.
    #[must_use]
    pub fn unreported_len(&self) -> usize {
        self.outbox.len()
    }

    /// Memory of everything that exists, removing containers included.
    #[must_use]
    pub fn memory_real(&self) -> ByteSize {
        self.memory.real()
    }

    /// What schedulers should know about memory and health.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        self.memory
            .report(self.mode == Mode::Open && self.health.is_healthy())
    }

    /// All containers, by owner.
    pub fn containers(&self) -> impl Iterator<Item = ContainerView> {
        self.containers.iter().map(|(worker, container)| ContainerView {
            worker: *worker,
            container: container.id,
            key: container.key.clone(),
            revision: container.revision,
            life: container.life,
            running: container.running.clone(),
            asks: container.asks,
            memory: container.memory,
        })
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Output<A, D, R>>) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Container(worker) => self.on_container_timer(now, worker, out),
                Timer::AskAgain(worker) => self.top_up(now, worker, out),
                // The end of every step looks at memory.
                Timer::Memory => self.memory_timer = None,
                Timer::Health => {
                    if let Some(at) = self.health.forgive(now) {
                        self.timers.arm(at, Timer::Health);
                    }
                }
            }
        }
    }

    fn on_container_timer(&mut self, now: Instant, worker: WorkerId, out: &mut Vec<Output<A, D, R>>) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        container.timer = None;
        match container.life {
            Life::Waiting | Life::Creating | Life::Resuming => self.on_creation_deadline(worker, out),
            Life::Fresh | Life::Initialising | Life::Ready => self.on_idle_timer(now, worker, out),
            Life::Paused => self.on_kept_enough(worker, out),
            // What is under way decides.
            Life::Pausing | Life::Removing => {}
        }
    }

    /// Moves a container on in its life, with its memory, its place among the paused and its timer.
    pub(crate) fn enter(&mut self, worker: WorkerId, life: Life) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        if container.life == life {
            return;
        }
        self.memory.leave(container.life, container.memory);
        self.memory.enter(life, container.memory);
        match container.life {
            Life::Paused => _ = self.paused.remove(&(container.used_at, worker)),
            Life::Waiting => _ = self.waiting.remove(&worker),
            _ => {}
        }
        if life == Life::Paused {
            self.paused.insert((container.used_at, worker));
        }
        // An idle check holds through all live states, a creation deadline through waiting and creating.
        let same_timer = container.life.is_live() == life.is_live() && life.keeps_timer();
        container.life = life;
        if !same_timer && let Some(at) = container.timer.take() {
            self.timers.cancel(at, Timer::Container(worker));
        }
    }

    pub(crate) fn arm_container(&mut self, worker: WorkerId, at: Instant) {
        let Some(container) = self.containers.get_mut(&worker) else {
            return;
        };
        if let Some(old) = container.timer.replace(at) {
            self.timers.cancel(old, Timer::Container(worker));
        }
        self.timers.arm(at, Timer::Container(worker));
    }

    pub(crate) fn judge(&mut self, now: Instant, good: bool) {
        if let Some(at) = self.health.record(now, good) {
            self.timers.arm(at, Timer::Health);
        }
    }

    pub(crate) fn report(
        &mut self,
        container: ContainerId,
        key: &QueueKey,
        change: Change,
        out: &mut Vec<Output<A, D, R>>,
    ) {
        let Some(change) = self.hold_end(container, key, change) else {
            return;
        };
        if self.mode != Mode::Closed && self.outbox.push(container, key, change) {
            self.send_report(container, out);
        }
    }

    /// What may be told of a container now. While the table shows it, a new leader asks this invoker for results of it before
    /// it runs a resubmitted activation again; so its end waits for the acks of those that are kept, its slot does not.
    fn hold_end(&mut self, container: ContainerId, key: &QueueKey, change: Change) -> Option<Change> {
        match change {
            _ if !self.results.has_of(&container) => Some(change),
            Change::Removed { reason } => {
                let end = Change::Removed {
                    reason: reason.clone(),
                };
                self.removals_held.insert(container, (key.clone(), end));
                Some(Change::Ended { reason })
            }
            // Its creation goes on elsewhere, and the table would show only that place.
            Change::Failed { .. } => {
                self.removals_held.insert(container, (key.clone(), change));
                None
            }
            Change::Running | Change::Warm | Change::Ended { .. } => Some(change),
        }
    }

    /// Nothing is kept of a container any more: what was held back of it may be told.
    pub(crate) fn tell_held_end(&mut self, container: ContainerId, out: &mut Vec<Output<A, D, R>>) {
        if let Some((key, change)) = self.removals_held.remove(&container) {
            self.report(container, &key, change, out);
        }
    }

    pub(crate) fn send_report(&self, container: ContainerId, out: &mut Vec<Output<A, D, R>>) {
        let Some(pending) = self.outbox.find(&container) else {
            return;
        };
        let Some(queue) = self.queues.find(&pending.key) else {
            return;
        };
        out.push(Output::Report(Report {
            seq: pending.seq,
            leader: queue.leader,
            container,
            key: pending.key.clone(),
            change: pending.change.clone(),
        }));
    }

    fn on_reports_acked(&mut self, seqs: &[u64], out: &mut Vec<Output<A, D, R>>) {
        for seq in seqs {
            if let Some(container) = self.outbox.acked(*seq) {
                self.send_report(container, out);
            }
        }
    }

    fn repeat_reports(&self, out: &mut Vec<Output<A, D, R>>) {
        for container in self.outbox.waiting() {
            self.send_report(container, out);
        }
    }

    /// Says at once when health changes, at intervals when only amounts do.
    fn report_memory(&mut self, now: Instant, out: &mut Vec<Output<A, D, R>>) {
        if self.mode == Mode::Closed {
            return;
        }
        let current = self.memory_use();
        if let Some((at, last)) = self.reported {
            let due = at + self.settings.memory_report_interval;
            if last == current {
                return;
            }
            if last.healthy == current.healthy && now < due {
                if self.memory_timer.is_none() {
                    self.memory_timer = Some(due);
                    self.timers.arm(due, Timer::Memory);
                }
                return;
            }
        }
        self.reported = Some((now, current));
        out.push(Output::Memory(current));
    }

    /// Makes the end of this step report memory, changed or not.
    pub(crate) fn report_memory_now(&mut self) {
        self.reported = None;
    }
}
