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
//!
//! A durable activation leaves as soon as the journal has its end and those who wait are told: whoever asks later is
//! answered from the journal. Only its id stays for a while, so that what an invoker says of it late is acknowledged.
//! Invariant: `owed` and `kept` hold exactly the entries that are done, by the time they ended; `delayed` those that are
//! delayed, by the end of that.

mod entry;
mod remembered;
mod waiters;

use std::time::Duration;

use whiskraft_types::{ActivationId, Blank, ContainerId, Instant, InvokerId, SmallMap, SmallSet};

use crate::waiting::Ticket;
use crate::{ControllerId, QueueSettings};

pub use entry::ActivationState;
pub(crate) use entry::{Done, EndKind, Ending, Entry, Found, Mark, Next, Stage};
use remembered::Remembered;
pub(crate) use waiters::Waiters;

/// Ids of which nothing else depends are remembered longer than they must be, by at most this, so that many are forgotten
/// at a time.
const FORGET_PAUSE: Duration = Duration::from_secs(10);

/// What the ledger counts besides the entries themselves.
#[derive(Debug, Clone, Copy)]
enum Line {
    None,
    Journaling,
    Delayed(Instant),
    Ending,
    Done(Instant),
}

impl Line {
    const fn of<R>(stage: &Stage<R>) -> Self {
        match stage {
            Stage::Journaling { .. } => Self::Journaling,
            Stage::Delayed(at) => Self::Delayed(*at),
            Stage::Ending(_) => Self::Ending,
            Stage::Done(done) => Self::Done(done.at),
            Stage::Held | Stage::Waiting | Stage::Delivered(_) | Stage::Adopted(_) | Stage::Started(_) => {
                Self::None
            }
        }
    }
}

/// All activations of this leadership.
#[derive(Debug)]
pub(crate) struct Ledger<P, R> {
    entries: SmallMap<ActivationId, Box<Entry<P, R>>>,
    /// How many that are not done were called by other activations.
    called: usize,
    /// Done, within the grace.
    owed: SmallSet<(Instant, ActivationId)>,
    /// Done, past the grace.
    kept: SmallSet<(Instant, ActivationId)>,
    /// Ids whose outcome is gone and that every controller has confirmed, by the time of that.
    confirmed: Remembered,
    /// The others whose outcome is gone, by the time they ended.
    unconfirmed: Remembered,
    /// Not to begin before their time.
    delayed: SmallSet<(Instant, ActivationId)>,
    /// How many acceptances are on their way to the journal.
    journaling: usize,
    /// How many ends of runs are on their way to the journal.
    ending: usize,
    /// Ids of durable activations that the journal has the end of, by the time of that.
    recorded: Remembered,
}

impl<P, R> Default for Ledger<P, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: 'static, R: 'static> Blank for Ledger<P, R> {
    const BLANK: &'static Self = &Self::new();
}

impl<P, R> Ledger<P, R> {
    const fn new() -> Self {
        Self {
            entries: SmallMap::new(),
            called: 0,
            owed: SmallSet::new(),
            kept: SmallSet::new(),
            confirmed: Remembered::new(),
            unconfirmed: Remembered::new(),
            delayed: SmallSet::new(),
            journaling: 0,
            ending: 0,
            recorded: Remembered::new(),
        }
    }

    /// The entry of an id.
    pub(crate) fn find(&self, id: ActivationId) -> Option<&Entry<P, R>> {
        self.entries.get(&id).map(Box::as_ref)
    }

    /// The entry of an id; its stage may be changed between those that are not done.
    pub(crate) fn find_mut(&mut self, id: ActivationId) -> Option<&mut Entry<P, R>> {
        self.entries.get_mut(&id).map(Box::as_mut)
    }

    /// Adds an activation that is not done.
    pub(crate) fn insert(&mut self, entry: Entry<P, R>) {
        self.called += usize::from(entry.caller.is_some());
        self.enter(entry.ticket.id, Line::of(&entry.stage));
        self.entries.insert(entry.ticket.id, Box::new(entry));
    }

