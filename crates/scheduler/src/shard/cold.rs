//! Everything a shard is asked that is not on the way of an activation: streams that open and close, answers to
//! reservations, status, look-ups.

use tokio::sync::oneshot;
use whiskraft_proto::v1;
use whiskraft_queue::Input;
use whiskraft_types::{ActivationId, Epoch, QueueKey};

use crate::context::StreamId;
use crate::control::hello::Peer;
use crate::message::{Found, PullItem, Request, StreamEnd};
use crate::shard::actor::Shard;
use crate::shard::local::{LocalQueue, Slot};

/// Queues in one shard's answer to a status request; the longest first.
const STATUS_QUEUES_MAX: usize = 1000;

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
                    if let Some(slot) = self.queues.slot(&key) {
                        self.step(slot, Input::Received { controller, id });
                    }
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
                if let Some(slot) = self.in_epoch(&key, epoch) {
                    self.step(
                        slot,
                        Input::Granted {
                            asked,
                            containers,
                            revision,
                        },
                    );
                }
            }
            Request::CreationFailed {
                key,
                container,
                error,
                message,
            } => {
                if let Some(slot) = self.queues.slot(&key) {
                    self.step(
                        slot,
                        Input::CreationFailed {
                            container,
                            error,
                            message,
                        },
                    );
                }
            }
            Request::RemovalFailed { key, epoch } => {
                if let Some(slot) = self.in_epoch(&key, epoch) {
                    self.step(slot, Input::RemovalFailed);
                }
            }
            Request::Reclaim { starved } => self.on_reclaim(starved),
            Request::Find {
                id,
                namespace,
                answer,
            } => {
                let found = self
                    .queues
                    .in_namespace(&namespace)
                    .into_iter()
                    .find_map(|slot| self.find(slot, id));
                let _ = answer.send(found);
            }
            Request::Status { answer } => self.on_status(answer),
        }
    }

    fn in_epoch(&self, key: &QueueKey, epoch: Epoch) -> Option<Slot> {
        let slot = self.queues.slot(key)?;
        (self.queues.get(slot)?.epoch == epoch).then_some(slot)
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
                local.asked.remove(&peer.invoker);
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
        let state = local.queue.find(id)?;
        Some(Found {
            key: local.key.clone(),
            epoch: local.epoch,
            state,
        })
    }

    fn on_status(&self, answer: oneshot::Sender<Vec<v1::QueueStatus>>) {
        let mut queues: Vec<_> = self.queues.iter().map(|local| self.status_of(local)).collect();
        queues.sort_by_key(|queue| std::cmp::Reverse(queue.waiting));
        queues.truncate(STATUS_QUEUES_MAX);
        let _ = answer.send(queues);
    }

    fn status_of(&self, local: &LocalQueue) -> v1::QueueStatus {
        let view = local.queue.view();
        let delivered = local.queue.delivered_len();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let oldest = view
            .oldest
            .map_or(0, |oldest| self.now.saturating_since(oldest).as_millis());
        let warm = self
            .parts
            .context
            .node
            .read(|state| state.queue_counts(&local.key).warm);
        v1::QueueStatus {
            queue: Some(v1::QueueInfo {
                key: Some((&local.key).into()),
                leader: self.parts.context.node.id().0,
                epoch: local.epoch.0,
                revision: local.profile.revision.0,
                removed: false,
            }),
            state: format!("{:?}", view.state),
            waiting: view.waiting as u64,
            delivered: delivered as u64,
            started: view.in_flight.saturating_sub(delivered) as u64,
            held_back: view.held as u64,
            containers_in_progress: count(view.in_progress),
            containers_running: count(view.running),
            containers_warm: warm,
            duration_avg_ms: view.average_ms,
            oldest_ms: u64::try_from(oldest).unwrap_or(u64::MAX),
        }
    }
}
