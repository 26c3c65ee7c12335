//! What the replicated tables mean for a shard's queues: leaderships begin and end, containers come and go.
//!
//! Fed by the event follower in log order. Within one batch invokers that are gone come first, then containers, then
//! leaderships: a new one has to see the containers exactly as the apply that made it left them.

use std::collections::BTreeSet;
use std::sync::Arc;

use whiskraft_queue::{ActionProfile, ActivationState, Input, MemoryQueue, Outcome};
use whiskraft_raft::Batch;
use whiskraft_state::{ContainerRecord, ContainerState, DocumentKey, Event, QueueRecord, State};
use whiskraft_types::{
    ActionLimits, ActivationStatus, ByteSize, ContainerId, InvokerId, NamespaceName, NotLeader, QueueKey,
    Rejection, Revision, SessionId,
};

use crate::fence::FenceView;
use crate::handoff::MovedActivation;
use crate::journal::Message;
use crate::message::ResultItem;
use crate::metrics::LeadershipEvent;
use crate::shard::actor::Shard;
use crate::shard::handle::shard_of;
use crate::shard::local::{LocalQueue, Slot};
use crate::shard::outputs::record_of;
use crate::shard::parked::ParkedItem;

/// Lost invokers are remembered for so many TTLs (8 s by default): longer than a leader that died with them can stay
/// undetected.
const LOST_TTLS: u32 = 4;

/// Invokers whose container of a queue has gone are remembered for so many result graces (30 s by default): as long as
/// they may keep a result of it through a failover and another change of leader.
const RECENT_GRACES: u32 = 3;

/// What the follower passes on.
#[derive(Debug, Clone)]
pub(crate) enum TableChanges {
    /// The events of one log entry.
    Batch {
        batch: Arc<Batch>,
        /// Sessions that ended in it.
        ended: Arc<BTreeSet<SessionId>>,
        /// Sessions of this process, after it.
        own: Arc<BTreeSet<SessionId>>,
    },
    /// Everything, because something may have been missed.
    Reset {
        state: State,
        own: Arc<BTreeSet<SessionId>>,
    },
}

/// Whether a leadership of this session may begin: it is one of ours, and neither it nor a later one has ended. The
/// log's tail may still name one whose end the session task knows already.
fn can_lead(session: SessionId, own: &BTreeSet<SessionId>, ended: Option<SessionId>) -> bool {
    own.contains(&session) && ended.is_none_or(|ended| session > ended)
}

impl Shard {
    pub(crate) fn on_tables(&mut self, changes: TableChanges) {
        match changes {
            TableChanges::Batch { batch, ended, own } => {
                self.own = own;
                self.on_batch(&batch, &ended);
            }
            TableChanges::Reset { state, own } => {
                self.own = own;
                self.reset(&state);
            }
        }
        let config = &self.parts.context.config;
        let keep = config.session.ttl * LOST_TTLS;
        self.mirror
            .prune(self.now, keep, config.queue.result_grace * RECENT_GRACES);
    }

    pub(crate) fn is_mine(&self, key: &QueueKey) -> bool {
        shard_of(key, self.parts.shards.len()) == self.parts.index
    }

    fn on_batch(&mut self, batch: &Batch, ended: &BTreeSet<SessionId>) {
        for session in ended {
            self.outbox.cut_session(*session);
        }
        for event in &batch.events {
            if let Event::Invoker(invoker, None) = event {
                self.mirror.invoker_gone(self.now, *invoker);
                self.on_invoker_gone(*invoker);
            }
        }
        for event in &batch.events {
            match event {
                Event::Container {
                    id, record, removed, ..
                } if self.is_mine(&record.key) => {
                    self.on_container(*id, record, *removed, ended);
                }
                Event::NamespaceThrottle(namespace, full) => self.on_namespace(namespace, *full),
                Event::Namespace(namespace, row) => {
                    self.note_limit(namespace);
                    let per_minute = row.as_ref().and_then(|row| row.limits.invocations_per_minute);
                    self.on_limits(namespace, per_minute);
                }
                _ => {}
            }
        }
        for event in &batch.events {
            if let Event::HandedOver { key, from } = event
                && self.is_mine(key)
            {
                self.handed = Some((key.clone(), *from));
            }
            if let Event::Queue(key, record) = event
                && self.is_mine(key)
            {
                // One that was led before, by whomever, may have left work behind; ensuring a new one begins from nothing.
                self.follows = self.led.note(key, record.is_some());
                self.on_leadership(key, record.as_ref());
                self.handed = None;
            }
        }
    }

