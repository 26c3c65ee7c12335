//! The shard actor: one loop over fence, table changes, deadlines and requests.
//!
//! Invariant: the clock is read once per turn, and no turn that began past the lease accepts or delivers anything.
//! Invariant: the actor never waits for a stream or another actor; what does not fit is refused or dropped by rule.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use whiskraft_queue::{Input, NamespaceCounts, Output, QueueSettings};
use whiskraft_types::{Epoch, Instant, InvokerId, NamespaceName, QueueKey, SessionId};

use crate::context::Context;
use crate::control::registry::ControlStreams;
use crate::creation::CreationHandle;
use crate::fence::FenceView;
use crate::journal::{Archived, JournalHandle, Message};
use crate::knots::KnotsHandle;
use crate::message::{Payload, Record, Request};
use crate::metrics::ShardMeter;
use crate::neighbours::NeighboursHandle;
use crate::profiles::Profiles;
use crate::proposals::ProposalsHandle;
use crate::rate::RateHandle;
use crate::shard::cancel::Cancels;
use crate::shard::count::{Creations, Drops};
use crate::shard::handle::ShardsHandle;
use crate::shard::imports::Imports;
use crate::shard::led::Led;
use crate::shard::local::{LocalQueues, Slot};
use crate::shard::mirror::Mirror;
use crate::shard::outbox::Outbox;
use crate::shard::parked::Parked;
use crate::shard::reclaim::{Reclaims, Told};
use crate::shard::sightings::Sightings;
use crate::shard::surplus::Surplus;
use crate::shard::tables::TableChanges;
use crate::shard::throttles::Throttles;
use crate::shard::unary::Unary;

/// Requests handled per turn: the age of the turn's clock stays well below the lease's margin.
const REQUESTS_PER_TURN: usize = 64;
/// Ticks per turn, for the same reason.
const TICKS_PER_TURN: usize = 256;

pub(crate) type QueueInput = Input<Payload, Record>;
pub(crate) type QueueOutput = Output<Payload, Record>;

/// What a shard is made of.
pub(crate) struct ShardParts {
    pub(crate) context: Context,
    /// Its number, and the handle of all.
    pub(crate) index: usize,
    pub(crate) shards: ShardsHandle,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) changes: mpsc::Receiver<TableChanges>,
    pub(crate) meter: ShardMeter,
    pub(crate) creation: CreationHandle,
    pub(crate) proposals: ProposalsHandle,
    pub(crate) neighbours: NeighboursHandle,
    pub(crate) knots: KnotsHandle,
    pub(crate) rates: RateHandle,
    pub(crate) journal: JournalHandle,
    pub(crate) streams: ControlStreams,
    pub(crate) settings: Arc<QueueSettings>,
    pub(crate) profiles: Profiles,
}

/// One shard.
pub(crate) struct Shard {
    pub(crate) parts: ShardParts,
    pub(crate) queues: LocalQueues,
    pub(crate) mirror: Mirror,
    pub(crate) led: Led,
    pub(crate) outbox: Outbox,
    pub(crate) parked: Parked,
    /// Whether more may be parked; not while what waited is answered for good.
    pub(crate) parking: bool,
    /// Namespaces that use all their slots.
    pub(crate) full: BTreeSet<NamespaceName>,
    /// Whether the leadership that the tables name now follows an earlier one.
    pub(crate) follows: bool,
    /// Sessions of this very process.
    pub(crate) own: Arc<BTreeSet<SessionId>>,
    /// Inputs that outputs of this turn call for; stepped before the turn ends.
    pub(crate) followups: Vec<(Slot, QueueInput)>,
    pub(crate) fenced: bool,
    /// Whether the process is going, as of this turn.
    pub(crate) draining: bool,
    /// The newest of our sessions whose queues were dropped with it.
    pub(crate) dropped: Option<SessionId>,
    /// The moment of this turn.
    pub(crate) now: Instant,
    pub(crate) reclaims: Reclaims,
    pub(crate) creations: Creations,
    pub(crate) drops: Drops,
    pub(crate) surplus: Surplus,
    pub(crate) told: Told,
    pub(crate) sightings: Sightings,
    pub(crate) throttles: Throttles,
    pub(crate) unary: Unary,
    /// What others have sent of queues that this scheduler is about to lead.
    pub(crate) imports: Imports,
    /// The queue whose change of leader, next in this batch, is a hand-over, and the epoch that it ends.
    pub(crate) handed: Option<(QueueKey, Epoch)>,
    /// What this turn has for the journal.
    pub(crate) journaled: Vec<Message>,
    pub(crate) archived: Vec<Archived>,
    pub(crate) cancels: Cancels,
    outputs: Vec<QueueOutput>,
    fence: watch::Receiver<FenceView>,
}

