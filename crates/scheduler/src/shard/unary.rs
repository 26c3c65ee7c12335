//! The unary pull service inside a shard: containers that ask by single calls instead of a Pull stream.
//!
//! An open fetch is one ask of its container in the queue. What the queue delivers to a container with an open fetch
//! goes to that fetch; a fetch that has waited long enough is answered and its ask taken back.
//!
//! Invariant: only containers that the tables know ask, so limits stay exact.
//! Invariant: an activation whose fetch was gone before its answer left goes back to the head of its queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use whiskraft_queue::{ActivationState, Input, RunEnd};
use whiskraft_types::{ActivationId, ContainerId, Epoch, Instant, InvokerId, QueueKey, Revision};

use crate::message::{Payload, Record, Request};
use crate::shard::actor::Shard;
use crate::shard::handle::ShardsHandle;
use crate::shard::local::Slot;

/// Time for which a fetch is held while nothing waits.
const HOLD: Duration = Duration::from_secs(1);
/// Deliveries remembered, so that they can be given back, before those that have ended are looked for.
const DELIVERED_SLACK: usize = 1024;

/// What the service asks.
#[derive(Debug)]
pub(crate) enum UnaryRequest {
    Fetch {
        key: QueueKey,
        fetch: Fetch,
    },
    /// A call ended before its answer: its ask is taken back at once.
    Cancelled {
        key: QueueKey,
        container: ContainerId,
    },
    /// A delivery was certainly not read.
    GiveBack {
        key: QueueKey,
        epoch: Epoch,
        container: ContainerId,
        id: ActivationId,
    },
    Reschedule {
        key: QueueKey,
        id: ActivationId,
        answer: oneshot::Sender<bool>,
    },
    Complete {
        key: QueueKey,
        container: ContainerId,
        record: Record,
        answer: oneshot::Sender<bool>,
    },
}

/// One ask of a container.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) revision: Revision,
    pub(crate) container: ContainerId,
    pub(crate) warmed: bool,
    pub(crate) last: Option<Duration>,
    pub(crate) alive: bool,
    pub(crate) answer: oneshot::Sender<FetchAnswer>,
}

/// What a fetch is told.
#[derive(Debug)]
pub(crate) enum FetchAnswer {
    Delivery(Delivery),
    Nothing,
    NoQueue,
    Mismatch,
    /// The container has as many open fetches as it may run activations.
    TooMany,
}

/// An activation on its way to a fetch. Dropped unread it goes back to the queue.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: ActivationId,
    pub(crate) revision: Revision,
    pub(crate) payload: Payload,
    key: QueueKey,
    epoch: Epoch,
    container: ContainerId,
    shards: ShardsHandle,
    is_read: bool,
}

impl Delivery {
    /// It leaves for the caller: from here on it counts as delivered.
    pub(crate) const fn read(&mut self) {
        self.is_read = true;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // Without a runtime the process is going, and the queue with it.
        let (false, Ok(runtime)) = (self.is_read, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let back = UnaryRequest::GiveBack {
            key: self.key.clone(),
            epoch: self.epoch,
            container: self.container,
            id: self.id,
        };
        let (shards, key) = (self.shards.clone(), self.key.clone());
        runtime.spawn(async move { shards.send_to(&key, Request::Unary(back)).await });
    }
}

#[derive(Debug)]
struct Waiter {
    key: QueueKey,
    number: u64,
    warmed: bool,
    answer: oneshot::Sender<FetchAnswer>,
}

/// Answers a caller, who may be gone.
fn tell<T>(caller: oneshot::Sender<T>, answer: T) {
    let _ = caller.send(answer);
}

/// Open fetches and deliveries of a shard.
#[derive(Debug, Default)]
pub(crate) struct Unary {
    waiting: BTreeMap<ContainerId, VecDeque<Waiter>>,
    /// By end of the hold; an entry whose fetch has its answer is skipped.
    due: VecDeque<(Instant, ContainerId, u64)>,
    next: u64,
    /// Handed out here, neither given back nor completed.
    delivered: BTreeMap<ActivationId, (QueueKey, ContainerId)>,
    delivered_max: usize,
    /// Reports whose activation may not be forgotten by its puller yet.
    completing: BTreeMap<ActivationId, (QueueKey, Vec<oneshot::Sender<bool>>)>,
    /// While asks are taken back that no Pull stream made.
    pub(crate) is_quiet: bool,
}

impl Unary {
    /// When the next hold ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.front().map(|(at, ..)| *at)
    }

