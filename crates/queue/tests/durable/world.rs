//! The world around one queue, moved by random events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use whiskraft_queue::{
    ActionProfile, ControllerId, Input, MemoryQueue, NamespaceCounts, Outcome, QueueSettings, RetryPolicy,
    RunEnd, Terms,
};
use whiskraft_types::{
    ActivationId, ContainerId, Epoch, Instant, InvokerId, QueueKey, Rare, Rejection, Revision,
};

use crate::hosts::Host;
use crate::journal::{Pending, Row};

pub(crate) const CONTROLLER: ControllerId = ControllerId([7; 16]);
pub(crate) const HOSTS: u64 = 3;
const LIMIT: u32 = 4;
const RUNS_MAX: u32 = 3;

pub(crate) type Queue = MemoryQueue<String, Record>;

/// The record of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: ActivationId,
    pub(crate) run: u32,
    pub(crate) end: RunEnd,
}

/// One random step; numbers pick among what there is, and how it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Submit(u8),
    Delay(u8),
    Resubmit(u8),
    Journal(u8, u8),
    Advance(u64),
    Grant(u8),
    Read(u8),
    Start(u8),
    Complete(u8, u8),
    Refuse(u8),
    Ask(u8),
    Cancel(u8),
    LoseInvoker(u8),
    Disconnect(u8),
    Connect(u8),
    Confirm(u8),
    LoseLeader(u8),
    HandOff(u8),
    Recover,
    Fence(bool),
    OnLoss(bool),
}

/// What a controller knows of its activation.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) terms: Terms,
    pub(crate) attempt: u32,
    pub(crate) accepted_at: Option<Instant>,
    /// When the last leader that had accepted it was lost.
    pub(crate) lost_at: Option<Instant>,
    pub(crate) answer: Option<Answer>,
    pub(crate) confirmed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The controller was away for longer than results in memory are kept for it: it must not submit again.
    Unknown,
    Refused(Rejection),
    Ended(Outcome<Record>),
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) settings: Arc<QueueSettings>,
    pub(crate) queue: Queue,
    pub(crate) epoch: Epoch,
    pub(crate) on_loss: bool,
    pub(crate) calls: BTreeMap<ActivationId, Call>,
    /// The journal, and what is on its way there from the present leader.
    pub(crate) rows: BTreeMap<ActivationId, Row>,
    pub(crate) pending: Vec<Pending>,
    /// Wishes to cancel on their way there.
    pub(crate) marks: Vec<ActivationId>,
    /// Whether the present leader has not read the journal yet.
    pub(crate) recovering: bool,
    pub(crate) hosts: BTreeMap<InvokerId, Host>,
    /// Containers of the queue and where they are.
    pub(crate) table: BTreeMap<ContainerId, InvokerId>,
    pub(crate) asked: VecDeque<u32>,
    pub(crate) seq: u64,
    pub(crate) fenced: bool,
    pub(crate) removed: bool,
    pub(crate) starts: BTreeMap<(ActivationId, u32), u32>,
    /// What dead invokers had, as long as nothing is settled about it.
    pub(crate) ghosts: BTreeMap<(ActivationId, u32), InvokerId>,
    /// Wishes to cancel without an answer.
    pub(crate) asks: BTreeMap<u64, ActivationId>,
    pub(crate) next_ask: u64,
    /// Those of which a leader has said that they never start, and with which run they never do.
    pub(crate) never: BTreeSet<ActivationId>,
    /// Those of which a leader has said that they stop; of those in memory only the present one.
    pub(crate) stopping: BTreeSet<ActivationId>,
}

/// The `pick`-th of these, round and round.
pub(crate) fn choose<T>(from: impl IntoIterator<Item = T>, pick: u8) -> Option<T> {
    let mut all: Vec<T> = from.into_iter().collect();
    let at = usize::from(pick).checked_rem(all.len())?;
    Some(all.swap_remove(at))
}

impl World {
    pub(crate) fn new() -> Self {
        let settings = Arc::new(QueueSettings {
            len_max: 8,
            delayed_max: 3,
            archive: false,
            ..QueueSettings::default()
        });
        let host = || Host {
            connected: true,
            registered: true,
            ..Host::default()
        };
        Self {
            now: Instant::ORIGIN,
            queue: queue(Epoch(1), false, &settings, Instant::ORIGIN),
            settings,
            epoch: Epoch(1),
            on_loss: false,
            calls: BTreeMap::new(),
            rows: BTreeMap::new(),
            pending: Vec::new(),
            marks: Vec::new(),
            recovering: false,
            hosts: (1..=HOSTS).map(|id| (InvokerId(id), host())).collect(),
            table: BTreeMap::new(),
            asked: VecDeque::new(),
            seq: 0,
            fenced: false,
            removed: false,
            starts: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_ask: 0,
            never: BTreeSet::new(),
            stopping: BTreeSet::new(),
        }
    }

