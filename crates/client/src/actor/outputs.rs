//! What the router wants done: streams opened and shut, submissions sent, questions asked, waiters told.

use std::sync::{Arc, PoisonError};

use whiskraft_proto::v1;
use whiskraft_types::SchedulerId;

use super::{Actor, Event, Link, RECEIPT_WAIT};
use crate::core::Output;
use crate::ensure::{Ask, ensure_queues};
use crate::outbox::Outbox;
use crate::stream::StreamTask;

impl Actor {
    pub(super) fn carry_out(&mut self, outputs: &mut Vec<Output>) {
        for output in outputs.drain(..) {
            match output {
                Output::Open { scheduler, address } => self.open(scheduler, address),
                Output::Shut { scheduler } => self.shut(scheduler),
                Output::Send {
                    stream,
                    id,
                    submission,
                } => {
                    if let Some(waiter) = self.waiters.get(&id) {
                        waiter.on_sent();
                    }
                    if let Some(link) = self.links.get(&stream.scheduler) {
                        link.outbox.submit(stream.generation, id, submission);
                    }
                }
                Output::Received { stream, id } => {
                    if let Some(link) = self.links.get(&stream.scheduler) {
                        link.outbox.received(stream.generation, id);
                        let now = self.shared.clock.now();
                        self.receipts_until.get_or_insert(now + RECEIPT_WAIT);
                    }
                }
                Output::Throttled {
                    key,
                    scope,
                    limit,
                    retry_after,
                } => self
                    .shared
                    .throttles
                    .update(|now, view| view.on_refusal(now, &key, scope, limit, retry_after)),
                Output::Ensure { key, resubmits } => self.asks.push(Ask::new(key, resubmits)),
                Output::Accepted { id } => {
                    if let Some(waiter) = self.waiters.get_mut(&id) {
                        waiter.accept(Ok(()));
                        // Whoever submitted it may have stopped waiting before there was a handle to drop.
                        if waiter.is_abandoned() {
                            self.forgotten.add(id);
                        }
                    }
                }
                Output::Overdue { id, error } => {
                    if let Some(waiter) = self.waiters.get_mut(&id) {
                        waiter.give_up(error);
                    }
                }
                Output::Forgotten { id } => {
                    self.waiters.remove(&id);
                }
                Output::Settled { id, outcome } => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        waiter.settle(outcome);
                    }
                }
            }
        }
        self.ask();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.router.stats();
    }

    fn open(&mut self, scheduler: SchedulerId, address: String) {
        self.shared.directory.add(scheduler, address.clone());
        self.tasks_started += 1;
        let outbox = Arc::new(Outbox::default());
        let task = StreamTask {
            scheduler,
            address,
            hello: v1::SubmitHello {
                controller: self.controller.to_vec().into(),
                // The welcome names the cluster and comes before anything is submitted: we compare, and can say
                // which one we found.
                cluster_id: String::new(),
            },
            open_deadline: self.shared.settings.try_deadline,
            clock: self.shared.clock,
            directory: Arc::clone(&self.shared.directory),
            outbox: Arc::clone(&outbox),
            events: self.events_sender.clone(),
        };
        let abort = self.tasks.spawn(task.run(self.tasks_started << 32));
        self.links.insert(
            scheduler,
            Link {
                task: self.tasks_started,
                outbox,
                abort,
            },
        );
    }

    fn shut(&mut self, scheduler: SchedulerId) {
        if let Some(link) = self.links.remove(&scheduler) {
            link.abort.abort();
            link.outbox.close();
        }
        self.shared.directory.remove(scheduler);
    }

    /// Begins as many calls about queues as there may and need be.
    fn ask(&mut self) {
        while let Some(asks) = self.asks.begin() {
            let directory = Arc::clone(&self.shared.directory);
            let under_way = Arc::clone(&self.asks_under_way);
            let deadline = self.shared.settings.try_deadline;
            let events = self.events_sender.clone();
            self.tasks.spawn(async move {
                let answers = ensure_queues(&directory, &under_way, asks, deadline).await;
                // The actor is gone only when the client is closed: nobody needs the answers then.
                let _ = events.send(Event::Ensured { answers }).await;
            });
        }
    }
}
