//! Reserving container slots: the place where the limits of namespaces and actions are exact.
//!
//! A slot is a container in progress or running. Each queue leader on each scheduler has to come through here before it
//! creates one, so over all of them a namespace never has more than its limit at any log revision (with
//! over-provision: than its limit and the excess, which is for first containers of actions only). A limit that
//! was lowered takes nothing away; it grants nothing until enough containers have gone.
//!
//! A slot may come with a place, if the leader has chosen one: by the rule of `containers.rs`, so of two schedulers that choose
//! the last place at the same moment one gets it.

use std::cmp::Ordering;
use std::iter;

use whiskraft_types::{ByteSize, ContainerId, InvokerId, SessionId};

use crate::bounds::SLOTS_PER_REQUEST_MAX;
use crate::command::{DocumentKey, SlotRequest};
use crate::event::{Grant, GrantedContainer, Refusal, Response};
use crate::record::{ContainerRecord, ContainerState};
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_reserve_slots(
        &mut self,
        session: SessionId,
        requests: &[SlotRequest],
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        requests.iter().try_for_each(check_request)?;
        let grants = requests
            .iter()
            .map(|request| self.reserve(session, request, &[], turn));
        Ok(Response::Grants(grants.collect()))
    }

    pub(crate) fn apply_reserve_places(
        &mut self,
        session: SessionId,
        requests: &[(SlotRequest, Vec<InvokerId>)],
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        for (request, chosen) in requests {
            check_request(request)?;
            check_chosen(request, chosen)?;
        }
        let grants = requests
            .iter()
            .map(|(request, chosen)| self.reserve(session, request, chosen, turn));
        Ok(Response::Grants(grants.collect()))
    }

    fn reserve(
        &mut self,
        session: SessionId,
        request: &SlotRequest,
        chosen: &[InvokerId],
        turn: &mut Turn,
    ) -> Grant {
        let is_led = self.queue(&request.key).is_some_and(|queue| {
            queue.epoch == request.epoch && queue.leader.is_some_and(|(_, leader)| leader == session)
        });
        let Some(holder) = self.tables.sessions.get_mut(&session).filter(|_| is_led) else {
            return Grant::StaleEpoch;
        };
        if request.first_seq <= holder.container_seq {
            return Grant::Granted(self.granted_before(session, request));
        }
        holder.container_seq = last_seq(request);
        let wanted = request.count.min(self.room(request)) as usize;
        let ids = (request.first_seq..)
            .take(wanted)
            .map(|seq| ContainerId { session, seq });
        let chosen = chosen.iter().copied().map(Some).chain(iter::repeat(None));
        let granted = ids.zip(chosen).map(|(id, on)| self.grant(id, request, on, turn));
        Grant::Granted(granted.collect())
    }

    /// What a repeated request was granted the first time, as far as it is still in progress.
    fn granted_before(&self, session: SessionId, request: &SlotRequest) -> Vec<GrantedContainer> {
        let (first, last) = (request.first_seq, last_seq(request));
        let rows = self.tables.containers.range(|id| {
            let seq = if id.seq < first {
                Ordering::Less
            } else {
                id.seq.cmp(&last).max(Ordering::Equal)
            };
            id.session.cmp(&session).then(seq)
        });
        let mine = rows.filter(|(_, row)| row.state == ContainerState::InProgress && row.key == request.key);
        mine.map(|(id, row)| granted(*id, row)).collect()
    }

    /// Slots that namespace and action leave to a queue.
    fn room(&self, request: &SlotRequest) -> u32 {
        let key = &request.key;
        let namespace_max = self.tables.slots_max(&key.namespace);
        // The document's own word counts too: the leader may not have seen yet that it was changed.
        let document = DocumentKey::action(&key.action).and_then(|key| self.document(&key));
        let Some(document) = document else {
            return 0; // It was deleted; what runs of it finishes.
        };
        let documented = document.limits.as_ref().and_then(|limits| limits.instances);
        let action_max = [request.instances, documented]
            .into_iter()
            .flatten()
            .fold(namespace_max, u32::min);
        let (namespace_slots, slots) = (
            self.namespace_counts(&key.namespace).slots(),
            self.queue_counts(key).slots(),
        );
        let in_namespace = namespace_max.saturating_sub(namespace_slots);
        let in_action = action_max.saturating_sub(slots);
        if in_namespace == 0 && slots == 0 && action_max > 0 {
            // Its first container may use the excess, if the namespace has one.
            let over = self.namespace_limits(&key.namespace).containers_over();
            return over.saturating_sub(namespace_slots).min(1);
        }
        in_namespace.min(in_action)
    }

    /// A paused container that a queue can have back: of the same revision, on an invoker that takes containers and has
    /// memory for it again.
    fn warm_for(&self, request: &SlotRequest) -> Option<ContainerId> {
        let usable = |id: &ContainerId| {
            self.container(*id).is_some_and(|row| {
                let place = row.invoker.and_then(|(on, _)| self.place_on(on, row.memory));
                row.revision == request.revision && place.is_some()
            })
        };
        self.index.warm_of(&request.key).find(usable)
    }

    /// A place on an invoker that takes containers and has memory for one more.
    fn place_on(&self, invoker: InvokerId, memory: ByteSize) -> Option<(InvokerId, SessionId)> {
        let record = self.invoker(invoker).filter(|record| record.healthy)?;
        self.has_memory(invoker, memory)
            .then_some((invoker, record.session))
    }

    fn grant(
        &mut self,
        id: ContainerId,
        request: &SlotRequest,
        chosen: Option<InvokerId>,
        turn: &mut Turn,
    ) -> GrantedContainer {
        let warm = self.warm_for(request);
        let resumed = warm.and_then(|warm| Some((warm, self.delete_container(warm, turn)?)));
        let invoker = match &resumed {
            Some((_, old)) => old.invoker,
            None => chosen.and_then(|on| self.place_on(on, request.memory)),
        };
        let row = ContainerRecord {
            key: self.shared_key(&request.key),
            revision: request.revision,
            invoker,
            state: ContainerState::InProgress,
            memory: resumed.as_ref().map_or(request.memory, |(_, old)| old.memory),
            epoch: request.epoch,
            since: turn.revision,
            resumes: resumed.map(|(warm, _)| warm),
        };
        let answer = granted(id, &row);
        self.put_container(id, row, turn);
        answer
    }
}

