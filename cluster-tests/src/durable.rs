//! Durable work: non-blocking activations with arguments of their own, submitted until told to stop, each with what its
//! submitter knows of it.
//!
//! A submission without an answer is made again under the same id, until its fate is known or [`GIVE_UP`] has passed. Some
//! are made twice at the same time, by two clients, as impatient callers do. Who submitted what is kept in memory and
//! judged afterwards ([`judge`]).

mod evidence;
mod judgement;
mod submit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use whiskraft_client::Client;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_types::{ActivationId, QueueKey};

use crate::chance::drawn;
use crate::wait::Deadline;

pub use evidence::{Evidence, look};
pub use judgement::{Judgement, judge};
use submit::Submitter;

/// How long one activation is submitted again and again before its fate counts as unknown. Above any failover.
const GIVE_UP: Duration = Duration::from_secs(90);
/// Acknowledged activations remembered for [`DurableLoad::newest_records`].
const NEWEST: usize = 64;

/// The work to do.
#[derive(Debug, Clone)]
pub struct Work {
    /// Queues, taken in turn.
    pub queues: Vec<QueueKey>,
    /// Submitters at work at a time, each with one activation.
    pub submitters: usize,
    /// Most activations; the work stops by itself there.
    pub most: u64,
    /// Longest simulated run, in milliseconds; each gets a length of its own up to it.
    pub run_ms_max: u64,
    /// Every so many activations are submitted by two clients at once; 0: none.
    pub twice_every: u64,
    /// More arguments of each activation, by its number.
    pub more: fn(u64) -> Value,
}

impl Work {
    /// Short runs on these queues by so many submitters.
    #[must_use]
    pub fn new(queues: Vec<QueueKey>, submitters: usize, most: u64) -> Self {
        Self {
            queues,
            submitters,
            most,
            run_ms_max: 5,
            twice_every: 20,
            more: |_| Value::Null,
        }
    }

    /// Arguments of activation number `n`; nobody can make them up.
    fn arguments(&self, n: u64) -> Value {
        let mut arguments = json!({
            "n": n,
            "proof": proof(n),
            "sleep_ms": drawn(n) % (self.run_ms_max + 1),
        });
        if let (Some(all), Value::Object(more)) = (arguments.as_object_mut(), (self.more)(n)) {
            all.extend(more);
        }
        arguments
    }
}

/// Submits an activation of an earlier work once more, as a caller with a long memory would: under the same id, with the same
/// arguments or, if `changed`, with others.
pub async fn resubmit(client: &Client, work: &Work, operation: &Operation, changed: bool) -> Fate {
    let n = if changed { operation.n + 1 } else { operation.n };
    let arguments = work.arguments(n).to_string();
    submit::again(client, operation, &arguments).await
}

/// What the result of activation number `n` has to contain.
fn proof(n: u64) -> String {
    format!("{:016x}", drawn(n.wrapping_mul(7).wrapping_add(3)))
}

/// What a submitter knows of its activation in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged: it must end, once.
    Accepted,
    /// Refused for good: it must never run.
    Refused(String),
    /// Neither: it may run, at most once.
    Unknown(String),
}

/// One activation, as its submitter saw it.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its id, the same for every attempt.
    pub id: ActivationId,
    /// Its queue.
    pub key: QueueKey,
    /// Its number, from which its arguments follow.
    pub n: u64,
    /// When it was submitted first, from the start of the work.
    pub began: Duration,
    /// How long it took until its fate was known.
    pub took: Duration,
    /// How often it was submitted by hand, beside what the SDK did.
    pub tries: u32,
    /// Whether two clients submitted it at the same time.
    pub twice: bool,
    /// What became of it.
    pub fate: Fate,
}

/// Submitters at work.
#[derive(Debug)]
pub struct DurableLoad {
    clock: Deadline,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    submitters: JoinSet<Vec<Operation>>,
}

/// What all submitters share.
#[derive(Debug)]
struct Shared {
    work: Work,
    clients: Vec<Client>,
    next: AtomicU64,
    accepted: AtomicU64,
    newest: Mutex<VecDeque<Operation>>,
}

impl Shared {
    fn accepted(&self, operation: &Operation) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.len() == NEWEST {
            newest.pop_front();
        }
        newest.push_back(operation.clone());
    }
}

impl DurableLoad {
    /// Starts the work through these clients, at least two.
    ///
    /// # Panics
    /// With fewer: the same id cannot be submitted twice at a time through one client.
    #[must_use]
    pub fn start(clients: Vec<Client>, work: Work) -> Self {
        assert!(clients.len() >= 2 && !work.queues.is_empty());
        let (clock, stop) = (Deadline::after(Duration::MAX), watch::Sender::new(false));
        let shared = Arc::new(Shared {
            clients,
            next: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            newest: Mutex::default(),
            work,
        });
        let mut submitters = JoinSet::new();
        for _ in 0..shared.work.submitters {
            submitters.spawn(Submitter::new(Arc::clone(&shared), clock, stop.subscribe()).run());
        }
        Self {
            clock,
            stop,
            shared,
            submitters,
        }
    }

    /// Activations acknowledged so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// What the schedulers say now of the ones that were acknowledged last; only of those that have ended.
    pub async fn newest_records(&self, endpoint: &str) -> BTreeMap<ActivationId, Evidence> {
        let newest = self.shared.newest.lock();
        let newest: Vec<Operation> = newest
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect();
        let newest: Vec<&Operation> = newest.iter().collect();
        let mut found = look(endpoint, &newest, Duration::ZERO, |_| true).await;
        found.retain(|_, evidence| evidence.state == State::Done);
        found
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The clock of [`Operation::began`].
    #[must_use]
    pub fn clock(&self) -> Deadline {
        self.clock
    }

    /// Waits for so many more acknowledgements, and says how long it took.
    ///
    /// # Panics
    /// When they do not come within `limit`.
    pub async fn progress(&self, more: u64, limit: Duration) -> Duration {
        let wanted = (self.accepted() + more).min(self.shared.work.most);
        let enough = async || (self.accepted() >= wanted).then_some(());
        crate::wait::until("durable work goes on", limit, enough).await.1
    }

    /// Makes the present activations the last and gives all of them.
    ///
    /// # Panics
    /// When a submitter does.
    pub async fn finish(mut self) -> Vec<Operation> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        while let Some(joined) = self.submitters.join_next().await {
            all.extend(joined.expect("a submitter does not panic"));
        }
        all.sort_by_key(|operation| operation.began);
        all
    }
}