    fn on_namespace(&mut self, namespace: &NamespaceName, full: bool) {
        let has_changed = if full {
            self.full.insert(namespace.clone())
        } else {
            self.full.remove(namespace)
        };
        if !has_changed {
            return;
        }
        for slot in self.queues.in_namespace(namespace) {
            self.step(slot, Input::NamespaceFull(full));
        }
    }

    pub(crate) fn on_invoker_gone(&mut self, invoker: InvokerId) {
        for slot in self.queues.unlink(invoker) {
            self.step(slot, Input::InvokerGone { invoker });
        }
    }

    pub(crate) fn on_container(
        &mut self,
        id: ContainerId,
        record: &ContainerRecord,
        removed: bool,
        ended: &BTreeSet<SessionId>,
    ) {
        // One that has ended is gone for its queue; the mirror keeps it until its invoker has nothing more to say of it.
        let is_gone = removed || record.state == ContainerState::Ended;
        if is_gone {
            self.creations.end(id);
        }
        if removed {
            self.mirror.remove(self.now, id, record, ended);
        } else {
            if record.state == ContainerState::Running {
                self.count_running(id);
            }
            self.mirror.put(self.now, id, record);
        }
        let Some(slot) = self.queues.slot(&record.key) else {
            return;
        };
        if is_gone {
            if let Some(local) = self.queues.get_mut(slot) {
                local.forget_place(id);
            }
            self.end_fetches(id);
            let input = if removed {
                Input::ContainerRemoved { container: id }
            } else {
                Input::ContainerEnded { container: id }
            };
            return self.step(slot, input);
        }
        let Some((invoker, _)) = record.invoker else {
            let was_placed = self
                .queues
                .get_mut(slot)
                .is_some_and(|local| local.forget_place(id));
            if was_placed {
                self.step(slot, Input::ContainerUnplaced { container: id });
            }
            return;
        };
        self.place(slot, id, invoker);
        let input = match record.state {
            ContainerState::InProgress => Input::ContainerPlaced {
                container: id,
                invoker,
            },
            ContainerState::Running => Input::ContainerRunning {
                container: id,
                invoker,
            },
            ContainerState::Warm | ContainerState::Ended => Input::ContainerWarm { container: id },
        };
        self.step(slot, input);
    }

    pub(crate) fn on_leadership(&mut self, key: &QueueKey, record: Option<&QueueRecord>) {
        let me = self.parts.context.node.id();
        let ended = self.dropped.max(self.parts.context.fence.view().ended);
        let mine = record.and_then(|record| {
            let (_, session) = record
                .leader
                .filter(|(id, session)| *id == me && can_lead(*session, &self.own, ended))?;
            Some((session, record))
        });
        if let Some(slot) = self.queues.slot(key) {
            let current = self.queues.get(slot).map(|local| local.epoch());
            match mine {
                Some((_, record)) if Some(record.epoch) == current => {
                    return self.on_revision(slot, record.revision);
                }
                _ => self.give_up(slot, record),
            }
        }
        if let Some((session, record)) = mine {
            self.lead(key, session, record);
        }
        let parked = self.parked.take(key);
        self.replay(parked);
    }

