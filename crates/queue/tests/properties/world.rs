//! The world around one queue, moved by random events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use whiskraft_queue::{
    ActionProfile, ActivationState, ControllerId, Input, MemoryQueue, NamespaceCounts, Outcome,
    QueueSettings, Terms,
};
use whiskraft_types::{
    ActivationId, ContainerId, Epoch, Instant, InvokerId, QueueKey, Rare, Rejection, Revision,
};

use crate::invoker::Invoker;
use crate::model::Model;

const CONTROLLER: ControllerId = ControllerId([7; 16]);
pub(crate) const INVOKERS: u64 = 3;
pub(crate) const LIMIT: u32 = 4;

/// One random step; the number picks among what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Submit,
    Resubmit(u8),
    Advance(u64),
    Grant(u8),
    Place(u8),
    Ready(u8),
    FailCreation(u8),
    Read(u8),
    Start(u8),
    Complete(u8),
    Refuse(u8),
    Ask(u8),
    Pause(u8),
    LoseContainer(u8),
    LoseInvoker(u8),
    Disconnect(u8),
    Connect(u8),
    Confirm(u8),
    LoseLeader,
    Fence(bool),
    Drain(bool),
    Update,
    Instances(u8),
    Mute(u8),
    Delay(u8),
    Others(u8),
}

/// What a controller knows of its activation.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) attempt: u32,
    pub(crate) answer: Option<Answer>,
    pub(crate) confirmed: bool,
    /// Whether the present leader has seen it submitted.
    pub(crate) submitted_here: bool,
    /// When the first leader accepted it.
    pub(crate) accepted_at: Option<Instant>,
    /// When the last leader that had accepted it was lost.
    pub(crate) lost_at: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The controller was away for longer than results are kept for it: it must not submit again.
    Unknown,
    Refused(Rejection),
    Ended(Outcome<String>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) invoker: Option<InvokerId>,
    pub(crate) running: bool,
    pub(crate) revision: Revision,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) settings: Arc<QueueSettings>,
    pub(crate) queue: MemoryQueue<String, String>,
    pub(crate) model: Model,
    pub(crate) calls: BTreeMap<ActivationId, Call>,
    pub(crate) starts: BTreeMap<ActivationId, u32>,
    pub(crate) invokers: BTreeMap<InvokerId, Invoker>,
    pub(crate) table: BTreeMap<ContainerId, Row>,
    pub(crate) others: u32,
    pub(crate) asked: VecDeque<u32>,
    pub(crate) fenced: bool,
    pub(crate) draining: bool,
    /// Activations of which their invokers say nothing ever again.
    pub(crate) mute: BTreeSet<ActivationId>,
    /// Most containers of the action.
    pub(crate) instances: Option<u32>,
    pub(crate) throttled: bool,
    pub(crate) removed: bool,
    /// Since when work waits although the queue could ask for a container and has none.
    pub(crate) stuck_since: Option<Instant>,
    pub(crate) trace: Vec<String>,
    /// Activations that a dead invoker had, while their controllers have no answer.
    pub(crate) ghosts: BTreeMap<ActivationId, InvokerId>,
    /// Where containers were placed, gone ones included.
    pub(crate) homes: BTreeMap<ContainerId, InvokerId>,
    pub(crate) revision: Revision,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
}

fn profile(revision: Revision, instances: Option<u32>) -> ActionProfile {
    ActionProfile {
        revision,
        concurrency: 1,
        instances,
        blackbox: false,
        timeout: Duration::from_secs(60),
        deleted: false,
        retry: Rare::new(),
    }
}

pub(crate) fn queue(
    epoch: Epoch,
    revision: Revision,
    instances: Option<u32>,
    settings: &Arc<QueueSettings>,
    now: Instant,
) -> MemoryQueue<String, String> {
    let key = QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "guest/hello".parse().unwrap(),
    };
    let action = profile(revision, instances);
    MemoryQueue::new(key, epoch, action, Arc::clone(settings), now)
}

