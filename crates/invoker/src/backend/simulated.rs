//! A backend that only pretends: containers are entries of a table, activations are timers.
//!
//! Used by tests and by load runs that measure the schedulers and not the host. It keeps the promises of
//! [`Backend`], concurrency included, and remembers starts, so that a test can count the starts of an id.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, watch};
use whiskraft_types::{ActivationStatus, ByteSize};

use super::outcome::{Ended, GiveBack, InitOutcome, InitSpan, LogOutcome, RunOutcome};
use super::spec::{Capabilities, ContainerSpec, CreateError, InitRequest, Instance, PauseError, RunRequest};
use super::{Backend, BackendEvent, EVENTS_MAX, classify, clock, fine};

mod record;
mod wish;

pub use record::StartRecord;

/// Starts that are remembered for tests; a load run goes on for longer than anybody counts.
pub const STARTS_MAX: usize = 65_536;

/// How long things take and what goes wrong; may be changed while the backend runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// Length of a creation.
    pub create: Duration,
    /// Length of an init.
    pub init: Duration,
    /// Length of a run whose arguments do not choose it (`{"sleep_ms": 1.5}`).
    pub run: Duration,
    /// Length of a pause or resume.
    pub pause: Duration,
    /// What a run returns; `None` returns the arguments.
    pub result: Option<Bytes>,
    /// Every creation fails.
    pub fail_create: bool,
    /// Every init ends with a developer error.
    pub fail_init: bool,
    /// Every run is given back unstarted.
    pub give_back: bool,
    /// The container dies in the middle of every run.
    pub die_in_run: bool,
}

/// The backend.
#[derive(Debug)]
pub struct SimulatedBackend {
    inner: Mutex<Inner>,
    deaths: mpsc::Sender<BackendEvent>,
    memory: Option<ByteSize>,
    record: Option<StartRecord>,
}

#[derive(Debug)]
struct Inner {
    behaviour: Behaviour,
    next: u64,
    containers: BTreeMap<Instance, Arc<Simulated>>,
    events: Option<mpsc::Receiver<BackendEvent>>,
    started: VecDeque<String>,
    created: u64,
    closed: bool,
}

#[derive(Debug)]
struct Simulated {
    concurrency: u32,
    permits: Semaphore,
    paused: watch::Sender<bool>,
    dead: watch::Sender<bool>,
}

impl SimulatedBackend {
    /// A backend that behaves as told and says it has `memory`.
    #[must_use]
    pub fn new(behaviour: Behaviour, memory: Option<ByteSize>) -> Arc<Self> {
        Self::recording(behaviour, memory, None)
    }

