//! The process that runs user code: how it is started, called, and known to have ended.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};

use crate::link::{Closed, Link, Reply};
use crate::options::Stage;
use crate::orphans;

/// Exit code of a launcher that ran out of memory (`EXIT_MEMORY` in `launchers/python.py`).
const EXIT_MEMORY: i32 = 86;
/// How long an answer may still be on its way after the process that wrote it has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why a process was not started. The text goes to the author of the action.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// Not installed.
    #[error("program {program} was not found in {search_path}; install it on this host or in this image")]
    NotFound {
        /// What was looked for.
        program: String,
        /// Where.
        search_path: String,
    },
    /// The operating system refused.
    #[error("{program} could not be started: {source}")]
    Start {
        /// What was started.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// How a launcher's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildEnd {
    /// It said that it ran out of memory.
    OutOfMemory,
    /// Anything else.
    Exited,
}

/// A running launcher. Dropping it kills the process.
pub(crate) struct Launcher {
    link: std::sync::Arc<Link>,
    ended: watch::Receiver<Option<ChildEnd>>,
    _stop: oneshot::Sender<()>,
}

impl Launcher {
    /// Starts `program` with a socket to us as standard input and nothing in its environment but `env`.
    pub(crate) fn start(
        program: &Path,
        args: &[&OsStr],
        env: &BTreeMap<OsString, OsString>,
        directory: &Path,
        stage: &Stage,
    ) -> Result<Self, LaunchError> {
        let failed = |source| LaunchError::Start {
            program: program.display().to_string(),
            source,
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut command = stage.command(program);
        command.args(args).env_clear().envs(env).current_dir(directory);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = orphans::spawn(&mut command).map_err(failed)?;
        // The command holds the launcher's end; as long as it lives we would not see the end of the stream.
        drop(command);
        let link = std::sync::Arc::new(Link::new(UnixStream::from_std(ours).map_err(failed)?));
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        tokio::spawn(watch_child(child, std::sync::Arc::clone(&link), stopped, end));
        Ok(Self {
            link,
            ended,
            _stop: stop,
        })
    }

    /// Sends a request and waits for the answer, or for the end of the process.
    pub(crate) async fn call(&self, verb: &str, body: &[u8]) -> Result<Reply, ChildEnd> {
        match self.link.call(verb, body).await {
            Ok(reply) => Ok(reply),
            Err(Closed) => Err(self.end().await),
        }
    }

    /// Waits for the end of the process.
    pub(crate) async fn end(&self) -> ChildEnd {
        wait_end(self.ended.clone()).await
    }

    /// A view of the end that does not keep the process.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<ChildEnd>> {
        self.ended.clone()
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }
}

/// Waits until the process behind this view has ended.
pub(crate) async fn wait_end(mut ended: watch::Receiver<Option<ChildEnd>>) -> ChildEnd {
    match ended.wait_for(Option::is_some).await {
        Ok(end) => end.unwrap_or(ChildEnd::Exited),
        Err(_) => ChildEnd::Exited,
    }
}

async fn watch_child(
    mut child: Child,
    link: std::sync::Arc<Link>,
    stopped: oneshot::Receiver<()>,
    end: watch::Sender<Option<ChildEnd>>,
) {
    let pid = child.id();
    let status = tokio::select! {
        biased;
        status = child.wait() => status,
        _ = stopped => {
            // Fails only if it has ended already.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    orphans::forget(pid);
    link.close(LAST_WORDS).await;
    end.send_replace(Some(kind_of(status.ok())));
}

fn kind_of(status: Option<ExitStatus>) -> ChildEnd {
    match status.and_then(|status| status.code()) {
        Some(EXIT_MEMORY) => ChildEnd::OutOfMemory,
        _ => ChildEnd::Exited,
    }
}

impl Stage {
    /// A command that becomes `program`, through the stage if there is one.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some((stage, leading)) = self.command.split_first() else {
            return Command::new(program);
        };
        let mut command = Command::new(stage);
        command
            .args(leading)
            .args(["--parent", &std::process::id().to_string()]);
        for (option, value) in [("--memory-max", self.data_max), ("--files-max", self.files_max)] {
            if let Some(value) = value {
                command.args([option, &value.to_string()]);
            }
        }
        command.arg("--").arg(program);
        command
    }
}

/// Finds a program as a shell would.
pub(crate) fn find_program(program: &str, search_path: &OsStr) -> Result<PathBuf, LaunchError> {
    use std::os::unix::fs::PermissionsExt;

    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(search_path)
        .map(|directory| directory.join(program))
        .find(is_program);
    found.ok_or_else(|| LaunchError::NotFound {
        program: program.to_owned(),
        search_path: search_path.to_string_lossy().into_owned(),
    })
}
