//! The auditor: follows what applying a log caused, entry by entry, and says where a promise was broken.
//!
//! Fed with the events of every command by whoever replays a log. It keeps tables of its own, built from the events
//! alone, and its own reading of the limits: nothing of the code that grants is used to judge what was granted.
//!
//! What it holds at every revision: a namespace and an action never take a slot beyond the limit in force at that
//! moment; a slot is taken by a grant to the leader of the present epoch and by nothing else; no container's number is
//! used twice; epochs never fall and grow with every change of leader; no container outlives the session of its
//! invoker; what is promised on an invoker is never more than its memory. At the end its tables must be those of the state.

mod book;
mod violation;

use std::collections::BTreeMap;

use whiskraft_types::{
    ByteSize, ContainerId, Epoch, LogRevision, NamespaceLimits, NamespaceName, QueueKey, SessionId,
};

use self::book::Book;
pub use self::violation::{Violation, ViolationKind};
use crate::command::{Command, DocumentKey, SessionOwner, SlotRequest};
use crate::event::{Applied, Event};
use crate::record::{ContainerRecord, ContainerState, QueueRecord, SessionRecord};
use crate::state::State;

/// Violations that are kept with their details; more are only counted.
pub const VIOLATIONS_MAX: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub struct Audit {
    book: Book,
    limits: BTreeMap<NamespaceName, NamespaceLimits>,
    /// Most containers of an action, as its document says.
    instances: BTreeMap<DocumentKey, u32>,
    queues: BTreeMap<QueueKey, Led>,
    sessions: BTreeMap<SessionId, Live>,
    newest_session: Option<SessionId>,
    granted: u64,
    violations: Vec<Violation>,
    violated: u64,
}

/// What is remembered of a queue, after its removal too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Led {
    epoch: Epoch,
    leader: Option<SessionId>,
    is_there: bool,
}

/// A live session.
#[derive(Debug, Clone, Copy)]
struct Live {
    /// The highest container number granted under it.
    highest: u64,
    /// What its invoker offers, if an invoker holds it.
    memory: Option<ByteSize>,
}

impl Audit {
    /// Begins with what a snapshot holds; how that came to be is not judged.
    #[must_use]
    pub fn from(state: &State) -> Self {
        let mut audit = Self::default();
        for (id, session) in state.sessions() {
            audit.open_session(id, session);
        }
        for (id, record) in state.containers() {
            audit.book.put(id, record.clone());
        }
        for event in state.snapshot() {
            match event {
                Event::Queue(key, Some(queue)) => drop(audit.queues.insert(key, Led::of(&queue))),
                Event::Namespace(name, record) => {
                    audit.set_limits(name, record.map(|record| record.limits));
                }
                Event::Document(key, record) => {
                    let limits = record.and_then(|record| record.limits);
                    audit.set_instances(key, limits.and_then(|limits| limits.instances));
                }
                _ => {}
            }
        }
        audit
    }

    /// Takes what one command caused.
    pub fn observe(&mut self, revision: LogRevision, command: &Command, applied: &Applied) {
        let requests: Vec<&SlotRequest> = match command {
            Command::ReserveSlots { requests, .. } => requests.iter().collect(),
            Command::ReservePlaces { requests, .. } => requests.iter().map(|(request, _)| request).collect(),
            _ => Vec::new(),
        };
        let mut ended = Vec::new();
        let mut removed = Vec::new();
        for event in &applied.events {
            match event {
                Event::Session(id, Some(session)) => {
                    if self.newest_session.is_some_and(|newest| *id <= newest) {
                        self.found(revision, ViolationKind::SessionReused { session: *id });
                    }
                    self.open_session(*id, session);
                }
                Event::Session(id, None) => {
                    self.sessions.remove(id);
                    self.book.close(*id);
                    ended.push(*id);
                }
                Event::Queue(key, Some(queue)) => self.on_queue(revision, key, queue),
                Event::Queue(key, None) => {
                    if let Some(led) = self.queues.get_mut(key) {
                        led.is_there = false;
                    }
                    removed.push(key);
                }
                Event::Container {
                    id, removed: true, ..
                } => self.book.remove(*id),
                Event::Container { id, record, .. } => self.on_container(revision, *id, record, &requests),
                Event::Namespace(name, record) => {
                    self.set_limits(name.clone(), record.as_ref().map(|record| record.limits.clone()));
                }
                Event::Document(key, record) => {
                    let limits = record.as_ref().and_then(|record| record.limits.as_ref());
                    self.set_instances(key.clone(), limits.and_then(|limits| limits.instances));
                }
                Event::Member(..)
                | Event::Invoker(..)
                | Event::NamespaceThrottle(..)
                | Event::ActionThrottle(..)
                | Event::HandedOver { .. } => {}
            }
        }
        // In the same apply, but in whatever order it likes.
        ended
            .into_iter()
            .for_each(|session| self.judge_ended(revision, session));
        removed
            .into_iter()
            .for_each(|key| self.judge_removed(revision, key));
    }