    /// As [`SimulatedBackend::new`], with every start recorded.
    #[must_use]
    pub fn recording(
        behaviour: Behaviour,
        memory: Option<ByteSize>,
        record: Option<StartRecord>,
    ) -> Arc<Self> {
        let (deaths, events) = mpsc::channel(EVENTS_MAX);
        let inner = Inner {
            behaviour,
            next: 0,
            containers: BTreeMap::new(),
            events: Some(events),
            started: VecDeque::new(),
            created: 0,
            closed: false,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            deaths,
            memory,
            record,
        })
    }

    /// Changes how it behaves from the next call on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
    }

    /// Ids of the last [`STARTS_MAX`] activations whose run was started, in order.
    #[must_use]
    pub fn started(&self) -> Vec<String> {
        self.lock().started.iter().cloned().collect()
    }

    /// Containers created since the start.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.lock().created
    }

    /// Containers that exist.
    #[must_use]
    pub fn live(&self) -> Vec<Instance> {
        self.lock().containers.keys().copied().collect()
    }

    /// Kills a container as a crash would: what runs in it ends, the death is reported.
    pub async fn kill(&self, instance: Instance) {
        let Some(container) = self.container(instance) else {
            return;
        };
        if !container.dead.send_replace(true) {
            let event = BackendEvent::Died {
                instance,
                reason: "killed by the test".to_owned(),
            };
            // An error means that nobody listens to deaths any more.
            let _ = self.deaths.send(event).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_start(&self, id: String, run: u32, start_ms: u64) {
        if let Some(record) = &self.record {
            record.append(&id, run, start_ms);
        }
        let started = &mut self.lock().started;
        if started.len() == STARTS_MAX {
            started.pop_front();
        }
        started.push_back(id);
    }

    fn container(&self, instance: Instance) -> Option<Arc<Simulated>> {
        self.lock().containers.get(&instance).cloned()
    }

    fn behaviour(&self) -> Behaviour {
        self.lock().behaviour.clone()
    }

    async fn create_container(&self, spec: ContainerSpec) -> Result<Instance, CreateError> {
        let behaviour = self.behaviour();
        fine::sleep(behaviour.create).await;
        if behaviour.fail_create {
            return Err(CreateError::platform("simulated failure of the creation"));
        }
        let mut inner = self.lock();
        if inner.closed {
            return Err(CreateError::platform("the backend is shut down"));
        }
        inner.next += 1;
        inner.created += 1;
        let instance = Instance(inner.next);
        let concurrency = spec.concurrency.max(1);
        let container = Simulated {
            concurrency,
            permits: Semaphore::new(concurrency as usize),
            paused: watch::Sender::new(false),
            dead: watch::Sender::new(false),
        };
        inner.containers.insert(instance, Arc::new(container));
        Ok(instance)
    }

    async fn init_container(&self, instance: Instance) -> InitOutcome {
        let behaviour = self.behaviour();
        let (start, start_ms) = (clock::now(), clock::wall_ms());
        let Some(container) = self.container(instance).filter(|container| !container.is_dead()) else {
            return InitOutcome::GiveBack(gone(instance));
        };
        let died = container.sleep_or_die(behaviour.init).await;
        let took = start.elapsed();
        if died || behaviour.fail_init {
            let text = if died {
                classify::INIT_ABNORMAL
            } else {
                "simulated failure of the init"
            };
            return InitOutcome::Failed(Ended::developer_error(text, start_ms, took, true));
        }
        InitOutcome::Ready(InitSpan { start_ms, took })
    }

    async fn run_activation(&self, instance: Instance, request: RunRequest) -> RunOutcome {
        let Some(container) = self.container(instance) else {
            return RunOutcome::GiveBack(gone(instance));
        };
        let Ok(_permit) = container.permits.acquire().await else {
            return RunOutcome::GiveBack(gone(instance));
        };
        let behaviour = self.behaviour();
        if behaviour.give_back || container.is_dead() || *container.paused.borrow() {
            return RunOutcome::GiveBack(gone(instance));
        }
        let (start, began) = (clock::now(), clock::wall());
        let start_ms = clock::millis(began);
        self.remember_start(request.context.activation_id.clone(), request.run, start_ms);
        if behaviour.die_in_run {
            self.kill(instance).await;
        }
        let wish = wish::read(&request.payload);
        let wanted = wish.length.unwrap_or(behaviour.run);
        let length = wanted.min(request.timeout);
        let died = container.sleep_or_die(length).await;
        let took = start.elapsed();
        if died {
            return RunOutcome::Ended(Ended::developer_error(
                classify::RUN_ABNORMAL,
                start_ms,
                took,
                false,
            ));
        }
        if wanted >= request.timeout {
            let text = classify::run_timeout_text(request.timeout);
            let ended = Ended::developer_error(&text, start_ms, took, false);
            return RunOutcome::Ended(Ended {
                timed_out: true,
                ..ended
            });
        }
        if request.run <= wish.fail_runs {
            let result = Bytes::from_static(wish::FAILURE.as_bytes());
            let ended = Ended::application_error(result, start_ms, took);
            return RunOutcome::Ended(ended);
        }
        let arguments = match request.payload {
            payload if payload.is_empty() => Bytes::from_static(b"{}"),
            payload if wish.stamp => wish::stamped(&payload, began),
            payload => payload,
        };
        let result = behaviour.result.unwrap_or(arguments);
        RunOutcome::Ended(Ended {
            status: ActivationStatus::Success,
            size: Some(result.len() as u64),
            result,
            start_ms,
            took,
            timed_out: false,
            logs: Vec::new(),
            log_outcome: LogOutcome::Complete,
            in_init: false,
        })
    }

    async fn set_paused(&self, instance: Instance, paused: bool) -> Result<(), PauseError> {
        let length = self.behaviour().pause;
        let container = self.container(instance).filter(|container| !container.is_dead());
        let container = container.ok_or(PauseError::Gone(instance))?;
        let all = container.permits.try_acquire_many(container.concurrency);
        let _all = all.map_err(|_| PauseError::Busy(instance))?;
        fine::sleep(length).await;
        container.paused.send_replace(paused);
        Ok(())
    }

    fn remove_container(&self, instance: Instance) {
        if let Some(container) = self.lock().containers.remove(&instance) {
            container.dead.send_replace(true);
        }
    }
}

impl Simulated {
    fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Waits so long; true if the container died meanwhile.
    async fn sleep_or_die(&self, length: Duration) -> bool {
        let mut dead = self.dead.subscribe();
        tokio::select! {
            biased;
            _ = dead.wait_for(|dead| *dead) => true,
            () = fine::sleep(length) => false,
        }
    }
}

fn gone(instance: Instance) -> GiveBack {
    GiveBack {
        reason: format!("container {instance} is gone"),
    }
}

impl Backend for SimulatedBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kinds: Vec::new(),
            memory: self.memory,
        }
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>> {
        self.lock().events.take()
    }

    fn create(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Instance, CreateError>> {
        Box::pin(self.create_container(spec))
    }

    fn init(&self, instance: Instance, _request: InitRequest) -> BoxFuture<'_, InitOutcome> {
        Box::pin(self.init_container(instance))
    }

    fn run(&self, instance: Instance, request: RunRequest) -> BoxFuture<'_, RunOutcome> {
        Box::pin(self.run_activation(instance, request))
    }

    fn pause(&self, instance: Instance) -> BoxFuture<'_, Result<(), PauseError>> {
        Box::pin(self.set_paused(instance, true))
    }

    fn resume(&self, instance: Instance) -> BoxFuture<'_, Result<(), PauseError>> {
        Box::pin(self.set_paused(instance, false))
    }

    fn remove(&self, instance: Instance) -> BoxFuture<'_, ()> {
        self.remove_container(instance);
        Box::pin(std::future::ready(()))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.lock().closed = true;
        self.live()
            .into_iter()
            .for_each(|instance| self.remove_container(instance));
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
#[path = "simulated/simulated_test.rs"]
mod simulated_test;