    fn open(&mut self, now: Instant, key: QueueKey, fetch: Fetch) {
        let number = self.next;
        self.next += 1;
        self.due.push_back((now + HOLD, fetch.container, number));
        let waiter = Waiter {
            key,
            number,
            warmed: fetch.warmed,
            answer: fetch.answer,
        };
        self.waiting.entry(fetch.container).or_default().push_back(waiter);
    }

    /// Whether no fetch is open: what is delivered goes to Pull streams.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The oldest open fetch of a container.
    fn take(&mut self, container: ContainerId) -> Option<Waiter> {
        let waiters = self.waiting.get_mut(&container)?;
        let waiter = waiters.pop_front();
        if waiters.is_empty() {
            self.waiting.remove(&container);
        }
        waiter
    }

    /// Open fetches of a container, those whose caller is gone left out and forgotten.
    fn live(&mut self, container: ContainerId) -> usize {
        let Some(waiters) = self.waiting.get_mut(&container) else {
            return 0;
        };
        waiters.retain(|waiter| !waiter.answer.is_closed());
        let live = waiters.len();
        if live == 0 {
            self.waiting.remove(&container);
        }
        live
    }

    fn is_warmed(&self, container: ContainerId) -> bool {
        let waiters = self.waiting.get(&container);
        waiters.is_some_and(|waiters| waiters.iter().any(|waiter| waiter.warmed))
    }

    /// Containers whose oldest fetch has waited long enough, with that fetch.
    fn take_due(&mut self, now: Instant) -> Vec<(ContainerId, Waiter)> {
        let mut overdue = Vec::new();
        while self.due.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, container, number)) = self.due.pop_front()
        {
            let is_open = self
                .waiting
                .get(&container)
                .and_then(VecDeque::front)
                .is_some_and(|waiter| waiter.number == number);
            if is_open && let Some(waiter) = self.take(container) {
                overdue.push((container, waiter));
            }
        }
        overdue
    }

    /// Answers the reports of an activation that its puller may forget.
    pub(crate) fn acknowledge(&mut self, id: ActivationId) {
        if self.completing.is_empty() {
            return;
        }
        if let Some((_, answers)) = self.completing.remove(&id) {
            answers.into_iter().for_each(|answer| tell(answer, true));
        }
    }

    /// Tells all callers of a queue that it is not led here any more.
    pub(crate) fn give_up(&mut self, key: &QueueKey) {
        let is_of = |waiters: &VecDeque<Waiter>| waiters.front().is_some_and(|waiter| waiter.key == *key);
        self.waiting.retain(|_, waiters| {
            let ends = is_of(waiters);
            if ends {
                let answers = waiters.drain(..).map(|waiter| waiter.answer);
                answers.for_each(|answer| tell(answer, FetchAnswer::NoQueue));
            }
            !ends
        });
        self.completing.retain(|_, (of, answers)| {
            let ends = of == key;
            if ends {
                answers.drain(..).for_each(|answer| tell(answer, false));
            }
            !ends
        });
        self.delivered.retain(|_, (of, _)| of != key);
    }
}

impl Shard {
    pub(crate) fn on_unary(&mut self, request: UnaryRequest) {
        match request {
            UnaryRequest::Fetch { key, fetch } => self.on_fetch(key, fetch),
            UnaryRequest::Cancelled { key, container } => {
                if let Some(slot) = self.queues.slot(&key) {
                    self.renew_asks(slot, container);
                }
            }
            UnaryRequest::GiveBack {
                key,
                epoch,
                container,
                id,
            } => {
                let slot = self.queues.slot(&key);
                let is_here =
                    |slot: &Slot| self.queues.get(*slot).is_some_and(|local| local.epoch() == epoch);
                if let Some(slot) = slot.filter(is_here) {
                    self.give_back(slot, container, id);
                }
            }
            UnaryRequest::Reschedule { key, id, answer } => {
                tell(answer, self.on_reschedule(&key, id));
            }
            UnaryRequest::Complete {
                key,
                container,
                record,
                answer,
            } => self.on_complete(&key, container, record, answer),
        }
    }