    pub(crate) fn replay(&mut self, parked: Vec<ParkedItem>) {
        for item in parked {
            match item {
                ParkedItem::Submission(controller, submission) => self.on_submission(controller, *submission),
                ParkedItem::Pull(peer, stream, input) => self.on_pull(peer, stream, input),
            }
        }
    }

    /// A leadership begins.
    fn lead(&mut self, key: &QueueKey, session: SessionId, record: &QueueRecord) {
        let (profile, memory) = self.profile(key, record.revision);
        let settings = Arc::clone(&self.parts.settings);
        let queue = MemoryQueue::new(key.clone(), record.epoch, profile, settings, self.now);
        let slot = self.queues.insert(LocalQueue::new(session, memory, queue));
        self.journaled.push(Message::Led {
            key: key.clone(),
            epoch: record.epoch,
        });
        self.refresh_rate(slot);
        let inherited = self.mirror.inheritance(key);
        tracing::info!(queue = %key, epoch = %record.epoch, invokers = inherited.expected.len(), "leadership taken");
        for known in &inherited.containers {
            if let Some(invoker) = known.invoker {
                self.place(slot, known.container, invoker);
            }
        }
        for invoker in &inherited.expected {
            self.queues.link(slot, *invoker);
        }
        let import = self.take_import(key);
        let follows = self.follows || import.is_some() || inherited != Default::default();
        self.parts.meter.leadership(if follows {
            LeadershipEvent::Taken
        } else {
            LeadershipEvent::Created
        });
        if follows {
            let expected = inherited.expected.clone();
            self.queues.note_expecting(slot);
            self.step(
                slot,
                Input::Takeover {
                    expected,
                    lost: inherited.lost,
                    containers: inherited.containers,
                    recovers: true,
                },
            );
        }
        if let Some(moved) = import {
            self.step(slot, Input::Import(moved));
        }
        if self.fenced {
            self.step(slot, Input::Fence(true));
        }
        if self.full.contains(&key.namespace) {
            self.step(slot, Input::NamespaceFull(true));
        }
        for invoker in inherited.expected {
            self.ask_to_register(slot, invoker);
        }
        self.note_limit(&key.namespace);
    }

    /// What the former leader has sent of the queue, if it handed it over. Without it the leadership begins as after a death.
    fn take_import(&mut self, key: &QueueKey) -> Option<Vec<MovedActivation>> {
        let (_, from) = self.handed.take().filter(|(handed, _)| handed == key)?;
        let import = self.imports.take(self.now, key, from);
        if import.is_none() {
            tracing::info!(queue = %key, %from, "handed over without its contents, which will be submitted again");
        }
        import
    }

    /// A leadership ends: whoever waits here hears where to go.
    fn give_up(&mut self, slot: Slot, record: Option<&QueueRecord>) {
        let Some(local) = self.queues.remove(slot) else {
            return;
        };
        tracing::info!(queue = %local.key(), epoch = %local.epoch(), "leadership given up");
        self.parts.meter.leadership(match record {
            Some(_) => LeadershipEvent::Moved,
            None => LeadershipEvent::Removed,
        });
        let rejection = record.map_or(Rejection::NoQueue, |record| {
            let leader = record.leader.map(|(id, _)| id);
            Rejection::NotLeader(NotLeader {
                leader,
                epoch: record.epoch,
            })
        });
        self.unary.give_up(local.key());
        self.cancels.give_up(local.key());
        self.journaled.push(Message::Left {
            key: local.key().clone(),
            epoch: local.epoch(),
        });
        for (controller, id) in local.queue.unfinished() {
            // A rejection says that nothing ran; without a queue nobody will ever know what became of these.
            // What is durable has its row in the journal, and ends there.
            let is_durable = local.queue.run_of(id).is_some_and(|(durable, _)| durable);
            let is_orphan = record.is_none()
                && !is_durable
                && matches!(
                    local.queue.find(id),
                    Some(ActivationState::Delivered(_) | ActivationState::Started(_))
                );
            let item = if is_orphan {
                ResultItem::Completed {
                    key: local.key().clone(),
                    epoch: local.epoch(),
                    record: record_of(id, orphaned(), 1, None),
                }
            } else {
                ResultItem::Rejected(id, rejection.clone())
            };
            self.outbox.result(controller, item);
        }
        local.frozen.into_iter().for_each(|frozen| self.dismiss(*frozen));
    }

