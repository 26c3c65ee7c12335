//! Starts the proxy of a container and waits until it listens.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use whiskraft_types::ByteSize;

use super::config::ProcessConfig;
use super::container::{Container, Parts};
use super::group::{self, ProcessId};
use super::log_pipes::LogPipes;
use super::place;
use crate::backend::http::BodyLimits;
use crate::backend::logs::ShareEnd;
use crate::backend::spec::{ContainerSpec, CreateError, Instance};

/// Said by the proxy over its standard input once it listens.
const READY: &[u8] = b"ready\n";
/// Log bytes kept of a proxy that does not start, for the error's text.
const START_LOGS_MAX: u64 = 4096;
/// Rounds of killing, and the pause between them, for a proxy that did not start.
const END_ROUNDS_MAX: u32 = 200;
const END_PAUSE: Duration = Duration::from_millis(5);
/// What an interpreter may have of private memory above the container's limit, which counts what is resident: part
/// of what is allocated is never touched.
const DATA_HEADROOM: ByteSize = ByteSize::mib(256);
/// The same for node, which sets aside memory for its heap and a stack for each of its threads.
const DATA_HEADROOM_NODE: ByteSize = ByteSize::mib(2048);

/// A container, and its proxy's process and lifeline, which somebody has to watch.
pub(crate) type Started = (Arc<Container>, Child, UnixStream);

/// A proxy that runs and has not yet said that it listens.
struct Launched {
    child: Child,
    proxy: ProcessId,
    logs: Arc<LogPipes>,
    lifeline: UnixStream,
}

/// Starts a container in `directory`, which is not there yet.
pub(crate) async fn start(
    config: &ProcessConfig,
    instance: Instance,
    directory: PathBuf,
    spec: &ContainerSpec,
) -> Result<Started, CreateError> {
    let family = family(&spec.kind)?;
    let mut launched = launch(config, spec, family, &directory)?;
    let tagged = place::write_tag(&directory, launched.proxy).map_err(not_started);
    let ready = match tagged {
        Ok(()) => launched.wait_ready(config.start_timeout).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ready {
        launched.end().await;
        return Err(error);
    }
    let Launched {
        child,
        proxy,
        logs,
        lifeline,
    } = launched;
    let parts = Parts {
        instance,
        directory,
        proxy,
        logs,
        memory: spec.memory,
        // Only node runs several activations in one process; the others would make them wait inside.
        concurrency: if family == "nodejs" {
            spec.concurrency.max(1)
        } else {
            1
        },
        body_limits: BodyLimits {
            len_max: config.response_len_max.as_bytes(),
            truncation: config.response_truncation.as_bytes(),
        },
    };
    Ok((Container::new(parts), child, lifeline))
}

fn not_started(error: io::Error) -> CreateError {
    CreateError::platform(format!("container could not be started: {error}"))
}

fn launch(
    config: &ProcessConfig,
    spec: &ContainerSpec,
    family: &str,
    directory: &Path,
) -> Result<Launched, CreateError> {
    place::make_private(directory).map_err(not_started)?;
    let (stdout, stdout_proxy) = io::pipe().map_err(not_started)?;
    let (stderr, stderr_proxy) = io::pipe().map_err(not_started)?;
    let (lifeline, lifeline_proxy) = std::os::unix::net::UnixStream::pair().map_err(not_started)?;
    lifeline.set_nonblocking(true).map_err(not_started)?;
    let logs = LogPipes::start(stdout, stderr).map_err(not_started)?;
    let lifeline = UnixStream::from_std(lifeline).map_err(not_started)?;
    let mut command = command(config, spec, family, directory)?;
    command.stdin(Stdio::from(OwnedFd::from(lifeline_proxy)));
    command.stdout(stdout_proxy).stderr(stderr_proxy);
    // The command holds the proxy's ends and goes with this function; an end would never show while it lives.
    let child = command.spawn().map_err(|error| {
        let program = config
            .runtime
            .first()
            .map(|program| program.display().to_string());
        let program = program.unwrap_or_default();
        CreateError::platform(format!("action proxy {program} could not be started: {error}"))
    })?;
    let proxy = child.id().and_then(ProcessId::of);
    let proxy = proxy.ok_or_else(|| CreateError::platform("the action proxy is gone"))?;
    Ok(Launched {
        child,
        proxy,
        logs,
        lifeline,
    })
}

/// The family of a kind, by the proxy's own names.
fn family(kind: &str) -> Result<&'static str, CreateError> {
    let (name, version) = kind.split_once(':').unwrap_or((kind, ""));
    match name {
        "python" if !version.starts_with('2') => Ok("python"),
        "python3" => Ok("python"),
        "nodejs" | "node" => Ok("nodejs"),
        "sh" | "shell" => Ok("sh"),
        "native" => Ok("native"),
        _ => Err(CreateError::kind(format!(
            "kind {kind:?} cannot be run by the process backend; it runs python:3, nodejs, sh and native"
        ))),
    }
}

