//! What an operator asks, over plain gRPC and through the command line of the binary under test.

use std::fmt;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_types::QueueKey;

use crate::cluster::Cluster;
use crate::process::binary;
use crate::wait::Deadline;

/// What a command answered that was asked for JSON.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed; `null` if that was no JSON.
    pub json: Value,
    /// What it said to people.
    pub error: String,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            json,
            error,
            took,
        } = self;
        write!(f, "code {code:?} after {took:.1?}: {json} {}", error.trim())
    }
}

impl Cluster {
    /// Queues in which something waits, with the number of activations waiting in all of them, as the leaders say. A
    /// scheduler that does not answer is left out.
    pub async fn waiting(&self) -> (u64, Vec<v1::QueueStatus>) {
        let (mut total, mut queues) = (0, Vec::new());
        for endpoint in self.endpoints() {
            let request = v1::QueuesRequest {
                waiting_only: true,
                ..Default::default()
            };
            let Ok(mut client) = OperatorClient::connect(format!("http://{endpoint}")).await else {
                continue;
            };
            let Ok(answer) = client.queues(request).await else {
                continue;
            };
            if let Ok(Some(answer)) = answer.into_inner().message().await {
                total += answer.waiting_total;
                queues.extend(answer.queues);
            }
        }
        (total, queues)
    }

    /// Runs a command of the binary against this cluster and waits for its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn command(&self, words: &[&str]) -> Output {
        let run = self.runner(words);
        let output = tokio::task::spawn_blocking(run).await.expect("the task ends");
        output.expect("the binary starts")
    }

    /// Starts a command of the binary with `--json` against this cluster. What happens to the cluster does not wait for it.
    ///
    /// # Panics
    /// When it cannot be started, then the task does.
    pub fn order(&self, words: &[&str]) -> JoinHandle<Answer> {
        let run = self.runner(&[words, &["--json"]].concat());
        tokio::task::spawn_blocking(move || {
            let clock = Deadline::after(Duration::MAX);
            let output = run().expect("the binary starts");
            Answer {
                code: output.status.code(),
                json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
                error: String::from_utf8_lossy(&output.stderr).into_owned(),
                took: clock.elapsed(),
            }
        })
    }

    fn runner(&self, words: &[&str]) -> impl FnOnce() -> std::io::Result<Output> + Send + use<> {
        let endpoints = self.endpoints().join(",");
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        move || {
            Command::new(binary())
                .args(words)
                .env("WHISKRAFT_ENDPOINTS", endpoints)
                .output()
        }
    }

    /// Replays the log in the data directory of a scheduler that was stopped, and gives what the check says.
    ///
    /// # Panics
    /// When the check finds a violation, or a part of the log is gone.
    pub async fn check_log(&mut self, id: u64) -> String {
        self.stop_scheduler(id).await;
        let dir = self.schedulers[&id].data_dir().display().to_string();
        let output = self.command(&["log", &dir, "--check"]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the log of scheduler {id}: {text}\n{error}"
        );
        text.trim().to_owned()
    }
}

/// Makes sure that queues exist, many at a time through each endpoint; gives the number that were refused.
///
/// # Panics
/// When an endpoint takes no connection.
pub async fn ensure_queues(endpoints: &[String], keys: Vec<QueueKey>) -> usize {
    use futures::StreamExt as _;
    use v1::queue_ensured::Outcome;

    const AT_ONCE: usize = 256;
    let mut clients = Vec::new();
    for endpoint in endpoints {
        let client = ControllerClient::connect(format!("http://{endpoint}")).await;
        clients.push(client.expect("the scheduler takes connections"));
    }
    let calls = keys.into_iter().enumerate().map(|(n, key)| {
        let mut client = clients[n % clients.len()].clone();
        async move {
            let queue = v1::EnsureQueue {
                key: Some((&key).into()),
                resubmits: false,
            };
            let request = v1::EnsureQueuesRequest { queues: vec![queue] };
            let answer = client.ensure_queues(request).await;
            let ensured = answer.ok().and_then(|answer| answer.into_inner().outcomes.pop());
            let outcome = ensured.and_then(|ensured| ensured.outcome);
            usize::from(!matches!(outcome, Some(Outcome::Leadership(_))))
        }
    });
    let stream = futures::stream::iter(calls).buffer_unordered(AT_ONCE);
    stream.fold(0, |sum, refused| async move { sum + refused }).await
}
