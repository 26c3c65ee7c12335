//! Everything a shard is asked that is not on the way of an activation: streams that open and close, answers to
//! reservations, status, look-ups.

use whiskraft_queue::{ActivationState, Input};
use whiskraft_state::{ContainerState, State};
use whiskraft_types::{ActivationId, ContainerId, Epoch, InvokerId, QueueKey};

use crate::clock::unix_ms;
use crate::context::StreamId;
use crate::control::hello::Peer;
use crate::message::{Found, PullItem, Record, Request, StreamEnd};
use crate::shard::actor::{QueueInput, Shard};
use crate::shard::local::{LocalQueue, Slot};
use crate::shard::outputs::millis;

impl Shard {
    pub(crate) fn on_request(&mut self, request: Request) {
        match request {
            Request::Submit {
                controller,
                submissions,
            } => {
                submissions
                    .into_iter()
                    .for_each(|submission| self.on_submission(controller, submission));
            }
            Request::Pull { peer, stream, inputs } => {
                inputs
                    .into_iter()
                    .for_each(|input| self.on_pull(peer, stream, input));
            }
            Request::Received { controller, ids } => {
                for (key, id) in ids {
                    self.step_queue(&key, Input::Received { controller, id });
                }
            }
            Request::ControllerOpened { controller, end } => self.outbox.open_controller(controller, end),
            Request::ControllerClosed { controller, stream } => {
                self.outbox.close_controller(controller, stream)
            }
            Request::PullOpened { peer, end } => self.on_pull_opened(peer, end),
            Request::PullClosed { peer, stream } => self.on_pull_closed(peer, stream),
            Request::Granted {
                key,
                epoch,
                asked,
                containers,
                revision,
            } => {
                let granted = containers.len() as u64;
                let refused = u64::from(asked).saturating_sub(granted);
                self.parts.meter.reserved(granted, refused);
                self.creations.begin(self.now, &containers);
                let gone = self.gone(&containers);
                let input = Input::Granted {
                    asked,
                    containers: self.with_places(&key, containers),
                    revision,
                };
                self.step_in_epoch(&key, epoch, input);
                for container in gone {
                    self.creations.end(container);
                    self.step_in_epoch(&key, epoch, Input::ContainerRemoved { container });
                }
            }
            Request::CreationFailed {
                key,
                container,
                error,
                message,
            } => {
                self.parts.meter.not_created(error);
                self.creations.end(container);
                let input = Input::CreationFailed {
                    container,
                    error,
                    message,
                };
                self.step_queue(&key, input);
            }
            Request::CreationDelayed {
                key,
                container,
                error,
                message,
            } => {
                let input = Input::CreationDelayed {
                    container,
                    error,
                    message,
                };
                self.step_queue(&key, input);
            }
            Request::RemovalFailed { key, epoch } => self.step_in_epoch(&key, epoch, Input::RemovalFailed),
            Request::Reclaim {
                starved,
                unserved,
                held,
            } => self.on_reclaim(starved, unserved, held),
            Request::Calls { namespace, answer } => drop(answer.send(self.calls(&namespace))),
            Request::Knotted {
                key,
                epoch,
                is_knotted,
            } => self.step_in_epoch(&key, epoch, Input::Knotted(is_knotted)),
            Request::Freeze {
                session,
                pick,
                answer,
            } => {
                // Nobody waits for the answer any more: nobody would ever settle what is frozen.
                if let Err(exported) = answer.send(self.freeze(session, &pick)) {
                    for queue in exported {
                        self.unfreeze_in(&queue.key, queue.epoch);
                    }
                }
            }
            Request::Unfreeze { key, epoch } => self.unfreeze_in(&key, epoch),
            Request::Import { key, import, answer } => {
                self.imports.put(self.now, key, import);
                let _ = answer.send(());
            }
            Request::ForgetImport {
                session,
                attempt,
                key,
            } => self.imports.forget(session, attempt, &key),
            Request::Journaled(answers) => self.on_journaled(answers),
            Request::Recovered {
                key,
                epoch,
                recovered,
                is_last,
            } => self.on_recovered(&key, epoch, recovered, is_last),
            Request::Cancel {
                id,
                namespace,
                answer,
            } => self.on_cancel(id, &namespace, answer),
            Request::Unary(request) => self.on_unary(request),
            Request::RateSettled { namespace } => self.on_rate_settled(&namespace),
            Request::Find {
                id,
                namespace,
                answer,
            } => {
                let mut slots = self.queues.in_namespace(&namespace).into_iter();
                let _ = answer.send(slots.find_map(|slot| self.find(slot, id)));
            }
            Request::Walk { walk, answer } => drop(answer.send(self.walk(walk))),
            Request::Barrier { answer } => drop(answer.send(())),
        }
    }

