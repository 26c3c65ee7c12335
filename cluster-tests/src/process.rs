//! A process of the binary under test: started with its own log file, killed, paused, waited for by pid.
//!
//! A scheduler is two: a supervisor, which is what was started, and its child, which does the work and is what faults are for.
//! See [`worker_of`].

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, io};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::figures::Usage;
use crate::wait::Deadline;

/// How a process ended, with what it had printed.
#[derive(Debug, Clone)]
pub struct Exit {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard error and output together.
    pub output: String,
}

/// The process that does the work of the one that was started: the child that it supervises if it is a supervisor, else itself.
///
/// The kernel is asked, and not a log or a file: it knows of a child from its first moment to its last, and of one that was
/// started before with the same directory it does not tell.
#[must_use]
pub fn worker_of(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let supervised = |child: &u32| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"--supervised")
    };
    let mut children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.find(supervised).unwrap_or(pid)
}

/// A running process; killed when dropped, with the child that it supervises.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// The binary under test: `WHISKRAFT_BIN`, or the release build of this workspace.
///
/// # Panics
/// When it is not there, with the command that makes it.
#[must_use]
pub fn binary() -> PathBuf {
    let path = env::var_os("WHISKRAFT_BIN").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target =
                env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
            target.join("release/whiskraft")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing; run `cargo build --release -p whiskraft` first",
        path.display()
    );
    path
}

/// Another build of the program, of the release before: `WHISKRAFT_BIN_OLD`.
///
/// # Panics
/// When it is named and not there.
#[must_use]
pub fn old_binary() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("WHISKRAFT_BIN_OLD")?);
    assert!(path.is_file(), "WHISKRAFT_BIN_OLD={} is missing", path.display());
    Some(path)
}

impl Process {
    /// Starts the binary with `args`; everything it prints is appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the process not be started.
    pub fn start(args: &[String], log: &Path) -> io::Result<Self> {
        Self::start_with(&binary(), args, &[], log)
    }

    /// As [`Process::start`], with this binary and more in its environment.
    ///
    /// # Errors
    /// When the log cannot be opened or the process not be started.
    pub fn start_with(
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        log: &Path,
    ) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(args)
            .env_remove("WHISKRAFT_LOG")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills what does the work (SIGKILL), as the system does when memory is short, and waits until it is gone. A supervisor
    /// lives on and tells the others.
    pub fn kill_worker(self) {
        let worker = worker_of(self.pid());
        if worker == self.pid() {
            return; // Dropped.
        }
        let gone = pidfd(worker);
        send(worker, Signal::KILL);
        await_end(gone);
        // It ends by itself; somebody has to take leave of it.
        std::thread::spawn(move || {
            let mut supervisor = self;
            supervisor.child.wait().ok();
        });
    }

    /// Kills everything at once (SIGKILL), as when the host is lost, and waits until it is gone: nobody tells anybody.
    pub fn kill(&mut self) {
        if !self.is_running() {
            return; // And its number may be another one's.
        }
        let worker = worker_of(self.pid());
        let gone = (worker != self.pid()).then(|| pidfd(worker)).flatten();
        // The supervisor first: the system ends its child.
        self.child.kill().ok();
        self.child.wait().ok();
        await_end(gone);
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        send(self.pid(), Signal::TERM);
    }

    /// Stops what does the work in its tracks (SIGSTOP).
    pub fn pause(&self) {
        send(worker_of(self.pid()), Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        send(worker_of(self.pid()), Signal::CONT);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Exit {
        let deadline = Deadline::after(limit);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let code = status.code().or(status.signal().map(|signal| -signal));
                return Exit {
                    code,
                    output: self.output(),
                };
            }
            assert!(
                !deadline.is_past(),
                "pid {} still runs after {limit:?}\n{}",
                self.pid(),
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has printed so far (of all processes that used this log).
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Processor time and memory used so far, with that of a supervisor.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (own, worker) = (self.pid(), worker_of(self.pid()));
        let usage = Usage::of(worker);
        if worker == own {
            usage
        } else {
            usage.and(Usage::of(own))
        }
    }

    /// Resident memory in bytes, with that of a supervisor.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.usage().resident
    }
}

fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        kill_process(pid, signal).ok();
    }
}

/// A handle on a process that is no child of this one; `None` if it is gone.
fn pidfd(pid: u32) -> Option<OwnedFd> {
    pidfd_open(pid_of(pid)?, PidfdFlags::empty()).ok()
}

/// Waits until a process that was killed has given back its ports and files.
fn await_end(process: Option<OwnedFd>) {
    if let Some(process) = process {
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