    pub(crate) fn apply(&mut self, event: Event) {
        if self.removed {
            return;
        }
        match event {
            // Two of three are durable.
            Event::Submit(pick) => self.submit_new(Terms {
                durable: !pick.is_multiple_of(3),
                not_before: None,
            }),
            Event::Delay(pick) => self.submit_new(Terms {
                durable: true,
                not_before: Some(self.now + Duration::from_millis(u64::from(pick) * 50)),
            }),
            Event::Resubmit(pick) => {
                let open = self.calls.iter().filter(|(_, call)| call.answer.is_none());
                if let Some(id) = choose(open.map(|(id, _)| *id), pick) {
                    self.submit(id);
                }
            }
            Event::Journal(pick, how) => self.journal(pick, how),
            Event::Advance(millis) => self.advance(Duration::from_millis(millis)),
            Event::Grant(pick) => self.grant(pick),
            Event::Read(pick) => self.read(pick),
            Event::Start(pick) => self.start(pick),
            Event::Complete(pick, how) => self.complete(pick, how),
            Event::Refuse(pick) => self.refuse(pick),
            Event::Ask(pick) => self.ask(pick),
            Event::Cancel(pick) => {
                if let Some(id) = choose(self.calls.keys().copied(), pick) {
                    self.cancel(id);
                }
            }
            Event::LoseInvoker(pick) => self.lose_invoker(InvokerId(u64::from(pick) % HOSTS + 1)),
            Event::Disconnect(pick) => self.disconnect(InvokerId(u64::from(pick) % HOSTS + 1)),
            Event::Connect(pick) => self.connect(InvokerId(u64::from(pick) % HOSTS + 1)),
            Event::Confirm(pick) => self.confirm(pick),
            Event::LoseLeader(pick) => self.lose_leader(pick),
            Event::HandOff(pick) => self.hand_off(pick),
            Event::Recover => self.recover(),
            Event::Fence(fenced) => {
                self.fenced = fenced;
                self.tell(Input::Fence(fenced));
            }
            Event::OnLoss(on_loss) => {
                self.on_loss = on_loss;
                self.tell(Input::Action(profile(on_loss)));
            }
        }
        self.advance(Duration::ZERO);
    }

    fn submit_new(&mut self, terms: Terms) {
        let id = ActivationId::from_bytes((self.calls.len() as u128 + 1).to_be_bytes());
        let call = Call {
            terms,
            attempt: 0,
            accepted_at: None,
            lost_at: None,
            answer: None,
            confirmed: false,
        };
        self.calls.insert(id, call);
        self.submit(id);
    }

    /// A shell would hold durable submissions until it has read the journal; this one does not.
    pub(crate) fn submit(&mut self, id: ActivationId) {
        let call = self.calls.get_mut(&id).unwrap();
        let grace = self.settings.result_grace;
        let is_late = |lost_at| self.now.saturating_since(lost_at) >= grace;
        if !call.terms.durable && call.lost_at.is_some_and(is_late) {
            call.answer = Some(Answer::Unknown);
            return;
        }
        call.attempt += 1;
        let waited = call
            .accepted_at
            .map_or(Duration::ZERO, |at| self.now.saturating_since(at));
        let submit = Input::Submit {
            controller: CONTROLLER,
            id,
            attempt: call.attempt,
            waited,
            caller: None,
            payload: id.to_string(),
            terms: call.terms,
        };
        self.tell(submit);
    }

    fn cancel(&mut self, id: ActivationId) {
        self.next_ask += 1;
        let ask = self.next_ask;
        self.asks.insert(ask, id);
        self.tell(Input::Cancel { ask, id });
    }

    fn confirm(&mut self, pick: u8) {
        let done = self
            .calls
            .iter()
            .filter(|(_, call)| matches!(call.answer, Some(Answer::Ended(_))) && !call.confirmed);
        if let Some(id) = choose(done.map(|(id, _)| *id), pick) {
            self.calls.get_mut(&id).unwrap().confirmed = true;
            self.tell(Input::Received {
                controller: CONTROLLER,
                id,
            });
        }
    }

    pub(crate) fn counts(&self) -> NamespaceCounts {
        NamespaceCounts {
            limit: LIMIT,
            limit_over: LIMIT,
            running: self.table.len() as u32,
            in_progress: 0,
        }
    }

    pub(crate) fn is_durable(&self, id: ActivationId) -> bool {
        self.calls[&id].terms.durable
    }
}

pub(crate) fn profile(on_loss: bool) -> ActionProfile {
    ActionProfile {
        revision: Revision(1),
        concurrency: 1,
        instances: None,
        blackbox: false,
        timeout: Duration::from_secs(60),
        deleted: false,
        retry: Rare::of(RetryPolicy {
            runs_max: RUNS_MAX,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(3),
            age_max: None,
            on_loss,
        }),
    }
}

pub(crate) fn queue(epoch: Epoch, on_loss: bool, settings: &Arc<QueueSettings>, now: Instant) -> Queue {
    let key = QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "guest/hello".parse().unwrap(),
    };
    MemoryQueue::new(key, epoch, profile(on_loss), Arc::clone(settings), now)
}
