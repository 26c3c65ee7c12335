//! A wrapper around any backend that misbehaves on purpose, for fault tests. Without it nothing here is in the way.
//!
//! [`FaultyBackend`] passes every call on and then spoils what it was told to: slow runs, activations that are accepted
//! and never answered, failing or slow creations, a host with less memory than it says, answers that come late. Chance
//! comes from one seeded generator per kind of fault, so the n-th creation has the same fate in every run.

mod draw;
mod ledger;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use whiskraft_types::{ByteSize, CreationError};

use super::outcome::{Ended, InitOutcome, RunOutcome};
use super::spec::{Capabilities, ContainerSpec, CreateError, InitRequest, Instance, PauseError, RunRequest};
use super::{Backend, BackendEvent, classify, fine};

use draw::Draw;
pub use draw::Share;
use ledger::Ledger;

/// What goes wrong; the default is nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// What chance starts from.
    pub seed: u64,
    /// Runs last so many times as long; below 1 counts as 1.
    pub slow_factor: f64,
    /// Activations that are accepted and never answered, whatever their time limit says.
    pub silent: Share,
    /// Creations that fail.
    pub create_failures: Share,
    /// The kind of those failures.
    pub create_failure: CreationError,
    /// What every creation takes longer, failing ones too.
    pub create_delay: Duration,
    /// Memory there really is; creations beyond it fail with `ResourceNotEnough`.
    pub true_memory: Option<ByteSize>,
    /// Answers to creations and removals that come late, as if the first report of them had been lost.
    pub ack_losses: Share,
    /// How late those come.
    pub ack_delay: Duration,
    /// Pauses and resumes that fail.
    pub pause_failures: Share,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 0,
            slow_factor: 1.0,
            silent: Share::NONE,
            create_failures: Share::NONE,
            create_failure: CreationError::Whisk,
            create_delay: Duration::ZERO,
            true_memory: None,
            ack_losses: Share::NONE,
            ack_delay: Duration::ZERO,
            pause_failures: Share::NONE,
        }
    }
}

/// The wrapper.
pub struct FaultyBackend {
    inner: Arc<dyn Backend>,
    faults: Faults,
    creations: Draw,
    runs: Draw,
    acks: Draw,
    pauses: Draw,
    memory: Ledger,
}

impl FaultyBackend {
    /// Wraps `inner`, or leaves it as it is if nothing is to go wrong.
    #[must_use]
    pub fn wrap(inner: Arc<dyn Backend>, faults: Faults) -> Arc<dyn Backend> {
        let harmless = Faults {
            seed: faults.seed,
            create_failure: faults.create_failure,
            ack_delay: faults.ack_delay,
            ..Faults::default()
        };
        if faults == harmless {
            return inner;
        }
        tracing::warn!(?faults, "the backend misbehaves on purpose");
        Arc::new(Self {
            inner,
            creations: Draw::new(faults.seed, 1),
            runs: Draw::new(faults.seed, 2),
            acks: Draw::new(faults.seed, 3),
            pauses: Draw::new(faults.seed, 4),
            memory: Ledger::new(faults.true_memory),
            faults,
        })
    }

    async fn create_container(&self, spec: ContainerSpec) -> Result<Instance, CreateError> {
        let fails = self.creations.is_hit(self.faults.create_failures);
        fine::sleep(self.faults.create_delay).await;
        if fails {
            return Err(CreateError {
                error: self.faults.create_failure,
                message: "simulated failure of the creation".to_owned(),
            });
        }
        let taken = self.memory.take(spec.memory)?;
        // On failure the memory goes back when `taken` is dropped.
        let instance = self.inner.create(spec).await?;
        self.memory.keep(instance, taken);
        self.late_ack().await;
        Ok(instance)
    }

    async fn remove_container(&self, instance: Instance) {
        self.inner.remove(instance).await;
        if self.memory.give_back(instance) {
            self.late_ack().await;
        }
    }

    async fn late_ack(&self) {
        if self.acks.is_hit(self.faults.ack_losses) {
            fine::sleep(self.faults.ack_delay).await;
        }
    }

    async fn run_activation(&self, instance: Instance, request: RunRequest) -> RunOutcome {
        if self.runs.is_hit(self.faults.silent) {
            tracing::debug!(activation = request.context.activation_id, %instance, "activation swallowed on purpose");
            return std::future::pending().await;
        }
        let timeout = request.timeout;
        match self.inner.run(instance, request).await {
            RunOutcome::Ended(ended) => RunOutcome::Ended(self.slowed(ended, timeout).await),
            back @ RunOutcome::GiveBack(_) => back,
        }
    }

    /// Stretches a run, up to its time limit.
    async fn slowed(&self, ended: Ended, timeout: Duration) -> Ended {
        let factor = self.faults.slow_factor;
        if factor <= 1.0 || ended.timed_out {
            return ended;
        }
        let wanted = Duration::try_from_secs_f64(ended.took.as_secs_f64() * factor).unwrap_or(timeout);
        let took = wanted.min(timeout);
        fine::sleep(took.saturating_sub(ended.took)).await;
        if wanted < timeout {
            return Ended { took, ..ended };
        }
        Ended {
            timed_out: true,
            ..Ended::developer_error(&classify::run_timeout_text(timeout), ended.start_ms, took, false)
        }
    }

    async fn set_paused(&self, instance: Instance, paused: bool) -> Result<(), PauseError> {
        if self.pauses.is_hit(self.faults.pause_failures) {
            return Err(PauseError::Gone(instance));
        }
        if paused {
            self.inner.pause(instance).await
        } else {
            self.inner.resume(instance).await
        }
    }
}

impl Backend for FaultyBackend {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn take_events(&self) -> Option<mpsc::Receiver<BackendEvent>> {
        self.inner.take_events()
    }

    fn create(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Instance, CreateError>> {
        Box::pin(self.create_container(spec))
    }

    fn init(&self, instance: Instance, request: InitRequest) -> BoxFuture<'_, InitOutcome> {
        self.inner.init(instance, request)
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
        Box::pin(self.remove_container(instance))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.inner.shutdown()
    }
}

#[cfg(test)]
#[path = "faults/faults_test.rs"]
mod faults_test;
