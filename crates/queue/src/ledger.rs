//! The dispatch ledger: where every activation of this leadership is, and how it ended.
//!
//! Outcomes stay until every controller that asked has them. One that nobody fetches within the grace is *kept*: its
//! invoker may forget it, and it can be looked up until its time is over. Ids whose outcome is gone are remembered
//! for a while, so that a late resubmission does not run them again.
//!
//! Only what nobody can be hurt by goes because there is too much of it. A kept outcome leaves its id behind for as
//! long as its controller may submit it again. The id of a confirmed one may go early: every controller that asked
//! has said that it knows the outcome, and the SDK never submits such an id again; what its window is for, a frame
//! still under way on a stream that broke, comes within moments. The rest stays, and the queue takes no new work.
//! Invariant: `owed` and `kept` hold exactly the entries that are done, by the time they ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use whiskraft_types::{ActivationId, ContainerId, Instant, InvokerId};

use crate::waiting::Ticket;
use crate::{ControllerId, Outcome, QueueSettings};

/// Controllers that wait for one activation. More than one is a retry through another SDK instance; beyond this
/// many the longest waiting is dropped and has to submit again.
const WAITERS_MAX: usize = 8;

/// Where an activation is, as `find` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivationState<R> {
    /// In the queue (or held back until all invokers have registered).
    Waiting,
    /// Sent to a container that has not said yet that it starts it.
    Delivered(ContainerId),
    /// Running.
    Started(ContainerId),
    /// It ended.
    Done(Outcome<R>),
}

/// Where an activation is.
#[derive(Debug, Clone)]
pub(crate) enum Stage<R> {
    /// Not to be delivered before all invokers have registered: one of them may have it.
    Held,
    /// In the queue.
    Waiting,
    /// Sent.
    Delivered(ContainerId),
    /// Reported by the invoker that has it; only that one knows whether it has started.
    Adopted(ContainerId),
    /// Running.
    Started(ContainerId),
    /// Ended.
    Done(Done<R>),
}

impl<R> Stage<R> {
    /// The container that has it.
    pub(crate) const fn container(&self) -> Option<ContainerId> {
        match self {
            Self::Delivered(container) | Self::Adopted(container) | Self::Started(container) => {
                Some(*container)
            }
            Self::Held | Self::Waiting | Self::Done(_) => None,
        }
    }
}

/// The end of an activation.
#[derive(Debug, Clone)]
pub(crate) struct Done<R> {
    /// How.
    pub(crate) outcome: Outcome<R>,
    /// Who still keeps this result for us.
    pub(crate) invoker: Option<InvokerId>,
    /// When.
    pub(crate) at: Instant,
}

/// One activation.
#[derive(Debug, Clone)]
pub(crate) struct Entry<P, R> {
    /// Where it is.
    pub(crate) stage: Stage<R>,
    /// Who waits for it.
    pub(crate) waiters: Waiters,
    /// What to run it with; `None` while only an invoker has told of it.
    pub(crate) payload: Option<P>,
    /// Who waits for its end; `None` once it has ended.
    caller: Option<ActivationId>,
    /// Order and time of acceptance.
    pub(crate) ticket: Ticket,
    /// Newest attempt that was submitted.
    pub(crate) attempt: u32,
    /// Times that an invoker refused it.
    pub(crate) refusals: u8,
    /// When an invoker got it, as far as this leader knows, or when it ended if none did; means nothing before.
    pub(crate) sent_at: Instant,
    /// When its invoker was last heard of it, or got it.
    pub(crate) heard_at: Instant,
    /// Whether it was told that its invoker has not been heard of for too long.
    pub(crate) is_silence_told: bool,
}

impl<P, R> Entry<P, R> {
    /// The same, called by another activation.
    pub(crate) fn called_by(mut self, caller: Option<ActivationId>) -> Self {
        self.caller = caller;
        self
    }

    /// Whether another activation waits for its end.
    pub(crate) const fn is_called(&self) -> bool {
        self.caller.is_some()
    }

    /// It has ended: nobody waits for it inside the cluster any more. Whether somebody did.
    pub(crate) fn end_call(&mut self) -> bool {
        self.caller.take().is_some()
    }

    /// A container got it.
    pub(crate) fn send(&mut self, now: Instant, stage: Stage<R>) {
        self.stage = stage;
        (self.sent_at, self.heard_at) = (now, now);
        self.is_silence_told = false;
    }

    /// A new activation.
    pub(crate) const fn new(
        now: Instant,
        stage: Stage<R>,
        waiters: Waiters,
        payload: Option<P>,
        ticket: Ticket,
        attempt: u32,
    ) -> Self {
        Self {
            stage,
            waiters,
            payload,
            caller: None,
            ticket,
            attempt,
            refusals: 0,
            sent_at: now,
            heard_at: now,
            is_silence_told: false,
        }
    }
}