/// Who waits for an activation: for some the one before it.
fn caller_of(id: ActivationId) -> Option<ActivationId> {
    let number = u128::from_be_bytes(*id.as_bytes());
    (number % 3 != 1).then(|| ActivationId::from_bytes((number - 1).to_be_bytes()))
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
            throttling_fraction: 0.5,
            ..QueueSettings::default()
        });
        let invoker = || Invoker {
            connected: true,
            registered: true,
            ..Invoker::default()
        };
        Self {
            now: Instant::ORIGIN,
            queue: queue(Epoch(1), Revision(1), None, &settings, Instant::ORIGIN),
            settings,
            model: Model::default(),
            calls: BTreeMap::new(),
            starts: BTreeMap::new(),
            invokers: (1..=INVOKERS).map(|id| (InvokerId(id), invoker())).collect(),
            table: BTreeMap::new(),
            others: 0,
            asked: VecDeque::new(),
            fenced: false,
            draining: false,
            mute: BTreeSet::new(),
            instances: None,
            throttled: false,
            removed: false,
            stuck_since: None,
            trace: Vec::new(),
            ghosts: BTreeMap::new(),
            homes: BTreeMap::new(),
            revision: Revision(1),
            epoch: Epoch(1),
            seq: 0,
        }
    }

    pub(crate) fn counts(&self) -> NamespaceCounts {
        let running = self.table.values().filter(|row| row.running).count() as u32;
        let in_progress = self.table.len() as u32 - running;
        NamespaceCounts {
            limit: LIMIT,
            limit_over: LIMIT,
            running: running + self.others,
            in_progress,
        }
    }

    pub(crate) fn apply(&mut self, event: Event) {
        if self.removed {
            return;
        }
        match event {
            Event::Submit => {
                let id = ActivationId::from_bytes((self.calls.len() as u128 + 1).to_be_bytes());
                self.calls.insert(id, Call::default());
                self.submit(id);
            }
            Event::Resubmit(pick) => {
                let open = self
                    .calls
                    .iter()
                    .filter(|(_, call)| call.answer.is_none())
                    .map(|(id, _)| *id);
                choose(open, pick).into_iter().for_each(|id| self.submit(id));
            }
            Event::Advance(millis) => self.advance(Duration::from_millis(millis)),
            Event::Grant(pick) => self.grant(u32::from(pick)),
            Event::Place(pick) => self.place(pick),
            Event::Ready(pick) => self.ready(pick),
            Event::FailCreation(pick) => self.fail_creation(pick),
            Event::Read(pick) => {
                let wire = self
                    .invokers
                    .iter()
                    .filter(|(_, invoker)| !invoker.inbox.is_empty());
                choose(wire.map(|(id, _)| *id), pick)
                    .into_iter()
                    .for_each(|invoker| self.read(invoker));
            }
            Event::Start(pick) => choose(self.running(false), pick)
                .into_iter()
                .for_each(|at| self.start(at)),
            Event::Complete(pick) => {
                choose(self.running(true), pick)
                    .into_iter()
                    .for_each(|at| self.complete(at, pick % 2 == 0, pick / 2));
            }
            Event::Refuse(pick) => choose(self.running(false), pick)
                .into_iter()
                .for_each(|at| self.refuse(at)),
            Event::Ask(pick) => choose(self.pulling(), pick)
                .into_iter()
                .for_each(|at| self.ask(at, 1)),
            Event::Pause(pick) => self.pause(pick),
            Event::LoseContainer(pick) => self.lose_container(pick),
            Event::LoseInvoker(pick) => self.lose_invoker(InvokerId(u64::from(pick) % INVOKERS + 1)),
            Event::Disconnect(pick) => self.disconnect(InvokerId(u64::from(pick) % INVOKERS + 1)),
            Event::Connect(pick) => self.connect(InvokerId(u64::from(pick) % INVOKERS + 1)),
            Event::Confirm(pick) => {
                let done = self
                    .calls
                    .iter()
                    .filter(|(_, call)| matches!(call.answer, Some(Answer::Ended(_))) && !call.confirmed);
                choose(done.map(|(id, _)| *id), pick)
                    .into_iter()
                    .for_each(|id| self.confirm(id));
            }
            Event::LoseLeader => self.lose_leader(),
            Event::Fence(fenced) => {
                self.fenced = fenced;
                self.tell(Input::Fence(fenced));
            }
            Event::Update => {
                self.revision = self.revision.next();
                self.tell(Input::Action(profile(self.revision, self.instances)));
            }
            Event::Instances(pick) => {
                self.instances = Some(u32::from(pick) % LIMIT + 1).filter(|limit| *limit < LIMIT);
                self.tell(Input::Action(profile(self.revision, self.instances)));
            }
            Event::Drain(draining) => {
                self.draining = draining;
                self.tell(Input::Draining(draining));
            }
            Event::Mute(pick) => {
                let here = self.invokers.values().flat_map(|invoker| invoker.running.keys());
                let chosen = choose(here.copied(), pick);
                self.mute.extend(chosen);
            }
            Event::Delay(pick) => self.delay(pick),
            Event::Others(pick) => {
                let room = LIMIT.saturating_sub(self.table.len() as u32);
                self.others = u32::from(pick).min(room);
                let full = self.counts().running + self.counts().in_progress >= LIMIT;
                self.tell(Input::NamespaceFull(full));
            }
        }
        self.advance(Duration::ZERO);
        // An activation that only an invoker told of can end without a word to anybody.
        for (id, _) in self.calls.iter().filter(|(_, call)| !call.submitted_here) {
            if let Some(ActivationState::Done(_)) = self.queue.find(*id) {
                self.model.lost(*id);
            }
        }
    }

    pub(crate) fn submit(&mut self, id: ActivationId) {
        let call = self.calls.get_mut(&id).unwrap();
        let grace = self.settings.result_grace;
        if call
            .lost_at
            .is_some_and(|lost| self.now.saturating_since(lost) >= grace)
        {
            return self.answer(id, Answer::Unknown);
        }
        call.attempt += 1;
        let attempt = call.attempt;
        let waited = call
            .accepted_at
            .map_or(Duration::ZERO, |at| self.now.saturating_since(at));
        self.tell(Input::Submit {
            controller: CONTROLLER,
            id,
            attempt,
            waited,
            caller: caller_of(id),
            payload: id.to_string(),
            terms: Terms::default(),
        });
    }

    pub(crate) fn confirm(&mut self, id: ActivationId) {
        self.calls.get_mut(&id).unwrap().confirmed = true;
        self.tell(Input::Received {
            controller: CONTROLLER,
            id,
        });
    }
}