    fn on_fetch(&mut self, key: QueueKey, fetch: Fetch) {
        let slot = self.queues.slot(&key).filter(|_| !self.fenced && !self.draining);
        let profile = |slot| {
            let profile = self.queues.get(slot)?.profile();
            Some((slot, profile.revision, profile.concurrency))
        };
        let Some((slot, revision, concurrency)) = slot.and_then(profile) else {
            return tell(fetch.answer, FetchAnswer::NoQueue);
        };
        if self.queues.get(slot).is_some_and(|local| local.frozen.is_some()) {
            // It asks again, here or where the queue is then.
            return tell(fetch.answer, FetchAnswer::Nothing);
        }
        let container = fetch.container;
        if fetch.revision < revision || !self.mirror.knows(&key, container) {
            return tell(fetch.answer, FetchAnswer::Mismatch);
        }
        if let Some(last) = fetch.last {
            self.step(slot, Input::Sampled(last));
        }
        if !fetch.alive {
            return self.on_going(slot, container, fetch.answer);
        }
        let open = self.unary.live(container);
        if open >= concurrency as usize {
            return tell(fetch.answer, FetchAnswer::TooMany);
        }
        let place = self
            .queues
            .get(slot)
            .and_then(|local| local.dealings.places.get(&container).copied());
        // A newer revision, or where the container is, is about to be told by the log.
        let Some(invoker) = place.filter(|_| fetch.revision == revision) else {
            return tell(fetch.answer, FetchAnswer::Nothing);
        };
        self.unary.open(self.now, key, fetch);
        self.set_asks(slot, invoker, container);
    }

    /// The container goes away: nothing is delivered to it any more.
    fn on_going(&mut self, slot: Slot, container: ContainerId, answer: oneshot::Sender<FetchAnswer>) {
        self.withdraw_quietly(slot, container);
        while let Some(waiter) = self.unary.take(container) {
            tell(waiter.answer, FetchAnswer::Nothing);
        }
        tell(answer, FetchAnswer::Nothing);
    }

    fn withdraw_quietly(&mut self, slot: Slot, container: ContainerId) {
        self.unary.is_quiet = true;
        self.step(slot, Input::Withdraw { container });
        self.unary.is_quiet = false;
    }

    /// Asks in the queue for what is still open of a container's fetches.
    fn renew_asks(&mut self, slot: Slot, container: ContainerId) {
        let place = self
            .queues
            .get(slot)
            .and_then(|local| local.dealings.places.get(&container).copied());
        if let Some(invoker) = place {
            self.set_asks(slot, invoker, container);
        }
    }

    /// Makes the asks of a container in its queue as many as its open fetches: those that were cancelled are taken back.
    fn set_asks(&mut self, slot: Slot, invoker: InvokerId, container: ContainerId) {
        self.withdraw_quietly(slot, container);
        let count = u32::try_from(self.unary.live(container)).unwrap_or(u32::MAX);
        if count > 0 {
            let warmed = self.unary.is_warmed(container);
            let input = Input::Credit {
                invoker,
                container,
                count,
                warmed,
            };
            self.step(slot, input);
        }
    }

    /// Ends the holds whose time has come.
    pub(crate) fn end_holds(&mut self) {
        for (container, waiter) in self.unary.take_due(self.now) {
            if let Some(slot) = self.queues.slot(&waiter.key) {
                self.renew_asks(slot, container);
            }
            tell(waiter.answer, FetchAnswer::Nothing);
        }
    }