/// Controllers that wait for one activation, without memory of its own for the first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiters {
    first: Option<ControllerId>,
    others: Vec<ControllerId>,
}

impl Waiters {
    /// One controller.
    pub(crate) const fn one(controller: ControllerId) -> Self {
        Self {
            first: Some(controller),
            others: Vec::new(),
        }
    }

    /// Adds one; a known one changes nothing.
    pub(crate) fn add(&mut self, controller: ControllerId) {
        if self.iter().any(|known| known == controller) {
            return;
        }
        if self.first.is_none() {
            self.first = Some(controller);
            return;
        }
        if self.others.len() + 1 == WAITERS_MAX {
            self.first = Some(self.others.remove(0));
        }
        self.others.push(controller);
    }

    /// Removes one; `false` if it did not wait.
    fn remove(&mut self, controller: ControllerId) -> bool {
        if self.first == Some(controller) {
            self.first = (!self.others.is_empty()).then(|| self.others.remove(0));
            return true;
        }
        let before = self.others.len();
        self.others.retain(|known| *known != controller);
        self.others.len() < before
    }

    /// All of them, the longest waiting first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ControllerId> {
        self.first.into_iter().chain(self.others.iter().copied())
    }
}

/// All activations of this leadership.
#[derive(Debug)]
pub(crate) struct Ledger<P, R> {
    entries: BTreeMap<ActivationId, Entry<P, R>>,
    /// How many that are not done were called by other activations.
    called: usize,
    /// Done, within the grace.
    owed: BTreeSet<(Instant, ActivationId)>,
    /// Done, past the grace.
    kept: BTreeSet<(Instant, ActivationId)>,
    /// Ids whose outcome is gone.
    settled: BTreeSet<ActivationId>,
    /// Of these, those that every controller has confirmed, by the time of that.
    confirmed: VecDeque<(Instant, ActivationId)>,
    /// The others, by the time they ended.
    unconfirmed: VecDeque<(Instant, ActivationId)>,
}

impl<P, R> Default for Ledger<P, R> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            called: 0,
            owed: BTreeSet::new(),
            kept: BTreeSet::new(),
            settled: BTreeSet::new(),
            confirmed: VecDeque::new(),
            unconfirmed: VecDeque::new(),
        }
    }
}

impl<P, R> Ledger<P, R> {
    /// The entry of an id.
    pub(crate) fn find(&self, id: ActivationId) -> Option<&Entry<P, R>> {
        self.entries.get(&id)
    }

    /// The entry of an id; its stage may be changed between those that are not done.
    pub(crate) fn find_mut(&mut self, id: ActivationId) -> Option<&mut Entry<P, R>> {
        self.entries.get_mut(&id)
    }

    /// Adds an activation that is not done.
    pub(crate) fn insert(&mut self, entry: Entry<P, R>) {
        self.called += usize::from(entry.caller.is_some());
        self.entries.insert(entry.ticket.id, entry);
    }

    /// Forgets an activation that is not done.
    pub(crate) fn remove(&mut self, id: ActivationId) {
        let entry = self.entries.remove(&id);
        self.called -= usize::from(entry.is_some_and(|entry| entry.caller.is_some()));
    }