/// The proxy's command: everything it may know, and nothing of ours.
fn command(
    config: &ProcessConfig,
    spec: &ContainerSpec,
    family: &str,
    directory: &Path,
) -> Result<Command, CreateError> {
    let (program, leading) = config
        .runtime
        .split_first()
        .ok_or_else(|| CreateError::platform("no action proxy is configured"))?;
    let headroom = if family == "nodejs" {
        DATA_HEADROOM_NODE
    } else {
        DATA_HEADROOM
    };
    let data_max = spec.memory.saturating_add(headroom);
    let mut listen = std::ffi::OsString::from("unix:");
    listen.push(directory.join("s"));
    let mut command = Command::new(program);
    command
        .args(leading)
        .args(["--kind", family])
        .arg("--listen")
        .arg(listen);
    command
        .arg("--work-dir")
        .arg(directory.join("w"))
        .args(["--lifeline", "--stop-with-child"]);
    command.args(["--memory-max", &data_max.as_bytes().to_string()]);
    command.args(["--files-max", &config.files_max.to_string()]);
    command.env_clear().env("PATH", &config.search_path);
    if spec.concurrency > 1 {
        command.env("__OW_ALLOW_CONCURRENT", "true");
    }
    let usable = |(name, value): &(&String, &String)| !name.contains(['=', '\0']) && !value.contains('\0');
    command.envs(spec.environment.iter().filter(usable));
    command.current_dir(directory).process_group(0).kill_on_drop(true);
    Ok(command)
}

impl Launched {
    /// Waits for the proxy's word; what it printed instead becomes part of the error.
    async fn wait_ready(&mut self, patience: Duration) -> Result<(), CreateError> {
        self.logs.begin(START_LOGS_MAX);
        let mut word = [0; READY.len()];
        let read = tokio::time::timeout(patience, self.lifeline.read_exact(&mut word)).await;
        let printed = self.logs.end(ShareEnd::Shared, 0).lines.join("; ");
        let problem = match read {
            Ok(Ok(_)) if word == READY => return Ok(()),
            Ok(Ok(_)) => "said something else than that it is ready".to_owned(),
            Ok(Err(_)) => "ended while it started".to_owned(),
            Err(_) => format!("was not ready within {} ms", patience.as_millis()),
        };
        Err(CreateError::platform(format!(
            "the action proxy {problem}: {printed}"
        )))
    }

    /// Ends what was started.
    async fn end(mut self) {
        let proxy = self.proxy;
        for _ in 0..END_ROUNDS_MAX {
            let round = tokio::task::spawn_blocking(move || group::kill_round(proxy));
            if round.await.unwrap_or(false) {
                break;
            }
            tokio::time::sleep(END_PAUSE).await;
        }
        // Its end is certain now, unless it is hung in the kernel, and then the next start of the invoker finds it.
        let _ = tokio::time::timeout(END_PAUSE, self.child.wait()).await;
    }
}
