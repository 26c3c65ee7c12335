//! The workers of a run: who calls when.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use whiskraft_client::{ActivationRecord, Client, Durability, InvokeError, InvokeOptions};
use whiskraft_types::{ActionName, ActivationId, ActivationStatus, NamespaceName, Rejection};

use super::collect::{Collector, Ended, Outcome};
use super::report::Report;
use super::template::Template;
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::signals::Signals;

/// What a run does.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Invocation namespace.
    pub(crate) namespace: NamespaceName,
    /// The action.
    pub(crate) action: ActionName,
    /// Invocations.
    pub(crate) repeat: NonZeroU64,
    /// Most of them under way at once.
    pub(crate) concurrency: u32,
    /// Invocations that become due per second; `None`: the next when one ends.
    pub(crate) rate: Option<f64>,
    /// Arguments.
    pub(crate) payload: Template,
    /// Fields that the result must have.
    pub(crate) expect: BTreeMap<String, Template>,
    /// Longest wait for one result.
    pub(crate) deadline: Duration,
    /// What acceptance has to promise.
    pub(crate) durability: Durability,
    /// The activation that this process is part of.
    pub(crate) caller: Option<ActivationId>,
    /// Whether to keep the terminal free of progress.
    pub(crate) quiet: bool,
}

/// What the workers share.
struct Shared {
    client: Client,
    plan: Plan,
    taken: AtomicU64,
    stopped: AtomicBool,
    start: Instant,
}

/// Carries the plan out. The first SIGINT or SIGTERM ends it early: what is under way is waited for, nothing new begins.
///
/// # Errors
/// If the records cannot be written, or a second signal comes.
pub(crate) async fn run(client: Client, mut plan: Plan, records: Option<File>) -> Result<Report, Failure> {
    let mut signals = Signals::install()?;
    let expect = std::mem::take(&mut plan.expect);
    let mut collector = Collector::new(plan.repeat.get(), expect, records, plan.quiet);
    let (action, concurrency) = (plan.action.to_string(), plan.concurrency);
    let shared = Arc::new(Shared {
        client,
        plan,
        taken: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        start: clock::now(),
    });
    // One slot per worker: a collector that writes slowly holds the workers back instead of growing.
    let (sender, mut ended) = mpsc::channel(usize::try_from(concurrency).unwrap_or(1));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        workers.spawn(work(Arc::clone(&shared), sender.clone()));
    }
    drop(sender);
    loop {
        tokio::select! {
            outcome = ended.recv() => match outcome {
                Some(outcome) => collector.add(&outcome).map_err(|error| {
                    Failure::new(Exit::Failed, "cannot write the records").caused_by(error)
                })?,
                None => break,
            },
            name = signals.next() => {
                if shared.stopped.swap(true, Ordering::Relaxed) {
                    return Err(Failure::new(Exit::Forced, format!("second signal ({name}): run given up")));
                }
                eprintln!("{name}: waiting for what is under way; once more to give up");
            }
        }
    }
    Ok(collector.finish(action))
}

async fn work(shared: Arc<Shared>, ended: mpsc::Sender<Ended>) {
    while let Some((n, due)) = shared.next().await {
        let answer = shared.invoke(n).await;
        let now = clock::now();
        let (id, outcome) = judge(answer);
        let latency = now.saturating_duration_since(due);
        let at = now.saturating_duration_since(shared.start);
        if ended
            .send(Ended {
                n,
                id,
                latency,
                at,
                outcome,
            })
            .await
            .is_err()
        {
            return; // The collector gave up.
        }
    }
}

impl Shared {
    /// The next invocation and when it was due. Latency counts from there, so that calls which a stall held back
    /// show that stall.
    async fn next(&self) -> Option<(u64, Instant)> {
        let n = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if n > self.plan.repeat.get() || self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let Some(rate) = self.plan.rate else {
            return Some((n, clock::now()));
        };
        let due = self.start + Duration::from_secs_f64((n - 1) as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        (!self.stopped.load(Ordering::Relaxed)).then_some((n, due))
    }

    async fn invoke(&self, n: u64) -> Result<ActivationRecord, InvokeError> {
        let Plan {
            namespace,
            action,
            payload,
            deadline,
            durability,
            caller,
            ..
        } = &self.plan;
        // Drawn here, so that the arguments can name it.
        let id = Client::draw_id();
        let options = InvokeOptions {
            id: Some(id),
            deadline: *deadline,
            durability: *durability,
            caller: *caller,
            ..InvokeOptions::default()
        };
        self.client
            .invoke(namespace, action, payload.fill(n, &id.to_string()), options)
            .await
    }
}

fn judge(answer: Result<ActivationRecord, InvokeError>) -> (String, Outcome) {
    match answer {
        Ok(record) => {
            let result = serde_json::from_slice(&record.result).unwrap_or_default();
            let success = record.status == ActivationStatus::Success;
            (
                record.id.to_string(),
                Outcome::Record {
                    status: record.status.text(),
                    success,
                    result,
                },
            )
        }
        Err(error) => {
            let id = error.id().map(|id| id.to_string()).unwrap_or_default();
            let detail = Failure::new(Exit::Failed, error.to_string())
                .caused_by(error.clone())
                .to_string();
            (
                id,
                Outcome::Nothing {
                    reason: reason(&error),
                    detail,
                },
            )
        }
    }
}

/// Why there is no record, in words that are the same for every activation.
pub(crate) fn reason(error: &InvokeError) -> String {
    match error {
        InvokeError::Payload(error) => error.to_string(),
        InvokeError::Options(error) => error.to_string(),
        InvokeError::Full { .. } => "this client holds too many unfinished activations".to_owned(),
        InvokeError::IdInUse { .. } => "activation id is in use".to_owned(),
        // Without the pause, which differs.
        InvokeError::Rejected {
            rejection: Rejection::Throttled { scope, limit, .. },
            ..
        } => format!("rejected: {}", scope.reached(*limit)),
        InvokeError::Rejected { rejection, .. } => format!("rejected: {rejection}"),
        InvokeError::KeyConflict { .. } => "idempotency key was used with another payload".to_owned(),
        InvokeError::StorageFull { reason, .. } => {
            format!("rejected: no room for durable activations: {reason}")
        }
        InvokeError::NotConfirmed { .. } => "acceptance not confirmed within the deadline".to_owned(),
        InvokeError::NotAccepted { .. } => "accepted by no scheduler within the deadline".to_owned(),
        InvokeError::Deadline { .. } => "no result within the deadline".to_owned(),
        InvokeError::NoResult { .. } => "timed out, no completion received".to_owned(),
        InvokeError::Garbled { .. } => "the record cannot be read".to_owned(),
        InvokeError::Closed { .. } => "the client was closed".to_owned(),
    }
}
