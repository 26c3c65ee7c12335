//! A process backend in a temporary directory, with real proxies and interpreters.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a failed step of the harness is a failed test")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use whiskraft_invoker::backend::process::{ProcessBackend, ProcessConfig};
use whiskraft_invoker::backend::{
    Backend, BackendEvent, ContainerSpec, Context, Ended, InitOutcome, InitRequest, Instance, RunOutcome,
    RunRequest,
};
use whiskraft_types::{ByteSize, InvokerId};

/// Longest wait for anything; reaching it fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Host {
    pub(crate) backend: Arc<ProcessBackend>,
    pub(crate) events: mpsc::Receiver<BackendEvent>,
    pub(crate) root: tempfile::TempDir,
}

/// An executable that cargo builds next to this test.
pub(crate) fn example(name: &str) -> OsString {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build -p whiskraft-invoker --examples",
        path.display()
    );
    path.into_os_string()
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ProcessConfig)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut config = ProcessConfig {
            root: root.path().to_owned(),
            runtime: vec![example("action_proxy")],
            check_interval: Duration::from_millis(20),
            ..ProcessConfig::default()
        };
        change(&mut config);
        let backend = ProcessBackend::start(InvokerId(1), config).await.unwrap();
        let events = backend.take_events().unwrap();
        Self {
            backend,
            events,
            root,
        }
    }

    pub(crate) async fn create(&self, kind: &str) -> Instance {
        self.backend.create(spec(kind)).await.unwrap()
    }

    /// A container with this code loaded.
    pub(crate) async fn loaded(&self, kind: &str, code: &str) -> Instance {
        let instance = self.create(kind).await;
        match self.backend.init(instance, init(code)).await {
            InitOutcome::Ready(_) => instance,
            other => panic!("init: {other:?}"),
        }
    }

    pub(crate) async fn python(&self, code: &str) -> Instance {
        self.loaded("python:3", code).await
    }

    pub(crate) async fn run(&self, instance: Instance, payload: &str) -> Ended {
        self.run_request(instance, run(payload)).await
    }

    pub(crate) async fn run_request(&self, instance: Instance, request: RunRequest) -> Ended {
        match self.backend.run(instance, request).await {
            RunOutcome::Ended(ended) => ended,
            RunOutcome::GiveBack(back) => panic!("given back: {back:?}"),
        }
    }

    pub(crate) async fn next_death(&mut self) -> (Instance, String) {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        let BackendEvent::Died { instance, reason } =
            event.expect("a death in time").expect("the backend lives");
        (instance, reason)
    }

    pub(crate) fn directory(&self, instance: Instance) -> PathBuf {
        self.root.path().join("invoker-1").join(instance.0.to_string())
    }

    /// The proxy's process id, from its tag.
    pub(crate) fn proxy(&self, instance: Instance) -> String {
        proxy_of(&self.directory(instance))
    }
}

pub(crate) fn proxy_of(directory: &Path) -> String {
    let tag = std::fs::read_to_string(directory.join("proxy")).unwrap();
    tag.split(' ').next().unwrap().to_owned()
}

pub(crate) fn spec(kind: &str) -> ContainerSpec {
    ContainerSpec {
        name: "test".to_owned(),
        kind: kind.to_owned(),
        memory: ByteSize::mib(128),
        concurrency: 1,
        environment: [("__OW_API_HOST".to_owned(), "https://api.example".to_owned())].into(),
    }
}

pub(crate) fn init(code: &str) -> InitRequest {
    InitRequest {
        name: "n".to_owned(),
        main: String::new(),
        binary: false,
        code: Some(Bytes::copy_from_slice(code.as_bytes())),
        env: Default::default(),
        context: context(),
        timeout: PATIENCE,
        logs_max: ByteSize::mib(1),
    }
}

pub(crate) fn run(payload: &str) -> RunRequest {
    RunRequest {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        run: 1,
        context: context(),
        timeout: PATIENCE,
        logs_max: ByteSize::mib(1),
    }
}

pub(crate) fn context() -> Context {
    Context {
        namespace: "guest".to_owned(),
        action_name: "/guest/n".to_owned(),
        action_version: "0.0.1".to_owned(),
        activation_id: "ab".repeat(16),
        transaction_id: "t".to_owned(),
        api_key: None,
    }
}

pub(crate) fn text(ended: &Ended) -> &str {
    std::str::from_utf8(&ended.result).unwrap()
}

pub(crate) fn json(ended: &Ended) -> serde_json::Value {
    serde_json::from_slice(&ended.result).unwrap()
}

/// Texts of the log lines, without time.
pub(crate) fn log_texts(ended: &Ended) -> Vec<&str> {
    ended.logs.iter().map(|line| &line[31..]).collect()
}

/// State letter of a process; `None` when it is gone.
pub(crate) fn state_of(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Waits for a condition that has no event to wait for.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "waited too long for {what}"
    );
}

pub(crate) fn is_gone(pid: &str) -> bool {
    matches!(state_of(pid), None | Some('Z' | 'X'))
}
