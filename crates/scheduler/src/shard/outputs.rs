//! Carries out what a queue wants: frames go to the outbox, everything slower to the actor whose job it is.

use std::sync::Arc;

use bytes::Bytes;
use whiskraft_proto::v1;
use whiskraft_queue::{Input, Outcome};
use whiskraft_types::{ActivationId, ActivationRecord, ActivationStatus, ContainerId};

use crate::clock::unix_ms;
use crate::control::registry::ControlCommand;
use crate::creation::Wish;
use crate::message::{PullItem, Record, Request, ResultItem};
use crate::proposals::Proposal;
use crate::shard::actor::{QueueOutput, Shard};
use crate::shard::local::Slot;

impl Shard {
    pub(crate) fn carry_out(&mut self, slot: Slot, output: QueueOutput) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        match output {
            QueueOutput::Accept { controller, id } => {
                self.outbox.result(controller, ResultItem::Accepted(id))
            }
            QueueOutput::Reject {
                controller,
                id,
                rejection,
            } => {
                self.outbox
                    .result(controller, ResultItem::Rejected(id, rejection));
            }
            QueueOutput::Deliver {
                invoker,
                container,
                id,
                attempt,
                waited,
                payload,
            } => {
                let epoch = local.epoch;
                let item = PullItem::Deliver {
                    id,
                    container,
                    epoch,
                    attempt,
                    waited,
                    payload,
                };
                self.outbox.pull(invoker, item);
            }
            QueueOutput::Complete {
                controller,
                id,
                outcome,
            } => {
                let (key, epoch) = (local.key.clone(), local.epoch);
                let record = record_of(id, outcome);
                self.outbox
                    .result(controller, ResultItem::Completed { key, epoch, record });
            }
            QueueOutput::AcknowledgeInvoker { invoker, id } => {
                self.outbox.pull(invoker, PullItem::CompletedAck(id));
            }
            QueueOutput::WithdrawAck { container } => {
                if let Some(invoker) = local.places.get(&container) {
                    self.outbox.pull(*invoker, PullItem::WithdrawAck(container));
                }
            }
            QueueOutput::Reserve { count } => self.reserve(slot, count),
            QueueOutput::SetThrottle(throttled) => {
                let proposal = Proposal::SetThrottle {
                    key: local.key.clone(),
                    epoch: local.epoch,
                    throttled,
                };
                self.parts.proposals.push(proposal);
            }
            QueueOutput::Starved => {
                let starved = local.key.clone();
                self.parts.neighbours.ask(starved.clone());
                self.parts.shards.try_send_all(|| Request::Reclaim {
                    starved: starved.clone(),
                });
            }
            QueueOutput::RemoveContainer { container } => self.remove_container(slot, container),
            QueueOutput::RemoveQueue => {
                let proposal = Proposal::RemoveQueue {
                    key: local.key.clone(),
                    epoch: local.epoch,
                };
                if !self.parts.proposals.push(proposal) {
                    self.followups.push((slot, Input::RemovalFailed));
                }
            }
        }
    }

    fn reserve(&mut self, slot: Slot, count: u32) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        let wish = Wish {
            key: local.key.clone(),
            epoch: local.epoch,
            revision: local.profile.revision,
            memory: local.memory,
            instances: local.profile.instances,
            blackbox: local.profile.blackbox,
            count,
        };
        if !self.parts.creation.reserve(wish) {
            // No room for the wish: the queue asks again at its next decision.
            let revision = local.profile.revision;
            self.followups.push((
                slot,
                Input::Granted {
                    asked: count,
                    containers: Vec::new(),
                    revision,
                },
            ));
        }
    }

    fn remove_container(&self, slot: Slot, container: ContainerId) {
        let place = self
            .queues
            .get(slot)
            .and_then(|local| local.places.get(&container).copied());
        let Some(invoker) = place else { return };
        let command = v1::RemoveContainer {
            container: Some(container.into()),
            now: false,
        };
        if let Err(error) = self.parts.streams.send(invoker, ControlCommand::Remove(command)) {
            tracing::debug!(%container, %error, "removal not sent");
        }
    }
}

/// The record of an activation, made up here if it did not run.
pub(crate) fn record_of(id: ActivationId, outcome: Outcome<Record>) -> Record {
    match outcome {
        Outcome::Record(record) => record,
        Outcome::Failure { status, text } => Arc::new(failure(id, status, &text)),
    }
}

fn failure(id: ActivationId, status: ActivationStatus, text: &str) -> ActivationRecord<Bytes> {
    let now = unix_ms();
    ActivationRecord {
        id,
        status,
        result: serde_json::json!({ "error": text }).to_string().into(),
        logs: Vec::new(),
        start_ms: now,
        end_ms: now,
        init_ms: None,
        wait_ms: 0,
        timed_out: false,
        ran_on: None,
    }
}
