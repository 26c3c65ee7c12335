//! Processes that user code left behind: as the nearest reaper of its descendants the proxy gets them all.
//!
//! Two uses: dead ones are reaped, so that a long-lived container does not fill the process table; and at the end
//! every descendant is found, also one that left the process group.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, kill_process_group, waitpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Our own children, which somebody awaits. Process ids are global to the process, so this is too.
static OWN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Rounds of killing before the rest is left to the owner, which looks for itself.
const KILL_ROUNDS_MAX: u32 = 100;

fn own() -> MutexGuard<'static, BTreeSet<u32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that somebody awaits; [`forget`] it afterwards.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Held across the start: the reaper must not take a child for an orphan before it is noted.
    let mut own = own();
    let child = command.kill_on_drop(true).spawn()?;
    own.extend(child.id());
    Ok(child)
}

/// The child was awaited.
pub(crate) fn forget(pid: Option<u32>) {
    if let Some(pid) = pid {
        own().remove(&pid);
    }
}

/// Becomes the reaper of all descendants and reaps what nobody awaits, for ever.
pub(crate) async fn reap() -> Infallible {
    // Without it (an old kernel) orphans go to the next reaper up, as they would without us.
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
    let Ok(mut ended) = signal(SignalKind::child()) else {
        return std::future::pending().await;
    };
    while ended.recv().await.is_some() {
        let own = own();
        let all = children_of(getpid()).into_iter();
        for orphan in all.filter(|pid| !own.contains(&pid.as_raw_nonzero().get().unsigned_abs())) {
            // Alive or already reaped: nothing to do in either case.
            let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
        }
    }
    std::future::pending().await
}

/// Kills every descendant, then the process group, and with it ourselves if we lead it.
pub(crate) fn kill_everything() {
    for _ in 0..KILL_ROUNDS_MAX {
        let found = descendants_of(getpid());
        if found.is_empty() {
            break;
        }
        for pid in found {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        // A killed child stays listed until it is reaped.
        while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
    }
    if getpgrp() == getpid() {
        // Ends this process too.
        let _ = kill_process_group(getpid(), Signal::KILL);
    }
}

fn descendants_of(root: Pid) -> Vec<Pid> {
    let mut found = children_of(root);
    let mut at = 0;
    while at < found.len() {
        let more = children_of(found[at]);
        found.extend(more);
        at += 1;
    }
    found
}

/// Children of all threads of a process; empty where the kernel does not tell.
fn children_of(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<Pid> = lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
                .collect::<Vec<_>>()
        })
        .collect();
    pids
}