impl Shard {
    pub(crate) fn new(parts: ShardParts) -> Self {
        let fence = parts.context.fence.subscribe();
        let now = parts.context.clock.now();
        Self {
            parts,
            queues: LocalQueues::default(),
            mirror: Mirror::default(),
            led: Led::default(),
            outbox: Outbox::default(),
            parked: Parked::default(),
            parking: true,
            full: BTreeSet::new(),
            follows: false,
            own: Arc::default(),
            followups: Vec::new(),
            fenced: true,
            draining: false,
            dropped: None,
            now,
            reclaims: Reclaims::default(),
            creations: Creations::default(),
            drops: Drops::default(),
            surplus: Surplus::default(),
            told: Told::default(),
            sightings: Sightings::default(),
            throttles: Throttles::default(),
            unary: Unary::default(),
            imports: Imports::default(),
            handed: None,
            journaled: Vec::new(),
            archived: Vec::new(),
            cancels: Cancels::default(),
            outputs: Vec::new(),
            fence,
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.parts.context.clone();
        let mut requests = Vec::with_capacity(REQUESTS_PER_TURN);
        let mut changes = Vec::new();
        let stopping = context.stopping();
        tokio::pin!(stopping);
        loop {
            let deadlines = [
                self.queues.next_deadline(),
                self.reclaims.next(),
                self.surplus.next(),
                self.sightings.next(),
                self.throttles.next(),
                self.parked.overdue_at(),
                self.unary.next_deadline(),
                self.imports.next(),
                self.outbox.quiet_until(),
            ];
            let deadline = deadlines.into_iter().flatten().min();
            tokio::select! {
                biased;
                // Fencing first: past its lease the actor may not deliver one more activation.
                _ = self.fence.changed() => self.begin(),
                () = &mut stopping => return,
                // Changes before requests: a request may be about a leadership that has just begun.
                count = self.parts.changes.recv_many(&mut changes, REQUESTS_PER_TURN) => {
                    if count == 0 {
                        return;
                    }
                    self.begin();
                    changes.drain(..).for_each(|change| self.on_tables(change));
                }
                // Deadlines before requests: a channel that is never empty must not starve them.
                () = sleep_until(&context, deadline) => {
                    self.begin();
                    self.tick();
                }
                count = self.parts.requests.recv_many(&mut requests, REQUESTS_PER_TURN) => {
                    if count == 0 {
                        return;
                    }
                    self.begin();
                    requests.drain(..).for_each(|request| self.on_request(request));
                }
            }
            self.end();
            let length = context.clock.now().saturating_since(self.now);
            self.parts.meter.turn(length);
        }
    }

    /// Begins a turn: reads the clock and obeys the fence.
    fn begin(&mut self) {
        self.now = self.parts.context.clock.now();
        self.draining = self.parts.context.is_draining();
        let fenced = !self.parts.context.fence.allows(self.now);
        let view = *self.fence.borrow_and_update();
        self.drop_ended(view);
        if fenced == self.fenced {
            return;
        }
        self.fenced = fenced;
        for slot in self.queues.slots() {
            self.step(slot, Input::Fence(fenced));
        }
    }

    /// Ends a turn: what it caused leaves.
    fn end(&mut self) {
        loop {
            while let Some((slot, input)) = self.followups.pop() {
                self.step(slot, input);
            }
            let cut = self.outbox.flush();
            if cut.is_empty() {
                break;
            }
            cut.into_iter().for_each(|invoker| self.disconnect(invoker));
        }
        self.flush_journal();
    }

    fn tick(&mut self) {
        self.outbox.end_quiet(self.now);
        self.settle_parked();
        self.end_holds();
        self.imports.expire(self.now);
        self.reclaim();
        self.shrink();
        self.report_sightings();
        self.repeat_throttles();
        for _ in 0..TICKS_PER_TURN {
            let Some(slot) = self.queues.pop_due(self.now) else {
                return;
            };
            let Some(local) = self.queues.get(slot) else {
                continue;
            };
            let counts = self.namespace_counts(&local.key().namespace);
            self.drops.begin();
            self.step(slot, Input::Tick(counts));
            self.drops.end();
        }
    }

    fn namespace_counts(&self, namespace: &NamespaceName) -> NamespaceCounts {
        self.parts.context.node.read(|state| {
            let counts = state.namespace_counts(namespace);
            let limits = state.namespace_limits(namespace);
            NamespaceCounts {
                limit: limits.containers,
                limit_over: limits.containers_over(),
                running: counts.running,
                in_progress: counts.in_progress,
            }
        })
    }

    /// Advances one queue and carries out what it wants.
    pub(crate) fn step(&mut self, slot: Slot, input: QueueInput) {
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Some(local) = self.queues.get_mut(slot) {
            if let Some(frozen) = &mut local.frozen {
                frozen.hold(input);
                self.outputs = outputs;
                return;
            }
            local.queue.step(self.now, input, &mut outputs);
            self.queues.schedule(slot);
            for output in outputs.drain(..) {
                self.carry_out(slot, output);
            }
        }
        self.outputs = outputs;
    }

    /// The stream of an invoker is gone: nothing can be delivered there until it registers again.
    pub(crate) fn disconnect(&mut self, invoker: InvokerId) {
        for slot in self.queues.linked(invoker) {
            self.step(slot, Input::Disconnected { invoker });
        }
    }
}

async fn sleep_until(context: &Context, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => context.clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