    fn step_queue(&mut self, key: &QueueKey, input: QueueInput) {
        if let Some(slot) = self.queues.slot(key) {
            self.step(slot, input);
        }
    }

    fn step_in_epoch(&mut self, key: &QueueKey, epoch: Epoch, input: QueueInput) {
        if let Some(slot) = self.in_epoch(key, epoch) {
            self.step(slot, input);
        }
    }

    /// Containers with their places. Those that the tables have told of before their grant the queue did not know then.
    fn with_places(
        &self,
        key: &QueueKey,
        containers: Vec<ContainerId>,
    ) -> Vec<(ContainerId, Option<InvokerId>)> {
        let local = self.queues.slot(key).and_then(|slot| self.queues.get(slot));
        let place = |id: &ContainerId| local.and_then(|local| local.dealings.places.get(id).copied());
        let with_places = containers.into_iter().map(|id| (id, place(&id)));
        with_places.collect()
    }

    /// Those that were lost with their invoker before their queue hears of them: it did not know them when the tables told.
    /// What the tables still have is lost by a later word only.
    fn gone(&self, containers: &[ContainerId]) -> Vec<ContainerId> {
        let is_gone = |state: &State, id: ContainerId| {
            let row = state.container(id);
            row.is_none_or(|row| row.state == ContainerState::Ended)
        };
        self.parts.context.node.read(|state| {
            let gone = containers.iter().filter(|id| is_gone(state, **id));
            gone.copied().collect()
        })
    }

    fn unfreeze_in(&mut self, key: &QueueKey, epoch: Epoch) {
        if let Some(slot) = self.in_epoch(key, epoch) {
            self.unfreeze(slot);
        }
    }

    pub(crate) fn in_epoch(&self, key: &QueueKey, epoch: Epoch) -> Option<Slot> {
        let slot = self.queues.slot(key)?;
        (self.queues.get(slot)?.epoch() == epoch).then_some(slot)
    }

    fn on_pull_opened(&mut self, peer: Peer, end: StreamEnd<PullItem>) {
        let node = &self.parts.context.node;
        if node.read(|state| state.session(peer.session).is_none()) {
            return end.cut.notify_one();
        }
        if !self.outbox.open_invoker(peer.invoker, peer.session, end) {
            self.disconnect(peer.invoker);
        }
        let on_it: Vec<Slot> = {
            let queues = self.mirror.queues_on(peer.invoker);
            queues.filter_map(|key| self.queues.slot(key)).collect()
        };
        for slot in on_it.into_iter().chain(self.queues.linked(peer.invoker)) {
            if let Some(local) = self.queues.get_mut(slot) {
                local.dealings.asked.remove(&peer.invoker);
            }
            self.ask_to_register(slot, peer.invoker);
        }
    }

    fn on_pull_closed(&mut self, peer: Peer, stream: StreamId) {
        if self.outbox.close_invoker(peer.invoker, stream) {
            self.disconnect(peer.invoker);
        }
    }

    fn find(&self, slot: Slot, id: ActivationId) -> Option<Found> {
        let local = self.queues.get(slot)?;
        Some(self.found(local, id, local.queue.find(id)?))
    }

    /// What a queue knows of an activation, for whoever asks.
    pub(crate) fn found(
        &self,
        local: &LocalQueue,
        id: ActivationId,
        state: ActivationState<Record>,
    ) -> Found {
        let (durable, run) = local.queue.run_of(id).unwrap_or((false, 1));
        let accepted = local.queue.accepted(id);
        let age = accepted.map_or(0, |(at, _)| millis(self.now.saturating_since(at)));
        Found {
            key: local.key().clone(),
            epoch: local.epoch(),
            end: self.ending(local, id),
            state,
            durable,
            run,
            accepted_ms: unix_ms().saturating_sub(age),
        }
    }
}
