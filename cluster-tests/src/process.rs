//! A process of the binary under test: started with its own log file, killed, paused, waited for by pid.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, io};

use rustix::process::{Pid, Signal, kill_process};

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

/// A running process; killed when dropped.
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

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it in its tracks (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, signal).ok();
        }
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

    /// Processor time and memory used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        crate::figures::resident_bytes(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
