//! What holds after every command, one function each. None of them knows the model.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_state::{
    Applied, BlobHash, ContainerState, Counts, DocumentKey, DocumentRecord, Event, QueueRecord, Response,
    SessionOwner, State, TableKind,
};
use whiskraft_types::{ByteSize, ContainerId, Epoch, NamespaceName, QueueKey, Revision};

use crate::mirror::Mirror;

/// What invariants over time remember.
#[derive(Debug, Default)]
pub(crate) struct History {
    epochs: BTreeMap<QueueKey, Epoch>,
    revisions: BTreeMap<DocumentKey, Revision>,
    containers: BTreeSet<ContainerId>,
}

/// Runs all of them.
pub(crate) fn check(before: &State, after: &State, applied: &Applied, history: &mut History) {
    invariant_slots_grow_only_within_limits(before, after);
    invariant_epochs_never_fall(after, history);
    invariant_epoch_names_one_leader(before, after);
    invariant_leaders_are_live(after);
    invariant_new_leaders_take_queues(before, after);
    invariant_orphans_only_without_candidates(after);
    invariant_nothing_hangs_on_an_ended_session(after);
    invariant_one_session_per_owner(after);
    invariant_container_ids_are_never_reused(before, after, history);
    invariant_paused_and_ended_containers_get_no_slot_back(before, after);
    invariant_counts_equal_recount(after);
    invariant_promises_fit_the_memory_of_invokers(after);
    invariant_ranges_equal_scans(after);
    invariant_throttle_follows_from_counts(after);
    invariant_document_revisions_grow(after, history);
    invariant_queues_run_the_newest_revision(after);
    invariant_blob_references_equal_documents(after);
    invariant_refusal_changes_nothing(before, after, applied);
    invariant_events_tell_every_change(before, after, applied);
}

fn holds_slot(state: ContainerState) -> bool {
    matches!(state, ContainerState::InProgress | ContainerState::Running)
}

fn slots_by<K: Ord>(state: &State, by: impl Fn(&QueueKey) -> K) -> BTreeMap<K, u32> {
    let mut slots = BTreeMap::new();
    for (_, row) in state.containers().filter(|(_, row)| holds_slot(row.state)) {
        *slots.entry(by(&row.key)).or_default() += 1;
    }
    slots
}

/// Queues of a namespace that had nothing and have exactly one slot now.
fn queues_with_a_first_container(before: &State, after: &State, name: &NamespaceName) -> u32 {
    let was = slots_by(before, QueueKey::clone);
    let is = slots_by(after, QueueKey::clone);
    let is_first =
        |(key, slots): &(&QueueKey, &u32)| key.namespace == *name && **slots == 1 && !was.contains_key(*key);
    is.iter().filter(is_first).count() as u32
}

fn invariant_slots_grow_only_within_limits(before: &State, after: &State) {
    let was = slots_by(before, |key| key.namespace.clone());
    for (name, is) in slots_by(after, |key| key.namespace.clone()) {
        let (limits, was) = (
            after.namespace_limits(&name),
            was.get(&name).copied().unwrap_or(0),
        );
        assert!(
            is <= limits.containers_over().max(was),
            "namespace {name} has {is} slots of {limits:?}"
        );
        let first = queues_with_a_first_container(before, after, &name);
        assert!(
            is <= limits.containers.max(was) + first,
            "namespace {name} has {is} slots of {limits:?}, {first} of them first ones"
        );
    }
    let was = slots_by(before, QueueKey::clone);
    for (key, is) in slots_by(after, QueueKey::clone) {
        let document = after.document(&DocumentKey::action(&key.action).unwrap());
        let limit = document
            .and_then(|row| row.limits.as_ref()?.instances)
            .unwrap_or(u32::MAX);
        assert!(
            is <= limit.max(was.get(&key).copied().unwrap_or(0)),
            "queue {key} has {is} slots of {limit}"
        );
    }
}

fn invariant_epochs_never_fall(after: &State, history: &mut History) {
    for (key, row) in after.queues() {
        let highest = history.epochs.entry(key.clone()).or_default();
        assert!(
            row.epoch >= *highest,
            "queue {key}: epoch {} after {highest}",
            row.epoch
        );
        *highest = row.epoch;
    }
}

fn invariant_epoch_names_one_leader(before: &State, after: &State) {
    for (key, row) in after.queues() {
        if let Some(old) = before.queue(key).filter(|old| old.epoch == row.epoch) {
            assert_eq!(
                old.leader, row.leader,
                "queue {key} changed its leader within epoch {}",
                row.epoch
            );
        }
    }
}

