//! Hot path: one container of the process backend: its proxy, its pipes, and the calls that go to it.
//!
//! Invariant: the proxy's process is reaped only after every other process of the container was looked for and
//! killed, so until then its number belongs to this container and to nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use whiskraft_types::{ActivationStatus, ByteSize};

use super::group::{self, ProcessId};
use super::log_pipes::LogPipes;
use crate::backend::classify::{self, Answer, Verdict};
use crate::backend::http::{BodyLimits, HttpClient, NotSent};
use crate::backend::logs::ShareEnd;
use crate::backend::outcome::{Ended, GiveBack, InitOutcome, InitSpan, RunOutcome};
use crate::backend::spec::{InitRequest, Instance, PauseError, RunRequest};
use crate::backend::{BackendEvent, clock, payload};

/// Pauses between two rounds of killing: the first is short because one round is nearly always enough.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(1);
const ROUND_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Rounds after which processes that do not die are reported; they are hung in the kernel.
const ROUNDS_REPORTED: u32 = 100;
/// How long an activation over its time waits for its processes to be gone.
const KILL_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long the watcher may take to see the end of a proxy whose connection broke.
const END_SEEN_MAX: Duration = Duration::from_millis(200);

/// The limit that a container was killed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exceeded {
    /// None.
    Nothing = 0,
    /// Memory.
    Memory = 1,
    /// Number of processes.
    Processes = 2,
}

/// What a container is made of once its proxy runs.
pub(crate) struct Parts {
    /// Which one.
    pub(crate) instance: Instance,
    /// Its directory.
    pub(crate) directory: PathBuf,
    /// The proxy.
    pub(crate) proxy: ProcessId,
    /// Its output.
    pub(crate) logs: Arc<LogPipes>,
    /// Most memory of all its processes.
    pub(crate) memory: ByteSize,
    /// Activations at once.
    pub(crate) concurrency: u32,
    /// Largest results.
    pub(crate) body_limits: BodyLimits,
}

/// A container.
pub(crate) struct Container {
    pub(crate) instance: Instance,
    pub(crate) directory: PathBuf,
    pub(crate) proxy: ProcessId,
    pub(crate) memory: ByteSize,
    logs: Arc<LogPipes>,
    client: HttpClient,
    body_limits: BodyLimits,
    concurrency: u32,
    permits: Semaphore,
    busy: AtomicU32,
    paused: AtomicBool,
    removing: AtomicBool,
    exceeded: AtomicU8,
    ended: watch::Sender<bool>,
}

/// A call that is being made.
struct Call<'a> {
    container: &'a Container,
    _permit: SemaphorePermit<'a>,
    start: Instant,
    start_ms: u64,
}

/// How a call ended.
struct Called {
    answer: Answer,
    start_ms: u64,
    took: Duration,
}

