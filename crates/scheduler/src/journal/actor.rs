//! The journal actor: one loop over what shards want, what lanes answer, and what is due again.
//!
//! Whatever waits leaves at once, together; nothing waits for a fuller batch, records of activations that were not
//! durable excepted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use whiskraft_queue::Verdict;
use whiskraft_raft::{Journal, LaneId};
use whiskraft_types::{ActivationId, Epoch, Instant, QueueKey, Rejection};

use crate::context::Context;
use crate::journal::append::{Appended, Settled};
use crate::journal::due::{Repeat, UNSURE_PAUSE, Unsure};
use crate::journal::handle::{Message, Shared};
use crate::journal::lanes::Lanes;
use crate::journal::order::{Entry, Order};
use crate::journal::prepare::{Answer, Prepared, Reader};
use crate::journal::recovery::Led;
use crate::journal::work::{Done, Running};
use crate::message::Request;
use crate::metrics::{EntryKind, EntryOutcome};
use crate::shard::ShardsHandle;

/// Times that an entry is looked up, or written, whose activation the journal does not have: some 15 seconds. A copy of a
/// lane on this node may be behind.
const MISSING_MAX: u32 = 20;
/// Acceptances of which nobody knows yet whether they are written; with more, no new ones are taken.
const UNSURE_MAX: usize = 65_536;

/// The actor.
pub(crate) struct JournalActor {
    pub(super) context: Context,
    pub(super) shards: ShardsHandle,
    pub(super) journal: Journal,
    pub(super) reader: Reader,
    pub(super) shared: Arc<Shared>,
    pub(super) leaderships: BTreeMap<QueueKey, Leadership>,
    /// Leaderships to be fenced, and fenced ones to be read.
    pub(super) fresh: VecDeque<Led>,
    pub(super) fenced: VecDeque<Led>,
    pub(super) orders: VecDeque<Order>,
    /// Orders for which the disk may have to be read.
    pub(super) unread: VecDeque<Order>,
    pub(super) lanes: Lanes,
    pub(super) repeats: BTreeMap<(Instant, u64), Repeat>,
    pub(super) repeats_seq: u64,
    pub(super) unsure: BTreeMap<ActivationId, Unsure>,
    pub(super) work: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) running: Running,
    pub(super) archive_at: Option<Instant>,
    pub(super) look_at: Option<Instant>,
}

/// A queue that is led here.
#[derive(Debug)]
pub(super) struct Leadership {
    pub(super) epoch: Epoch,
    /// When it began.
    pub(super) since: Instant,
    /// Acceptances that wait until its open activations are known; `None` once they are.
    pub(super) held: Option<Vec<(Instant, Order)>>,
}