fn invariant_leaders_are_live(after: &State) {
    for (key, row) in after.queues() {
        if let Some((id, session)) = row.leader {
            let owner = after.session(session).map(|row| &row.owner);
            assert_eq!(owner, Some(&SessionOwner::Scheduler(id)), "queue {key}");
            assert!(
                after.member(id).is_some(),
                "queue {key} is led by {id}, which is no member"
            );
        }
    }
}

fn invariant_new_leaders_take_queues(before: &State, after: &State) {
    let mut willing = after.members().filter(|(_, member)| !member.draining);
    if !willing.any(|(id, _)| after.scheduler_session(id).is_some()) {
        return; // Draining ones lead on.
    }
    for (key, row) in after.queues() {
        let is_new = before.queue(key).is_none_or(|old| old.leader != row.leader);
        if let (Some((id, _)), true) = (row.leader, is_new) {
            assert!(
                !after.member(id).unwrap().draining,
                "queue {key} went to {id}, which is draining"
            );
        }
    }
}

fn invariant_orphans_only_without_candidates(after: &State) {
    let mut members = after.members();
    if members.any(|(id, _)| after.scheduler_session(id).is_some()) {
        let orphan = after.queues().find(|(_, row)| row.leader.is_none());
        assert_eq!(orphan, None);
    }
}

fn invariant_nothing_hangs_on_an_ended_session(after: &State) {
    for (id, row) in after.invokers() {
        let owner = after.session(row.session).map(|session| &session.owner);
        assert!(
            matches!(owner, Some(SessionOwner::Invoker { id: owner, .. }) if *owner == id),
            "invoker {id}"
        );
    }
    for (id, row) in after.containers() {
        match row.invoker {
            Some((invoker, session)) => {
                assert_eq!(
                    after.invoker(invoker).map(|row| row.session),
                    Some(session),
                    "container {id}"
                );
            }
            None => {
                assert_eq!(
                    row.state,
                    ContainerState::InProgress,
                    "container {id} runs nowhere"
                );
                assert!(after.queue(&row.key).is_some(), "nobody settles container {id}");
            }
        }
    }
}

fn invariant_one_session_per_owner(after: &State) {
    let mut owners = BTreeSet::new();
    for (id, row) in after.sessions() {
        let owner = match &row.owner {
            SessionOwner::Scheduler(scheduler) => {
                assert_eq!(after.scheduler_session(*scheduler), Some(id));
                (0, scheduler.0)
            }
            SessionOwner::Invoker { id: invoker, .. } => {
                assert_eq!(after.invoker(*invoker).map(|row| row.session), Some(id));
                (1, invoker.0)
            }
        };
        assert!(owners.insert(owner), "{owner:?} has two sessions");
    }
}

fn invariant_container_ids_are_never_reused(before: &State, after: &State, history: &mut History) {
    for (id, _) in after
        .containers()
        .filter(|(id, _)| before.container(*id).is_none())
    {
        assert!(history.containers.insert(id), "container {id} came back");
    }
}

fn invariant_paused_and_ended_containers_get_no_slot_back(before: &State, after: &State) {
    use ContainerState::{Ended, Warm};

    for (id, was) in before.containers() {
        let next: &[ContainerState] = match was.state {
            Warm => &[Warm, Ended],
            Ended => &[Ended],
            ContainerState::InProgress | ContainerState::Running => continue,
        };
        let is_sound = after.container(id).is_none_or(|row| next.contains(&row.state));
        assert!(is_sound, "container {id}");
    }
}

fn invariant_promises_fit_the_memory_of_invokers(after: &State) {
    for (invoker, row) in after.invokers() {
        let there = after
            .containers_on(invoker)
            .filter(|(_, container)| holds_slot(container.state));
        let promised = there.fold(ByteSize::ZERO, |sum, (_, container)| {
            sum.saturating_add(container.memory)
        });
        assert_eq!(after.promised_on(invoker), promised, "invoker {invoker}");
        let there = after
            .containers_on(invoker)
            .filter(|(_, container)| container.state != ContainerState::Ended);
        let held = there.fold(ByteSize::ZERO, |sum, (_, container)| {
            sum.saturating_add(container.memory)
        });
        assert_eq!(after.held_on(invoker), held, "invoker {invoker}");
        assert!(promised <= row.profile.memory, "invoker {invoker}: {promised}");
    }
}

fn recount(state: &State, is_counted: impl Fn(&QueueKey) -> bool) -> Counts {
    let mut counts = Counts::default();
    for (_, row) in state.containers().filter(|(_, row)| is_counted(&row.key)) {
        match row.state {
            ContainerState::InProgress => counts.in_progress += 1,
            ContainerState::Running => counts.running += 1,
            ContainerState::Warm => counts.warm += 1,
            ContainerState::Ended => {}
        }
        if holds_slot(row.state) {
            counts.memory = counts.memory.saturating_add(row.memory);
        }
    }
    counts
}

