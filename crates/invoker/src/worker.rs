//! The owner task of one container: the only one that touches it. It carries out orders of the pool, in order, and
//! tells the outcome of each; it decides nothing.
//!
//! Invariant: every run it was given has ended (finished or not started) before it says that the container is gone.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use whiskraft_pool::WorkerId;
use whiskraft_types::{ActivationId, ContainerId, CreationError, InvokerId, QueueKey};

use crate::backend::{Backend, ContainerSpec, Instance};
use crate::clock;
use crate::code::CodeCache;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::run::{Right, Run, RunTask, lost};
use crate::words::{Action, ActionSpec, Input};

/// Time that runs get to notice that their container is gone, before they are ended without them.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Where actions find the address of the REST API.
const API_HOST: &str = "__OW_API_HOST";

/// What the pool wants of a container.
#[derive(Debug)]
pub(crate) enum Order {
    /// Run an activation.
    Run(Box<Run>),
    /// The activation was cancelled: its end says so. Remove follows.
    Stop(ActivationId),
    /// Pause.
    Pause,
    /// Resume, under a new id.
    Resume(ContainerId),
    /// Remove; nothing follows.
    Remove,
}

/// What all owner tasks share.
pub(crate) struct Host {
    pub(crate) invoker: InvokerId,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) code: CodeCache,
    pub(crate) api_host: String,
    pub(crate) right: watch::Receiver<Right>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The task.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) container: ContainerId,
    pub(crate) key: QueueKey,
    pub(crate) host: Arc<Host>,
    pub(crate) orders: mpsc::Receiver<Order>,
}

impl Worker {
    /// Creates the container, serves it, removes it.
    pub(crate) async fn run(mut self, action: Action) {
        let (action, code) = match self.prepare(action).await {
            Prepared::Ready(action, code) => (action, code),
            Prepared::Failed(error, message) => {
                return self
                    .tell(Input::CreationFailed {
                        worker: self.id,
                        error,
                        message,
                    })
                    .await;
            }
            Prepared::Removed => return self.tell(Input::Gone { worker: self.id }).await,
        };
        let asked_at = clock::now();
        let instance = match self.host.backend.create(self.spec(&action)).await {
            Ok(instance) => {
                self.host.metrics.created(clock::now().saturating_since(asked_at));
                instance
            }
            Err(failed) => {
                let (error, message) = (failed.error, failed.message);
                return self
                    .tell(Input::CreationFailed {
                        worker: self.id,
                        error,
                        message,
                    })
                    .await;
            }
        };
        self.send(Event::Instance(self.id, instance)).await;
        self.tell(Input::Created { worker: self.id }).await;
        self.serve(instance, &action, code).await;
        self.tell(Input::Gone { worker: self.id }).await;
    }

    /// Fetches the code, unless the container is not wanted any more meanwhile.
    async fn prepare(&mut self, action: Action) -> Prepared {
        let action = match action {
            Ok(action) => action,
            Err(reason) => return Prepared::Failed(CreationError::NonExecutable, reason),
        };
        let Some(hash) = action.code else {
            return Prepared::Ready(action, None);
        };
        let host = Arc::clone(&self.host);
        tokio::select! {
            biased;
            code = host.code.find(hash) => match code {
                Ok(code) => Prepared::Ready(action, Some(code)),
                Err(failed) => Prepared::Failed(failed.error, failed.message),
            },
            // The only order there is before the container exists.
            _remove = self.orders.recv() => Prepared::Removed,
        }
    }

    fn spec(&self, action: &ActionSpec) -> ContainerSpec {
        let mut environment = BTreeMap::new();
        if !self.host.api_host.is_empty() {
            environment.insert(API_HOST.to_owned(), self.host.api_host.clone());
        }
        ContainerSpec {
            name: format!("wsk{}-{}", self.host.invoker, self.container),
            kind: action.kind.clone(),
            memory: action.limits.memory,
            concurrency: action.limits.concurrency,
            environment,
        }
    }