impl Container {
    /// A container around a proxy that listens.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            client: HttpClient::new(parts.directory.join("s")),
            instance: parts.instance,
            directory: parts.directory,
            proxy: parts.proxy,
            memory: parts.memory,
            logs: parts.logs,
            body_limits: parts.body_limits,
            concurrency: parts.concurrency,
            permits: Semaphore::new(parts.concurrency as usize),
            busy: AtomicU32::new(0),
            paused: AtomicBool::new(false),
            removing: AtomicBool::new(false),
            exceeded: AtomicU8::new(Exceeded::Nothing as u8),
            ended: watch::Sender::new(false),
        })
    }

    /// Waits for the end of the proxy, ends everything else, reaps, and tells the owner unless it asked for it.
    /// `lifeline` is our end of the proxy's standard input: as long as it is open the proxy lives, and the proxy's
    /// end is closed by nothing but its death.
    pub(crate) async fn watch(
        self: Arc<Self>,
        mut child: Child,
        mut lifeline: UnixStream,
        deaths: mpsc::Sender<BackendEvent>,
    ) {
        let mut unexpected = [0; 64];
        while lifeline.read(&mut unexpected).await.is_ok_and(|read| read > 0) {}
        self.kill_members().await;
        let status = child.wait().await;
        self.ended.send_replace(true);
        if self.removing.load(Ordering::Acquire) {
            return;
        }
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let reason = match self.exceeded() {
            Exceeded::Nothing => how,
            Exceeded::Memory => format!("it used more than {} of memory", self.memory),
            Exceeded::Processes => "it started too many processes".to_owned(),
        };
        tracing::debug!(container = %self.instance, %reason, "container ended");
        // An error means that nobody listens to deaths any more.
        let _ = deaths
            .send(BackendEvent::Died {
                instance: self.instance,
                reason,
            })
            .await;
    }

    /// `POST /init`.
    pub(crate) async fn init(&self, request: &InitRequest) -> InitOutcome {
        let limit = request.timeout;
        let body = payload::init_body(request, clock::wall() + limit);
        let logs_max = request.logs_max.as_bytes();
        let called = match self.call("/init", body, limit, logs_max).await {
            Ok(called) => called,
            Err(reason) => return InitOutcome::GiveBack(GiveBack { reason }),
        };
        match classify::init_verdict(&called.answer, called.took, limit) {
            Verdict::GiveBack => {
                self.logs.end(ShareEnd::DeveloperError, 0);
                InitOutcome::GiveBack(GiveBack {
                    reason: "the runtime answered 503".to_owned(),
                })
            }
            Verdict::Initialised => {
                self.logs.end_init();
                InitOutcome::Ready(InitSpan {
                    start_ms: called.start_ms,
                    took: called.took,
                })
            }
            Verdict::Ended { status, result, size } => {
                let timed_out = called.took >= limit;
                let ended = Ended {
                    in_init: true,
                    ..self.ended(called, status, result, size, logs_max)
                };
                InitOutcome::Failed(Ended { timed_out, ..ended })
            }
        }
    }

    /// `POST /run`.
    pub(crate) async fn run(&self, request: &RunRequest) -> RunOutcome {
        let limit = request.timeout;
        let logs_max = request.logs_max.as_bytes();
        let Some(body) = payload::run_body(request, clock::wall() + limit) else {
            return RunOutcome::Ended(Ended::refused_arguments(clock::wall_ms()));
        };
        let mut called = match self.call("/run", body, limit, logs_max).await {
            Ok(called) => called,
            Err(reason) => return RunOutcome::GiveBack(GiveBack { reason }),
        };
        let answer = std::mem::replace(&mut called.answer, Answer::Nothing);
        match classify::run_verdict(answer, called.took, limit) {
            Verdict::GiveBack => {
                self.logs.end(ShareEnd::DeveloperError, 0);
                RunOutcome::GiveBack(GiveBack {
                    reason: "the runtime answered 503".to_owned(),
                })
            }
            // Never said of a run; the answer of a run that says nothing is none.
            Verdict::Initialised => RunOutcome::GiveBack(GiveBack {
                reason: "no verdict".to_owned(),
            }),
            Verdict::Ended { status, result, size } => {
                let timed_out = called.took >= limit;
                let ended = self.ended(called, status, result, size, logs_max);
                RunOutcome::Ended(Ended { timed_out, ..ended })
            }
        }
    }

    fn ended(
        &self,
        called: Called,
        status: ActivationStatus,
        result: bytes::Bytes,
        size: Option<u64>,
        logs_max: u64,
    ) -> Ended {
        let end = match status {
            ActivationStatus::DeveloperError => ShareEnd::DeveloperError,
            _ => ShareEnd::Sentinels,
        };
        let share = self.logs.end(end, logs_max);
        Ended {
            status,
            result,
            size,
            start_ms: called.start_ms,
            took: called.took,
            timed_out: false,
            logs: share.lines,
            log_outcome: share.outcome,
            in_init: false,
        }
    }

    /// Makes one call within a time limit. An error is the reason why nothing of it reached the proxy.
    async fn call(
        &self,
        path: &'static str,
        body: bytes::Bytes,
        limit: Duration,
        logs_max: u64,
    ) -> Result<Called, String> {
        let call = self.enter().await?;
        self.logs.begin(logs_max);
        let posted = tokio::time::timeout(limit, self.client.post(path, body, self.body_limits)).await;
        let mut took = call.start.elapsed();
        let answer = match posted {
            Ok(Ok(answer)) => self.with_cause(answer).await,
            Ok(Err(error)) => {
                self.logs.end(ShareEnd::DeveloperError, 0);
                return Err(not_sent_text(&error));
            }
            Err(_elapsed) => {
                took = took.max(limit);
                // What does not die in time is hung in the kernel; the removal that follows waits for it.
                let _ = tokio::time::timeout(KILL_WAIT_MAX, self.kill_members()).await;
                Answer::Nothing
            }
        };
        Ok(Called {
            answer,
            start_ms: call.start_ms,
            took,
        })
    }

    async fn enter(&self) -> Result<Call<'_>, String> {
        let gone = || format!("container {} is gone", self.instance);
        let permit = self.permits.acquire().await.map_err(|_| gone())?;
        if self.is_ended() || self.removing.load(Ordering::Acquire) {
            return Err(gone());
        }
        if self.paused.load(Ordering::Acquire) {
            return Err(format!("container {} is paused", self.instance));
        }
        self.busy.fetch_add(1, Ordering::AcqRel);
        Ok(Call {
            container: self,
            _permit: permit,
            start: clock::now(),
            start_ms: clock::wall_ms(),
        })
    }

    /// The answer, or the limit that was the cause of there being none or a bad one.
    async fn with_cause(&self, answer: Answer) -> Answer {
        if matches!(answer, Answer::Response { code: 200, .. }) {
            return answer;
        }
        if answer == Answer::Nothing {
            // The broken connection may be seen before the end of the process.
            let mut ended = self.ended.subscribe();
            let _ = tokio::time::timeout(END_SEEN_MAX, ended.wait_for(|ended| *ended)).await;
        }
        match self.exceeded() {
            Exceeded::Nothing => answer,
            Exceeded::Memory => Answer::MemoryExhausted,
            Exceeded::Processes => Answer::Nothing,
        }
    }

    /// Ends the container because of a limit, and says so in the log of what runs.
    pub(crate) async fn exceed(&self, exceeded: Exceeded, note: &str) {
        let none = Exceeded::Nothing as u8;
        if self
            .exceeded
            .compare_exchange(none, exceeded as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // An earlier check is still ending it.
            return;
        }
        self.logs.note(note);
        self.kill_members().await;
    }

    fn exceeded(&self) -> Exceeded {
        match self.exceeded.load(Ordering::Acquire) {
            1 => Exceeded::Memory,
            2 => Exceeded::Processes,
            _ => Exceeded::Nothing,
        }
    }

    /// Stops every process, if nothing runs.
    pub(crate) fn pause(&self) -> Result<(), PauseError> {
        let _all = self.all_permits()?;
        self.paused.store(true, Ordering::Release);
        group::signal_all(self.proxy, Signal::STOP);
        Ok(())
    }

    /// Continues every process.
    pub(crate) fn resume(&self) -> Result<(), PauseError> {
        let _all = self.all_permits()?;
        group::signal_all(self.proxy, Signal::CONT);
        self.paused.store(false, Ordering::Release);
        Ok(())
    }

    fn all_permits(&self) -> Result<SemaphorePermit<'_>, PauseError> {
        if self.is_ended() {
            return Err(PauseError::Gone(self.instance));
        }
        self.permits
            .try_acquire_many(self.concurrency)
            .map_err(|_| PauseError::Busy(self.instance))
    }

    /// Whether an activation or init runs.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ends the container on behalf of its owner; returns when its last process is reaped.
    pub(crate) async fn end(&self) {
        self.removing.store(true, Ordering::Release);
        self.permits.close();
        self.kill_members().await;
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this container.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Kills until there is nothing left to kill.
    async fn kill_members(&self) {
        let mut pause = ROUND_PAUSE_MIN;
        let mut rounds = 0;
        while !self.kill_round().await {
            rounds += 1;
            if rounds % ROUNDS_REPORTED == 0 {
                tracing::warn!(container = %self.instance, rounds, "processes do not end");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ROUND_PAUSE_MAX);
        }
    }

    /// Looks at every process of the host, so not on a thread that moves frames.
    async fn kill_round(&self) -> bool {
        if self.is_ended() {
            return true;
        }
        let proxy = self.proxy;
        tokio::task::spawn_blocking(move || group::kill_round(proxy))
            .await
            .unwrap_or(false)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.container.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

fn not_sent_text(error: &NotSent) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