fn keys(state: &State) -> BTreeSet<&QueueKey> {
    state
        .queues()
        .map(|(key, _)| key)
        .chain(state.containers().map(|(_, row)| &row.key))
        .collect()
}

fn names(state: &State) -> BTreeSet<&NamespaceName> {
    state
        .namespaces()
        .map(|(name, _)| name)
        .chain(keys(state).into_iter().map(|key| &key.namespace))
        .collect()
}

fn invariant_counts_equal_recount(after: &State) {
    for key in keys(after) {
        assert_eq!(
            after.queue_counts(key),
            recount(after, |other| other == key),
            "queue {key}"
        );
    }
    for name in names(after) {
        assert_eq!(
            after.namespace_counts(name),
            recount(after, |key| key.namespace == *name),
            "namespace {name}"
        );
    }
}

fn invariant_ranges_equal_scans(after: &State) {
    for key in keys(after) {
        let scan = after.containers().filter(|(_, row)| row.key == *key);
        assert!(after.containers_of(key).eq(scan), "containers of {key}");
    }
    for (id, _) in after.invokers() {
        let scan = after
            .containers()
            .filter(|(_, row)| row.invoker.is_some_and(|(on, _)| on == id));
        assert!(after.containers_on(id).eq(scan), "containers on {id}");
    }
    for (id, _) in after.sessions() {
        let is_led =
            |(_, row): &(&QueueKey, &QueueRecord)| row.leader.is_some_and(|(_, session)| session == id);
        assert!(
            after.queues_of(id).eq(after.queues().filter(is_led)),
            "queues of {id}"
        );
        assert_eq!(
            after.queues_led(id) as usize,
            after.queues().filter(is_led).count(),
            "queues of {id}"
        );
    }
}

fn invariant_throttle_follows_from_counts(after: &State) {
    for name in names(after) {
        let slots = recount(after, |key| key.namespace == *name).slots();
        let is_full = slots >= after.namespace_limits(name).containers_over();
        assert_eq!(
            after.is_namespace_throttled(name),
            is_full,
            "namespace {name} with {slots} slots"
        );
    }
}

fn documents(state: &State) -> Vec<(DocumentKey, DocumentRecord)> {
    let row = |event| {
        if let Event::Document(key, Some(row)) = event {
            Some((key, row))
        } else {
            None
        }
    };
    state.snapshot_of(TableKind::Documents).filter_map(row).collect()
}

fn invariant_document_revisions_grow(after: &State, history: &mut History) {
    for (key, row) in documents(after) {
        let revision = row.revision;
        let highest = history.revisions.entry(key.clone()).or_default();
        let is_sound = revision == *highest || (revision > *highest && revision.0 == after.revision().0);
        assert!(is_sound, "document {key:?}: revision {revision} after {highest}");
        *highest = revision;
    }
}

fn invariant_queues_run_the_newest_revision(after: &State) {
    for (key, row) in after.queues() {
        let document = after.document(&DocumentKey::action(&key.action).unwrap());
        // That of a deleted action has the revision of the deletion until its leader removes it.
        let is_deleted = document.is_none() && row.revision.0 <= after.revision().0;
        assert!(
            is_deleted || document.is_some_and(|document| document.revision == row.revision),
            "queue {key}"
        );
    }
}

fn invariant_blob_references_equal_documents(after: &State) {
    let documents = documents(after);
    for (hash, row) in after.blobs() {
        let references = documents
            .iter()
            .filter(|(_, document)| document.blobs.contains(&hash))
            .count();
        assert_eq!(row.references as usize, references, "{hash:?}");
    }
    for (key, row) in &documents {
        let is_stored = |hash: &BlobHash| after.blob(hash).is_some_and(|row| row.missing.is_empty());
        assert!(row.blobs.iter().all(is_stored), "document {key:?} lacks a blob");
    }
}

fn invariant_refusal_changes_nothing(before: &State, after: &State, applied: &Applied) {
    if matches!(applied.response, Response::Refused(_)) {
        assert!(before.sessions().eq(after.sessions()) && before.blobs().eq(after.blobs()));
        assert_eq!(Mirror::of(before), Mirror::of(after));
        assert_eq!((applied.events.len(), applied.effects.len()), (0, 0));
    }
}

fn invariant_events_tell_every_change(before: &State, after: &State, applied: &Applied) {
    let mut mirror = Mirror::of(before);
    applied.events.iter().for_each(|event| mirror.apply(event));
    assert_eq!(mirror, Mirror::of(after));
}
