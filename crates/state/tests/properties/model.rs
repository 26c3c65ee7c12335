//! The reference: the same tables without any index, every count by going over all rows.
//!
//! Commands change the rows they name; [`Model::settle`] then removes whatever may not exist any more, by the rules
//! as one would say them. Only the choice of a leader is taken from the state under test, and judged.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_state::{
    BlobHash, BlobRecord, Command, ContainerChange, ContainerRecord, ContainerState, ContainerUpdate,
    DocumentKey, DocumentRecord, InvokerRecord, Leadership, MemberRecord, NamespaceRecord, OpenSession,
    PutDocument, QueueRecord, Refusal, Response, SessionOwner, SessionRecord, State,
};
use whiskraft_types::{
    ByteSize, ContainerId, Epoch, InvokerId, LogRevision, NamespaceLimits, NamespaceName, QueueKey, Revision,
    SchedulerId, SessionId,
};

/// What a command should be answered.
pub(crate) type Answer = Result<Response, Refused>;

/// Kinds of refusals; texts are not the model's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    Invalid,
    Exactly(Refusal),
}

/// Tables as plain maps.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    members: BTreeMap<SchedulerId, MemberRecord>,
    pub(crate) sessions: BTreeMap<SessionId, SessionRecord>,
    pub(crate) queues: BTreeMap<QueueKey, QueueRecord>,
    pub(crate) containers: BTreeMap<ContainerId, ContainerRecord>,
    pub(crate) invokers: BTreeMap<InvokerId, InvokerRecord>,
    pub(crate) namespaces: BTreeMap<NamespaceName, NamespaceRecord>,
    pub(crate) documents: BTreeMap<DocumentKey, DocumentRecord>,
    blobs: BTreeMap<BlobHash, BlobRecord>,
}

impl Model {
    /// Does what the command should do and compares answer and tables with those of the state after it.
    pub(crate) fn check(
        &mut self,
        revision: LogRevision,
        command: &Command,
        response: &Response,
        state: &State,
    ) {
        self.revision = revision.0;
        let answer = self.step(command, state);
        self.settle(state);
        match (&answer, response) {
            (Ok(expected), found) => assert_eq!(found, expected, "answer to {command:?}"),
            (Err(Refused::Invalid), Response::Refused(Refusal::Invalid { .. })) => {}
            (Err(Refused::Exactly(expected)), Response::Refused(found)) => assert_eq!(found, expected),
            (Err(expected), found) => panic!("{command:?} was answered {found:?}, not {expected:?}"),
        }
        same("members", self.members.iter(), state.members());
        same("sessions", self.sessions.iter(), state.sessions());
        same("containers", self.containers.iter(), state.containers());
        same("invokers", self.invokers.iter(), state.invokers());
        same("blobs", self.blobs.iter(), state.blobs());
        assert!(self.queues.iter().eq(state.queues()), "queues: {:?}", self.queues);
        assert!(
            self.namespaces.iter().eq(state.namespaces()),
            "namespaces: {:?}",
            self.namespaces
        );
        assert!(
            self.documents
                .iter()
                .all(|(key, row)| state.document(key) == Some(row)),
            "{:?}",
            self.documents
        );
    }

