//! All schedulers are killed and started again, and an activation goes through each queue as soon as it can.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::{Finding, TIMEOUT, connect, plan_of};
use crate::bench::call::Caller;
use crate::bench::cluster::{Cluster, scheduler};
use crate::bench::kind::Kind;
use crate::bench::prepare::{Stage, prepare};
use crate::bench::run_clock::RunClock;
use crate::bench::schedule::Window;
use crate::bench::tally::Tallies;
use crate::bench::usage::Roles;
use crate::bench::work::Work as _;
use crate::exit::Failure;

/// Activations under way at once.
const UNDER_WAY: usize = 512;
/// Namespaces that the queues are spread over, at most.
const NAMESPACES: u32 = 1000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Restart {
    /// Queues, each with a container.
    pub(crate) queues: u32,
}

impl Restart {
    pub(super) async fn run(&self, cluster: &mut Cluster, quiet: bool) -> Result<Finding, Failure> {
        // Whatever counts ends long before.
        let window = Window::after(Duration::ZERO, 10 * TIMEOUT);
        let plan = plan_of(self.queues, NAMESPACES, 1.0, (window.from, window.to));
        let prepared = prepare(vec![connect(cluster, 0).await?], &plan, quiet).await?;
        let schedulers: Vec<String> = (1..=cluster.options().schedulers)
            .map(|id| scheduler(id.into()))
            .collect();
        let run_clock = RunClock::start();
        let caller = Arc::new(Caller::new(
            prepared.clients,
            prepared.mix,
            run_clock,
            &plan,
            Tallies::new(window),
        ));
        cluster.kill(&schedulers).await?;
        for name in &schedulers {
            cluster.restart(name)?;
        }
        let stage = Stage::begin(
            "queues used after all schedulers were killed",
            self.queues as usize,
            quiet,
        );
        let roles = Roles::new(cluster.roles());
        let used = async || {
            let calls = stream::iter(0..u64::from(self.queues)).for_each_concurrent(UNDER_WAY, async |n| {
                caller.under_way().begin();
                caller.call(n, Duration::ZERO).await;
                stage.step();
            });
            calls.await;
        };
        let watched = roles.during(run_clock, used()).await;
        stage.end();
        let mut tally = caller.tallies.take(window);
        let times = tally.times.remove(&Kind::EndToEnd).unwrap_or_default();
        let all_ms = times.percentiles().max_ms.unwrap_or(0.0);
        Ok(Finding::new(tally.done, tally.reasons, watched.used(tally.done))
            .with([("all_usable_s", all_ms / 1000.0)])
            .timed(Kind::Usable, times))
    }

    pub(super) fn header(&self) -> String {
        format!(
            "all schedulers killed and started again; until an activation through each of {} queues is done",
            self.queues
        )
    }
}