    /// Hands a delivery to an open fetch of the container; gives it back if there is none.
    pub(crate) fn deliver_unary(
        &mut self,
        slot: Slot,
        container: ContainerId,
        id: ActivationId,
        payload: Payload,
    ) -> Result<(), Payload> {
        let Some(mut waiter) = self.unary.take(container) else {
            return Err(payload);
        };
        while waiter.answer.is_closed()
            && let Some(next) = self.unary.take(container)
        {
            waiter = next;
        }
        let Some(local) = self.queues.get(slot) else {
            return Ok(());
        };
        let delivery = Delivery {
            id,
            revision: local.profile().revision,
            payload,
            key: local.key().clone(),
            epoch: local.epoch(),
            container,
            shards: self.parts.shards.clone(),
            is_read: false,
        };
        self.unary.delivered.insert(id, (local.key().clone(), container));
        self.forget_delivered();
        // Unread it comes back by its drop.
        tell(waiter.answer, FetchAnswer::Delivery(delivery));
        Ok(())
    }

    /// Forgets deliveries that have ended: rarely, and at a cost in proportion to those that came since.
    fn forget_delivered(&mut self) {
        if self.unary.delivered.len() < self.unary.delivered_max.max(DELIVERED_SLACK) {
            return;
        }
        let queues = &self.queues;
        self.unary.delivered.retain(|id, (key, container)| {
            let found = queues
                .slot(key)
                .and_then(|slot| queues.get(slot)?.queue.find(*id));
            matches!(found, Some(ActivationState::Delivered(at)) if at == *container)
        });
        self.unary.delivered_max = self.unary.delivered.len() * 2;
    }

    /// The tables have lost a container: whoever asks for it ends it.
    pub(crate) fn end_fetches(&mut self, container: ContainerId) {
        while let Some(waiter) = self.unary.take(container) {
            tell(waiter.answer, FetchAnswer::Mismatch);
        }
    }

    fn give_back(&mut self, slot: Slot, container: ContainerId, id: ActivationId) {
        if self.unary.delivered.remove(&id).is_some() {
            self.step(slot, Input::Refused { container, id });
        }
    }

    /// Whether the activation was handed out here and goes back.
    fn on_reschedule(&mut self, key: &QueueKey, id: ActivationId) -> bool {
        let Some((_, container)) = self.unary.delivered.get(&id).filter(|(of, _)| of == key).cloned() else {
            return false;
        };
        let Some(slot) = self.queues.slot(key) else {
            return false;
        };
        let found = self.queues.get(slot).and_then(|local| local.queue.find(id));
        let is_delivered = matches!(found, Some(ActivationState::Delivered(at)) if at == container);
        if is_delivered {
            self.give_back(slot, container, id);
        }
        is_delivered
    }

    fn on_complete(
        &mut self,
        key: &QueueKey,
        container: ContainerId,
        record: Record,
        answer: oneshot::Sender<bool>,
    ) {
        let slot = self.queues.slot(key).filter(|_| !self.fenced);
        let place = slot.and_then(|slot| Some((slot, self.queues.get(slot)?)));
        let Some((slot, local)) = place else {
            return tell(answer, false);
        };
        // One that the tables have lost still has its result; nobody but the caller hears of the acknowledgement.
        let invoker = local
            .dealings
            .places
            .get(&container)
            .copied()
            .unwrap_or(InvokerId(0));
        let id = record.id;
        let is_known = local.dealings.places.contains_key(&container) || self.mirror.knows(key, container);
        let may_have_it = match local.queue.find(id) {
            Some(ActivationState::Delivered(at) | ActivationState::Started(at)) => at == container,
            // Held back after a failover, any container may have it.
            Some(ActivationState::Waiting) => is_known,
            Some(ActivationState::Delayed(_) | ActivationState::Journaling) => false,
            Some(ActivationState::Done(_) | ActivationState::Ending) | None => true,
        };
        if !may_have_it {
            return tell(answer, false);
        }
        self.unary.delivered.remove(&id);
        let (_, answers) = self
            .unary
            .completing
            .entry(id)
            .or_insert_with(|| (key.clone(), Vec::new()));
        answers.retain(|answer| !answer.is_closed());
        answers.push(answer);
        let input = Input::Completed {
            invoker,
            container,
            id,
            run: record.run,
            end: RunEnd::of(record.status, record.cancelled),
            record,
            duration: None,
            credits: 0,
        };
        self.step(slot, input);
    }
}