    fn step(&mut self, command: &Command, state: &State) -> Answer {
        let not_found = Err(Refused::Exactly(Refusal::NotFound));
        match command {
            Command::PutMember { id, member } => {
                self.members.insert(*id, member.clone());
            }
            Command::RemoveMember { id } => {
                if self.members.remove(id).is_none() {
                    return not_found;
                }
            }
            Command::SetDraining { id, draining } => match self.members.get_mut(id) {
                Some(member) => member.draining = *draining,
                None => return not_found,
            },
            Command::OpenSession(open) => return self.open(open),
            Command::RenewSessions { sessions } => {
                for (id, seq) in sessions {
                    self.sessions
                        .entry(*id)
                        .and_modify(|row| row.renewed_seq = row.renewed_seq.max(*seq));
                }
            }
            Command::ExpireSessions { sessions } => {
                self.sessions.retain(|id, row| {
                    !sessions
                        .iter()
                        .any(|(due, seen)| due == id && row.renewed_seq <= *seen)
                });
            }
            Command::CloseSession { session } => {
                if self.sessions.remove(session).is_none() {
                    return Err(Refused::Exactly(Refusal::NoSession { session: *session }));
                }
            }
            Command::EnsureQueue(ensure) => return self.ensure(&ensure.key, state),
            Command::RemoveQueue { key, epoch } => {
                self.in_epoch(key, *epoch)?;
                self.queues.remove(key);
            }
            Command::MoveQueues { session, queues } => return self.move_queues(*session, queues, state),
            Command::HandOver { session, queues } => return self.hand_over(*session, queues),
            Command::SetActionThrottle {
                key,
                epoch,
                throttled,
            } => self.in_epoch(key, *epoch)?.throttled = *throttled,
            Command::ReserveSlots { session, requests } => {
                return self.reserve(*session, requests.iter().map(|request| (request, &[][..])));
            }
            Command::ReservePlaces { session, requests } => {
                let requests = requests.iter();
                return self.reserve(*session, requests.map(|(request, chosen)| (request, &chosen[..])));
            }
            Command::UpdateContainers { updates } => {
                let outcomes: Vec<Option<bool>> = updates.iter().map(|update| self.update(update)).collect();
                if outcomes.contains(&None) && !outcomes.contains(&Some(true)) {
                    return Err(Refused::Invalid);
                }
            }
            Command::ReportInvokers { reports } => {
                for report in reports {
                    let row = self
                        .invokers
                        .get_mut(&report.invoker)
                        .filter(|row| row.session == report.session);
                    let Some(row) = row else { continue };
                    (row.healthy, row.busy, row.reclaimable) =
                        (report.healthy, report.busy, report.reclaimable);
                }
            }
            Command::PutNamespace { name, limits } => {
                if !are_sound(limits) {
                    return Err(Refused::Invalid);
                }
                self.namespaces.insert(
                    name.clone(),
                    NamespaceRecord {
                        limits: limits.clone(),
                    },
                );
            }
            Command::DeleteNamespace { name } => {
                if self.namespaces.remove(name).is_none() {
                    return not_found;
                }
            }
            Command::PutDocument(put) => return self.put_document(put),
            Command::DeleteDocument { key, expected } => {
                let Some(row) = self.documents.get(key).cloned() else {
                    return not_found;
                };
                self.expect(key, *expected)?;
                self.documents.remove(key);
                let is_of = |queue: &QueueKey| DocumentKey::action(&queue.action).as_ref() == Some(key);
                for (queue, row) in &mut self.queues {
                    if is_of(queue) {
                        row.revision = Revision(self.revision);
                    }
                }
                self.touch(&row.blobs);
                return Ok(Response::Revision(Revision(self.revision)));
            }
            Command::PutBlobChunk(chunk) => return self.put_chunk(chunk.hash, chunk.len, chunk.index),
            Command::SweepBlobs { before } => {
                self.blobs
                    .retain(|_, row| row.references > 0 || row.touched >= *before);
            }
        }
        Ok(Response::Done)
    }

    /// Removes what may no longer exist and gives leaders to queues that have none, in the order of these rules.
    fn settle(&mut self, state: &State) {
        let members = &self.members;
        self.sessions.retain(|_, row| match row.owner {
            SessionOwner::Scheduler(id) => members.contains_key(&id),
            SessionOwner::Invoker { .. } => true,
        });
        let live: BTreeSet<SessionId> = self.sessions.keys().copied().collect();
        self.invokers.retain(|_, row| live.contains(&row.session));
        self.containers
            .retain(|_, row| row.invoker.is_none_or(|(_, session)| live.contains(&session)));
        let documents = &self.documents;
        let candidates = self.candidates();
        for (key, row) in &mut self.queues {
            if let Some(document) = documents.get(&DocumentKey::action(&key.action).unwrap()) {
                row.revision = document.revision;
            }
            let is_led = row.leader.is_some_and(|(_, session)| live.contains(&session));
            if !is_led && (row.leader.is_some() || !candidates.is_empty()) {
                let leader = choice(&candidates, key, state);
                *row = QueueRecord {
                    leader,
                    epoch: Epoch(self.revision),
                    throttled: false,
                    revision: row.revision,
                };
            }
        }
        let queues = &self.queues;
        let is_wanted = |key: &QueueKey| {
            queues.contains_key(key) && documents.contains_key(&DocumentKey::action(&key.action).unwrap())
        };
        self.containers
            .retain(|_, row| row.invoker.is_some() || is_wanted(&row.key));
        for (hash, row) in &mut self.blobs {
            row.references = documents
                .values()
                .filter(|document| document.blobs.contains(hash))
                .count() as u32;
        }
    }

