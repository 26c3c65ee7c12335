//! What the client decides, without doing it: which activation goes to which scheduler, when it is sent again,
//! when it ends. Fed by the actor with [`Input`]s; what it wants done comes back as [`Output`]s, in order.
//!
//! - **Invariant:** an activation exists here from before its first sending until it is settled or, durably accepted and
//!   of no interest to anybody here, forgotten; one of both happens exactly once, and it is never sent after that.
//! - **Invariant:** an activation is in exactly one of: waiting, backlog, sent, accepted.
//! - **Invariant:** while nothing may have reached a container the attempt stays 1.

mod activation;
mod flow;
mod io;
mod link;
mod queue;
mod routing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use whiskraft_types::{ActivationId, Instant, QueueKey, Rejection, SchedulerId};

use self::activation::{Activation, Place};
pub(crate) use self::io::{Admission, Context, EnsureAnswer, Input, NewActivation, Output, Route, StreamId};
use self::link::Link;
use self::queue::{ActiveQueue, Gate};
use crate::{InvokeError, Stats};

/// Queues asked for at a time: as many as fill the calls that may be under way, and as many again.
pub(crate) const ASKS_MAX: usize = 4096;

/// Bounds on what one client holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) unfinished_max: usize,
    pub(crate) unfinished_bytes_max: u64,
    /// Queues asked for at a time.
    pub(crate) asks_max: usize,
}

/// The decider of one client.
#[derive(Debug)]
pub(crate) struct Router {
    bounds: Bounds,
    rng: StdRng,
    stats: Stats,
    /// Client addresses of the schedulers we keep a stream to.
    members: BTreeMap<SchedulerId, String>,
    links: BTreeMap<SchedulerId, Link>,
    /// The queue cache: every queue of the cluster that has a leader or had one.
    routes: BTreeMap<QueueKey, Route>,
    queues: BTreeMap<QueueKey, ActiveQueue>,
    unfinished: BTreeMap<ActivationId, Activation>,
    /// One per unfinished activation.
    timers: BTreeSet<(Instant, ActivationId)>,
    /// Ends of pauses; an entry whose queue has moved on is ignored.
    pauses: BTreeSet<(Instant, QueueKey)>,
    /// Queues that wait for their turn to ask; may hold some that have moved on.
    asks_queued: VecDeque<QueueKey>,
    asks_open: usize,
    seq: u64,
}

impl Router {
    pub(crate) fn new(bounds: Bounds, rng: StdRng) -> Self {
        Self {
            bounds,
            rng,
            stats: Stats::default(),
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            routes: BTreeMap::new(),
            queues: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            timers: BTreeSet::new(),
            pauses: BTreeSet::new(),
            asks_queued: VecDeque::new(),
            asks_open: 0,
            seq: 0,
        }
    }

    /// Advances by one input; what has to be done is appended to `out`, in order.
    pub(crate) fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Submit(new) => self.on_submit(now, new, out),
            Input::StreamOpened {
                stream,
                window,
                payload_len_max,
            } => {
                self.on_stream_opened(now, stream, window, payload_len_max, out);
            }
            Input::StreamLost { stream, unsent } => self.on_stream_lost(now, stream, &unsent, out),
            Input::Accepted { stream, id } => self.on_accepted(now, stream, id, out),
            Input::Rejected {
                stream,
                id,
                rejection,
            } => self.on_rejected(now, stream, id, rejection, out),
            Input::Completed { stream, record } => {
                let id = record.id;
                self.on_ended(now, stream, id, Ok(record), out);
            }
            Input::Garbled { stream, id, source } => {
                self.on_ended(now, stream, id, Err(InvokeError::Garbled { id, source }), out);
            }
            Input::Ensured { key, answer } => self.on_ensured(now, &key, answer, out),
            Input::Member { scheduler, address } => self.on_member(now, scheduler, address, out),
            Input::Queue { key, route } => self.on_queue(now, &key, route, out),
            Input::Snapshot { members, queues } => self.on_snapshot(now, members, queues, out),
            Input::Forget { id } => self.on_forget(id, out),
            Input::Tick => self.on_tick(now, out),
            Input::Close => self.on_close(out),
        }
        self.ask_next(out);
        debug_assert_eq!(self.unfinished.len(), self.timers.len());
    }

    /// Whether and how an activation is taken in at `now`.
    pub(crate) fn admit(&mut self, now: Instant, new: &NewActivation) -> Result<Admission, InvokeError> {
        if let Some(known) = self.unfinished.get_mut(&new.id) {
            return match (known.is_joined_by(new), known.payload == new.payload) {
                (false, _) => Err(InvokeError::IdInUse { id: new.id }),
                // What the journal would answer.
                (true, false) => Err(conflict(new.id, known.sends)),
                (true, true) => {
                    let is_accepted = known.accepted_at.is_some();
                    self.extend(new.id, now + new.deadline, now + new.given_up_after);
                    Ok(Admission::Joined { is_accepted })
                }
            };
        }
        let bytes = self
            .stats
            .unfinished_bytes
            .saturating_add(new.payload.len() as u64);
        if self.unfinished.len() >= self.bounds.unfinished_max || bytes > self.bounds.unfinished_bytes_max {
            return Err(InvokeError::Full {
                unfinished: self.unfinished.len(),
                bytes: self.stats.unfinished_bytes,
            });
        }
        Ok(Admission::New)
    }

    /// Somebody else waits for it too, perhaps longer.
    fn extend(&mut self, id: ActivationId, deadline: Instant, given_up_at: Instant) {
        let Some(activation) = self.unfinished.get_mut(&id) else {
            return;
        };
        self.timers.remove(&(activation.timer(), id));
        if deadline > activation.deadline {
            activation.deadline = deadline;
            activation.deadline_passed = false;
        }
        activation.given_up_at = activation.given_up_at.max(given_up_at);
        self.timers.insert((activation.timer(), id));
    }

    /// When to [`Input::Tick`] if nothing else arrives.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let pause = self.pauses.first().map(|(at, _)| *at);
        timer.into_iter().chain(pause).min()
    }

    pub(crate) const fn stats(&self) -> Stats {
        self.stats
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some((at, key)) = self.pauses.pop_first() {
            if at > now {
                self.pauses.insert((at, key));
                break;
            }
            self.on_pause_over(at, &key);
        }
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.on_timer(now, id, out);
        }
    }

    fn on_close(&mut self, out: &mut Vec<Output>) {
        while let Some((&id, _)) = self.unfinished.first_key_value() {
            self.settle(id, Err(InvokeError::Closed { id }), out);
        }
    }
}

fn conflict(id: ActivationId, attempts: u32) -> InvokeError {
    InvokeError::Rejected {
        id,
        attempts,
        may_have_run: false,
        rejection: Rejection::Conflict,
    }
}
