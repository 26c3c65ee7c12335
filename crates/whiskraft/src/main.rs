//! The `whiskraft` binary: reads arguments and settings, then runs one role or one command.
//!
//! Start at [`main`]. Roles that stay are in [`role`], commands that talk to a cluster and end in [`command`].

mod arguments;
mod bench;
mod cli;
mod clock;
mod command;
mod config;
mod cron;
mod exit;
mod load;
mod logging;
mod output;
mod parent;
mod role;
mod signals;
mod source;
mod units;

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::command::{
    action, activation, cluster, drain, explain, invoke, letters, log, namespace, queue, queues, runtime,
    schedule, status,
};
use crate::config::{Config, ConfigError, LogFormat};
use crate::exit::{Exit, Failure};
use crate::role::{dev, invoker, scheduler, supervisor};

/// Messages are allocated on one thread and freed on another; this one does both without a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a server logs unless told otherwise; openraft warns of every heartbeat that a
/// dead peer does not answer; whiskraft_raft says once when a peer goes and comes.
const SERVER_LOG: &str = "info,openraft=error";
/// What the other commands log unless told otherwise.
const COMMAND_LOG: &str = "warn";

fn main() -> ExitCode {
    // Reads FAILPOINTS; for the life of the process.
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let cli = Cli::parse();
    // The proxy is a process of its own kind: no settings, no logs, nothing that the container could see.
    if let Command::Runtime(args) = cli.command {
        return runtime::run(args);
    }
    let parent = cli.global.supervised.or(cli.global.die_with);
    let parent = parent.map_or(Ok(()), parent::die_with);
    match parent.and_then(|()| run(cli)) {
        Ok(code) => code,
        Err(failure) => {
            // Whoever read it may be gone; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "whiskraft: {failure}");
            failure.exit().into()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let config = config::load(cli.global.sources(cli.command.overrides())).map_err(config_failure)?;
    let default_filter = if cli.command.is_server() {
        SERVER_LOG
    } else {
        COMMAND_LOG
    };
    logging::init(config.log.as_deref().unwrap_or(default_filter), config.log_format)?;
    let threads = |error| Failure::new(Exit::Refused, "cannot start threads").caused_by(error);
    let is_supervisor = matches!(cli.command, Command::Scheduler(_))
        && config.scheduler.supervise
        && cli.global.supervised.is_none();
    if is_supervisor && cli.global.is_config_read_once() {
        tracing::warn!(
            "the configuration comes through a pipe, which the scheduler's own process could not read again: \
             nobody will tell the others of its death; give a file with --config, or scheduler.supervise = false"
        );
    } else if is_supervisor {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().map_err(threads)?;
        let result = runtime.block_on(supervisor::run());
        // Nor for the name of a host that nobody answers for.
        runtime.shutdown_background();
        return result;
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // Whoever sets this knows better.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(worker_threads());
    }
    let runtime = builder.enable_all().build().map_err(threads)?;
    let log_is_read_by_machines = cli.command.is_server() && config.log_format == LogFormat::Json;
    let result = runtime.block_on(dispatch(cli.command, config, cli.global.supervised.is_some()));
    // A forced end must not wait for whatever did not stop in time.
    runtime.shutdown_background();
    if let (Err(failure), true) = (&result, log_is_read_by_machines) {
        tracing::error!(error = %failure, exit_code = failure.exit().code(), "process ended");
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// Threads of the main runtime: consensus has two of its own, which want a core.
fn worker_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.saturating_sub(1).max(1)
}

async fn dispatch(command: Command, config: Config, is_supervised: bool) -> Result<(), Failure> {
    match command {
        Command::Scheduler(_) => scheduler::run(config, is_supervised).await,
        Command::Invoker(_) => invoker::run(config).await,
        Command::Dev(args) => dev::run(args, config).await,
        Command::Action(args) => action::run(args, &config).await,
        Command::Activation(args) => activation::run(args, &config).await,
        Command::DeadLetters(args) => letters::run(args, &config).await,
        Command::Invoke(args) => invoke::run(args, &config).await,
        Command::Status(args) => status::run(args, &config).await,
        Command::Queues(args) => queues::run(args, &config).await,
        Command::Queue(args) => queue::run(args, &config).await,
        Command::Explain(args) => explain::run(args, &config).await,
        Command::Drain(args) => drain::run(args, &config).await,
        Command::Cluster(args) => cluster::run(args, &config).await,
        Command::Namespace(args) => namespace::run(args, &config).await,
        Command::Schedule(args) => schedule::run(args, &config).await,
        Command::Bench(args) => command::bench::run(args, &config).await,
        Command::Log(args) => tokio::task::block_in_place(|| log::run(&args)),
        Command::Runtime(_) => unreachable!("handled before the settings are read"),
    }
}

fn config_failure(error: ConfigError) -> Failure {
    let advice = match &error {
        ConfigError::UnknownKey { .. } => Some("docs/config.md lists every key"),
        _ => None,
    };
    let failure = Failure::new(Exit::Usage, "configuration").caused_by(error);
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}
