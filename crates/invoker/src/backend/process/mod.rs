//! Containers as child processes: each has a directory, an action proxy in a process group of its own, and limits.
//!
//! Start at [`ProcessBackend`], then `container`. What a container's processes are is decided in `group`; what an
//! earlier process of the same invoker left behind is cleared by `place`. Invariant: the proxy gets an environment
//! built from scratch, three descriptors of ours and nothing else.

mod config;
mod container;
mod group;
mod log_pipes;
mod place;
mod start;
mod watchdog;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::future::{BoxFuture, join_all};
use tokio::sync::mpsc;
use whiskraft_types::{ByteSize, InvokerId};

pub use config::ProcessConfig;
pub use place::StartError;

use super::outcome::{GiveBack, InitOutcome, RunOutcome};
use super::spec::{Capabilities, ContainerSpec, CreateError, InitRequest, Instance, PauseError, RunRequest};
use super::{Backend, BackendEvent, EVENTS_MAX};
use container::Container;
use place::Place;

/// The backend.
pub struct ProcessBackend {
    config: ProcessConfig,
    place: Place,
    capabilities: Capabilities,
    containers: Mutex<BTreeMap<Instance, Arc<Container>>>,
    next: AtomicU64,
    closed: AtomicBool,
    deaths: mpsc::Sender<BackendEvent>,
    events: Mutex<Option<mpsc::Receiver<BackendEvent>>>,
}

impl ProcessBackend {
    /// Claims this invoker's directory, ends what an earlier process of it left behind, and is ready.
    ///
    /// # Errors
    /// The directory cannot be used, or another live process of this host has the same invoker id.
    pub async fn start(invoker: InvokerId, mut config: ProcessConfig) -> Result<Arc<Self>, StartError> {
        if config.runtime.is_empty() {
            let executable = std::env::current_exe().map_err(StartError::NoRuntime)?;
            config.runtime = vec![executable.into_os_string(), "runtime".into()];
        }
        let root = config.root.clone();
        let claim = move || {
            let place = Place::claim(&root, invoker)?;
            let found = place
                .clear()
                .map_err(|source| StartError::Io { path: root, source })?;
            Ok((place, found))
        };
        let (place, found) = tokio::task::spawn_blocking(claim).await.unwrap_or_else(|error| {
            let path = config.root.clone();
            Err(StartError::Io {
                path,
                source: std::io::Error::other(error),
            })
        })?;
        if found > 0 {
            tracing::info!(containers = found, "cleared containers of an earlier run");
        }
        let (deaths, events) = mpsc::channel(EVENTS_MAX);
        let backend = Arc::new(Self {
            capabilities: capabilities(&config.search_path),
            config,
            place,
            containers: Mutex::default(),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            deaths,
            events: Mutex::new(Some(events)),
        });
        tokio::spawn(watchdog::run(Arc::downgrade(&backend)));
        Ok(backend)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Instance, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, instance: Instance) -> Option<Arc<Container>> {
        self.lock().get(&instance).cloned()
    }

    /// Every container there is.
    fn all(&self) -> Vec<Arc<Container>> {
        self.lock().values().cloned().collect()
    }

    async fn create_container(&self, spec: ContainerSpec) -> Result<Instance, CreateError> {
        let closed = || CreateError::platform("the backend is shut down");
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let instance = Instance(self.next.fetch_add(1, Ordering::Relaxed));
        let directory = self.place.container(instance.0);
        let started = start::start(&self.config, instance, directory.clone(), &spec).await;
        let (container, child, lifeline) = match started {
            Ok(started) => started,
            Err(error) => {
                remove_directory(&directory).await;
                return Err(error);
            }
        };
        tokio::spawn(Arc::clone(&container).watch(child, lifeline, self.deaths.clone()));
        self.lock().insert(instance, container);
        // A shutdown that ran meanwhile has not seen this container.
        if self.closed.load(Ordering::Acquire) {
            self.remove_container(instance).await;
            return Err(closed());
        }
        tracing::debug!(container = %instance, name = %spec.name, kind = %spec.kind, "container created");
        Ok(instance)
    }

    async fn remove_container(&self, instance: Instance) {
        // Stays in the table until nothing is left of it: a second removal waits for the same end.
        let Some(container) = self.container(instance) else {
            return;
        };
        container.end().await;
        remove_directory(&container.directory).await;
        self.lock().remove(&instance);
    }

    async fn on_blocking_thread<T: Send + 'static>(
        &self,
        instance: Instance,
        act: fn(&Container) -> Result<T, PauseError>,
    ) -> Result<T, PauseError> {
        let container = self.container(instance).ok_or(PauseError::Gone(instance))?;
        let done = tokio::task::spawn_blocking(move || act(&container)).await;
        done.unwrap_or(Err(PauseError::Gone(instance)))
    }
}

async fn remove_directory(directory: &Path) {
    let path = directory.to_owned();
    let removed = tokio::task::spawn_blocking(move || place::remove_directory(&path)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(directory = %directory.display(), %error, "directory of a container not removed");
    }
}

fn gone(instance: Instance) -> GiveBack {
    GiveBack {
        reason: format!("container {instance} is gone"),
    }
}

/// Kinds whose interpreter is installed, and the memory of the host.
fn capabilities(search_path: &str) -> Capabilities {
    let has =
        |program: &str| std::env::split_paths(search_path).any(|directory| directory.join(program).is_file());
    let all = [
        ("python", "python3"),
        ("nodejs", "node"),
        ("sh", "sh"),
        ("native", ""),
    ];
    let present = all
        .into_iter()
        .filter(|(_, program)| program.is_empty() || has(program));
    Capabilities {
        kinds: present.map(|(kind, _)| kind.to_owned()).collect(),
        memory: host_memory(),
    }
}

fn host_memory() -> Option<ByteSize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(ByteSize::bytes(kib << 10))
}

impl Backend for ProcessBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn create(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Instance, CreateError>> {
        Box::pin(self.create_container(spec))
    }

    fn init(&self, instance: Instance, request: InitRequest) -> BoxFuture<'_, InitOutcome> {
        Box::pin(async move {
            match self.container(instance) {
                Some(container) => container.init(&request).await,
                None => InitOutcome::GiveBack(gone(instance)),
            }
        })
    }

    fn run(&self, instance: Instance, request: RunRequest) -> BoxFuture<'_, RunOutcome> {
        Box::pin(async move {
            match self.container(instance) {
                Some(container) => container.run(&request).await,
                None => RunOutcome::GiveBack(gone(instance)),
            }
        })
    }

    fn pause(&self, instance: Instance) -> BoxFuture<'_, Result<(), PauseError>> {
        Box::pin(self.on_blocking_thread(instance, Container::pause))
    }

    fn resume(&self, instance: Instance) -> BoxFuture<'_, Result<(), PauseError>> {
        Box::pin(self.on_blocking_thread(instance, Container::resume))
    }

    fn remove(&self, instance: Instance) -> BoxFuture<'_, ()> {
        Box::pin(self.remove_container(instance))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.closed.store(true, Ordering::Release);
            let instances: Vec<Instance> = self.lock().keys().copied().collect();
            join_all(
                instances
                    .into_iter()
                    .map(|instance| self.remove_container(instance)),
            )
            .await;
        })
    }
}

impl std::fmt::Debug for ProcessBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessBackend")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What the watchdog holds: it must not keep a dropped backend alive.
type WeakBackend = Weak<ProcessBackend>;
