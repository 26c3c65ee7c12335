//! The one task that owns the router: takes requests, stream and watch events in, carries the outputs out.
//!
//! Everything that happens to an activation passes through here in one order. The actor owns every other task of
//! the client and ends them when it ends: on `close`, or when the last handle is gone. What the router wants is done in
//! `actor::outputs`.

mod outputs;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use whiskraft_proto::gather::Line;
use whiskraft_proto::v1;
use whiskraft_types::{ActivationId, Instant, QueueKey, SchedulerId};

use crate::InvokeError;
use crate::caches::Caches;
use crate::core::{Admission, EnsureAnswer, Input, NewActivation, Output, Router, StreamId};
use crate::directory::Class;
use crate::ensure::{self, Ask, UnderWay};
use crate::forgotten::Forgotten;
use crate::handle::{ActorHandle, Request, Waiter};
use crate::outbox::Outbox;
use crate::shared::{Readiness, Shared};
use crate::stream::Answers;
use crate::watch::{Subscription, Table, WatchUpdate};

/// Requests waiting for the actor; a full channel makes callers wait.
const REQUESTS_MAX: usize = 1024;
/// Frames waiting for the actor; a full channel makes the streams wait, then the schedulers.
const EVENTS_MAX: usize = 256;
/// Requests or events taken in one turn before the outputs go out.
const TURN_MAX: usize = 256;
/// Longest time that a receipt waits for company: schedulers keep results so much longer.
const RECEIPT_WAIT: Duration = Duration::from_millis(10);
/// Longest time that closing waits for schedulers to take the last receipts. Without them they keep the results for a while.
const CLOSE_WAIT: Duration = Duration::from_millis(200);

/// What the tasks of the client report.
pub(crate) enum Event {
    StreamOpened {
        stream: StreamId,
        welcome: v1::SubmitWelcome,
    },
    StreamFailed {
        stream: StreamId,
        cause: String,
    },
    StreamLost {
        stream: StreamId,
        unsent: Vec<ActivationId>,
    },
    Answers {
        stream: StreamId,
        answers: Box<Answers>,
    },
    /// A call of questions has ended.
    Ensured {
        answers: Vec<(QueueKey, EnsureAnswer)>,
    },
    Watch(WatchUpdate),
}

/// The stream to one scheduler.
struct Link {
    task: u64,
    outbox: Arc<Outbox>,
    abort: AbortHandle,
}

pub(crate) struct Actor {
    shared: Arc<Shared>,
    router: Router,
    /// Drawn once: the same for all streams and reconnects.
    controller: [u8; 16],
    requests: mpsc::Receiver<Request>,
    events: mpsc::Receiver<Event>,
    events_sender: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    links: BTreeMap<SchedulerId, Link>,
    /// Questions about queues that wait for a call; the router bounds them.
    asks: Line<Ask>,
    asks_under_way: Arc<UnderWay>,
    waiters: BTreeMap<ActivationId, Waiter>,
    forgotten: Arc<Forgotten>,
    caches: Caches,
    readiness: watch::Sender<Readiness>,
    /// Stream tasks started so far; the upper half of their generations.
    tasks_started: u64,
    /// When receipts have waited long enough.
    receipts_until: Option<Instant>,
    /// Set once somebody asked to close.
    closing: Option<oneshot::Sender<()>>,
}

