//! Calls on many actions at once: open loop (so many per second, whatever happens) and closed loop (each caller waits
//! for its answer). Every call comes back as one [`Done`]; none is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use whiskraft_client::{ActivationRecord, Client, InvokeError, InvokeOptions};
use whiskraft_types::{QueueKey, Rejection};

use crate::wait::Deadline;

/// Pause between two looks at which calls are due.
const PACE: Duration = Duration::from_millis(5);

/// One call to make.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whom it is made for; comes back in [`Done`].
    pub tenant: usize,
    /// The queue.
    pub key: QueueKey,
    /// How long the simulated run takes, in milliseconds.
    pub run_ms: u64,
    /// Bytes of ballast in the arguments.
    pub ballast: usize,
    /// Longest wait for the result.
    pub deadline: Duration,
}

impl Ask {
    /// A call without ballast that may take a minute.
    #[must_use]
    pub fn new(tenant: usize, key: QueueKey, run_ms: u64) -> Self {
        Self {
            tenant,
            key,
            run_ms,
            ballast: 0,
            deadline: Duration::from_secs(60),
        }
    }
}

/// What became of a call.
#[derive(Debug)]
pub struct Done {
    /// Whom it was made for.
    pub tenant: usize,
    /// The queue.
    pub key: QueueKey,
    /// When it was made, from the start of the driver.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// Its end.
    pub outcome: Outcome,
}

/// How a call ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a record, of success or not.
    Record(Box<ActivationRecord>),
    /// Refused for good: it did not run.
    Refused(Rejection),
    /// Without an answer that says what happened.
    Lost(String),
}

/// Calls that have ended so far.
#[derive(Debug, Default)]
struct Counts {
    ended: AtomicU64,
    records: AtomicU64,
}

impl Counts {
    fn add(&self, outcome: &Outcome) {
        let has_record = matches!(outcome, Outcome::Record(_));
        self.records.fetch_add(u64::from(has_record), Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes calls and collects their ends.
#[derive(Debug)]
pub struct Driver {
    client: Client,
    clock: Deadline,
    made: Arc<Counts>,
    stop: watch::Sender<bool>,
    calls: JoinSet<Vec<Done>>,
}

impl Driver {
    /// A driver whose clock starts now.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            clock: Deadline::after(Duration::MAX),
            made: Arc::default(),
            stop: watch::Sender::new(false),
            calls: JoinSet::new(),
        }
    }

    /// Time since it was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Calls that have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.made.ended.load(Ordering::Relaxed)
    }

    /// Of these, the ones that have a record.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.made.records.load(Ordering::Relaxed)
    }

    /// Makes one call in the background.
    pub fn call(&mut self, ask: Ask) {
        let (client, clock, made) = (self.client.clone(), self.clock, Arc::clone(&self.made));
        self.calls.spawn(async move {
            let done = call(&client, clock, ask).await;
            made.add(&done.outcome);
            vec![done]
        });
    }

    /// Makes `rate` calls a second for `time`, what each is says `ask` by its number. A call that was held back by a
    /// busy machine is made late, none is left out.
    pub async fn open_loop(&mut self, rate: f64, time: Duration, mut ask: impl FnMut(u64) -> Ask) {
        let began = self.elapsed();
        let mut next = 0_u64;
        loop {
            let passed = self.elapsed().saturating_sub(began);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of calls"
            )]
            let due = (passed.min(time).as_secs_f64() * rate) as u64;
            while next < due {
                self.call(ask(next));
                next += 1;
            }
            if passed >= time {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Lets callers work until [`Driver::stop`]: each makes what `ask` says by the number of its call, and waits for
    /// the answer; one that was refused waits as long as it was told to.
    pub fn callers<F>(&mut self, count: usize, ask: F)
    where
        F: Fn(usize, u64) -> Ask + Send + Sync + 'static,
    {
        let ask = Arc::new(ask);
        for caller in 0..count {
            let (client, clock, made) = (self.client.clone(), self.clock, Arc::clone(&self.made));
            let (mut stop, ask) = (self.stop.subscribe(), Arc::clone(&ask));
            self.calls.spawn(async move {
                let mut all = Vec::new();
                for n in 0.. {
                    if *stop.borrow() {
                        break;
                    }
                    let done = call(&client, clock, ask(caller, n)).await;
                    made.add(&done.outcome);
                    let pause = pause_after(&done.outcome);
                    all.push(done);
                    // Whoever waits to come back ends at once when there is no coming back.
                    let _ = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
                }
                all
            });
        }
    }

    /// Makes the callers' present calls their last.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops the callers and waits for every call.
    pub async fn finish(mut self) -> Vec<Done> {
        self.stop();
        let mut all = Vec::new();
        while let Some(joined) = self.calls.join_next().await {
            all.extend(joined.expect("a caller does not panic"));
        }
        all.sort_by_key(|done| done.began);
        all
    }
}

/// A caller that is told to come back later does; one that lost its call does not hurry.
fn pause_after(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Record(_) => Duration::ZERO,
        Outcome::Refused(Rejection::Throttled { retry_after, .. }) => *retry_after,
        Outcome::Refused(_) | Outcome::Lost(_) => Duration::from_millis(100),
    }
}

async fn call(client: &Client, clock: Deadline, ask: Ask) -> Done {
    let options = InvokeOptions {
        deadline: ask.deadline,
        ..InvokeOptions::default()
    };
    let arguments = format!(
        "{{\"sleep_ms\":{},\"for\":{},\"ballast\":\"{}\"}}",
        ask.run_ms,
        ask.tenant,
        "x".repeat(ask.ballast)
    );
    let began = clock.elapsed();
    let answer = client
        .invoke(&ask.key.namespace, &ask.key.action, arguments.as_str(), options)
        .await;
    let outcome = match answer {
        Ok(record) => Outcome::Record(Box::new(without_ballast(record, ask.tenant))),
        Err(InvokeError::Rejected { rejection, .. }) => Outcome::Refused(rejection),
        Err(error) => Outcome::Lost(error.to_string()),
    };
    Done {
        tenant: ask.tenant,
        key: ask.key,
        began,
        took: clock.elapsed().saturating_sub(began),
        outcome,
    }
}

/// A successful record without its result, which is checked here: a simulated run returns its arguments.
fn without_ballast(mut record: ActivationRecord, tenant: usize) -> ActivationRecord {
    if record.status == whiskraft_types::ActivationStatus::Success {
        let own = format!("\"for\":{tenant},");
        let is_own = record
            .result
            .windows(own.len())
            .any(|part| part == own.as_bytes());
        assert!(
            is_own,
            "activation {} returned another caller's arguments",
            record.id
        );
        record.result.clear();
    }
    record
}
