//! Processes of this binary that are started for a measurement. They end when they are dropped, and with this process,
//! however it ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::usage::Role;
use crate::exit::{Exit, Failure};

/// Last lines of a log that are shown when its process has failed.
const LOG_LINES: usize = 10;

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
    log: PathBuf,
    child: Child,
}

impl Members {
    /// Starts one more; its log goes to this directory. To be called from the main thread, as a thread that ends takes the
    /// processes that it started with it.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn start(&mut self, dir: &Path, orders: Orders<'_>) -> Result<(), Failure> {
        let log = dir.join(format!("{}.log", orders.name));
        let child = spawn(&orders, &log).map_err(|error| {
            Failure::new(Exit::Refused, format!("cannot start {}", orders.name)).caused_by(error)
        })?;
        self.0.push(Member {
            role: orders.role,
            name: orders.name,
            log,
            child,
        });
        Ok(())
    }

    /// The processes by role, to be watched.
    pub(super) fn roles(&self) -> Vec<Role> {
        let role = |member: &Member| Role {
            name: member.role.to_owned(),
            pids: member.child.id().into_iter().collect(),
        };
        self.0.iter().map(role).collect()
    }

    /// Looks whether all run.
    ///
    /// # Errors
    /// If one has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        for member in &mut self.0 {
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
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("---- {}\n{}", self.name, tail.join("\n"))
    }
}

/// A process that knows no settings but these, and that a Ctrl-C for this one does not reach.
fn spawn(orders: &Orders<'_>, log: &Path) -> io::Result<Child> {
    let output = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WHISKRAFT_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--config", "/dev/null"])
        .args(["--die-with", &std::process::id().to_string()])
        .args(orders.command)
        .args(orders.args.iter().flatten())
        .args(orders.set.iter().flat_map(|setting| ["--set", setting]))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}
