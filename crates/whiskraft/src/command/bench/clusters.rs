//! Clusters that are started for a measurement.

use super::arguments::StartArgs;
use super::unless;
use crate::bench::{Cluster, ClusterOptions};
use crate::exit::Failure;
use crate::signals::Signals;

/// Starts one and says so.
///
/// # Errors
/// If it cannot be started.
pub(super) async fn start(options: &ClusterOptions, quiet: bool) -> Result<Cluster, Failure> {
    let cluster = Cluster::start(options).await?;
    if !quiet {
        let (schedulers, invokers) = (options.schedulers, options.invokers);
        eprintln!("started {schedulers} schedulers and {invokers} simulated invokers on 127.0.0.1");
    }
    Ok(cluster)
}

/// Starts one for run number `n`, with a directory of its own, unless a signal comes first.
///
/// # Errors
/// If it cannot be started.
pub(super) async fn start_for_run(
    args: &StartArgs,
    n: u32,
    signals: &mut Signals,
    quiet: bool,
) -> Result<Cluster, Failure> {
    let mut options = args.options();
    options.dir = options.dir.map(|dir| dir.join(format!("run-{n}")));
    unless(signals, start(&options, quiet)).await
}

/// Ends one after a measurement.
///
/// # Errors
/// If one of its processes has ended by itself, which explains a failure better than what it looked like from here; else
/// whatever the measurement failed with.
pub(super) async fn end<T>(mut cluster: Cluster, measured: Result<T, Failure>) -> Result<T, Failure> {
    let alive = cluster.check();
    cluster.end().await;
    alive?;
    measured
}
