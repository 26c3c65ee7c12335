//! Hot path: a submission becomes a delivery, a completion becomes a result, inside one shard.
//! Budget per activation and direction: one hash of the queue key, the queue's step, one push into the outbox; no
//! lock, no Raft, no disk, no copy of the payload.

use whiskraft_queue::{ControllerId, Input, RunEnd, Unacknowledged};
use whiskraft_types::{ContainerId, Epoch, InvokerId, NotLeader, QueueKey, Rejection};

use crate::context::{StreamId, fenced};
use crate::control::hello::Peer;
use crate::message::{PullInput, PullItem, PullKind, ResultItem, Submission};
use crate::shard::actor::Shard;
use crate::shard::local::Slot;
use crate::shard::parked::ParkedItem;
use crate::shard::rate::Charge;

/// Where something that names a queue and an epoch belongs.
enum Route {
    Here(Slot),
    /// Led here, and about to move.
    Frozen(Slot),
    /// The sender's epoch is an older one of this queue, which is led here.
    Stale(Slot, Epoch),
    /// The shard is about to be told.
    Soon,
    Refused(Rejection),
}

impl Shard {
    fn route(&self, key: &QueueKey, epoch: Epoch) -> Route {
        match self
            .queues
            .slot(key)
            .and_then(|slot| Some((slot, self.queues.get(slot)?)))
        {
            Some((slot, local)) if local.epoch() == epoch && local.frozen.is_some() => Route::Frozen(slot),
            Some((slot, local)) if local.epoch() == epoch => Route::Here(slot),
            Some((slot, local)) if epoch < local.epoch() => Route::Stale(slot, local.epoch()),
            _ => self.look_up(key, epoch),
        }
    }

    /// Off the hot path: nobody here leads the queue in that epoch.
    fn look_up(&self, key: &QueueKey, epoch: Epoch) -> Route {
        let node = &self.parts.context.node;
        let (applied, queue) = node.read(|state| {
            let queue = state.queue(key).map(|queue| (queue.leader, queue.epoch));
            (state.revision(), queue)
        });
        // An epoch is the log revision that began it, so the sender knows more of the log than this node.
        if self.parking && epoch.0 > applied.0 {
            return Route::Soon;
        }
        let Some((leader, epoch)) = queue else {
            return Route::Refused(Rejection::NoQueue);
        };
        let known = self.queues.slot(key).and_then(|slot| self.queues.get(slot));
        let is_news = known.is_none_or(|local| local.epoch() < epoch);
        match leader {
            Some((id, _)) if self.parking && is_news && id == node.id() => Route::Soon,
            leader => {
                let leader = leader.map(|(id, _)| id);
                Route::Refused(Rejection::NotLeader(NotLeader { leader, epoch }))
            }
        }
    }

    /// Answers what has waited long enough from what is known.
    pub(crate) fn settle_parked(&mut self) {
        if self.parked.overdue_at().is_none_or(|at| at > self.now) {
            return;
        }
        self.parking = false;
        let overdue = self.parked.take_all();
        self.replay(overdue);
        self.parking = true;
    }

    pub(crate) fn on_submission(&mut self, controller: ControllerId, submission: Submission) {
        if self.draining {
            return self.reject(controller, submission, Rejection::Draining);
        }
        if self.fenced {
            return self.reject(controller, submission, fenced());
        }
        match self.route(&submission.key, submission.epoch) {
            Route::Here(slot) => self.submit(slot, controller, submission),
            Route::Frozen(slot) => self.hold_submission(slot, controller, submission),
            Route::Stale(_, epoch) => {
                let leader = Some(self.parts.context.node.id());
                self.reject(
                    controller,
                    submission,
                    Rejection::NotLeader(NotLeader { leader, epoch }),
                );
            }
            Route::Soon => {
                let full = "too many activations wait for a change of leaders";
                self.park(controller, submission, full);
            }
            Route::Refused(rejection) => self.reject(controller, submission, rejection),
        }
    }

    fn submit(&mut self, slot: Slot, controller: ControllerId, submission: Submission) {
        if submission.terms.durable && self.is_unread(slot, submission.id) {
            return self.await_recovery(controller, submission);
        }
        let is_paid = match self.charge(slot, &submission) {
            Charge::Free => false,
            Charge::Paid => true,
            Charge::Later => {
                let full = "too many activations wait for the rate limit of their namespace";
                return self.park(controller, submission, full);
            }
            Charge::Refused(rejection) => return self.reject(controller, submission, rejection),
        };
        let Submission {
            id,
            attempt,
            waited,
            caller,
            payload,
            terms,
            ..
        } = submission;
        let input = Input::Submit {
            controller,
            id,
            attempt,
            waited,
            caller,
            payload,
            terms,
        };
        self.step(slot, input);
        if is_paid {
            self.refund(slot, id);
        }
    }

    pub(crate) fn reject(&mut self, controller: ControllerId, submission: Submission, rejection: Rejection) {
        self.parts.meter.rejected(&rejection);
        self.outbox
            .result(controller, ResultItem::Rejected(submission.id, rejection));
    }