    /// Puts an activation into another stage; the one before, and its place.
    pub(crate) fn change(&mut self, id: ActivationId, stage: Stage<R>) -> Option<(Stage<R>, Ticket)> {
        let entry = self.entries.get_mut(&id)?;
        let (to, ticket) = (Line::of(&stage), entry.ticket);
        let before = std::mem::replace(&mut entry.stage, stage);
        self.leave(id, Line::of(&before));
        self.enter(id, to);
        Some((before, ticket))
    }

    /// Takes an activation out of the ledger.
    pub(crate) fn remove(&mut self, id: ActivationId) -> Option<Box<Entry<P, R>>> {
        let entry = self.entries.remove(&id)?;
        self.called -= usize::from(entry.caller.is_some());
        self.leave(id, Line::of(&entry.stage));
        Some(entry)
    }

    fn enter(&mut self, id: ActivationId, line: Line) {
        match line {
            Line::None => {}
            Line::Journaling => self.journaling += 1,
            Line::Ending => self.ending += 1,
            Line::Delayed(at) => {
                self.delayed.insert((at, id));
            }
            Line::Done(at) => {
                self.owed.insert((at, id));
            }
        }
    }

    fn leave(&mut self, id: ActivationId, line: Line) {
        match line {
            Line::None => {}
            Line::Journaling => self.journaling -= 1,
            Line::Ending => self.ending -= 1,
            Line::Delayed(at) => {
                self.delayed.remove(&(at, id));
            }
            Line::Done(at) => {
                if !self.owed.remove(&(at, id)) {
                    self.kept.remove(&(at, id));
                }
            }
        }
    }

    /// An activation ends: nobody waits for it inside the cluster any more.
    pub(crate) fn end_call(&mut self, id: ActivationId) -> Option<&Entry<P, R>> {
        let entry = self.entries.get_mut(&id)?;
        self.called -= usize::from(entry.caller.take().is_some());
        Some(entry)
    }

    /// The journal has the end of this one: it leaves, and its id stays for a while.
    pub(crate) fn note_recorded(&mut self, now: Instant, id: ActivationId, settings: &QueueSettings) {
        self.recorded.push(now, id);
        if self.recorded.len() > settings.dedup_max {
            self.recorded.pop();
        }
    }

    /// Whether the journal has the end of this one, as far as is remembered.
    pub(crate) fn is_recorded(&self, id: ActivationId) -> bool {
        self.recorded.contains(id)
    }

    /// The delayed one whose time has come longest ago.
    pub(crate) fn due(&self, now: Instant) -> Option<ActivationId> {
        let (at, id) = self.delayed.first()?;
        (*at <= now).then_some(*id)
    }

    /// When the first delayed one may begin.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// The delayed ones, in the order of their times.
    pub(crate) fn delayed(&self) -> impl Iterator<Item = ActivationId> {
        self.delayed.iter().map(|(_, id)| *id)
    }

    /// How many are delayed.
    pub(crate) fn delayed_len(&self) -> usize {
        self.delayed.len()
    }

    /// How many acceptances are on their way to the journal.
    pub(crate) const fn journaling_len(&self) -> usize {
        self.journaling
    }

    /// How many ends of runs are on their way to the journal.
    pub(crate) const fn ending_len(&self) -> usize {
        self.ending
    }

