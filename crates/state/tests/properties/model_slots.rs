//! The reference for slot reservation: container by container, every limit by counting all rows.

use whiskraft_state::{
    ContainerRecord, ContainerState, DocumentKey, Grant, GrantedContainer, InvokerRecord, QueueRecord,
    Response, SlotRequest,
};
use whiskraft_types::{ByteSize, ContainerId, InvokerId, LogRevision, NamespaceLimits, SessionId};

use crate::model::{Answer, Model, Refused};

impl Model {
    /// Each request comes with the invokers that were chosen.
    pub(crate) fn reserve<'a>(
        &mut self,
        session: SessionId,
        requests: impl Iterator<Item = (&'a SlotRequest, &'a [InvokerId])> + Clone,
    ) -> Answer {
        let is_sound = |(request, chosen): (&SlotRequest, &[InvokerId])| {
            (1..=10_000).contains(&request.count)
                && request.first_seq > 0
                && request.first_seq.checked_add(request.count.into()).is_some()
                && chosen.len() <= request.count as usize
        };
        if !requests.clone().all(is_sound) {
            return Err(Refused::Invalid);
        }
        let grants = requests.map(|(request, chosen)| self.reserve_one(session, request, chosen));
        Ok(Response::Grants(grants.collect()))
    }

    fn reserve_one(&mut self, session: SessionId, request: &SlotRequest, chosen: &[InvokerId]) -> Grant {
        let key = &request.key;
        let leads =
            |row: &QueueRecord| row.epoch == request.epoch && row.leader.map(|(_, led)| led) == Some(session);
        if !self.queues.get(key).is_some_and(leads) || !self.sessions.contains_key(&session) {
            return Grant::StaleEpoch;
        }
        let seqs = request.first_seq..request.first_seq + u64::from(request.count);
        let used = self.sessions[&session].container_seq;
        if seqs.start > used {
            let mut chosen = chosen.iter().copied();
            seqs.clone()
                .try_for_each(|seq| self.reserve_slot(ContainerId { session, seq }, request, chosen.next()));
            self.sessions
                .entry(session)
                .and_modify(|row| row.container_seq = seqs.end - 1);
        }
        let mine = self.containers.iter().filter(|(id, row)| {
            let is_mine = id.session == session && seqs.contains(&id.seq) && row.key == *key;
            is_mine && row.state == ContainerState::InProgress
        });
        let granted = |(id, row): (&ContainerId, &ContainerRecord)| GrantedContainer {
            container: *id,
            resume: row.resumes.map(|old| (old, row.invoker.unwrap().0)),
        };
        Grant::Granted(mine.map(granted).collect())
    }

    /// Takes one slot if every limit allows it, a paused container first.
    fn reserve_slot(
        &mut self,
        id: ContainerId,
        request: &SlotRequest,
        chosen: Option<InvokerId>,
    ) -> Option<()> {
        let key = &request.key;
        let (in_namespace, over) = self.namespaces.get(&key.namespace).map_or((30, 30), |row| {
            let NamespaceLimits {
                containers,
                over_provision_percent,
                ..
            } = row.limits;
            (containers, (containers * over_provision_percent).div_ceil(100))
        });
        let document = self.documents.get(&DocumentKey::action(&key.action).unwrap())?;
        let in_action = [request.instances, document.limits.as_ref().unwrap().instances];
        let holds =
            |row: &ContainerRecord| !matches!(row.state, ContainerState::Warm | ContainerState::Ended);
        let of_namespace = self
            .containers
            .values()
            .filter(|row| holds(row) && row.key.namespace == key.namespace);
        let of_queue = self
            .containers
            .values()
            .filter(|row| holds(row) && row.key == *key)
            .count() as u32;
        let of_namespace = of_namespace.count() as u32;
        let has_room = (of_namespace < in_namespace || (of_queue == 0 && of_namespace < over))
            && in_action.into_iter().flatten().all(|limit| of_queue < limit);
        if !has_room {
            return None;
        }
        let takes = |on: InvokerId, memory: ByteSize| {
            let there = self
                .containers
                .values()
                .filter(|other| holds(other) && other.invoker.is_some_and(|(invoker, _)| invoker == on));
            let promised = there.fold(memory, |sum, other| sum.saturating_add(other.memory));
            let takes = |invoker: &InvokerRecord| invoker.healthy && promised <= invoker.profile.memory;
            self.invokers.get(&on).is_some_and(takes)
        };
        let is_usable = |row: &ContainerRecord| {
            let is_right =
                row.state == ContainerState::Warm && row.key == *key && row.revision == request.revision;
            is_right && row.invoker.is_some_and(|(on, _)| takes(on, row.memory))
        };
        let resumes = self
            .containers
            .iter()
            .find(|(_, row)| is_usable(row))
            .map(|(id, _)| *id);
        let place = chosen.filter(|on| takes(*on, request.memory));
        let place = place.map(|on| (on, self.invokers[&on].session));
        let old = resumes.and_then(|old| self.containers.remove(&old));
        let row = ContainerRecord {
            key: key.clone(),
            revision: request.revision,
            invoker: old.as_ref().map_or(place, |old| old.invoker),
            state: ContainerState::InProgress,
            memory: request.memory,
            epoch: request.epoch,
            since: LogRevision(self.revision),
            resumes,
        };
        self.containers.insert(id, row);
        Some(())
    }
}
