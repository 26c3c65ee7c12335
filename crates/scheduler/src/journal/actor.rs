//! The journal actor: one loop over what shards want, what lanes answer, and what is due again.
//!
//! Whatever waits leaves at once, together; nothing waits for a fuller batch, records of activations that were not
//! durable excepted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use whiskraft_queue::Verdict;
use whiskraft_raft::{Journal, LaneId, Lookup};
use whiskraft_state::journal::{JournalBatch, UnixMillis};
use whiskraft_types::{ActivationId, Epoch, Instant, QueueKey, Rejection};

use crate::clock::unix_ms;
use crate::context::Context;
use crate::journal::append::{Appended, Settled, append};
use crate::journal::archive::Archived;
use crate::journal::handle::{Message, Shared};
use crate::journal::lanes::Lanes;
use crate::journal::order::{Entry, Order};
use crate::journal::prepare::{Answer, Prepared, Reader, Write};
use crate::journal::recovery::{FENCE_MAX, Led, READ_MAX, fence, read, recover_one};
use crate::message::Request;
use crate::metrics::{EntryKind, EntryOutcome};
use crate::shard::ShardsHandle;

/// Orders prepared in one piece, and pieces at a time: look-ups and digests have two threads at most.
const PREPARE_MAX: usize = 1000;
const PREPARES_MAX: usize = 2;
/// Fences, and reads of recovered queues, under way at a time.
const FENCES_MAX: usize = 2;
const READS_MAX: usize = 4;
/// Longest time that an acceptance waits for the recovery of its queue.
const HOLD_MAX: Duration = Duration::from_secs(2);
/// Pause before an entry that must not get lost is written again; it doubles up to the longest.
const REPEAT_PAUSE: Duration = Duration::from_millis(20);
const REPEAT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Times that an entry is looked up, or written, whose activation the journal does not have: some 15 seconds. A copy of a
/// lane on this node may be behind.
const MISSING_MAX: u32 = 20;
/// Acceptances of which nobody knows yet whether they are written; with more, no new ones are taken.
const UNSURE_MAX: usize = 65_536;
/// Time after which such a one has not been written: no proposal lives that long.
const UNSURE_FOR: Duration = Duration::from_secs(60);
/// Time between two looks for them.
const UNSURE_PAUSE: Duration = Duration::from_millis(250);
/// Pause between batches of records that were not durable: they have all the time.
const ARCHIVE_PAUSE: Duration = Duration::from_millis(50);

/// The actor.
pub(crate) struct JournalActor {
    context: Context,
    shards: ShardsHandle,
    journal: Journal,
    reader: Reader,
    shared: Arc<Shared>,
    leaderships: BTreeMap<QueueKey, Leadership>,
    /// Leaderships to be fenced, and fenced ones to be read.
    fresh: VecDeque<Led>,
    fenced: VecDeque<Led>,
    orders: VecDeque<Order>,
    lanes: Lanes,
    repeats: BTreeMap<(Instant, u64), Repeat>,
    repeats_seq: u64,
    unsure: BTreeMap<ActivationId, Unsure>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    running: Running,
    archive_at: Option<Instant>,
    look_at: Option<Instant>,
}

/// A queue that is led here.
#[derive(Debug)]
struct Leadership {
    epoch: Epoch,
    /// When it began.
    since: Instant,
    /// Acceptances that wait until its open activations are known; `None` once they are.
    held: Option<Vec<(Instant, Order)>>,
}

/// An acceptance whose append has no answer.
#[derive(Debug)]
struct Unsure {
    key: QueueKey,
    epoch: Epoch,
    lane: LaneId,
    since: Instant,
}

/// What is due again.
#[derive(Debug)]
enum Repeat {
    Order(Order),
    Write(LaneId, Write),
}

/// Work that is under way, by kind.
#[derive(Debug, Default)]
struct Running {
    prepares: usize,
    fences: usize,
    reads: usize,
    archives: usize,
}

