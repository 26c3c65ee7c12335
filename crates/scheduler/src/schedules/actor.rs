//! Fires the slots of all schedules while this scheduler leads group 0.
//!
//! Every schedule is fired by a future of its own, one at a time, so that a queue that takes nothing holds up nobody else's
//! slots. What a future settles it writes into the schedule's state document before the schedule is looked at again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use whiskraft_proto::{Message, activation_id_bytes, v1};
use whiskraft_state::{Command, DocumentKey, PutDocument, Response};
use whiskraft_types::{ActivationId, Rejection, Revision};

use super::document::{Definition, SCHEDULE, STATE, slot_id};
use super::plan::Due;
use crate::clock::unix_ms;
use crate::context::Context;
use crate::internal::{Internal, InternalController};
use crate::message::Content;

/// Longest time between two looks: wall clocks jump, and schedules change.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Schedules fired at a time; the slots of the others are late until one is done.
const FIRING_MAX: usize = 64;
/// Pause before a schedule whose queue took nothing is tried again.
const RETRY_MS: u64 = 1_000;
/// How far the clock of the leader before may have been ahead of this one; further was a mistake.
const CLOCK_AHEAD_MS: u64 = 60_000;

/// The actor.
pub(crate) struct ScheduleActor {
    context: Context,
    internal: InternalController,
    /// What is known of each schedule; empty while another scheduler leads.
    known: BTreeMap<DocumentKey, Known>,
    firing: FuturesUnordered<BoxFuture<'static, Fired>>,
    leads: bool,
}

/// A schedule.
struct Known {
    revision: Revision,
    /// `None`: it cannot be read, or is paused.
    definition: Option<Arc<Definition>>,
    state: v1::ScheduleState,
    /// Of the state document; 0: there is none.
    state_revision: Revision,
    /// Whether the document may differ: it is read before anything is fired.
    is_stale: bool,
    is_firing: bool,
    retry_at_ms: u64,
}

impl Known {
    /// Everything up to here is settled. A slot far ahead was settled by a clock that was wrong: what has been fired since
    /// is known by its id, and what has not must not wait for that clock.
    fn settled_ms(&self, definition: &Definition, now_ms: u64) -> u64 {
        let slot_ms = self.state.slot_ms;
        let is_possible = slot_ms <= now_ms.saturating_add(CLOCK_AHEAD_MS);
        if is_possible { slot_ms } else { now_ms }.max(definition.from_ms)
    }
}

/// What became of the slots of one schedule.
struct Fired {
    key: DocumentKey,
    state: v1::ScheduleState,
    /// Of the state as it was stored; `None` if it certainly or possibly was not.
    written: Option<Revision>,
    /// Whether something was left for another try.
    is_unfinished: bool,
}

