//! Processes of this binary that are started for a measurement. They end when they are dropped, and with this process,
//! however it ends. Some are ended on purpose and started again.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::procfs;
use super::usage::Role;
use crate::exit::{Exit, Failure};

/// Last lines of a log that are shown when its process has failed.
const LOG_LINES: usize = 10;
/// Pause between two looks whether killed processes are gone.
const LOOK: Duration = Duration::from_millis(2);
/// Longest wait for a parent that tells the others of its child's end.
const PARENT_WAIT: Duration = Duration::from_secs(5);

/// What a process is told.
#[derive(Debug)]
pub(super) struct Orders<'a> {
    /// The role that it is counted for.
    pub(super) role: &'static str,
    /// Its own name.
    pub(super) name: String,
    /// The command of this binary that it runs.
    pub(super) command: &'a [&'a str],
    /// Options and their values.
    pub(super) args: &'a [[&'a str; 2]],
    /// Settings as `KEY=VALUE`.
    pub(super) set: &'a [String],
}

/// The processes of one measurement, in the order of their start.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Member>);

#[derive(Debug)]
struct Member {
    role: &'static str,
    name: String,
    args: Vec<OsString>,
    log: PathBuf,
    child: Child,
    /// Whether it was killed on purpose, and not started again.
    is_down: bool,
}

impl Members {
    /// Starts one more; its log goes to this directory. To be called from the main thread, as a thread that ends takes the
    /// processes that it started with it.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn start(&mut self, dir: &Path, orders: Orders<'_>) -> Result<(), Failure> {
        let log = dir.join(format!("{}.log", orders.name));
        let (role, name, args) = (orders.role, orders.name.clone(), orders.into_args());
        let child = start(&name, &args, &log)?;
        self.0.push(Member {
            role,
            name,
            args,
            log,
            child,
            is_down: false,
        });
        Ok(())
    }

    /// Kills some without a warning (SIGKILL): whatever of them serves, all at once.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) async fn kill(&mut self, names: &[String]) -> Result<(), Failure> {
        let mut serving = Vec::new();
        for name in names {
            let member = self.member(name);
            member.is_down = true;
            serving.extend(member.serving());
            member.signal(Signal::KILL)?;
        }
        if let [name] = names {
            // Its parent has something to say to the others, and ends then.
            let _ = tokio::time::timeout(PARENT_WAIT, self.member(name).child.wait()).await;
        }
        for name in names {
            // It fails only for one that has ended.
            let _ = self.member(name).child.kill().await;
        }
        // Without a parent the system takes leave of them, in its own time; until then they hold their ports.
        let gone = async {
            let mut looks = tokio::time::interval(LOOK);
            while serving.iter().any(|pid| procfs::exists(*pid)) {
                looks.tick().await;
            }
        };
        let _ = tokio::time::timeout(PARENT_WAIT, gone).await;
        Ok(())
    }

    /// Stops one in its tracks (SIGSTOP), or lets it go on (SIGCONT).
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn freeze(&mut self, name: &str, is_frozen: bool) -> Result<(), Failure> {
        let signal = if is_frozen { Signal::STOP } else { Signal::CONT };
        self.member(name).signal(signal)
    }

    /// Starts one that was killed again, as it was started before. To be called from the main thread.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn restart(&mut self, name: &str) -> Result<(), Failure> {
        let member = self.member(name);
        member.child = start(&member.name, &member.args, &member.log)?;
        member.is_down = false;
        Ok(())
    }

    fn member(&mut self, name: &str) -> &mut Member {
        let found = self.0.iter_mut().find(|member| member.name == name);
        found.expect("a process that was started")
    }

    /// The processes by role, to be watched.
    pub(super) fn roles(&self) -> Vec<Role> {
        self.roles_by(|member| member.role)
    }

    /// Each process as a role of its own, called as it is.
    pub(super) fn each(&self) -> Vec<Role> {
        self.roles_by(|member| &member.name)
    }

    fn roles_by<'a>(&'a self, name: impl Fn(&'a Member) -> &'a str) -> Vec<Role> {
        let role = |member: &'a Member| Role {
            name: name(member).to_owned(),
            pids: member.child.id().into_iter().collect(),
        };
        self.0.iter().map(role).collect()
    }

    /// Looks whether all run.
    ///
    /// # Errors
    /// If one has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        for member in self.0.iter_mut().filter(|member| !member.is_down) {
            if let Ok(Some(status)) = member.child.try_wait() {
                let text = format!(
                    "{} ended by itself ({status})\n{}",
                    member.name,
                    member.last_words()
                );
                return Err(Failure::new(Exit::Refused, text));
            }
        }
        Ok(())
    }

    /// The ends of all logs.
    pub(super) fn last_words(&self) -> String {
        let all: Vec<_> = self.0.iter().map(Member::last_words).collect();
        all.join("\n")
    }

    /// Ends all at once, the newest first, and waits until they are gone.
    pub(super) async fn end(mut self) {
        for member in self.0.iter_mut().rev() {
            // It fails only for one that has ended.
            let _ = member.child.kill().await;
        }
    }
}

impl Member {
    /// The process that serves: the one that was started, unless that has started another to do so.
    fn serving(&self) -> Option<u32> {
        let started = self.child.id()?;
        Some(procfs::supervised_by(started).unwrap_or(started))
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self
            .serving()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let refused = |error: io::Error| {
            Failure::new(Exit::Refused, format!("cannot send {signal:?} to {}", self.name)).caused_by(error)
        };
        let pid = pid.ok_or_else(|| refused(io::ErrorKind::NotFound.into()))?;
        kill_process(pid, signal).map_err(|error| refused(error.into()))
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("---- {}\n{}", self.name, tail.join("\n"))
    }
}

impl Orders<'_> {
    /// Arguments of a process that knows no settings but these, and that ends with this one.
    fn into_args(self) -> Vec<OsString> {
        let own = std::process::id().to_string();
        let before = ["--config", "/dev/null", "--die-with", &own];
        let set = self.set.iter().flat_map(|setting| ["--set", setting]);
        let all = before
            .iter()
            .chain(self.command)
            .chain(self.args.iter().flatten());
        all.copied().chain(set).map(OsString::from).collect()
    }
}

fn start(name: &str, args: &[OsString], log: &Path) -> Result<Child, Failure> {
    spawn(args, log)
        .map_err(|error| Failure::new(Exit::Refused, format!("cannot start {name}")).caused_by(error))
}

/// A process with a bare environment, and that a Ctrl-C for this one does not reach.
fn spawn(args: &[OsString], log: &Path) -> io::Result<Child> {
    let output = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WHISKRAFT_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}
