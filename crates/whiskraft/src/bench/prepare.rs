//! What has to be there before a run: namespaces, actions, and, unless the load is to begin cold, one container of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use whiskraft_client::{ActionSpec, Client, Expect, InvokeOptions};
use whiskraft_types::{ActionLimits, ActivationStatus, ByteSize, NameError, NamespaceLimits, QueueKey};

use super::mix::{Mix, namespace};
use super::plan::Plan;
use crate::clock;
use crate::command::{action_failure, call_failure};
use crate::exit::{Exit, Failure};
use crate::load::reason;
use crate::units::show_ms;

/// Writes and first runs under way at once: enough to fill the batches of the log.
const UNDER_WAY: usize = 64;
/// Memory of a simulated container: the least that an action may have, as it is only counted.
const MEMORY: ByteSize = ByteSize::mib(64);
/// Kind of the actions. Nothing of it is run.
const KIND: &str = "python:3";

/// A cluster that is ready for a run, and the clients that will make it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) clients: Vec<Client>,
    pub(super) mix: Arc<Mix>,
}

/// Makes the cluster ready for a plan; clients beyond the first are used by the load only.
///
/// # Errors
/// If the cluster refuses something or an action cannot be run.
pub(crate) async fn prepare(clients: Vec<Client>, plan: &Plan, quiet: bool) -> Result<Prepared, Failure> {
    let mix = Arc::new(Mix::new(plan).map_err(name_failure)?);
    let client = &clients[0];
    store_namespaces(client, plan, quiet).await?;
    store_actions(client, plan, mix.queues(), quiet).await?;
    if !plan.cold {
        run_once(&clients, plan, mix.queues(), quiet).await?;
    }
    Ok(Prepared { clients, mix })
}

pub(super) async fn store_namespaces(client: &Client, plan: &Plan, quiet: bool) -> Result<(), Failure> {
    let names = (0..plan.namespaces).map(|n| namespace(&plan.prefix, n));
    let names: Vec<_> = names.collect::<Result<_, _>>().map_err(name_failure)?;
    let limits = NamespaceLimits::containers(plan.containers);
    let stage = Stage::begin("namespaces stored", names.len(), quiet);
    let (limits, stage_ref) = (&limits, &stage);
    let stored = stream::iter(&names)
        .map(Ok::<_, Failure>)
        .try_for_each_concurrent(UNDER_WAY, |name| async move {
            client.put_namespace(name, limits).await.map_err(call_failure)?;
            stage_ref.step();
            Ok(())
        });
    stored.await?;
    stage.end();
    Ok(())
}

pub(super) async fn store_actions(
    client: &Client,
    plan: &Plan,
    queues: &[QueueKey],
    quiet: bool,
) -> Result<(), Failure> {
    let limits = ActionLimits {
        memory: MEMORY,
        concurrency: plan.concurrency,
        ..ActionLimits::default()
    };
    let stage = Stage::begin("actions stored", queues.len(), quiet);
    let (limits, stage_ref) = (&limits, &stage);
    let stored = stream::iter(queues)
        .map(Ok::<_, Failure>)
        .try_for_each_concurrent(UNDER_WAY, |queue| async move {
            let mut spec = ActionSpec::new(queue.action.clone(), KIND, "");
            spec.limits = limits.clone();
            client
                .put_action(&spec, Expect::Anything)
                .await
                .map_err(action_failure)?;
            stage_ref.step();
            Ok(())
        });
    stored.await?;
    stage.end();
    Ok(())
}

/// Runs each action once, so that its queue and a container of it are there.
async fn run_once(clients: &[Client], plan: &Plan, queues: &[QueueKey], quiet: bool) -> Result<(), Failure> {
    let stage = Stage::begin("actions run once", queues.len(), quiet);
    let stage_ref = &stage;
    let runs = queues.iter().enumerate().map(|(n, queue)| async move {
        let options = InvokeOptions {
            deadline: plan.timeout,
            ..InvokeOptions::default()
        };
        let client = &clients[n % clients.len()];
        let answer = client
            .invoke(&queue.namespace, &queue.action, "{}", options)
            .await;
        stage_ref.step();
        match answer {
            Ok(record) if record.status == ActivationStatus::Success => None,
            Ok(record) => Some(format!("ended with {}", record.status.text())),
            Err(error) => Some(reason(&error)),
        }
    });
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    let mut runs = stream::iter(runs).buffer_unordered(UNDER_WAY);
    while let Some(failure) = runs.next().await {
        if let Some(reason) = failure {
            *failures.entry(reason).or_default() += 1;
        }
    }
    drop(runs);
    stage.end();
    let failed: u64 = failures.values().sum();
    match failures.into_iter().max_by_key(|(_, count)| *count) {
        None => Ok(()),
        Some((reason, _)) => Err(Failure::new(
            Exit::Failed,
            format!("{failed} of {} actions could not be run once: {reason}", queues.len()),
        )
        .advise("see `whiskraft status` and `whiskraft queues`; invokers need `--backend simulated`; or begin with --cold")),
    }
}

fn name_failure(error: NameError) -> Failure {
    Failure::new(Exit::Usage, "--prefix makes no names").caused_by(error)
}

/// A part of the preparation, with its progress.
pub(super) struct Stage {
    what: &'static str,
    count: usize,
    quiet: bool,
    began: std::time::Instant,
    bar: ProgressBar,
}

impl Stage {
    pub(super) fn begin(what: &'static str, count: usize, quiet: bool) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {per_sec:.0}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = match quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(count as u64)
                .with_style(style)
                .with_message(what),
        };
        Self {
            what,
            count,
            quiet,
            began: clock::now(),
            bar,
        }
    }

    pub(super) fn step(&self) {
        self.bar.inc(1);
    }

    pub(super) fn end(self) {
        self.bar.finish_and_clear();
        if !self.quiet {
            let took = clock::now().saturating_duration_since(self.began);
            eprintln!(
                "{} {} in {}",
                self.count,
                self.what,
                show_ms(took.as_secs_f64() * 1000.0)
            );
        }
    }
}
