//! Carries out what a queue wants: frames go to the outbox, everything slower to the actor whose job it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use whiskraft_queue::{Input, Outcome};
use whiskraft_types::{ActivationId, ActivationRecord, ActivationStatus, ContainerId, Instant};

use crate::clock::unix_ms;
use crate::creation::Wish;
use crate::message::{Ending, PullItem, Record, ResultItem};
use crate::proposals::Proposal;
use crate::shard::actor::{QueueOutput, Shard};
use crate::shard::local::{LocalQueue, Slot};

impl Shard {
    pub(crate) fn carry_out(&mut self, slot: Slot, output: QueueOutput) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        match output {
            QueueOutput::Accept { controller, id } => {
                self.parts.meter.accepted();
                self.outbox.result(controller, ResultItem::Accepted(id))
            }
            QueueOutput::Reject {
                controller,
                id,
                rejection,
            } => {
                self.parts.meter.rejected(&rejection);
                self.outbox
                    .result(controller, ResultItem::Rejected(id, rejection));
            }
            QueueOutput::Deliver {
                invoker,
                container,
                id,
                attempt,
                run,
                waited,
                payload,
            } => {
                let epoch = local.epoch();
                self.parts.meter.delivered(waited);
                let payload = if self.unary.is_idle() {
                    payload
                } else {
                    match self.deliver_unary(slot, container, id, payload) {
                        Ok(()) => return,
                        Err(payload) => payload,
                    }
                };
                let item = PullItem::Deliver {
                    id,
                    container,
                    epoch,
                    attempt,
                    run,
                    waited,
                    payload,
                };
                self.outbox.pull(invoker, item);
            }
            QueueOutput::Complete {
                controller,
                id,
                outcome,
                run,
            } => {
                let (key, epoch) = (local.key().clone(), local.epoch());
                let is_failure = matches!(outcome, Outcome::Failure { .. });
                let is_made_up = !matches!(outcome, Outcome::Record(_));
                let end = is_made_up.then(|| self.ending(local, id)).flatten();
                if is_failure {
                    self.count_dropped(slot);
                }
                let record = record_of(id, outcome, run, end);
                self.parts.meter.completed(record.status);
                self.outbox
                    .result(controller, ResultItem::Completed { key, epoch, record });
            }
            QueueOutput::AcknowledgeInvoker { invoker, id } => {
                self.unary.acknowledge(id);
                self.outbox
                    .pull_quietly(self.now, invoker, PullItem::CompletedAck(id));
            }
            QueueOutput::WithdrawAck { container } => {
                if !self.unary.is_quiet
                    && let Some(invoker) = local.dealings.places.get(&container)
                {
                    self.outbox.pull(*invoker, PullItem::WithdrawAck(container));
                }
            }
            QueueOutput::Reserve { count } => self.reserve(slot, count),
            QueueOutput::SetThrottle(throttled) => self.set_throttle(slot, throttled),
            QueueOutput::Silent { invoker, .. } => self.on_silent(invoker),
            QueueOutput::Late { invoker, age, .. } => self.on_late(slot, invoker, age),
            QueueOutput::Journal { id, entry } => self.journal(slot, id, entry),
            QueueOutput::Archive { id, outcome, run } => self.archive(slot, id, outcome, run),
            QueueOutput::Mark { id } => self.mark(slot, id),
            QueueOutput::CancelAnswered { ask, answer } => self.cancels.answer(ask, answer),
            QueueOutput::Stop {
                invoker,
                container,
                id,
            } => {
                let epoch = local.epoch();
                self.outbox.pull(invoker, PullItem::Stop { id, container, epoch });
            }
            QueueOutput::Starved => self.on_starved(slot),
            QueueOutput::Entangled => self.parts.knots.ask(local.key(), local.epoch()),
            QueueOutput::RemoveContainer { container } => self.remove_container(slot, container),
            // What the journal has for it may still come.
            QueueOutput::RemoveQueue if local.recovering.is_some() => {
                self.followups.push((slot, Input::RemovalFailed));
            }
            QueueOutput::RemoveQueue => {
                let proposal = Proposal::RemoveQueue {
                    key: local.key().clone(),
                    epoch: local.epoch(),
                };
                if !self.parts.proposals.push(proposal) {
                    self.followups.push((slot, Input::RemovalFailed));
                }
            }
        }
    }

    /// When an activation that has ended did, for whoever asks, be it much later.
    pub(crate) fn ending(&self, local: &LocalQueue, id: ActivationId) -> Option<Ending> {
        let end = local.queue.end(id)?;
        let now = unix_ms();
        let unix = |at: Instant| now.saturating_sub(millis(self.now.saturating_since(at)));
        Some(Ending {
            start_ms: unix(end.begun_at),
            end_ms: unix(end.ended_at),
            wait_ms: millis(end.begun_at.saturating_since(end.accepted_at)),
        })
    }

    fn reserve(&mut self, slot: Slot, count: u32) {
        let Some(local) = self.queues.get(slot) else {
            return;
        };
        let wish = Wish {
            key: local.key().clone(),
            epoch: local.epoch(),
            revision: local.profile().revision,
            memory: local.memory,
            instances: local.profile().instances,
            blackbox: local.profile().blackbox,
            count,
        };
        let revision = wish.revision;
        // Without room for the wish, or while others come first, the queue asks again at its next decision.
        let must_yield = self.must_yield(&wish.key);
        if must_yield {
            self.on_yielded(slot);
        }
        if must_yield || !self.parts.creation.reserve(wish) {
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
            .and_then(|local| local.dealings.places.get(&container).copied());
        if let Some(invoker) = place {
            self.parts.streams.remove(invoker, container, false);
        }
    }
}

/// Text of the record of one that was cancelled.
const CANCELLED: &str = "The activation was cancelled.";

/// The record of an activation, made up here if nobody has one of its run.
pub(crate) fn record_of(id: ActivationId, outcome: Outcome<Record>, run: u32, end: Option<Ending>) -> Record {
    match outcome {
        Outcome::Record(record) => record,
        Outcome::Failure { status, text } => Arc::new(failure(id, status, &text, run, end)),
        Outcome::Cancelled => {
            let record = failure(id, ActivationStatus::ApplicationError, CANCELLED, run, end);
            Arc::new(ActivationRecord {
                cancelled: true,
                ..record
            })
        }
    }
}

fn failure(
    id: ActivationId,
    status: ActivationStatus,
    text: &str,
    run: u32,
    end: Option<Ending>,
) -> ActivationRecord<Bytes> {
    let end = end.unwrap_or_else(|| {
        let now = unix_ms();
        Ending {
            start_ms: now,
            end_ms: now,
            wait_ms: 0,
        }
    });
    ActivationRecord {
        id,
        status,
        result: serde_json::json!({ "error": text }).to_string().into(),
        logs: Vec::new(),
        start_ms: end.start_ms,
        end_ms: end.end_ms,
        init_ms: None,
        wait_ms: end.wait_ms,
        timed_out: false,
        ran_on: None,
        run,
        cancelled: false,
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