    pub(crate) fn on_pull(&mut self, peer: Peer, stream: StreamId, input: PullInput) {
        // The stream was cut or replaced: what it still held is settled by the next Register.
        if !self.outbox.is_current(peer.invoker, stream) {
            return;
        }
        match self.route(&input.key, input.epoch) {
            Route::Here(slot) => self.on_pull_kind(slot, peer.invoker, input.kind),
            Route::Frozen(slot) => self.hold_pull(slot, peer, stream, input),
            Route::Stale(slot, _) => self.ask_to_register(slot, peer.invoker),
            Route::Soon => {
                let key = input.key.clone();
                // Without room it is dropped: the new leadership asks for a Register, which says it all again.
                let _ = self
                    .parked
                    .push(self.now, &key, ParkedItem::Pull(peer, stream, input));
            }
            Route::Refused(rejection) => {
                let container = container_of(&input.kind);
                self.outbox.pull(
                    peer.invoker,
                    PullItem::Rejected {
                        container,
                        key: input.key,
                        rejection,
                    },
                );
            }
        }
    }

    fn on_pull_kind(&mut self, slot: Slot, invoker: InvokerId, kind: PullKind) {
        if let PullKind::Completed {
            duration: Some(duration),
            ..
        } = &kind
        {
            self.note_run(slot, invoker, *duration);
        }
        let strangers = self.strangers(slot, &kind);
        let input = match kind {
            PullKind::Credit {
                container,
                count,
                warmed,
            } => {
                self.place(slot, container, invoker);
                Input::Credit {
                    invoker,
                    container,
                    count,
                    warmed,
                }
            }
            PullKind::Started { container, id } => Input::Started { container, id },
            PullKind::Completed {
                container,
                record,
                duration,
                credits,
            } => Input::Completed {
                invoker,
                container,
                id: record.id,
                run: record.run,
                end: RunEnd::of(record.status, record.cancelled),
                record,
                duration,
                credits,
            },
            PullKind::Refused { container, id } => Input::Refused { container, id },
            PullKind::Withdraw { container } => {
                self.place(slot, container, invoker);
                Input::Withdraw { container }
            }
            PullKind::Register {
                containers,
                unacknowledged,
            } => {
                self.queues.link(slot, invoker);
                if let Some(local) = self.queues.get_mut(slot) {
                    local.dealings.asked.remove(&invoker);
                    local
                        .dealings
                        .places
                        .extend(containers.iter().map(|container| (container.container, invoker)));
                }
                let unacknowledged = unacknowledged
                    .into_iter()
                    .map(|record| Unacknowledged {
                        id: record.id,
                        run: record.run,
                        end: RunEnd::of(record.status, record.cancelled),
                        record,
                    })
                    .collect();
                Input::Register {
                    invoker,
                    containers,
                    unacknowledged,
                }
            }
        };
        self.step(slot, input);
        // Noted for the queue's answer only: the table will not tell when they are gone.
        if let Some(local) = self.queues.get_mut(slot) {
            for container in strangers {
                local.forget_place(container);
            }
        }
    }

    /// Containers that an invoker names and neither the tables nor the places know.
    fn strangers(&self, slot: Slot, kind: &PullKind) -> Vec<ContainerId> {
        let Some(local) = self.queues.get(slot) else {
            return Vec::new();
        };
        let is_strange = |container: &ContainerId| {
            !local.dealings.places.contains_key(container) && !self.mirror.knows(local.key(), *container)
        };
        match kind {
            PullKind::Credit { container, .. } | PullKind::Withdraw { container } => {
                Some(*container).filter(is_strange).into_iter().collect()
            }
            PullKind::Register { containers, .. } => {
                let named = containers.iter().map(|container| container.container);
                named.filter(is_strange).collect()
            }
            PullKind::Started { .. } | PullKind::Completed { .. } | PullKind::Refused { .. } => Vec::new(),
        }
    }

    /// Notes where a container is.
    pub(crate) fn place(&mut self, slot: Slot, container: ContainerId, invoker: InvokerId) {
        let is_new = self
            .queues
            .get_mut(slot)
            .is_some_and(|local| local.dealings.places.insert(container, invoker) != Some(invoker));
        if is_new {
            self.queues.link(slot, invoker);
        }
    }

    /// Asks an invoker for all it has of a queue, once per stream and leadership.
    pub(crate) fn ask_to_register(&mut self, slot: Slot, invoker: InvokerId) {
        if !self.outbox.is_connected(invoker) {
            return; // Asked when it says hello.
        }
        self.queues.link(slot, invoker);
        if let Some(local) = self.queues.get_mut(slot)
            && local.dealings.asked.insert(invoker)
        {
            self.outbox
                .pull(invoker, PullItem::Reregister(local.key().clone(), local.epoch()));
        }
    }
}

const fn container_of(kind: &PullKind) -> Option<ContainerId> {
    match kind {
        PullKind::Credit { container, .. }
        | PullKind::Started { container, .. }
        | PullKind::Completed { container, .. }
        | PullKind::Refused { container, .. }
        | PullKind::Withdraw { container } => Some(*container),
        PullKind::Register { .. } => None,
    }
}