fn granted(id: ContainerId, row: &ContainerRecord) -> GrantedContainer {
    let on = row.invoker.map(|(invoker, _): (InvokerId, SessionId)| invoker);
    GrantedContainer {
        container: id,
        resume: row.resumes.zip(on),
    }
}

/// Number of the last container that a request may take; `check_request` has seen that it exists.
fn last_seq(request: &SlotRequest) -> u64 {
    request
        .first_seq
        .saturating_add(u64::from(request.count))
        .saturating_sub(1)
}

fn check_request(request: &SlotRequest) -> Result<(), Refusal> {
    let SlotRequest {
        key,
        count,
        first_seq,
        ..
    } = request;
    let invalid = |reason| Err(Refusal::Invalid { reason });
    if !(1..=SLOTS_PER_REQUEST_MAX).contains(count) {
        return invalid(format!(
            "queue {key} asks for {count} containers, 1 to {SLOTS_PER_REQUEST_MAX} are allowed"
        ));
    }
    if *first_seq == 0 || first_seq.checked_add(u64::from(*count)).is_none() {
        return invalid(format!(
            "queue {key} asks for {count} containers from number {first_seq}; they start at 1"
        ));
    }
    Ok(())
}

fn check_chosen(request: &SlotRequest, chosen: &[InvokerId]) -> Result<(), Refusal> {
    let SlotRequest { key, count, .. } = request;
    if chosen.len() > *count as usize {
        let reason = format!(
            "queue {key} asks for {count} containers and for places of {}",
            chosen.len()
        );
        return Err(Refusal::Invalid { reason });
    }
    Ok(())
}

#[cfg(test)]
#[path = "slots_test.rs"]
mod tests;
