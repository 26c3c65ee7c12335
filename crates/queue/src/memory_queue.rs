//! The memory queue: activations of one action in one invocation namespace under one leadership, from acceptance to
//! the moment their controllers have the outcome.
//!
//! Fed by the scheduler's shard actor with [`Input`]s; everything it wants done comes back as [`Output`]s, in order.
//! It owns no timer: the shell asks [`MemoryQueue::next_deadline`] after each step and sends [`Input::Tick`] then, so
//! an idle queue costs its memory and nothing else.
//! Invariant: activations and credits never wait at the same time, unless fenced or full of unconfirmed outcomes.
//! Invariant: while an activation waits, a decision is due.

mod acting;
mod calls;
mod cancel;
mod deliver;
mod ending;
mod failing;
mod handoff;
mod journaled;
mod noted;
mod reasons;
mod recover;
mod retry;
mod scaling;
mod starving;
mod submit;
mod takeover;
mod view;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use whiskraft_types::{ActivationId, ActivationStatus, Epoch, Instant, InvokerId, QueueKey, Rare, SmallSet};

use crate::containers::Containers;
use crate::ledger::{EndKind, Ledger};
use crate::waiting::{Retention, Waiting};
use crate::{
    ActionProfile, AverageRing, Decision, Input, NamespaceCounts, Output, QueueSettings, Unacknowledged,
    Verdict,
};
use ending::End;
use failing::Failure;
use starving::Starved;
use submit::Submission;

pub use view::{ActivationEnd, QueueView, Wait};

/// Outcomes and ids are forgotten at most this often, so that a busy queue does not tick for each of them.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);
/// Time that the queue of a deleted action has nothing to do before it asks to be removed, and before it asks again.
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);
/// Text for activations that nothing has run when their action is deleted.
const DELETED: &str = "The action was deleted before the activation began.";
/// When a refused caller should try again: about the time in which a full queue or namespace changes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The activations of one action in one invocation namespace, under one leadership.
#[derive(Debug)]
pub struct MemoryQueue<P, R> {
    key: QueueKey,
    epoch: Epoch,
    action: ActionProfile,
    settings: Arc<QueueSettings>,

    ledger: Rare<Ledger<P, R>>,
    waiting: Rare<Waiting>,
    held: Rare<Waiting>,
    next_seq: u64,
    containers: Rare<Containers>,
    average: AverageRing,

    /// Invokers whose `Register` ends the hold-back.
    expected: SmallSet<InvokerId>,
    /// Invokers without a stream: their next `Register` replaces what we think they have.
    disconnected: SmallSet<InvokerId>,
    /// An invoker that may have run activations of a former leader and cannot be asked any more, and until when
    /// somebody may submit one of these again.
    lost: Option<(InvokerId, Instant)>,
    /// Whether the journal has still to say which activations are durable.
    is_recovering: bool,
    /// When this leadership followed another one.
    taken_over_at: Instant,

    /// Containers asked for and not yet granted.
    reserving: u32,
    initialized: bool,
    decide_at: Option<Instant>,
    /// No scaling before this.
    scale_after: Option<Instant>,
    failure: Option<Box<Failure>>,
    starved: Option<Box<Starved>>,
    /// When the calls of other queues last showed that no container of this one comes free.
    knotted_at: Option<Instant>,
    is_namespace_full: bool,
    /// When a namespace that was full had room again, until this queue may ask for it.
    room_since: Option<Instant>,
    /// The namespace as the last tick showed it.
    counts: NamespaceCounts,
    last_decision: Option<(Decision, Instant)>,
    /// The longest run of any revision that this leadership has known.
    timeout_max: Duration,
    /// When to look for activations whose invokers say nothing.
    watch_at: Option<Instant>,
    /// The moment of the last input, for those who look at the queue from outside.
    stepped_at: Instant,

    is_fenced: bool,
    /// Failures decided while fenced: another leader may decide otherwise, so they are told only after the fence.
    deferred: Rare<Vec<(ActivationId, End<R>)>>,
    /// What the journal said while fenced.
    verdicts: Rare<Vec<(ActivationId, Verdict<R>)>>,
    /// Whether the queue is on its way to another scheduler.
    is_draining: bool,
    is_throttled: bool,
    is_removing: bool,
    quiet_since: Option<Instant>,
    expired_at: Instant,
}

