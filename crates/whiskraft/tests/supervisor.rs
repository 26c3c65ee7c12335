//! A scheduler's process and its parent: neither outlives the other, and the parent ends as the scheduler did.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// Waits for something that another process does.
async fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let looks = async {
        let mut ticks = tokio::time::interval(PAUSE);
        loop {
            ticks.tick().await;
            if let Some(found) = look() {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, looks).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

struct Pair {
    parent: Child,
    child: Pid,
}

impl Pair {
    /// A cluster of one that has told its parent who it is.
    async fn start(dir: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (peer, client) = (free(), free());
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let parent = Command::new(env!("CARGO_BIN_EXE_whiskraft"))
            .args(["--config", "/dev/null", "scheduler", "--id", "1"])
            .args(["--initial-cluster", &format!("1={peer}")])
            .args(["--client-listen", &client.to_string()])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", parent.id());
        let child = wait_for("a child", || {
            let text = std::fs::read_to_string(&children).ok()?;
            Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
        })
        .await;
        wait_for("a session", || {
            let log = std::fs::read_to_string(dir.join("log")).unwrap();
            log.contains("session opened").then_some(())
        })
        .await;
        Self { parent, child }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.parent.kill();
        let _ = self.parent.wait();
    }
}

#[tokio::test]
async fn the_parent_ends_with_the_signal_that_killed_the_scheduler() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(dir.path()).await;
    kill_process(pair.child, Signal::KILL).unwrap();
    let status = pair.parent.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(128 + 9), None));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("the scheduler's process has ended"), "{log}");
}

#[tokio::test]
async fn the_scheduler_dies_with_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(dir.path()).await;
    pair.parent.kill().unwrap();
    pair.parent.wait().unwrap();
    wait_for("the end of the child", || test_kill_process(pair.child).err()).await;
}

#[tokio::test]
async fn one_that_is_asked_to_stop_ends_well_and_tells_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(dir.path()).await;
    let parent = Pid::from_raw(i32::try_from(pair.parent.id()).unwrap()).unwrap();
    kill_process(parent, Signal::TERM).unwrap();
    assert_eq!(pair.parent.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!log.contains("the scheduler's process has ended"), "{log}");
}