impl ScheduleActor {
    pub(crate) fn new(context: Context, internal: InternalController) -> Self {
        Self {
            context,
            internal,
            known: BTreeMap::new(),
            firing: FuturesUnordered::new(),
            leads: false,
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        let stopping = context.stopping();
        tokio::pin!(stopping);
        loop {
            let pause = self.look().await;
            tokio::select! {
                biased;
                () = &mut stopping => return,
                Some(fired) = self.firing.next() => self.on_fired(fired),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts what is due; the time until something may be due again.
    async fn look(&mut self) -> Duration {
        if !self.context.node.is_leader() || self.context.fence.view().fenced {
            self.leads = false;
            self.known.clear();
            return LOOK_MAX;
        }
        // What the last leader settled must be known before anything is fired.
        if !self.leads && self.context.node.read_index().await.is_err() {
            return LOOK_MAX;
        }
        self.leads = true;
        self.refresh();
        let now_ms = unix_ms();
        let mut next_ms = now_ms.saturating_add(millis(LOOK_MAX));
        let due: Vec<_> = self
            .known
            .iter()
            .filter(|(_, known)| !known.is_firing && !known.is_stale && known.retry_at_ms <= now_ms)
            .filter_map(|(key, known)| {
                let definition = known.definition.clone()?;
                let settled_ms = known.settled_ms(&definition, now_ms);
                let due = definition.plan.due(settled_ms, now_ms);
                if due.fire.is_empty() && due.skipped == 0 {
                    let next = definition.plan.next_after(settled_ms.max(now_ms));
                    next_ms = next_ms.min(next.unwrap_or(u64::MAX));
                    return None;
                }
                Some((key.clone(), definition, due))
            })
            .collect();
        for (key, definition, due) in due {
            self.start(key, definition, due);
        }
        Duration::from_millis(next_ms.saturating_sub(now_ms).max(1))
    }

    /// Takes in what changed in the documents.
    fn refresh(&mut self) {
        let node = &self.context.node;
        let current: BTreeMap<DocumentKey, Revision> = node.read(|state| {
            let documents = state.documents_of(SCHEDULE);
            documents
                .map(|(key, record)| (key.clone(), record.revision))
                .collect()
        });
        self.known.retain(|key, _| current.contains_key(key));
        for (key, revision) in current {
            if self
                .known
                .get(&key)
                .is_some_and(|known| known.revision == revision && !known.is_stale)
            {
                continue;
            }
            let Ok(Some((revision, body))) = node.document(&key) else {
                continue; // Read at the next look.
            };
            let definition = Definition::read(&key, body)
                .inspect_err(|error| {
                    tracing::warn!(namespace = %key.namespace, schedule = key.name, %error, "schedule left out");
                })
                .ok()
                .filter(|definition| !definition.paused);
            let (is_firing, retry_at_ms) = match self.known.get(&key) {
                Some(known) if known.revision == revision => (known.is_firing, known.retry_at_ms),
                Some(known) => (known.is_firing, 0),
                None => (false, 0),
            };
            let (state_revision, state) = match node.document(&state_key(&key)) {
                Ok(None) => (Revision(0), v1::ScheduleState::default()),
                Ok(Some((revision, body))) => (revision, v1::ScheduleState::decode(body).unwrap_or_default()),
                Err(_) => continue,
            };
            let known = Known {
                revision,
                definition: definition.map(Arc::new),
                state,
                state_revision,
                is_stale: false,
                is_firing,
                retry_at_ms,
            };
            self.known.insert(key, known);
        }
    }

    fn start(&mut self, key: DocumentKey, definition: Arc<Definition>, due: Due) {
        if self.firing.len() >= FIRING_MAX {
            return;
        }
        let Some(known) = self.known.get_mut(&key) else {
            return;
        };
        known.is_firing = true;
        let (state, before) = (known.state.clone(), known.state_revision);
        let (context, internal) = (self.context.clone(), self.internal.clone());
        let fire = async move {
            let (state, is_unfinished) = fire(&internal, &key, &definition, state, due).await;
            let written = write(&context, &key, &state, before).await;
            Fired {
                key,
                state,
                written,
                is_unfinished,
            }
        };
        self.firing.push(fire.boxed());
    }

    fn on_fired(&mut self, fired: Fired) {
        let Some(known) = self.known.get_mut(&fired.key) else {
            return; // Deleted, or another scheduler leads.
        };
        known.is_firing = false;
        match fired.written {
            Some(revision) => (known.state, known.state_revision) = (fired.state, revision),
            // What was fired is known by its ids, and is settled with the next try.
            None => known.is_stale = true,
        }
        known.retry_at_ms = if fired.is_unfinished || known.is_stale {
            unix_ms() + RETRY_MS
        } else {
            0
        };
    }
}

/// Fires slots in order, until one is not taken for now.
async fn fire(
    internal: &InternalController,
    key: &DocumentKey,
    definition: &Definition,
    mut state: v1::ScheduleState,
    due: Due,
) -> (v1::ScheduleState, bool) {
    state.slot_ms = state.slot_ms.max(due.settled_ms);
    state.skipped = state.skipped.saturating_add(due.skipped);
    if due.skipped > 0 {
        tracing::info!(namespace = %key.namespace, schedule = key.name, skipped = due.skipped, "slots missed");
    }
    for slot_ms in due.fire {
        let id = slot_id(key, slot_ms);
        match internal.submit(activation(id, definition)).await {
            // A conflict: the slot was fired before the schedule got other arguments.
            Ok(()) | Err(Rejection::Conflict) => {
                state.fired = state.fired.saturating_add(1);
                state.last_id = activation_id_bytes(id);
                state.last_error.clear();
            }
            Err(rejection) if is_final(&rejection) => {
                tracing::warn!(namespace = %key.namespace, schedule = key.name, %rejection, "slot not fired");
                state.skipped = state.skipped.saturating_add(1);
                state.last_error = rejection.to_string();
            }
            Err(rejection) => {
                tracing::debug!(namespace = %key.namespace, schedule = key.name, %rejection, "slot tried again");
                return (state, true);
            }
        }
        state.slot_ms = slot_ms;
    }
    (state, false)
}

fn activation(id: ActivationId, definition: &Definition) -> Internal {
    let content = Content {
        arguments: definition.arguments.clone(),
        transaction: String::new(),
        subject: String::new(),
        api_key: String::new(),
        cause: String::new(),
    };
    Internal {
        id,
        key: definition.queue.clone(),
        payload: Arc::new(content),
        not_before_ms: 0,
    }
}

/// Whether the slot will never be taken; others are tried again until they count as missed.
const fn is_final(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::NoAction { .. } | Rejection::Invalid { .. } | Rejection::TooLarge { .. }
    )
}

fn state_key(key: &DocumentKey) -> DocumentKey {
    DocumentKey {
        kind: STATE.to_owned(),
        ..key.clone()
    }
}

/// Stores what is settled, over the state from which it follows and no other: another scheduler may lead by now. The new
/// revision; `None` if it certainly or possibly was not stored.
async fn write(
    context: &Context,
    key: &DocumentKey,
    state: &v1::ScheduleState,
    before: Revision,
) -> Option<Revision> {
    let put = PutDocument {
        key: state_key(key),
        body: Bytes::from(state.encode_to_vec()).into(),
        expected: Some(before),
        blobs: Vec::new(),
        limits: None,
    };
    match context.propose(Command::PutDocument(put)).await {
        Ok((_, Response::Revision(revision))) => Some(revision),
        Ok((_, answer)) => {
            tracing::debug!(namespace = %key.namespace, schedule = key.name, ?answer, "state of the schedule not stored");
            None
        }
        Err(error) => {
            tracing::debug!(namespace = %key.namespace, schedule = key.name, %error, "state of the schedule not stored");
            None
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