impl<P: Clone + PartialEq + 'static, R: Clone + 'static> MemoryQueue<P, R> {
    /// An empty queue for one leadership.
    #[must_use]
    pub fn new(
        key: QueueKey,
        epoch: Epoch,
        action: ActionProfile,
        settings: Arc<QueueSettings>,
        now: Instant,
    ) -> Self {
        let average = AverageRing::new(settings.duration_samples);
        let timeout_max = action.timeout;
        Self {
            key,
            epoch,
            action,
            settings,
            ledger: Rare::new(),
            waiting: Rare::new(),
            held: Rare::new(),
            next_seq: 0,
            containers: Rare::new(),
            average,
            expected: SmallSet::new(),
            disconnected: SmallSet::new(),
            lost: None,
            is_recovering: false,
            taken_over_at: now,
            reserving: 0,
            initialized: false,
            decide_at: Some(now),
            scale_after: None,
            failure: None,
            starved: None,
            knotted_at: None,
            is_namespace_full: false,
            room_since: None,
            counts: NamespaceCounts::default(),
            last_decision: None,
            timeout_max,
            watch_at: None,
            stepped_at: now,
            is_fenced: false,
            deferred: Rare::new(),
            verdicts: Rare::new(),
            is_draining: false,
            is_throttled: false,
            is_removing: false,
            quiet_since: Some(now),
            expired_at: now,
        }
    }

    /// Advances the queue by one input; what the shell has to do is appended to `out`, in order. `now` never falls.
    pub fn step(&mut self, now: Instant, input: Input<P, R>, out: &mut Vec<Output<P, R>>) {
        self.stepped_at = now;
        match input {
            Input::Submit {
                controller,
                id,
                attempt,
                waited,
                caller,
                payload,
                terms,
            } => {
                let submission = Submission {
                    controller,
                    id,
                    attempt,
                    waited,
                    caller,
                    payload,
                    terms,
                };
                self.on_submit(now, submission, out);
            }
            Input::Received { controller, id } => self.on_received(now, controller, id, out),
            Input::Credit {
                invoker,
                container,
                count,
                warmed,
            } => {
                self.on_credit(now, invoker, container, count, warmed, out);
            }
            Input::Withdraw { container } => self.on_withdraw(container, out),
            Input::Started { container, id } => self.on_started(now, container, id),
            Input::Completed {
                invoker,
                container,
                id,
                run,
                end,
                record,
                duration,
                credits,
            } => {
                let kept = Unacknowledged { id, run, end, record };
                if self.on_record(now, invoker, kept, out) {
                    duration.into_iter().for_each(|sample| self.average.push(sample));
                }
                if credits > 0 {
                    // A container that has completed a run has its code loaded.
                    self.on_credit(now, invoker, container, credits, true, out);
                }
            }
            Input::Refused { container, id } => self.on_refused(now, container, id, out),
            Input::Takeover {
                expected,
                lost,
                containers,
                recovers,
            } => {
                self.is_recovering = recovers;
                self.on_takeover(now, expected, lost, containers, out);
            }
            Input::Register {
                invoker,
                containers,
                unacknowledged,
            } => {
                self.on_register(now, invoker, containers, unacknowledged, out);
            }
            Input::Disconnected { invoker } => self.on_disconnected(invoker),
            Input::InvokerGone { invoker } => self.on_invoker_gone(now, invoker, out),
            Input::Granted {
                asked,
                containers,
                revision,
            } => {
                self.on_granted(asked, &containers, revision, out);
            }
            Input::ContainerPlaced { container, invoker } => self.containers.place(container, invoker, false),
            Input::ContainerUnplaced { container } => self.containers.unplace(container),
            Input::ContainerRunning { container, invoker } => self.on_running(container, invoker),
            Input::ContainerWarm { container } | Input::ContainerRemoved { container } => {
                self.on_container_left(now, container, Some(now));
            }
            Input::ContainerEnded { container } => self.on_container_left(now, container, None),
            Input::CreationFailed {
                container,
                error,
                message,
            } => {
                self.on_creation_failed(now, container, error, message, out);
            }
            Input::CreationDelayed {
                container,
                error,
                message,
            } => self.containers.delay(container, error, message),
            Input::Sampled(sample) => self.average.push(sample),
            Input::Draining(is_draining) => self.on_draining(now, is_draining, out),
            Input::Action(action) => self.on_action(now, action, out),
            Input::NamespaceFull(is_full) => self.on_namespace_full(now, is_full),
            Input::Fence(is_fenced) => self.on_fence(now, is_fenced, out),
            Input::Import(moved) => self.on_import(now, moved, out),
            Input::Recovered(activations) => self.on_recovered(now, activations, out),
            Input::Journaled { id, verdict } => self.on_journaled(now, id, verdict, out),
            Input::Marked { id, answer } => self.on_marked(id, answer, out),
            Input::Cancel { ask, id } => self.on_cancel(now, ask, id, out),
            Input::Knotted(is_knotted) => self.on_knotted(now, is_knotted),
            Input::RemovalFailed => {
                self.is_removing = false;
                self.quiet_since = None;
            }
            Input::Tick(counts) => self.on_tick(now, counts, out),
        }
        self.update_derived(now, out);
    }