impl JournalActor {
    pub(crate) fn new(context: Context, shards: ShardsHandle, shared: Arc<Shared>) -> Self {
        Self {
            reader: Reader {
                journal: context.node.journal().clone(),
                clock: context.clock,
            },
            journal: context.node.journal().clone(),
            context,
            shards,
            shared,
            leaderships: BTreeMap::new(),
            fresh: VecDeque::new(),
            fenced: VecDeque::new(),
            orders: VecDeque::new(),
            unread: VecDeque::new(),
            lanes: Lanes::default(),
            repeats: BTreeMap::new(),
            repeats_seq: 0,
            unsure: BTreeMap::new(),
            work: FuturesUnordered::new(),
            running: Running::default(),
            archive_at: None,
            look_at: None,
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        let stopping = context.stopping();
        tokio::pin!(stopping);
        let shared = Arc::clone(&self.shared);
        loop {
            let next_repeat = self.repeats.first_key_value().map(|((at, _), _)| *at);
            let due = [next_repeat, self.archive_at, self.look_at];
            let due = due.into_iter().flatten().min();
            tokio::select! {
                biased;
                () = &mut stopping => return,
                Some(done) = self.work.next() => self.on_done(done).await,
                () = sleep_until(&context, due) => self.on_due().await,
                () = shared.woken() => {
                    for message in shared.take() {
                        self.on_message(message).await;
                    }
                }
            }
            self.start().await;
        }
    }

    async fn on_message(&mut self, message: Message) {
        match message {
            Message::Led { key, epoch } => {
                let leadership = Leadership {
                    epoch,
                    since: self.context.clock.now(),
                    held: Some(Vec::new()),
                };
                self.leaderships.insert(key.clone(), leadership);
                self.fresh.push_back((key, epoch));
            }
            Message::Left { key, epoch } => {
                if self.is_led(&key, epoch) {
                    self.leaderships.remove(&key);
                }
            }
            Message::Order(order) => self.on_order(order).await,
        }
    }

    pub(super) fn is_led(&self, key: &QueueKey, epoch: Epoch) -> bool {
        self.leaderships
            .get(key)
            .is_some_and(|leadership| leadership.epoch == epoch)
    }

    async fn on_order(&mut self, order: Order) {
        let now = self.context.clock.now();
        let leadership = self.leaderships.get_mut(&order.key);
        let Some(leadership) = leadership.filter(|leadership| leadership.epoch == order.epoch) else {
            return; // Its queue is gone from here, and told everybody.
        };
        let is_accept = matches!(order.entry, Entry::Accept { .. });
        if is_accept && self.unsure.len() >= UNSURE_MAX {
            let reason = "the outcome of too many acceptances is not known yet; try again".to_owned();
            return self.refuse(order, Rejection::Unavailable { reason }).await;
        }
        match &mut leadership.held {
            Some(held) if is_accept => {
                held.push((now, order));
                self.look_at.get_or_insert(now + UNSURE_PAUSE);
            }
            _ => self.orders.push_back(order),
        }
    }

    /// Refuses an acceptance.
    pub(super) async fn refuse(&mut self, order: Order, rejection: Rejection) {
        self.context
            .metrics
            .journal
            .entry(EntryKind::Accept, EntryOutcome::Refused);
        let answer = answer_to(order, rejection);
        self.answer(vec![answer]).await;
    }

    async fn answer(&mut self, answers: Vec<Answer>) {
        let mut by_shard: Vec<Vec<Answer>> = (0..self.shards.len()).map(|_| Vec::new()).collect();
        for answer in answers {
            by_shard[self.shards.of(&answer.key)].push(answer);
        }
        for (shard, answers) in by_shard.into_iter().enumerate() {
            if !answers.is_empty() {
                self.shards.send(shard, Request::Journaled(answers)).await;
            }
        }
    }

    async fn on_done(&mut self, done: Done) {
        match done {
            Done::Prepared(prepared) => {
                self.running.prepares -= 1;
                self.on_prepared(prepared).await;
            }
            Done::Appended(appended) => {
                let Appended {
                    lane,
                    settled,
                    behind,
                    is_full,
                } = appended;
                self.lanes.landed(lane);
                if is_full {
                    self.lanes.part(self.context.clock.now(), lane);
                }
                if let Some(behind) = behind {
                    self.wait_for_copy(lane, behind);
                }
                self.on_settled(lane, settled).await;
            }
            Done::Settled(lane, settled) => self.on_settled(lane, settled).await,
            Done::Fenced(queues) => {
                self.running.fences -= 1;
                self.fenced.extend(queues);
            }
            Done::Read(queues) => {
                self.running.reads -= 1;
                queues
                    .iter()
                    .for_each(|(key, epoch)| self.on_recovered(key, *epoch));
            }
            Done::Archived => self.running.archives -= 1,
            Done::Ended => {}
            Done::CaughtUp(order, is_caught_up) => {
                let order = Order {
                    is_caught_up,
                    ..*order
                };
                self.repeat(order.failures, Repeat::Order(order));
            }
            Done::Sure(before) => self.forget_unsure(before),
        }
    }

    /// All that a queue has open is with its shard: it may accept.
    fn on_recovered(&mut self, key: &QueueKey, epoch: Epoch) {
        let leadership = self.leaderships.get_mut(key);
        let Some(leadership) = leadership.filter(|leadership| leadership.epoch == epoch) else {
            return;
        };
        if let Some(held) = leadership.held.take() {
            let after = self.context.clock.now().saturating_since(leadership.since);
            self.context.metrics.journal.recovered(after);
            self.orders.extend(held.into_iter().map(|(_, order)| order));
        }
    }

    pub(super) async fn on_prepared(&mut self, prepared: Vec<Prepared>) {
        let home = self.journal.home();
        let mut answers = Vec::new();
        for prepared in prepared {
            match prepared {
                Prepared::Settled(answer) => {
                    self.note_sure(&answer);
                    self.context
                        .metrics
                        .journal
                        .entry(answer.kind, EntryOutcome::Known);
                    answers.push(answer);
                }
                Prepared::Unread(order) => self.unread.push_back(order),
                Prepared::Missing(order) if order.is_caught_up => {
                    missing(order.id);
                    answers.push(answer_to(order, unknown()));
                }
                Prepared::Missing(order) if order.failures >= MISSING_MAX => self.catch_up(order),
                Prepared::Missing(order) | Prepared::Later(order) => {
                    self.repeat(order.failures, Repeat::Order(order));
                }
                Prepared::Write(write) => {
                    // One that may be in a lane already must not get into another.
                    let before = write.place.as_ref().and_then(|_| self.unsure.get(&write.id));
                    let lane = write.lane.or(before.map(|before| before.lane));
                    self.lanes.push(lane.unwrap_or(home), write);
                }
            }
        }
        self.answer(answers).await;
    }

    /// Forgets that an acceptance may be in a lane once that is known; a refusal says nothing of what was sent before.
    fn note_sure(&mut self, answer: &Answer) {
        if !matches!(answer.verdict, Verdict::Unknown | Verdict::Refused(_)) {
            self.unsure.remove(&answer.id);
        }
    }

    async fn on_settled(&mut self, lane: LaneId, settled: Vec<Settled>) {
        let now = self.context.clock.now();
        let mut answers = Vec::with_capacity(settled.len());
        for settled in settled {
            match settled {
                Settled::Answer(answer) => {
                    self.note_sure(&answer);
                    if matches!(answer.verdict, Verdict::Unknown) {
                        self.look_at.get_or_insert(now + UNSURE_PAUSE);
                        let unsure = Unsure {
                            key: answer.key.clone(),
                            epoch: answer.epoch,
                            lane,
                            since: now,
                        };
                        self.unsure.insert(answer.id, unsure);
                    }
                    answers.push(answer);
                }
                Settled::Again(write) => self.repeat(write.failures, Repeat::Write(lane, write)),
                Settled::Missing(write) if write.failures < MISSING_MAX => {
                    self.repeat(write.failures, Repeat::Write(lane, write));
                }
                Settled::Missing(write) => {
                    missing(write.id);
                    answers.push(write.answer(Verdict::Refused(unknown())));
                }
                Settled::Over(write) => {
                    tracing::debug!(activation = %write.id, epoch = %write.epoch, "entry of an earlier leadership");
                }
            }
        }
        self.answer(answers).await;
    }
}

fn answer_to(order: Order, rejection: Rejection) -> Answer {
    let kind = order.entry.kind();
    let Order { key, epoch, id, .. } = order;
    let verdict = Verdict::Refused(rejection);
    Answer {
        key,
        epoch,
        id,
        kind,
        verdict,
    }
}

/// What never should be: a queue holds as durable what the journal does not have.
fn missing(id: ActivationId) {
    tracing::error!(activation = %id, "journal does not have an activation that it accepted, goes on in memory");
}

fn unknown() -> Rejection {
    Rejection::Unavailable {
        reason: "the journal does not have this activation".to_owned(),
    }
}

async fn sleep_until(context: &Context, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => context.clock.sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
