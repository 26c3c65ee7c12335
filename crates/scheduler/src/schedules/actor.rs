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
use whiskraft_state::{Command, DocumentKey, PutDocument};
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
    is_firing: bool,
    retry_at_ms: u64,
}

impl Known {
    /// Everything up to here is settled.
    fn settled_ms(&self, definition: &Definition) -> u64 {
        self.state.slot_ms.max(definition.from_ms)
    }
}

/// What became of the slots of one schedule.
struct Fired {
    key: DocumentKey,
    state: v1::ScheduleState,
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
            .filter(|(_, known)| !known.is_firing && known.retry_at_ms <= now_ms)
            .filter_map(|(key, known)| {
                let definition = known.definition.clone()?;
                let settled_ms = known.settled_ms(&definition);
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
                .is_some_and(|known| known.revision == revision)
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
            let is_firing = self.known.get(&key).is_some_and(|known| known.is_firing);
            let state = match node.document(&state_key(&key)) {
                Ok(stored) => stored.and_then(|(_, body)| v1::ScheduleState::decode(body).ok()),
                Err(_) => continue,
            };
            let known = Known {
                revision,
                definition: definition.map(Arc::new),
                state: state.unwrap_or_default(),
                is_firing,
                retry_at_ms: 0,
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
        let state = known.state.clone();
        let (context, internal) = (self.context.clone(), self.internal.clone());
        let fire = async move {
            let (state, is_unfinished) = fire(&internal, &key, &definition, state, due).await;
            let is_written = write(&context, &key, &state).await;
            Fired {
                key,
                state,
                is_unfinished: is_unfinished || !is_written,
            }
        };
        self.firing.push(fire.boxed());
    }

    fn on_fired(&mut self, fired: Fired) {
        let Some(known) = self.known.get_mut(&fired.key) else {
            return; // Deleted, or another scheduler leads.
        };
        known.is_firing = false;
        known.state = fired.state;
        known.retry_at_ms = if fired.is_unfinished {
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

/// Stores what is settled; false if it certainly or possibly was not.
async fn write(context: &Context, key: &DocumentKey, state: &v1::ScheduleState) -> bool {
    let put = PutDocument {
        key: state_key(key),
        body: Bytes::from(state.encode_to_vec()).into(),
        expected: None,
        blobs: Vec::new(),
        limits: None,
    };
    context.propose(Command::PutDocument(put)).await.is_ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
