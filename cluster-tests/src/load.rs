//! Load on the recording action: callers that invoke one after the other until told to stop, and what they saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use whiskraft_client::{Client, InvokeError, InvokeOptions};
use whiskraft_types::{ActivationStatus, NamespaceName};

use crate::recorder::Recorder;
use crate::wait::Deadline;

/// Longest wait of one call: above any failover, so that a call which fails was really lost.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// Callers at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    callers: JoinSet<Vec<Call>>,
}

/// One call as its caller saw it.
#[derive(Debug)]
struct Call {
    n: u64,
    ended: Duration,
    took: Duration,
    answer: Result<(String, ActivationStatus, serde_json::Value), InvokeError>,
}

/// What all callers saw together.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Calls whose answer is the right one for their argument.
    pub right: u64,
    /// Answers that belong to other arguments, or to no run.
    pub wrong: Vec<String>,
    /// Calls without a result, with their error.
    pub lost: Vec<String>,
    /// Records with a status other than success, by text.
    pub failed: BTreeMap<String, u64>,
    /// Activation ids of the right answers.
    pub ids: Vec<String>,
    /// Time of each call, ascending.
    pub latencies: Vec<Duration>,
    /// Longest time between two results.
    pub gap_max: Duration,
}

impl Load {
    /// Starts `callers` that invoke `guest/record` with `sleep_ms`, each one call at a time, on `client`.
    #[must_use]
    pub fn start(client: &Client, callers: u64, sleep_ms: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (next, clock) = (Arc::new(AtomicU64::new(0)), Deadline::after(Duration::MAX));
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (client, stop, done, next) = (
                client.clone(),
                Arc::clone(&stop),
                Arc::clone(&done),
                Arc::clone(&next),
            );
            set.spawn(async move {
                let mut calls = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    calls.push(call(&client, n, sleep_ms, clock).await);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                calls
            });
        }
        Self {
            stop,
            done,
            callers: set,
        }
    }

    /// Calls that have ended so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Lets every caller finish its call and gives the sum.
    pub async fn finish(mut self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        while let Some(joined) = self.callers.join_next().await {
            calls.extend(joined.expect("a caller does not panic"));
        }
        LoadReport::of(calls)
    }
}

async fn call(client: &Client, n: u64, sleep_ms: u64, clock: Deadline) -> Call {
    let namespace: NamespaceName = "guest".parse().expect("a valid name");
    let action = "guest/record".parse().expect("a valid name");
    let options = InvokeOptions {
        deadline: CALL_DEADLINE,
        ..InvokeOptions::default()
    };
    let began = clock.elapsed();
    let record = client
        .invoke(
            &namespace,
            &action,
            json!({"n": n, "sleep_ms": sleep_ms}),
            options,
        )
        .await;
    let ended = clock.elapsed();
    let answer = record.map(|record| {
        let value = serde_json::from_slice(&record.result).unwrap_or_default();
        (record.id.to_string(), record.status, value)
    });
    Call {
        n,
        ended,
        took: ended.saturating_sub(began),
        answer,
    }
}

impl LoadReport {
    fn of(mut calls: Vec<Call>) -> Self {
        calls.sort_by_key(|call| call.ended);
        let mut report = Self::default();
        for pair in calls.windows(2) {
            report.gap_max = report.gap_max.max(pair[1].ended.saturating_sub(pair[0].ended));
        }
        for call in calls {
            report.latencies.push(call.took);
            match call.answer {
                Ok((id, ActivationStatus::Success, value)) if value == right(call.n, &id) => {
                    report.right += 1;
                    report.ids.push(id);
                }
                Ok((id, ActivationStatus::Success, value)) => {
                    report.wrong.push(format!("{id} n={} got {value}", call.n));
                }
                Ok((_, _, value)) => *report.failed.entry(value.to_string()).or_insert(0) += 1,
                Err(error) => report.lost.push(error.to_string()),
            }
        }
        report.latencies.sort_unstable();
        report
    }

    /// Checks that nothing was lost or wrong and that every answered id ran exactly once.
    ///
    /// # Panics
    /// With what was found.
    pub fn assert_exact(&self, recorder: &Recorder) {
        assert!(
            self.lost.is_empty(),
            "lost {}: {:?}",
            self.lost.len(),
            &self.lost[..self.lost.len().min(5)]
        );
        assert!(self.wrong.is_empty(), "wrong: {:?}", self.wrong);
        assert!(self.failed.is_empty(), "failed: {:?}", self.failed);
        let runs = recorder.runs_per_id();
        let twice: Vec<_> = runs.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "run more than once: {twice:?}");
        let missing: Vec<_> = self.ids.iter().filter(|id| !runs.contains_key(*id)).collect();
        assert!(missing.is_empty(), "answered without a run: {missing:?}");
    }
}

fn right(n: u64, id: &str) -> serde_json::Value {
    json!({"n": n, "square": n * n, "id": id})
}