    /// Compares its tables with those of the state at the end of the log.
    pub fn finish(&mut self, state: &State) {
        let revision = state.revision();
        let theirs: BTreeMap<ContainerId, &ContainerRecord> = state.containers().collect();
        for (id, record) in self.book.containers() {
            if theirs.get(&id) != Some(&record) {
                let kind = ViolationKind::TablesDiffer { container: id };
                record_violation(&mut self.violations, &mut self.violated, revision, kind);
            }
        }
        for id in theirs.keys().filter(|id| self.book.get(**id).is_none()) {
            let kind = ViolationKind::TablesDiffer { container: *id };
            record_violation(&mut self.violations, &mut self.violated, revision, kind);
        }
    }

    /// The first [`VIOLATIONS_MAX`] violations, in the order of the log.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many violations there were.
    #[must_use]
    pub const fn violated(&self) -> u64 {
        self.violated
    }

    /// Containers that were granted, resumed ones included.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted
    }

    fn on_queue(&mut self, revision: LogRevision, key: &QueueKey, queue: &QueueRecord) {
        let next = Led::of(queue);
        if let Some(last) = self.queues.insert(key.clone(), next) {
            if next.epoch < last.epoch {
                let (from, to) = (last.epoch, next.epoch);
                self.found(
                    revision,
                    ViolationKind::EpochFell {
                        key: key.clone(),
                        from,
                        to,
                    },
                );
            } else if next.epoch == last.epoch && (next.leader != last.leader || !last.is_there) {
                let epoch = next.epoch;
                self.found(
                    revision,
                    ViolationKind::EpochKept {
                        key: key.clone(),
                        epoch,
                    },
                );
            }
        }
        if let Some(session) = next.leader.filter(|session| !self.sessions.contains_key(session)) {
            self.found(
                revision,
                ViolationKind::LeaderWithoutSession {
                    key: key.clone(),
                    session,
                },
            );
        }
    }

    fn on_container(
        &mut self,
        revision: LogRevision,
        id: ContainerId,
        record: &ContainerRecord,
        requests: &[&SlotRequest],
    ) {
        if let Some((_, session)) = record.invoker
            && !self.sessions.contains_key(&session)
        {
            self.found(
                revision,
                ViolationKind::PlacedNowhere {
                    container: id,
                    session,
                },
            );
        }
        let old = self.book.get(id);
        let (is_new, had_slot) = (old.is_none(), old.is_some_and(|old| holds_slot(old.state)));
        let had_place = had_slot && old.is_some_and(|old| old.invoker == record.invoker);
        self.book.put(id, record.clone());
        if !had_place {
            self.judge_memory(revision, record);
        }
        if had_slot || !holds_slot(record.state) {
            return;
        }
        let request = requests.iter().copied().find(|request| {
            let last = request.first_seq.saturating_add(u64::from(request.count));
            request.key == record.key && (request.first_seq..last).contains(&id.seq)
        });
        match request.filter(|_| is_new) {
            Some(request) => self.judge_grant(revision, id, record, request),
            None => self.found(revision, ViolationKind::NotGranted { container: id }),
        }
        self.judge_limits(revision, record, request);
    }

    fn judge_grant(
        &mut self,
        revision: LogRevision,
        id: ContainerId,
        record: &ContainerRecord,
        request: &SlotRequest,
    ) {
        self.granted += 1;
        let led = self.queues.get(&record.key).filter(|led| led.is_there);
        let is_leader = led.is_some_and(|led| led.leader == Some(id.session) && led.epoch == request.epoch);
        if !is_leader || record.epoch != request.epoch {
            let (container, epoch) = (id, record.epoch);
            self.found(revision, ViolationKind::StaleGrant { container, epoch });
        }
        match self.sessions.get_mut(&id.session) {
            Some(live) if id.seq > live.highest => live.highest = id.seq,
            Some(_) => self.found(revision, ViolationKind::ContainerReused { container: id }),
            None => {
                let (container, session) = (id, id.session);
                self.found(revision, ViolationKind::GrantedToNobody { container, session });
            }
        }
    }

    /// A slot was just taken: is it one of those that were left?
    fn judge_limits(
        &mut self,
        revision: LogRevision,
        record: &ContainerRecord,
        request: Option<&SlotRequest>,
    ) {
        let key = &record.key;
        let limits = self.limits.get(&key.namespace).cloned().unwrap_or_default();
        let of_action = self.book.slots_of_queue(key);
        // Only the first container of an action may be one of the excess.
        let limit = if of_action == 1 {
            over(&limits)
        } else {
            limits.containers
        };
        let slots = self.book.slots_of_namespace(&key.namespace);
        if slots > limit {
            let namespace = key.namespace.clone();
            self.found(
                revision,
                ViolationKind::NamespaceOver {
                    namespace,
                    slots,
                    limit,
                },
            );
        }
        let documented = DocumentKey::action(&key.action).and_then(|key| self.instances.get(&key).copied());
        let asked = request.and_then(|request| request.instances);
        if let Some(limit) = [documented, asked].into_iter().flatten().min()
            && of_action > limit
        {
            let (key, slots) = (key.clone(), of_action);
            self.found(revision, ViolationKind::ActionOver { key, slots, limit });
        }
    }

    /// A container was just promised memory: did its invoker have that?
    fn judge_memory(&mut self, revision: LogRevision, record: &ContainerRecord) {
        let Some((_, session)) = record.invoker.filter(|_| holds_slot(record.state)) else {
            return;
        };
        let promised = self.book.promised_under(session);
        let offered = self.sessions.get(&session).and_then(|live| live.memory);
        if let Some(memory) = offered.filter(|memory| promised > *memory) {
            let kind = ViolationKind::InvokerOver {
                session,
                promised,
                memory,
            };
            self.found(revision, kind);
        }
    }

    fn judge_ended(&mut self, revision: LogRevision, session: SessionId) {
        let left: Vec<ContainerId> = self.book.placed_under(session).collect();
        for container in left {
            self.found(revision, ViolationKind::OutlivedSession { container, session });
        }
    }

    fn judge_removed(&mut self, revision: LogRevision, key: &QueueKey) {
        let is_back = self.queues.get(key).is_some_and(|led| led.is_there);
        let left: Vec<ContainerId> = self.book.unplaced_of(key).collect();
        for container in left.into_iter().filter(|_| !is_back) {
            self.found(
                revision,
                ViolationKind::OutlivedQueue {
                    container,
                    key: key.clone(),
                },
            );
        }
    }

    fn open_session(&mut self, id: SessionId, session: &SessionRecord) {
        let memory = match &session.owner {
            SessionOwner::Invoker { profile, .. } => Some(profile.memory),
            SessionOwner::Scheduler(_) => None,
        };
        let highest = session.container_seq;
        self.sessions.insert(id, Live { highest, memory });
        self.newest_session = self.newest_session.max(Some(id));
    }

    fn set_limits(&mut self, name: NamespaceName, limits: Option<NamespaceLimits>) {
        match limits {
            Some(limits) => self.limits.insert(name, limits),
            None => self.limits.remove(&name),
        };
    }

    fn set_instances(&mut self, key: DocumentKey, instances: Option<u32>) {
        match instances {
            Some(instances) => self.instances.insert(key, instances),
            None => self.instances.remove(&key),
        };
    }

    fn found(&mut self, revision: LogRevision, kind: ViolationKind) {
        record_violation(&mut self.violations, &mut self.violated, revision, kind);
    }
}

impl Led {
    fn of(queue: &QueueRecord) -> Self {
        Self {
            epoch: queue.epoch,
            leader: queue.leader.map(|(_, session)| session),
            is_there: true,
        }
    }
}

fn record_violation(
    violations: &mut Vec<Violation>,
    violated: &mut u64,
    revision: LogRevision,
    kind: ViolationKind,
) {
    *violated += 1;
    if violations.len() < VIOLATIONS_MAX {
        violations.push(Violation { revision, kind });
    }
}

const fn holds_slot(state: ContainerState) -> bool {
    match state {
        ContainerState::InProgress | ContainerState::Running => true,
        ContainerState::Warm | ContainerState::Ended => false,
    }
}

/// The limit with its excess, computed here again on purpose.
fn over(limits: &NamespaceLimits) -> u32 {
    let percent = u64::from(limits.over_provision_percent.max(100));
    let hundredths = u64::from(limits.containers) * percent;
    u32::try_from(hundredths / 100 + u64::from(!hundredths.is_multiple_of(100))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod audit_test;