    /// When the queue wants its next [`Input::Tick`]; `None` while only another input can change anything.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_fenced || self.is_removing {
            return None;
        }
        let held = self.held_until();
        let delayed = self.ledger.next_due();
        let settle = self
            .containers
            .gone_since()
            .map(|at| at + self.settings.settle_wait);
        let idle = self.quiet_since.map(|at| at + self.idle_after());
        let flush = self
            .failure
            .as_ref()
            .map(|failure| failure.active_at + self.settings.flush_grace);
        let lost = self.lost.map(|(_, until)| until);
        // While draining nothing is decided, but nobody waits beyond the retention either.
        let (decide, idle) = if self.is_draining {
            (self.waiting.next_expiry(self.retentions()), None)
        } else {
            (self.decide_at, idle)
        };
        let next = [decide, held, delayed, settle, idle, flush, lost, self.watch_at]
            .into_iter()
            .flatten()
            .min();
        // What expires waits for the end of the pause: asked after every step, so not asked for nothing.
        let pause_end = self.expired_at + EXPIRY_PAUSE;
        if next.is_some_and(|at| at <= pause_end) {
            return next;
        }
        let expiry = self.ledger.next_expiry(&self.settings, self.is_recovering);
        expiry.map(|at| at.max(pause_end)).into_iter().chain(next).min()
    }

    /// Which queue this is.
    #[must_use]
    pub const fn key(&self) -> &QueueKey {
        &self.key
    }

    /// Generation of its leadership.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Activations that no container has, held back ones included.
    fn len(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    /// The invoker on which a resubmitted activation may have started, if one was lost lately.
    fn lost(&self, now: Instant) -> Option<InvokerId> {
        let (invoker, until) = self.lost?;
        (now < until).then_some(invoker)
    }

    fn retentions(&self) -> Retention {
        Retention {
            memory: self.retention(),
            durable: self.settings.retention_durable,
        }
    }

    /// Longest wait of an activation in memory.
    fn retention(&self) -> Duration {
        if self.action.blackbox {
            self.settings.retention_blackbox
        } else {
            self.settings.retention
        }
    }

    /// How long it stays with nothing to do.
    fn idle_after(&self) -> Duration {
        // While outcomes are kept somebody may ask for them, and an id that ran must not run again.
        if self.action.deleted && self.ledger.done_len() == 0 {
            REMOVAL_PAUSE
        } else {
            self.settings.idle_after
        }
    }

    /// What follows from the state alone. Done after every input, so nothing has to be remembered to be cleared.
    fn update_derived(&mut self, now: Instant, out: &mut Vec<Output<P, R>>) {
        if self.action.deleted && !self.is_fenced {
            let mut ids = self.waiting.ids_where(|_| true);
            ids.extend(self.ledger.delayed());
            let why = (EndKind::Final, ActivationStatus::DeveloperError, DELETED);
            self.fail_all(now, ids, why, out);
            self.decide_at = None;
        }
        let len = self.len() + self.ledger.journaling_len();
        let is_throttled = if self.is_throttled {
            len > self.settings.release_len()
        } else {
            len >= self.settings.len_max as usize
        };
        if is_throttled != self.is_throttled {
            self.is_throttled = is_throttled;
            tracing::debug!(queue = %self.key, len, is_throttled, "action throttle changed");
            out.push(Output::SetThrottle(is_throttled));
        }
        let is_quiet = self.ledger.open_len() == 0
            && !self.ledger.is_owing()
            && self.containers.is_empty()
            && self.reserving == 0
            && self.expected.is_empty()
            && !self.is_recovering;
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(now));
        debug_assert!(
            !self.may_hand_out() || self.waiting.is_empty() || !self.containers.has_ready(),
            "activations and credits wait at the same time"
        );
        debug_assert!(self.waiting.is_empty() || self.decide_at.is_some());
    }
}
