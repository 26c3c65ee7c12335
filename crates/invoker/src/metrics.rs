//! What the invoker counts: names, units and meanings. `docs/metrics.md` has the same list, and a test holds the two
//! together.
//!
//! Counted where it happens, on atomics; what is a number of now is asked of the actor at a scrape. Invariant: every
//! label has a closed list of values.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use whiskraft_pool::{Life, MemoryUse};
use whiskraft_proto::v1::Status;
use whiskraft_types::{ByteSize, CreationError};

/// What the text of a scrape is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bounds of creations in seconds: from a simulated one to a pull of a large image.
const CREATE_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Bounds of runs in seconds: from a function that does nothing to the longest that is allowed.
const RUN_BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0,
];

/// All metrics of one invoker.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    containers: IntGaugeVec,
    memory: IntGaugeVec,
    healthy: IntGauge,
    creations: IntCounterVec,
    create_seconds: HistogramVec,
    activations: IntCounterVec,
    run_seconds: Histogram,
    refused: IntCounter,
    results: IntGauge,
    keepalive_age: Gauge,
    connected: IntGauge,
}

/// Numbers of now, from the actor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    /// Containers, each by its life.
    pub(crate) lives: Vec<Life>,
    /// Memory and health as reported to schedulers.
    pub(crate) memory: MemoryUse,
    /// Results that are not acknowledged.
    pub(crate) results: usize,
    /// Since the last acknowledged keepalive was sent; `None` before the first of the session.
    pub(crate) keepalive_age: Option<Duration>,
    /// Schedulers with open streams.
    pub(crate) connected: usize,
    /// Why it cannot work now, if it cannot.
    pub(crate) trouble: Option<&'static str>,
}

impl Metrics {
    /// Metrics that have counted nothing.
    ///
    /// # Errors
    /// Never: names and labels are constants, and a test makes one.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            containers: register(
                &registry,
                IntGaugeVec::new(opts("containers", "Containers by state."), &["state"]),
            )?,
            memory: register(
                &registry,
                IntGaugeVec::new(
                    opts(
                        "container_memory_bytes",
                        "Memory for containers: total, busy (running, starting, leaving), reclaimable (paused).",
                    ),
                    &["use"],
                ),
            )?,
            healthy: register(
                &registry,
                IntGauge::with_opts(opts(
                    "healthy",
                    "1 while new containers may be placed here, else 0.",
                )),
            )?,
            creations: register(
                &registry,
                IntCounterVec::new(
                    opts(
                        "creations_total",
                        "Creations that ended: created, resumed, or failed with the kind of the error.",
                    ),
                    &["outcome", "error"],
                ),
            )?,
            create_seconds: register(
                &registry,
                HistogramVec::new(
                    histogram(
                        "create_seconds",
                        "Length of creations (cold) and resumptions (warm) that succeeded.",
                        CREATE_BOUNDS,
                    ),
                    &["kind"],
                ),
            )?,
            activations: register(
                &registry,
                IntCounterVec::new(
                    opts("activations_total", "Activations that ended here, by status."),
                    &["status"],
                ),
            )?,
            run_seconds: register(
                &registry,
                Histogram::with_opts(histogram(
                    "run_seconds",
                    "Length of runs without init.",
                    RUN_BOUNDS,
                )),
            )?,
            refused: register(
                &registry,
                IntCounter::with_opts(opts(
                    "refused_total",
                    "Activations given back to a scheduler, certainly not started.",
                )),
            )?,
            results: register(
                &registry,
                IntGauge::with_opts(opts(
                    "results_kept",
                    "Results that no scheduler has acknowledged yet.",
                )),
            )?,
            keepalive_age: register(
                &registry,
                Gauge::with_opts(opts(
                    "keepalive_age_seconds",
                    "Since the last acknowledged keepalive was sent; -1 before the first.",
                )),
            )?,
            connected: register(
                &registry,
                IntGauge::with_opts(opts("connected_schedulers", "Schedulers with open streams.")),
            )?,
            registry,
        };
        for error in CreationError::ALL {
            metrics.creations.with_label_values(&["failed", error.name()]);
        }
        for outcome in ["created", "resumed"] {
            metrics.creations.with_label_values(&[outcome, ""]);
        }
        Ok(metrics)
    }

    /// A container was created in so long.
    pub(crate) fn created(&self, took: Duration) {
        self.creations.with_label_values(&["created", ""]).inc();
        self.create_seconds
            .with_label_values(&["cold"])
            .observe(took.as_secs_f64());
    }

    /// A paused container runs again after so long.
    pub(crate) fn resumed(&self, took: Duration) {
        self.creations.with_label_values(&["resumed", ""]).inc();
        self.create_seconds
            .with_label_values(&["warm"])
            .observe(took.as_secs_f64());
    }

    /// A creation failed, whoever refused it.
    pub(crate) fn creation_failed(&self, error: CreationError) {
        self.creations.with_label_values(&["failed", error.name()]).inc();
    }

    /// An activation ended after a run of so many microseconds; 0 is no run.
    pub(crate) fn ended(&self, status: Status, run_us: u64) {
        self.activations.with_label_values(&[status_name(status)]).inc();
        if run_us > 0 {
            self.run_seconds
                .observe(Duration::from_micros(run_us).as_secs_f64());
        }
    }

    /// An activation was given back.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// The text of a scrape, with the numbers of now.
    ///
    /// # Errors
    /// If two metrics had one name, which a test excludes.
    pub(crate) fn expose(&self, now: &Snapshot) -> Result<String, prometheus::Error> {
        for life in LIVES {
            let count = now.lives.iter().filter(|other| **other == life).count();
            self.containers
                .with_label_values(&[life_name(life)])
                .set(signed(count));
        }
        let MemoryUse {
            total,
            busy,
            reclaimable,
            healthy,
        } = now.memory;
        for (what, bytes) in [("total", total), ("busy", busy), ("reclaimable", reclaimable)] {
            self.memory.with_label_values(&[what]).set(signed_bytes(bytes));
        }
        self.healthy.set(i64::from(healthy));
        self.results.set(signed(now.results));
        self.keepalive_age
            .set(now.keepalive_age.map_or(-1.0, |age| age.as_secs_f64()));
        self.connected.set(signed(now.connected));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("whiskraft_invoker")
}

fn histogram(name: &str, help: &str, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::from(opts(name, help)).buckets(bounds.to_vec())
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let made = made?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn signed_bytes(size: ByteSize) -> i64 {
    i64::try_from(size.as_bytes()).unwrap_or(i64::MAX)
}

const LIVES: [Life; 9] = [
    Life::Waiting,
    Life::Creating,
    Life::Fresh,
    Life::Initialising,
    Life::Ready,
    Life::Pausing,
    Life::Paused,
    Life::Resuming,
    Life::Removing,
];

const fn life_name(life: Life) -> &'static str {
    match life {
        Life::Waiting => "waiting",
        Life::Creating => "creating",
        Life::Fresh => "fresh",
        Life::Initialising => "initialising",
        Life::Ready => "ready",
        Life::Pausing => "pausing",
        Life::Paused => "paused",
        Life::Resuming => "resuming",
        Life::Removing => "removing",
    }
}

const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Success => "success",
        Status::ApplicationError => "application-error",
        Status::DeveloperError => "developer-error",
        Status::WhiskError | Status::Unspecified => "whisk-error",
    }
}

#[cfg(test)]
mod metrics_test;