    /// Carries out orders until the container is removed. Runs are futures of this task: it alone owns them.
    async fn serve(&mut self, instance: Instance, action: &ActionSpec, code: Option<Bytes>) {
        let host = Arc::clone(&self.host);
        let mut running = BTreeMap::<ActivationId, RunView>::new();
        let mut runs = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some((id, input)) = runs.next() => {
                    running.remove(&id);
                    self.tell(input).await;
                }
                order = self.orders.recv() => match order {
                    Some(Order::Run(run)) => {
                        let stopped = Arc::new(AtomicBool::new(false));
                        let view = RunView {
                            run: run.delivery.run,
                            stopped: Arc::clone(&stopped),
                        };
                        running.insert(run.id, view);
                        runs.push(self.task(&host, instance, action, code.clone(), stopped).run(*run));
                    }
                    Some(Order::Stop(id)) => {
                        if let Some(view) = running.get(&id) {
                            view.stopped.store(true, Ordering::Relaxed);
                        }
                    }
                    Some(Order::Pause) => self.pause(instance).await,
                    Some(Order::Resume(container)) => self.resume(instance, container).await,
                    Some(Order::Remove) | None => break,
                },
            }
        }
        let mut removal = pin!(host.backend.remove(instance));
        loop {
            tokio::select! {
                biased;
                Some((id, input)) = runs.next() => {
                    running.remove(&id);
                    self.tell(input).await;
                }
                () = &mut removal => break,
            }
        }
        let mut ended = Vec::new();
        let last_words = async {
            while let Some(end) = runs.next().await {
                ended.push(end);
            }
        };
        // Past this time nobody can tell any more how they ended.
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        drop(runs);
        for (id, input) in ended {
            running.remove(&id);
            self.tell(input).await;
        }
        self.end_lost(running).await;
    }

    async fn end_lost(&self, running: BTreeMap<ActivationId, RunView>) {
        for (id, view) in running {
            tracing::warn!(activation = %id, container = %self.container, "run did not end with its container");
            let ran_on = (self.host.invoker, self.container);
            let is_stopped = view.stopped.load(Ordering::Relaxed);
            self.tell(lost(self.id, (id, view.run), ran_on, is_stopped)).await;
        }
    }

    fn task<'a>(
        &self,
        host: &'a Host,
        instance: Instance,
        action: &'a ActionSpec,
        code: Option<Bytes>,
        stopped: Arc<AtomicBool>,
    ) -> RunTask<'a> {
        RunTask {
            backend: &*host.backend,
            events: &host.events,
            right: &host.right,
            worker: self.id,
            instance,
            ran_on: (host.invoker, self.container),
            namespace: self.key.namespace.to_string(),
            action,
            code,
            stopped,
        }
    }

    async fn pause(&self, instance: Instance) {
        let input = match self.host.backend.pause(instance).await {
            Ok(()) => Input::Paused { worker: self.id },
            Err(error) => {
                tracing::warn!(container = %self.container, %error, "pause failed");
                Input::PauseFailed { worker: self.id }
            }
        };
        self.tell(input).await;
    }

    async fn resume(&mut self, instance: Instance, container: ContainerId) {
        self.container = container;
        let asked_at = clock::now();
        let input = match self.host.backend.resume(instance).await {
            Ok(()) => {
                self.host.metrics.resumed(clock::now().saturating_since(asked_at));
                Input::Resumed { worker: self.id }
            }
            Err(error) => {
                tracing::warn!(%container, %error, "resume failed");
                Input::ResumeFailed { worker: self.id }
            }
        };
        self.tell(input).await;
    }

    async fn tell(&self, input: Input) {
        self.send(Event::Worker(input)).await;
    }

    async fn send(&self, event: Event) {
        // Fails only when the actor is gone; the container is removed all the same.
        let _ = self.host.events.send(event).await;
    }
}

/// A run that this task has under way.
struct RunView {
    /// Which run of its activation.
    run: u32,
    /// Whether that was cancelled.
    stopped: Arc<AtomicBool>,
}

enum Prepared {
    Ready(Arc<ActionSpec>, Option<Bytes>),
    Failed(CreationError, String),
    Removed,
}