/// Work that has ended.
enum Done {
    Prepared(Vec<Prepared>),
    Appended(Appended),
    Fenced(Vec<Led>),
    Read(Vec<Led>),
    Archived,
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
            self.start();
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

    fn is_led(&self, key: &QueueKey, epoch: Epoch) -> bool {
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
    async fn refuse(&mut self, order: Order, rejection: Rejection) {
        self.context
            .metrics
            .journal
            .entry(EntryKind::Accept, EntryOutcome::Refused);
        let answer = answer_to(order, EntryKind::Accept, rejection);
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
                self.lanes.landed(appended.lane, appended.class);
                self.on_appended(appended).await;
            }
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

    async fn on_prepared(&mut self, prepared: Vec<Prepared>) {
        let home = self.journal.home();
        let mut answers = Vec::new();
        for prepared in prepared {
            match prepared {
                Prepared::Settled(answer) => {
                    self.unsure.remove(&answer.id);
                    self.context
                        .metrics
                        .journal
                        .entry(answer.kind, EntryOutcome::Known);
                    answers.push(answer);
                }
                Prepared::Later(order) if order.failures < MISSING_MAX => {
                    self.repeat(order.failures, Repeat::Order(order));
                }
                Prepared::Later(order) => {
                    missing(order.id);
                    answers.push(answer_to(order, EntryKind::End, unknown()));
                }
                Prepared::Write(write) => {
                    // One that may be in a lane already must not get into another.
                    let before = write.place.as_ref().and_then(|_| self.unsure.remove(&write.id));
                    let lane = write.lane.or(before.map(|before| before.lane));
                    self.lanes.push(lane.unwrap_or(home), write);
                }
            }
        }
        self.answer(answers).await;
    }

    async fn on_appended(&mut self, appended: Appended) {
        let lane = appended.lane;
        let now = self.context.clock.now();
        let mut answers = Vec::with_capacity(appended.settled.len());
        for settled in appended.settled {
            match settled {
                Settled::Answer(answer) => {
                    if answer.verdict == Verdict::Unknown {
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

    fn repeat(&mut self, failures: u32, repeat: Repeat) {
        let pause = REPEAT_PAUSE * 2_u32.saturating_pow(failures.min(10));
        let at = self.context.clock.now() + pause.min(REPEAT_PAUSE_MAX);
        self.repeats_seq += 1;
        self.repeats.insert((at, self.repeats_seq), repeat);
    }

    async fn on_due(&mut self) {
        let now = self.context.clock.now();
        while let Some(entry) = self.repeats.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Repeat::Order(mut order) if self.is_led(&order.key, order.epoch) => {
                    order.failures += 1;
                    self.orders.push_back(order);
                }
                Repeat::Write(lane, mut write) if self.is_led(&write.key, write.epoch) => {
                    write.failures += 1;
                    self.lanes.push(lane, write);
                }
                Repeat::Order(_) | Repeat::Write(..) => {} // Over.
            }
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.end_holds(now).await;
            self.look_for_unsure(now).await;
        }
        if self.archive_at.is_some_and(|at| at <= now) {
            self.archive_at = None;
            self.archive();
        }
    }

    /// Refuses acceptances that have waited too long for the recovery of their queue.
    async fn end_holds(&mut self, now: Instant) {
        let mut refused = Vec::new();
        let mut is_any_left = false;
        for leadership in self.leaderships.values_mut() {
            if let Some(held) = &mut leadership.held {
                let is_over = |since: Instant| now.saturating_since(since) >= HOLD_MAX;
                let keep = held.iter().take_while(|(since, _)| is_over(*since)).count();
                refused.extend(held.drain(..keep).map(|(_, order)| order));
                is_any_left |= !held.is_empty();
            }
        }
        if is_any_left {
            self.look_at = Some(now + UNSURE_PAUSE);
        }
        for order in refused {
            let reason = format!(
                "what queue {} has in the journal is not known here yet; try again",
                order.key
            );
            self.refuse(order, Rejection::Unavailable { reason }).await;
        }
    }

    /// Looks for acceptances whose callers heard that nobody knows: one that is written belongs to its queue, now and not
    /// only when its next leader reads it.
    async fn look_for_unsure(&mut self, now: Instant) {
        let mut found = Vec::new();
        let (journal, leaderships) = (&self.journal, &self.leaderships);
        self.unsure.retain(|id, unsure| {
            let leadership = leaderships.get(&unsure.key);
            if leadership.is_none_or(|leadership| leadership.epoch != unsure.epoch) {
                return false; // The next leader finds it.
            }
            match journal.find(*id) {
                Ok(Lookup::Found(journaled)) => {
                    found.push((journaled, unsure.epoch));
                    false
                }
                Ok(Lookup::Gone) => false,
                Ok(Lookup::Missing) | Err(_) => now.saturating_since(unsure.since) < UNSURE_FOR,
            }
        });
        for (journaled, epoch) in found {
            recover_one(&self.context, &self.shards, &self.journal, journaled, epoch).await;
        }
        if !self.unsure.is_empty() {
            self.look_at = Some(now + UNSURE_PAUSE);
        }
    }

    /// Starts all work that may begin.
    fn start(&mut self) {
        while self.running.prepares < PREPARES_MAX && !self.orders.is_empty() {
            let count = self.orders.len().min(PREPARE_MAX);
            let orders: Vec<Order> = self.orders.drain(..count).collect();
            let reader = self.reader.clone();
            let prepared = tokio::task::spawn_blocking(move || reader.prepare(orders));
            self.running.prepares += 1;
            // It fails only when the process stops.
            let done = prepared.map(|prepared| Done::Prepared(prepared.unwrap_or_default()));
            self.work.push(done.boxed());
        }
        let leaderships = &self.leaderships;
        let is_led = |key: &QueueKey, epoch| leaderships.get(key).is_some_and(|led| led.epoch == epoch);
        while let Some(batch) = self.lanes.next(|write| is_led(&write.key, write.epoch)) {
            let appended = append(self.context.clone(), self.reader.clone(), batch);
            self.work.push(appended.map(Done::Appended).boxed());
        }
        while self.running.fences < FENCES_MAX && !self.fresh.is_empty() {
            let count = self.fresh.len().min(FENCE_MAX);
            let queues = self.fresh.drain(..count).collect();
            self.running.fences += 1;
            let done = fence(self.journal.clone(), queues).map(Done::Fenced);
            self.work.push(done.boxed());
        }
        while self.running.reads < READS_MAX && !self.fenced.is_empty() {
            let count = self.fenced.len().min(READ_MAX);
            let queues = self.fenced.drain(..count).collect();
            self.running.reads += 1;
            let read = read(
                self.context.clone(),
                self.shards.clone(),
                self.journal.clone(),
                queues,
            );
            self.work.push(read.map(Done::Read).boxed());
        }
        if self.archive_at.is_none() && self.running.archives == 0 && self.shared.has_archives() {
            self.archive_at = Some(self.context.clock.now() + ARCHIVE_PAUSE);
        }
    }

    fn archive(&mut self) {
        let (journal, archives) = (self.journal.clone(), self.shared.take_archives());
        let (count, metrics) = (archives.len() as u64, Arc::clone(&self.context.metrics));
        self.running.archives += 1;
        let appended = async move {
            let commands = tokio::task::spawn_blocking(move || {
                archives.into_iter().map(Archived::into_command).collect()
            });
            let Ok(commands) = commands.await else {
                return Done::Archived; // The process stops.
            };
            let now = UnixMillis(unix_ms());
            let counter = match journal
                .append(journal.home(), JournalBatch { now, commands })
                .await
            {
                Ok(_) => &metrics.journal.archived,
                Err(error) => {
                    tracing::debug!(count, %error, "records of activations that were not durable not kept");
                    &metrics.journal.unarchived
                }
            };
            counter.fetch_add(count, Ordering::Relaxed);
            Done::Archived
        };
        self.work.push(appended.boxed());
    }
}

fn answer_to(order: Order, kind: EntryKind, rejection: Rejection) -> Answer {
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
