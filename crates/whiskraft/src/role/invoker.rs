//! `whiskraft invoker`: a worker host, until a signal.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use whiskraft_invoker::backend::Backend;
use whiskraft_invoker::backend::faults::FaultyBackend;
use whiskraft_invoker::backend::process::ProcessBackend;
use whiskraft_invoker::backend::simulated::{SimulatedBackend, StartRecord};
use whiskraft_invoker::{Invoker, StartError, StopReason};
use whiskraft_types::{ByteSize, InvokerId};

use crate::arguments::whole;
use crate::config::{BackendKind, BackendSection, Config, Overrides, is_address};
use crate::exit::{Exit, Failure};
use crate::signals::Signals;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft invoker --id 1 --schedulers a:7401,b:7401,c:7401
  whiskraft invoker --id 2 --schedulers a:7401 --memory 16GiB --zone eu-1 --tags gpu,ssd
  whiskraft invoker --id 3 --backend simulated     # runs nothing; measures the schedulers

Each live invoker needs an --id of its own. Actions run with the rights of this process: use an account that owns nothing.";

/// Arguments of `whiskraft invoker`; each is also a setting of section `[invoker]` or `[backend]`.
#[derive(Debug, Args)]
pub(crate) struct InvokerArgs {
    /// Number of this invoker; no other live one may have it [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u64, 0, { u64::MAX }>)]
    id: Option<u64>,
    /// Client addresses of one or more schedulers; the others are learned [default: 127.0.0.1:7401]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    schedulers: Option<Vec<String>>,
    /// Memory for containers [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// What runs the containers [default: process]
    #[arg(long, value_enum, value_name = "KIND")]
    backend: Option<BackendKind>,
    /// Directory of the process backend for containers [default: whiskraft in the temporary directory]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Failure zone this host is in
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// What actions may require of their host
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Where to serve /metrics, /healthz and /ping over HTTP [default: nowhere]
    #[arg(long, value_name = "HOST:PORT")]
    metrics_listen: Option<String>,
}

impl InvokerArgs {
    /// The settings that these arguments override.
    pub(crate) fn overrides(&self) -> Overrides {
        let mut flags = Overrides::default();
        flags.set("invoker.id", self.id);
        flags.set("invoker.schedulers", self.schedulers.as_ref());
        flags.set("invoker.pool.memory", self.memory);
        flags.set("backend.kind", self.backend);
        flags.set("backend.process.root", self.work_dir.as_ref());
        flags.set("invoker.zone", self.zone.as_ref());
        flags.set("invoker.tags", self.tags.as_ref());
        flags.set("invoker.metrics-listen", self.metrics_listen.as_ref());
        flags
    }
}

/// Serves until the first signal.
///
/// # Errors
/// If the invoker refuses to start, or another process holds its id.
pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let invoker = tokio::select! {
        invoker = start(config) => invoker?,
        // It tries until a scheduler answers.
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before a scheduler had answered");
            return Ok(());
        }
    };
    let stopped = tokio::select! {
        reason = invoker.stopped() => Err(stop_failure(reason)),
        name = signals.next() => {
            tracing::info!(signal = name, "shutting down");
            Ok(())
        }
    };
    signals.or_force(invoker.shutdown()).await?;
    stopped
}

/// Starts the invoker with the backend that the settings name.
///
/// # Errors
/// If a setting is wrong or the backend cannot be used on this host.
pub(crate) async fn start(config: Config) -> Result<Invoker, Failure> {
    let Config { invoker, backend, .. } = config;
    if let Some(wrong) = invoker.schedulers.iter().find(|address| !is_address(address)) {
        return Err(Failure::new(
            Exit::Usage,
            format!("scheduler address {wrong:?} must be HOST:PORT"),
        ));
    }
    let backend = make_backend(&backend, invoker.id, invoker.pool.memory).await?;
    Invoker::start(invoker, backend).await.map_err(|error| {
        let exit = match error {
            StartError::Setting { .. } => Exit::Usage,
            StartError::Session(_) | StartError::Listen { .. } => Exit::Refused,
        };
        Failure::new(exit, "the invoker did not start").caused_by(error)
    })
}

/// What an invoker that stopped by itself means for the process.
pub(crate) fn stop_failure(reason: StopReason) -> Failure {
    match reason {
        StopReason::NoSession(error) => Failure::new(
            Exit::Refused,
            "the invoker's session ended and it gets no new one",
        )
        .caused_by(error),
        StopReason::Shutdown => Failure::new(Exit::Refused, "the invoker shut down unasked"),
        StopReason::Crashed => Failure::new(Exit::Fatal, "the invoker's task died; the log above says where"),
    }
}

async fn make_backend(
    section: &BackendSection,
    id: InvokerId,
    memory: ByteSize,
) -> Result<Arc<dyn Backend>, Failure> {
    match section.kind {
        BackendKind::Simulated => {
            let record = section.simulated.record.as_deref();
            let record = record.map(|path| StartRecord::open(path, id)).transpose();
            let record = record.map_err(|error| {
                Failure::new(Exit::Refused, "backend.simulated.record cannot be opened").caused_by(error)
            })?;
            let backend = SimulatedBackend::recording((&section.simulated).into(), Some(memory), record);
            Ok(FaultyBackend::wrap(backend, (&section.simulated).into()))
        }
        BackendKind::Process => match ProcessBackend::start(id, section.process.clone()).await {
            Ok(backend) => Ok(backend),
            Err(error) => Err(
                Failure::new(Exit::Refused, "the process backend cannot be used on this host")
                    .caused_by(error),
            ),
        },
    }
}
