//! What runs containers: the trait [`Backend`] that the invoker's shell drives, and its implementations.
//!
//! [`process::ProcessBackend`] starts an action proxy as a child process per container, [`simulated::SimulatedBackend`]
//! only pretends, [`faults::FaultyBackend`] makes another one misbehave. A backend knows nothing of queues, schedulers
//! or slots; it is told what to create and answers with values. Invariant: whatever became of a container,
//! [`Backend::remove`] ends it, and may be called again.

pub mod faults;
pub mod process;
pub mod simulated;

mod classify;
mod clock;
mod fine;
mod http;
mod logs;
mod outcome;
mod payload;
mod spec;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

pub use outcome::{Ended, GiveBack, InitOutcome, InitSpan, LogOutcome, RunOutcome};
pub use spec::{
    Capabilities, ContainerSpec, Context, CreateError, InitRequest, Instance, PauseError, RunRequest,
};

/// Deaths that wait to be read. A full channel holds back the watcher of the dead container only; no death is lost.
pub const EVENTS_MAX: usize = 256;

/// Something that happened to a container without being asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendEvent {
    /// The container ended before [`Backend::remove`] was called, for whatever cause (its own exit, a time or
    /// memory limit). Sent once per container; it still has to be removed.
    Died {
        /// Which one.
        instance: Instance,
        /// What is known about the cause, for logs.
        reason: String,
    },
}

/// Creates containers and runs activations in them. Cheap to share as `Arc<dyn Backend>`.
///
/// One task owns a container and is the only one to call its `init`, `pause`, `resume` and `remove`; `run` may be
/// called concurrently, no more than [`ContainerSpec::concurrency`] of them reach the container at a time. Dropping
/// the future of `init` or `run` leaves the container in an unknown state: remove it.
pub trait Backend: Send + Sync + 'static {
    /// What this backend can run, as found at start.
    fn capabilities(&self) -> Capabilities;

    /// The deaths of containers. The first call gets the receiver, later ones `None`.
    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>>;

    /// Starts a container without code; ready when it answers. Await it to the end: a creation that is dropped half
    /// way may leave its directory until the next start.
    fn create(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Instance, CreateError>>;

    /// Loads the code, once per container. Anything but [`InitOutcome::Ready`] means: remove the container.
    fn init(&self, instance: Instance, request: InitRequest) -> BoxFuture<'_, InitOutcome>;

    /// Runs one activation in a container that is [`InitOutcome::Ready`].
    fn run(&self, instance: Instance, request: RunRequest) -> BoxFuture<'_, RunOutcome>;

    /// Stops every process of an idle container; it keeps its memory.
    fn pause(&self, instance: Instance) -> BoxFuture<'_, Result<(), PauseError>>;

    /// Undoes [`Backend::pause`].
    fn resume(&self, instance: Instance) -> BoxFuture<'_, Result<(), PauseError>>;

    /// Ends the container for good, whatever runs in it; returns when nothing of it is left. Idempotent.
    fn remove(&self, instance: Instance) -> BoxFuture<'_, ()>;

    /// Removes every container and refuses new ones.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