    /// Notes who waits for an activation that is not done, if that was not known.
    pub(crate) fn note_caller(&mut self, id: ActivationId, caller: Option<ActivationId>) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.caller.is_none()) {
            entry.caller = caller;
            self.called += usize::from(caller.is_some());
        }
    }

    /// Notes that the entry, which the sender has made `Done` at `at`, is owed to its controllers; `was_called` is what
    /// [`Entry::end_call`] said of it.
    pub(crate) fn note_done(&mut self, id: ActivationId, at: Instant, was_called: bool) {
        self.called -= usize::from(was_called);
        self.owed.insert((at, id));
    }

    /// Drops the oldest kept outcomes while there are too many. Owed ones stay: their controllers may still come.
    pub(crate) fn evict(&mut self, settings: &QueueSettings) {
        while self.done_len() > settings.results_max
            && let Some((at, id)) = self.kept.pop_first()
        {
            self.forget_kept(at, id);
        }
    }

    /// Whether so much is unconfirmed that nothing new may start.
    pub(crate) fn is_full(&self, settings: &QueueSettings) -> bool {
        self.full(settings).is_some()
    }

    /// The limit that was reached if so much is unconfirmed that nothing new may start.
    pub(crate) fn full(&self, settings: &QueueSettings) -> Option<usize> {
        let limits = [
            (self.owed.len(), settings.results_max),
            (self.unconfirmed.len(), settings.unconfirmed_max),
        ];
        limits
            .into_iter()
            .find(|(len, max)| len >= max)
            .map(|(_, max)| max)
    }

    /// A controller has the outcome; with the last one it goes.
    pub(crate) fn received(
        &mut self,
        id: ActivationId,
        controller: ControllerId,
        now: Instant,
        settings: &QueueSettings,
        acknowledge: &mut impl FnMut(InvokerId, ActivationId),
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Stage::Done(_) = entry.stage else { return };
        if !entry.waiters.remove(controller) || entry.waiters.first.is_some() {
            return;
        }
        let Some(Entry {
            stage: Stage::Done(done),
            ..
        }) = self.entries.remove(&id)
        else {
            return;
        };
        self.owed.remove(&(done.at, id));
        self.kept.remove(&(done.at, id));
        done.invoker
            .into_iter()
            .for_each(|invoker| acknowledge(invoker, id));
        self.settled.insert(id);
        self.confirmed.push_back((now, id));
        if self.confirmed.len() > settings.dedup_max
            && let Some((_, oldest)) = self.confirmed.pop_front()
        {
            self.settled.remove(&oldest);
        }
    }

    /// Drops a kept outcome, which the caller has taken out of `kept`, and remembers its id.
    fn forget_kept(&mut self, at: Instant, id: ActivationId) {
        self.entries.remove(&id);
        self.settled.insert(id);
        self.unconfirmed.push_back((at, id));
    }

    /// Ends graces and keeping times.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        settings: &QueueSettings,
        acknowledge: &mut impl FnMut(InvokerId, ActivationId),
    ) {
        let is_over = |since: Instant, time| now.saturating_since(since) >= time;
        while let Some(&(at, id)) = self
            .owed
            .first()
            .filter(|(at, _)| is_over(*at, settings.result_grace))
        {
            self.owed.pop_first();
            self.kept.insert((at, id));
            if let Some(Entry {
                stage: Stage::Done(done),
                ..
            }) = self.entries.get_mut(&id)
            {
                done.invoker
                    .take()
                    .into_iter()
                    .for_each(|invoker| acknowledge(invoker, id));
            }
        }
        self.evict(settings);
        while let Some(&(at, id)) = self
            .kept
            .first()
            .filter(|(at, _)| is_over(*at, settings.result_keep))
        {
            self.kept.pop_first();
            self.forget_kept(at, id);
        }
        let late = settings.result_keep + settings.dedup_window;
        for (ids, time) in [
            (&mut self.confirmed, settings.dedup_window),
            (&mut self.unconfirmed, late),
        ] {
            while let Some((_, id)) = ids.front().filter(|(at, _)| is_over(*at, time)) {
                self.settled.remove(id);
                ids.pop_front();
            }
        }
    }

    /// When `expire` has something to do.
    pub(crate) fn next_expiry(&self, settings: &QueueSettings) -> Option<Instant> {
        let owed = self.owed.first().map(|(at, _)| *at + settings.result_grace);
        let kept = self.kept.first().map(|(at, _)| *at + settings.result_keep);
        let confirmed = self.confirmed.front().map(|(at, _)| *at + settings.dedup_window);
        let unconfirmed = self
            .unconfirmed
            .front()
            .map(|(at, _)| *at + settings.result_keep + settings.dedup_window);
        [owed, kept, confirmed, unconfirmed].into_iter().flatten().min()
    }

    /// Activations that a container has, ascending by id, with the container.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = (ContainerId, &Entry<P, R>)> {
        self.entries
            .values()
            .filter_map(|entry| Some((entry.stage.container()?, entry)))
    }

    /// Whether any that is not done was called by another activation.
    pub(crate) const fn has_called(&self) -> bool {
        self.called > 0
    }

    /// What was called by other activations and is not done, ascending by id, with the caller.
    pub(crate) fn called(&self) -> impl Iterator<Item = (ActivationId, &Entry<P, R>)> {
        self.entries
            .values()
            .filter_map(|entry| Some((entry.caller?, entry)))
    }

    /// Ids in the given stage, ascending.
    pub(crate) fn ids_where(&self, wanted: impl Fn(&Stage<R>) -> bool) -> Vec<ActivationId> {
        self.entries
            .iter()
            .filter(|(_, entry)| wanted(&entry.stage))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whether the activation ended and its outcome is gone.
    pub(crate) fn is_settled(&self, id: ActivationId) -> bool {
        self.settled.contains(&id)
    }

    /// Whether outcomes are owed to controllers within the grace.
    pub(crate) fn is_owing(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Outcomes held.
    pub(crate) fn done_len(&self) -> usize {
        self.owed.len() + self.kept.len()
    }

    /// Activations that are not done.
    pub(crate) fn open_len(&self) -> usize {
        self.entries.len() - self.done_len()
    }
}