    /// Who may lead: draining ones only if nobody else lives.
    fn candidates(&self) -> BTreeSet<(SchedulerId, SessionId)> {
        let willing = self.live(false);
        if willing.is_empty() {
            self.live(true)
        } else {
            willing
        }
    }

    fn live(&self, with_draining: bool) -> BTreeSet<(SchedulerId, SessionId)> {
        let of = |(session, row): (&SessionId, &SessionRecord)| match row.owner {
            SessionOwner::Scheduler(id) => Some((id, *session)),
            SessionOwner::Invoker { .. } => None,
        };
        let live = self.sessions.iter().filter_map(of);
        live.filter(|(id, _)| {
            let member = self.members.get(id);
            member.is_some_and(|member| with_draining || !member.draining)
        })
        .collect()
    }

    fn open(&mut self, open: &OpenSession) -> Answer {
        if open.ttl.is_zero() {
            return Err(Refused::Invalid);
        }
        let is_same_owner = |row: &SessionRecord| match (&row.owner, &open.owner) {
            (SessionOwner::Scheduler(a), SessionOwner::Scheduler(b)) => a == b,
            (SessionOwner::Invoker { id: a, .. }, SessionOwner::Invoker { id: b, .. }) => a == b,
            (SessionOwner::Scheduler(_) | SessionOwner::Invoker { .. }, _) => false,
        };
        let held = self
            .sessions
            .iter()
            .find(|(_, row)| is_same_owner(row))
            .map(|(id, row)| (*id, row.incarnation));
        let id = SessionId(self.revision);
        match (&open.owner, held) {
            (SessionOwner::Scheduler(member), _) if !self.members.contains_key(member) => {
                return Err(Refused::Exactly(Refusal::NotFound));
            }
            (_, Some((holder, incarnation))) if incarnation == open.incarnation => {
                return Ok(Response::Session(holder));
            }
            (SessionOwner::Invoker { id, .. }, Some((holder, _))) => {
                return Err(Refused::Exactly(Refusal::Held {
                    owner: format!("invoker {id}"),
                    holder,
                }));
            }
            (SessionOwner::Scheduler(_), Some((old, _))) => drop(self.sessions.remove(&old)),
            (SessionOwner::Scheduler(_), None) => {}
            (SessionOwner::Invoker { id: invoker, profile }, None) => {
                let (busy, reclaimable) = (ByteSize::ZERO, ByteSize::ZERO);
                let row = InvokerRecord {
                    session: id,
                    profile: profile.clone(),
                    healthy: false,
                    busy,
                    reclaimable,
                };
                self.invokers.insert(*invoker, row);
            }
        }
        let (owner, incarnation, ttl) = (open.owner.clone(), open.incarnation, open.ttl);
        self.sessions.insert(
            id,
            SessionRecord {
                owner,
                incarnation,
                ttl,
                renewed_seq: 0,
                container_seq: 0,
            },
        );
        Ok(Response::Session(id))
    }