    /// Drops the queues of our sessions that have ended, whether or not the log has told us yet.
    pub(crate) fn drop_ended(&mut self, view: FenceView) {
        let Some(ended) = view.ended.filter(|_| view.ended > self.dropped) else {
            return;
        };
        self.dropped = view.ended;
        let dropped: Vec<Slot> = {
            let queues = self.queues.slots().into_iter();
            queues
                .filter(|slot| self.queues.get(*slot).is_some_and(|local| local.session <= ended))
                .collect()
        };
        for slot in dropped {
            let record = self.queues.get(slot).and_then(|local| {
                let node = &self.parts.context.node;
                let record = node.read(|state| state.queue(local.key()).cloned())?;
                // Still ours by the tables: nobody knows yet who is next.
                Some(if record.epoch == local.epoch() {
                    QueueRecord {
                        leader: None,
                        ..record
                    }
                } else {
                    record
                })
            });
            self.give_up(slot, record.as_ref());
        }
    }

    fn on_revision(&mut self, slot: Slot, revision: Revision) {
        let Some(key) = self.queues.get(slot).map(|local| local.key().clone()) else {
            return;
        };
        let (profile, memory) = self.profile(&key, revision);
        self.adopt(slot, profile, memory);
    }

    /// A queue's action is this now.
    pub(crate) fn adopt(&mut self, slot: Slot, profile: ActionProfile, memory: ByteSize) {
        let local = self.queues.get_mut(slot);
        if let Some(input) = local.and_then(|local| local.adopt(profile, memory)) {
            self.step(slot, input);
        }
    }

    /// What a queue needs of its action's document.
    fn profile(&self, key: &QueueKey, revision: Revision) -> (ActionProfile, ByteSize) {
        let node = &self.parts.context.node;
        let document = DocumentKey::action(&key.action);
        let record = document.and_then(|key| node.read(|state| state.document(&key).cloned()));
        let deleted = record.is_none();
        let limits: ActionLimits = record.and_then(|record| record.limits).unwrap_or_default();
        // A document that cannot be read asks for nothing.
        let needs = self.parts.profiles.needs(node, &key.action, revision);
        let profile = ActionProfile {
            revision,
            concurrency: limits.concurrency.max(1),
            instances: limits.instances,
            blackbox: needs.as_ref().is_some_and(|needs| needs.blackbox),
            // What still runs may have had any.
            timeout: if deleted {
                self.parts.context.config.documents.timeout_max
            } else {
                limits.timeout
            },
            deleted,
            retry: needs.map(|needs| needs.retry.clone()).unwrap_or_default(),
        };
        (profile, limits.memory)
    }
}

/// How an activation ends whose queue went while it may have been running.
fn orphaned<R>() -> Outcome<R> {
    Outcome::Failure {
        status: ActivationStatus::WhiskError,
        text: "The queue of its action was removed while this activation may have been running; its outcome is not known."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_leadership_begins_under_a_session_that_has_ended() {
        let own: BTreeSet<_> = [SessionId(4), SessionId(9)].into();
        assert!(can_lead(SessionId(4), &own, None));
        assert!(!can_lead(SessionId(5), &own, None), "of another process");
        // The log's tail names session 4 once more after its queues were dropped.
        assert!(!can_lead(SessionId(4), &own, Some(SessionId(4))));
        assert!(can_lead(SessionId(9), &own, Some(SessionId(4))));
        assert!(!can_lead(SessionId(4), &own, Some(SessionId(9))));
    }
}