    /// Notes who waits for an activation that is not done, if that was not known.
    pub(crate) fn note_caller(&mut self, id: ActivationId, caller: Option<ActivationId>) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.caller.is_none()) {
            entry.caller = caller;
            self.called += usize::from(caller.is_some());
        }
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
            (self.ending, settings.results_max),
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
        let mut ended = None;
        let entry = self.entries.remove_if(id, |entry| {
            let Stage::Done(Done { at, invoker, .. }) = entry.stage else {
                return false;
            };
            ended = Some((at, invoker));
            entry.waiters.remove(controller) && entry.waiters.is_empty()
        });
        let (Some(entry), Some((at, invoker))) = (entry, ended) else {
            return;
        };
        self.called -= usize::from(entry.caller.is_some());
        self.leave(id, Line::Done(at));
        invoker.into_iter().for_each(|invoker| acknowledge(invoker, id));
        self.confirmed.push(now, id);
        if self.confirmed.len() > settings.dedup_max {
            self.confirmed.pop();
        }
    }

    /// Drops a kept outcome, which the caller has taken out of `kept`, and remembers its id.
    fn forget_kept(&mut self, at: Instant, id: ActivationId) {
        self.entries.remove(&id);
        self.unconfirmed.push(at, id);
    }

    /// Ends graces and keeping times; no graces while it is not known which of the activations are durable.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        settings: &QueueSettings,
        is_recovering: bool,
        acknowledge: &mut impl FnMut(InvokerId, ActivationId),
    ) {
        let is_over = |since: Instant, time| now.saturating_since(since) >= time;
        while let Some(&(at, id)) = self
            .owed
            .first()
            // What is not known to be in the journal or not needs its invoker's memory.
            .filter(|(at, _)| is_over(*at, settings.result_grace) && !is_recovering)
        {
            self.owed.pop_first();
            self.kept.insert((at, id));
            if let Some(Entry {
                stage: Stage::Done(done),
                ..
            }) = self.entries.get_mut(&id).map(Box::as_mut)
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
            (&mut self.recorded, settings.dedup_window),
        ] {
            while ids.oldest().is_some_and(|at| is_over(at, time)) {
                ids.pop();
            }
        }
    }

    /// When `expire` has something to do.
    pub(crate) fn next_expiry(&self, settings: &QueueSettings, is_recovering: bool) -> Option<Instant> {
        let owed = self.owed.first().filter(|_| !is_recovering);
        let owed = owed.map(|(at, _)| *at + settings.result_grace);
        let kept = self.kept.first().map(|(at, _)| *at + settings.result_keep);
        // Nobody waits for an id to be forgotten.
        let remembered = settings.dedup_window + FORGET_PAUSE;
        let confirmed = self.confirmed.oldest().map(|at| at + remembered);
        let unconfirmed = self.unconfirmed.oldest();
        let unconfirmed = unconfirmed.map(|at| at + settings.result_keep + settings.dedup_window);
        let recorded = self.recorded.oldest().map(|at| at + remembered);
        [owed, kept, confirmed, unconfirmed, recorded]
            .into_iter()
            .flatten()
            .min()
    }

    /// What a new leader has to know: what has not ended, and outcomes within the grace.
    pub(crate) fn to_move(&self) -> impl Iterator<Item = &Entry<P, R>> {
        let entries = self.entries.values().map(Box::as_ref);
        entries.filter(|entry| match &entry.stage {
            Stage::Done(done) => self.owed.contains(&(done.at, entry.ticket.id)),
            _ => true,
        })
    }

    /// Activations that a container has, ascending by id, with the container.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = (ContainerId, &Entry<P, R>)> {
        self.entries
            .values()
            .filter_map(|entry| Some((entry.stage.container()?, &**entry)))
    }

    /// Whether any that is not done was called by another activation.
    pub(crate) const fn has_called(&self) -> bool {
        self.called > 0
    }

    /// What was called by other activations and is not done, ascending by id, with the caller.
    pub(crate) fn called(&self) -> impl Iterator<Item = (ActivationId, &Entry<P, R>)> {
        self.entries
            .values()
            .filter_map(|entry| Some((entry.caller?, &**entry)))
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
        self.confirmed.contains(id) || self.unconfirmed.contains(id)
    }

    /// Whether outcomes are owed to controllers within the grace.
    pub(crate) fn is_owing(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Outcomes held.
    pub(crate) fn done_len(&self) -> usize {
        self.owed.len() + self.kept.len()
    }

    /// Activations that a container has; `in_line` of all are in a line.
    pub(crate) fn in_flight_len(&self, in_line: usize) -> usize {
        self.open_len() - in_line - self.journaling - self.delayed.len() - self.ending
    }

    /// Activations that are not done.
    pub(crate) fn open_len(&self) -> usize {
        self.entries.len() - self.done_len()
    }
}
