//! Measurements of one property of a cluster each, beside those of a load of activations.
//!
//! A [`Probe`] says what is asked; [`Probe::run`] carries it out once, on a cluster that was started for it, and gives a
//! [`Finding`]. Several make a report like that of a load ([`text`]). What takes part in one: [`puts`] and [`fanout`] what the log
//! carries beside activations, [`idle`] what queues cost that nobody uses, [`restart`] and [`lose_scheduler`] how long it takes
//! until work goes on, [`lose_invoker`] until nothing is given to one that is gone.

mod fanout;
mod finding;
mod idle;
mod lose_invoker;
mod lose_scheduler;
mod puts;
mod restart;
mod rotation;
mod text;

use std::time::Duration;

use serde::Serialize;
use whiskraft_client::{Client, Settings};

pub(crate) use self::fanout::Fanout;
pub(crate) use self::finding::Finding;
pub(crate) use self::idle::Idle;
pub(crate) use self::lose_invoker::LoseInvoker;
pub(crate) use self::lose_scheduler::LoseScheduler;
pub(crate) use self::puts::{Puts, What};
pub(crate) use self::restart::Restart;
pub(crate) use self::text::{page, render, report};
use super::cluster::Cluster;
use super::plan::{Load, Plan};
use crate::command::connect_with;
use crate::exit::Failure;

/// Longest wait for one activation of a probe.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Probe {
    /// Small documents stored.
    Puts(Puts),
    /// A change told to many watchers.
    Watch(Fanout),
    /// Queues that nobody uses.
    Idle(Idle),
    /// All schedulers killed and started again.
    Restart(Restart),
    /// Invokers killed or stopped in their tracks.
    LoseInvoker(LoseInvoker),
    /// Schedulers killed or stopped in their tracks.
    LoseScheduler(LoseScheduler),
}

impl Probe {
    /// Measures once. To be called from the main thread, as processes are started.
    ///
    /// # Errors
    /// If the cluster refuses something, or what is waited for does not come.
    pub(crate) async fn run(&self, cluster: &mut Cluster, quiet: bool) -> Result<Finding, Failure> {
        match self {
            Self::Puts(probe) => probe.run(cluster).await,
            Self::Watch(probe) => probe.run(cluster).await,
            Self::Idle(probe) => probe.run(cluster, quiet).await,
            Self::Restart(probe) => probe.run(cluster, quiet).await,
            Self::LoseInvoker(probe) => probe.run(cluster, quiet).await,
            Self::LoseScheduler(probe) => probe.run(cluster, quiet).await,
        }
    }

    /// What is measured, in words.
    pub(super) fn header(&self) -> String {
        match self {
            Self::Puts(probe) => probe.header(),
            Self::Watch(probe) => probe.header(),
            Self::Idle(probe) => probe.header(),
            Self::Restart(probe) => probe.header(),
            Self::LoseInvoker(probe) => probe.header(),
            Self::LoseScheduler(probe) => probe.header(),
        }
    }
}

/// A client whose own bounds are above those of a probe. Each begins with another scheduler.
async fn connect(cluster: &Cluster, n: usize) -> Result<Client, Failure> {
    let mut endpoints = cluster.endpoints().to_vec();
    let first = n % endpoints.len();
    endpoints.rotate_left(first);
    connect_with(&endpoints, Settings::default()).await
}

/// What becomes of a process that is lost, in words.
fn lost_how(freeze: bool) -> &'static str {
    if freeze {
        "stopped in their tracks"
    } else {
        "killed"
    }
}

/// Activations of no length through so many queues, spread over as many namespaces.
fn plan_of(queues: u32, namespaces: u32, rate: f64, (warm_up, time): (Duration, Duration)) -> Plan {
    let namespaces = namespaces.min(queues);
    Plan {
        load: Load::Open { rate },
        actions: queues,
        namespaces,
        prefix: "bench".parse().expect("a valid name"),
        // One for each queue, and some more for those that are made anew.
        containers: 2 * queues.div_ceil(namespaces),
        concurrency: 1,
        run_ms: 0.0,
        payload_bytes: 0,
        durable_percent: 0,
        forget: false,
        delay: Duration::ZERO,
        connections: 1,
        under_way_max: 10_000,
        timeout: TIMEOUT,
        warm_up,
        time,
        cold: false,
        stages: false,
    }
}