impl Actor {
    /// Starts the actor and its watch.
    pub(crate) fn start(
        shared: Arc<Shared>,
        router: Router,
        controller: [u8; 16],
    ) -> (ActorHandle, watch::Receiver<Readiness>) {
        let (requests_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (events_sender, events) = mpsc::channel(EVENTS_MAX);
        let (readiness, ready) = watch::channel(Readiness::default());
        let forgotten = Arc::new(Forgotten::default());
        let mut actor = Self {
            shared,
            router,
            controller,
            requests,
            events,
            events_sender,
            tasks: JoinSet::new(),
            links: BTreeMap::new(),
            asks: Line::new(ensure::CALLS),
            asks_under_way: Arc::default(),
            waiters: BTreeMap::new(),
            forgotten: Arc::clone(&forgotten),
            caches: Caches::default(),
            readiness,
            tasks_started: 0,
            receipts_until: None,
            closing: None,
        };
        actor.start_watch();
        tokio::spawn(actor.run());
        (ActorHandle::new(requests_sender, forgotten), ready)
    }

    fn start_watch(&mut self) {
        // Containers and namespaces for the throttle view: who has a container, and which namespace is gone.
        let tables = vec![
            Table::Members,
            Table::Queues,
            Table::Containers,
            Table::Namespaces,
            Table::Throttles,
        ];
        let mut subscription = Subscription::new(Arc::clone(&self.shared), tables, None, Class::Quick);
        let events = self.events_sender.clone();
        let readiness = self.readiness.clone();
        self.tasks.spawn(async move {
            loop {
                let update = subscription
                    .next(|cause| readiness.send_modify(|readiness| cause.clone_into(&mut readiness.cause)))
                    .await;
                if events.send(Event::Watch(update)).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn run(mut self) {
        let mut outputs = Vec::new();
        while self.closing.is_none() {
            let deadline = self.router.next_deadline();
            tokio::select! {
                biased;
                // Deadlines before messages: a channel that is never empty must not starve them.
                () = self.shared.clock.sleep_until(deadline) => self.step(Input::Tick, &mut outputs),
                () = self.shared.clock.sleep_until(self.receipts_until) => self.end_quiet(),
                Some(ended) = self.tasks.join_next() => report(ended),
                () = self.forgotten.added() => self.on_forgotten(&mut outputs),
                Some(event) = self.events.recv() => self.on_events(event, &mut outputs),
                request = self.requests.recv() => match request {
                    Some(request) => self.on_requests(request, &mut outputs),
                    // Every handle is gone: nobody waits for anything any more.
                    None => break,
                },
            }
            self.carry_out(&mut outputs);
        }
        self.step(Input::Close, &mut outputs);
        self.carry_out(&mut outputs);
        self.finish().await;
        self.tasks.shutdown().await;
        if let Some(done) = self.closing {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    /// Lets receipts go that no submission took along.
    fn end_quiet(&mut self) {
        self.receipts_until = None;
        self.links.values().for_each(|link| link.outbox.end_quiet());
    }

    /// Lets the last receipts go.
    async fn finish(&mut self) {
        let owing = self.links.values().filter(|link| link.outbox.finish());
        let owing: Vec<_> = owing.map(|link| link.abort.clone()).collect();
        let ended = async {
            while owing.iter().any(|task| !task.is_finished()) && self.tasks.join_next().await.is_some() {}
        };
        // A scheduler that does not answer gets no receipt.
        let _ = tokio::time::timeout(CLOSE_WAIT, ended).await;
    }

    fn step(&mut self, input: Input, outputs: &mut Vec<Output>) {
        self.router.step(self.shared.clock.now(), input, outputs);
    }

    fn on_requests(&mut self, first: Request, outputs: &mut Vec<Output>) {
        self.on_request(first, outputs);
        for _ in 1..TURN_MAX.min(self.requests.len() + 1) {
            let Ok(request) = self.requests.try_recv() else {
                return;
            };
            self.on_request(request, outputs);
        }
    }

    fn on_request(&mut self, request: Request, outputs: &mut Vec<Output>) {
        match request {
            Request::Submit { activation, waiter } => self.on_submit(*activation, waiter, outputs),
            Request::Close { done } => self.closing = Some(done),
        }
    }

    fn on_submit(&mut self, activation: NewActivation, waiter: Waiter, outputs: &mut Vec<Output>) {
        let id = activation.id;
        match self.router.admit(self.shared.clock.now(), &activation) {
            Ok(Admission::New) => {
                self.waiters.insert(id, waiter);
                self.step(Input::Submit(activation), outputs);
            }
            Ok(Admission::Joined { is_accepted }) => match self.waiters.get_mut(&id) {
                Some(first) => first.join(waiter, id, is_accepted),
                None => waiter.settle(Err(InvokeError::IdInUse { id })),
            },
            Err(error) => waiter.settle(Err(error)),
        }
    }

    /// A handle was dropped; others may wait for the same activation.
    fn on_forgotten(&mut self, outputs: &mut Vec<Output>) {
        for id in self.forgotten.take() {
            if self.waiters.get(&id).is_some_and(Waiter::is_abandoned) {
                self.step(Input::Forget { id }, outputs);
            }
        }
    }

    fn on_events(&mut self, first: Event, outputs: &mut Vec<Output>) {
        self.on_event(first, outputs);
        for _ in 1..TURN_MAX.min(self.events.len() + 1) {
            let Ok(event) = self.events.try_recv() else { return };
            self.on_event(event, outputs);
        }
    }

    fn on_event(&mut self, event: Event, outputs: &mut Vec<Output>) {
        match event {
            Event::StreamOpened { stream, welcome } if self.is_current(stream) => {
                self.on_stream_opened(stream, welcome, outputs);
            }
            Event::StreamFailed { stream, cause } if self.is_current(stream) => self.not_ready(cause),
            Event::StreamLost { stream, unsent } if self.is_current(stream) => {
                self.shared.directory.set_connected(stream.scheduler, false);
                self.step(Input::StreamLost { stream, unsent }, outputs);
            }
            Event::Answers { stream, answers } if self.is_current(stream) => {
                self.on_answers(stream, *answers, outputs);
            }
            Event::Ensured { answers } => {
                self.asks.end();
                for (key, answer) in answers {
                    self.step(Input::Ensured { key, answer }, outputs);
                }
            }
            Event::Watch(update) => self.on_watch(update, outputs),
            // A task that was ended had this in the channel already.
            Event::StreamOpened { .. }
            | Event::StreamFailed { .. }
            | Event::StreamLost { .. }
            | Event::Answers { .. } => {}
        }
    }

    fn is_current(&self, stream: StreamId) -> bool {
        self.links
            .get(&stream.scheduler)
            .is_some_and(|link| link.task == stream.generation >> 32)
    }

    fn on_stream_opened(&mut self, stream: StreamId, welcome: v1::SubmitWelcome, outputs: &mut Vec<Output>) {
        let scheduler = stream.scheduler;
        if let Err((expected, found)) = self.check_cluster(&welcome.cluster_id) {
            tracing::error!(%scheduler, expected, found, "scheduler of another cluster is not used");
            self.readiness
                .send_modify(|readiness| readiness.wrong_cluster = Some(found));
            return;
        }
        tracing::debug!(%scheduler, window = welcome.window, "submit stream opened");
        self.shared.directory.set_connected(scheduler, true);
        self.shared
            .payload_len_max
            .store(welcome.payload_len_max, Ordering::Relaxed);
        let (window, payload_len_max) = (welcome.window, welcome.payload_len_max);
        self.step(
            Input::StreamOpened {
                stream,
                window,
                payload_len_max,
            },
            outputs,
        );
        self.readiness
            .send_modify(|readiness| readiness.has_stream = true);
    }

    /// The first cluster found is the cluster, unless the caller named one.
    fn check_cluster(&self, found: &str) -> Result<(), (String, String)> {
        let mut cluster = self
            .shared
            .cluster_id
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match cluster.as_deref() {
            Some(expected) if expected != found => Err((expected.to_owned(), found.to_owned())),
            Some(_) => Ok(()),
            None => {
                *cluster = Some(found.to_owned());
                Ok(())
            }
        }
    }

    fn not_ready(&self, cause: String) {
        self.readiness.send_modify(|readiness| readiness.cause = cause);
    }

    fn on_answers(&mut self, stream: StreamId, answers: Answers, outputs: &mut Vec<Output>) {
        for id in answers.accepted {
            self.step(Input::Accepted { stream, id }, outputs);
        }
        for (id, rejection) in answers.rejected {
            self.step(
                Input::Rejected {
                    stream,
                    id,
                    rejection,
                },
                outputs,
            );
        }
        for completed in answers.completed {
            let input = match completed {
                Ok(record) => Input::Completed { stream, record },
                Err((id, source)) => Input::Garbled { stream, id, source },
            };
            self.step(input, outputs);
        }
    }

    fn on_watch(&mut self, update: WatchUpdate, outputs: &mut Vec<Output>) {
        let is_snapshot = matches!(update, WatchUpdate::Snapshot { last: true, .. });
        let shared = Arc::clone(&self.shared);
        let inputs = shared
            .throttles
            .update(|now, view| self.caches.apply(now, update, view));
        for input in inputs {
            self.step(input, outputs);
        }
        if is_snapshot {
            self.readiness
                .send_modify(|readiness| readiness.knows_members = true);
        }
    }
}

/// Tasks end when they are told to, or when their one question is answered; anything else is a defect of ours.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task of the client failed");
    }
}