    fn ensure(&mut self, key: &QueueKey, state: &State) -> Answer {
        let Some(document) = self.documents.get(&DocumentKey::action(&key.action).unwrap()) else {
            return Err(Refused::Exactly(Refusal::NoAction {
                action: key.action.to_string(),
            }));
        };
        let (revision, epoch) = (document.revision, Epoch(self.revision));
        if self.queues.get(key).is_none_or(|row| row.leader.is_none()) {
            let leader = choice(&self.candidates(), key, state);
            if leader.is_none() {
                return Err(Refused::Exactly(Refusal::NoScheduler));
            }
            self.queues.insert(
                key.clone(),
                QueueRecord {
                    leader,
                    epoch,
                    revision,
                    throttled: false,
                },
            );
        }
        let row = &self.queues[key];
        let (leader, _) = row.leader.unwrap();
        Ok(Response::Leadership(Leadership {
            leader,
            epoch: row.epoch,
            revision,
        }))
    }

    fn move_queues(&mut self, from: SessionId, queues: &[(QueueKey, Epoch)], state: &State) -> Answer {
        let mut others = self.live(false);
        others.retain(|(_, session)| *session != from);
        if others.is_empty() {
            return Err(Refused::Exactly(Refusal::NoScheduler));
        }
        for (key, epoch) in queues {
            let moving = self
                .queues
                .get_mut(key)
                .filter(|row| (row.epoch, row.leader.map(|(_, session)| session)) == (*epoch, Some(from)));
            if let Some(row) = moving {
                row.leader = choice(&others, key, state);
                (row.epoch, row.throttled) = (Epoch(self.revision), false);
            }
        }
        Ok(Response::Done)
    }

    fn hand_over(&mut self, from: SessionId, queues: &[(QueueKey, Epoch, SchedulerId)]) -> Answer {
        let willing = self.live(false);
        let mut moved = Vec::new();
        for (key, epoch, to) in queues {
            let next = willing.iter().find(|(id, session)| id == to && *session != from);
            let row = self.queues.get_mut(key);
            let row = row.filter(|row| row.epoch == *epoch && row.leader.is_some_and(|(_, by)| by == from));
            if let (Some(row), Some(next)) = (row, next) {
                row.leader = Some(*next);
                (row.epoch, row.throttled) = (Epoch(self.revision), false);
                moved.push((key.clone(), row.epoch));
            }
        }
        Ok(Response::HandedOver(moved))
    }

    fn in_epoch(&mut self, key: &QueueKey, epoch: Epoch) -> Result<&mut QueueRecord, Refused> {
        let current = self.queues.get(key).map(|row| row.epoch).unwrap_or_default();
        let stale = Refused::Exactly(Refusal::StaleEpoch { current });
        self.queues
            .get_mut(key)
            .filter(|row| row.epoch == epoch)
            .ok_or(stale)
    }

    /// Whether the change had an effect; `None` if it is impossible.
    fn update(&mut self, update: &ContainerUpdate) -> Option<bool> {
        use ContainerState::{Ended, InProgress, Running, Warm};
        let ContainerUpdate {
            container: id,
            change,
            reporter,
        } = update;
        let promised = |on: InvokerId, memory| {
            let others = self.containers.iter().filter(|(other, row)| {
                let is_there = row.invoker.is_some_and(|(invoker, _)| invoker == on);
                *other != id && is_there && !matches!(row.state, Warm | Ended)
            });
            others.fold(memory, |sum: ByteSize, (_, row)| sum.saturating_add(row.memory))
        };
        let fits = |on: InvokerId| {
            let memory = self.containers.get(id)?.memory;
            Some(promised(on, memory) <= self.invokers.get(&on)?.profile.memory)
        };
        let fits = match change {
            ContainerChange::Placed { invoker } => fits(*invoker),
            _ => None,
        };
        let Some(row) = self.containers.get_mut(id) else {
            return Some(false);
        };
        if reporter.is_some_and(|reporter| row.invoker != Some(reporter)) {
            return Some(false);
        }
        let before = row.clone();
        match change {
            ContainerChange::Removed => return Some(self.containers.remove(id).is_some()),
            ContainerChange::Placed { invoker } if row.state == InProgress => {
                let place = (*invoker, self.invokers.get(invoker)?.session);
                if row.invoker != Some(place) && fits? {
                    (row.invoker, row.resumes) = (Some(place), None);
                }
            }
            ContainerChange::Unplaced { invoker }
                if row.state == InProgress && row.invoker.is_some_and(|(on, _)| on == *invoker) =>
            {
                (row.invoker, row.resumes) = (None, None);
            }
            ContainerChange::Running if row.state == InProgress => {
                row.invoker?;
                row.state = Running;
            }
            ContainerChange::Warm if matches!(row.state, InProgress | Running) => {
                row.invoker?;
                row.state = Warm;
            }
            ContainerChange::Ended if row.invoker.is_none() => {
                return Some(self.containers.remove(id).is_some());
            }
            ContainerChange::Ended => row.state = Ended,
            ContainerChange::Placed { .. }
            | ContainerChange::Unplaced { .. }
            | ContainerChange::Running
            | ContainerChange::Warm => {}
        }
        Some(*row != before)
    }

    fn expect(&self, key: &DocumentKey, expected: Option<Revision>) -> Result<(), Refused> {
        let current = self
            .documents
            .get(key)
            .map(|row| row.revision)
            .unwrap_or_default();
        let is_expected = expected.is_none_or(|expected| expected == current);
        is_expected
            .then_some(())
            .ok_or(Refused::Exactly(Refusal::Conflict { current }))
    }

    fn put_document(&mut self, put: &PutDocument) -> Answer {
        self.expect(&put.key, put.expected)?;
        for hash in &put.blobs {
            if self.blobs.get(hash).is_none_or(|row| !row.missing.is_empty()) {
                return Err(Refused::Exactly(Refusal::MissingBlob { hash: *hash }));
            }
        }
        let revision = Revision(self.revision);
        let (blobs, limits) = (put.blobs.clone(), put.limits.clone());
        let row = DocumentRecord {
            revision,
            len: put.body.len() as u64,
            blobs,
            limits,
        };
        self.touch(&put.blobs);
        if let Some(old) = self.documents.insert(put.key.clone(), row) {
            self.touch(&old.blobs);
        }
        Ok(Response::Revision(revision))
    }

    /// A blob of two chunks; anything else is malformed here.
    fn put_chunk(&mut self, hash: BlobHash, len: u64, index: u32) -> Answer {
        let touched = LogRevision(self.revision);
        let fresh = BlobRecord {
            len,
            missing: vec![0, 1],
            references: 0,
            touched,
        };
        if !(256 * 1024 + 1..=256 * 1024 + 2).contains(&len) {
            return Err(Refused::Invalid);
        }
        let row = self.blobs.entry(hash).or_insert(fresh);
        if row.len != len {
            return Err(Refused::Invalid);
        }
        row.missing.retain(|missing| *missing != index);
        row.touched = touched;
        Ok(Response::Missing(row.missing.clone()))
    }

    fn touch(&mut self, blobs: &[BlobHash]) {
        for hash in blobs {
            self.blobs
                .entry(*hash)
                .and_modify(|row| row.touched = LogRevision(self.revision));
        }
    }
}

fn are_sound(limits: &NamespaceLimits) -> bool {
    (1..=10_000).contains(&limits.weight)
        && (100..=1000).contains(&limits.over_provision_percent)
        && limits.invocations_per_minute != Some(0)
}

/// The leader that the state chose, if it was free to; nobody without candidates.
fn choice(
    candidates: &BTreeSet<(SchedulerId, SessionId)>,
    key: &QueueKey,
    state: &State,
) -> Option<(SchedulerId, SessionId)> {
    let chosen = state.queue(key).and_then(|row| row.leader);
    chosen
        .filter(|chosen| candidates.contains(chosen))
        .or(candidates.first().copied())
}

fn same<'a, K: Copy + Ord + std::fmt::Debug + 'a, V: PartialEq + std::fmt::Debug + 'a>(
    what: &str,
    model: impl Iterator<Item = (&'a K, &'a V)>,
    state: impl Iterator<Item = (K, &'a V)>,
) {
    let model: Vec<(K, &V)> = model.map(|(key, row)| (*key, row)).collect();
    let state: Vec<(K, &V)> = state.collect();
    assert_eq!(state, model, "{what}");
}
