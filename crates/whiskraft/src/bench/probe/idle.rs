//! What queues cost that nobody uses: memory and processor time of each scheduler, before and after they are made. Nearly all of
//! them have no container: a namespace may have one.

use std::time::Duration;

use serde::Serialize;
use whiskraft_types::{NamespaceName, QueueKey};

use super::{Finding, connect, plan_of};
use crate::bench::cluster::{Cluster, is_scheduler};
use crate::bench::ensure::ensure;
use crate::bench::mix::{Mix, namespace};
use crate::bench::plan::{Plan, seconds};
use crate::bench::prepare::{Stage, store_actions, store_namespaces};
use crate::bench::reasons::Reasons;
use crate::bench::run_clock::RunClock;
use crate::bench::schedule::Window;
use crate::bench::usage::{Roles, Used};
use crate::clock;
use crate::exit::Failure;

/// Actions that the queues are of, each in many namespaces.
const ACTIONS: u32 = 500;
const MB_PER_MIB: f64 = 1.048_576;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Idle {
    /// Queues.
    pub(crate) queues: u32,
    /// Rest before each of the two measured parts, so that what is left to do is done.
    #[serde(serialize_with = "seconds")]
    pub(crate) warm_up: Duration,
    /// Length of each of them.
    #[serde(serialize_with = "seconds")]
    pub(crate) time: Duration,
}

/// The most that any scheduler used, and the most that any uses more than before.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cost {
    cpu_percent: f64,
    cpu_more_percent: f64,
    resident_mb: f64,
    resident_more_mb: f64,
}

impl Idle {
    pub(super) async fn run(&self, cluster: &mut Cluster, quiet: bool) -> Result<Finding, Failure> {
        let client = connect(cluster, 0).await?;
        let actions = plan_of(ACTIONS.min(self.queues), 1, 1.0, (self.warm_up, self.time));
        let mix = Mix::new(&actions).expect("valid names");
        let namespaces = Plan {
            namespaces: self.queues.div_ceil(actions.actions),
            containers: 1,
            ..actions.clone()
        };
        store_namespaces(&client, &namespaces, quiet).await?;
        store_actions(&client, &actions, mix.queues(), quiet).await?;
        let roles = Roles::new(cluster.each());
        let rest = async || {
            let window = Window::after(self.warm_up, self.time);
            roles.watch(RunClock::start(), window, || {}).await.used(0)
        };
        let before = rest().await;
        let stage = Stage::begin("queues made", self.queues as usize, quiet);
        let began = clock::now();
        ensure(cluster.endpoints(), queues(&actions, &mix, self.queues), || {
            stage.step()
        })
        .await?;
        let took = clock::now().saturating_duration_since(began);
        stage.end();
        let after = rest().await;
        let cost = Cost::between(&before, &after);
        Ok(Finding::new(self.queues.into(), Reasons::default(), after).with([
            ("made_per_s", f64::from(self.queues) / took.as_secs_f64()),
            ("scheduler_cpu_max_percent", cost.cpu_percent),
            ("scheduler_cpu_more_max_percent", cost.cpu_more_percent),
            ("scheduler_resident_max_mb", cost.resident_mb),
            ("scheduler_resident_more_max_mb", cost.resident_more_mb),
        ]))
    }

    pub(super) fn header(&self) -> String {
        format!(
            "{} queues that nobody uses, {:?} before and after they are made, each after a rest of {:?}",
            self.queues, self.time, self.warm_up
        )
    }
}

impl Cost {
    fn between(before: &Used, after: &Used) -> Self {
        let mut most = Self::default();
        for (name, now) in after.roles.iter().filter(|(name, _)| is_scheduler(name)) {
            let Some(then) = before.roles.get(name) else {
                continue;
            };
            let raise = |most: &mut f64, value: f64| *most = most.max(value);
            raise(&mut most.cpu_percent, 100.0 * now.cores);
            raise(&mut most.cpu_more_percent, 100.0 * (now.cores - then.cores));
            raise(&mut most.resident_mb, MB_PER_MIB * now.resident_mib);
            let more = now.resident_mib - then.resident_mib;
            raise(&mut most.resident_more_mb, MB_PER_MIB * more);
        }
        most
    }
}

/// The actions in one namespace after the other.
fn queues(plan: &Plan, mix: &Mix, count: u32) -> impl Iterator<Item = QueueKey> {
    let name = |n| namespace(&plan.prefix, n).expect("a valid name");
    let of = |namespace: NamespaceName| {
        mix.queues().iter().map(move |queue| QueueKey {
            namespace: namespace.clone(),
            action: queue.action.clone(),
        })
    };
    (0..).map(name).flat_map(of).take(count as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bench::report::tests::run;

    fn used(processes: [(&str, f64, f64); 3]) -> Used {
        let mut used = run(1).used;
        let usage = used.roles["scheduler"].clone();
        let role = |(name, cores, resident_mib): (&str, f64, f64)| {
            let mut usage = usage.clone();
            (usage.cores, usage.resident_mib) = (cores, resident_mib);
            (name.to_owned(), usage)
        };
        used.roles = processes.into_iter().map(role).collect();
        used
    }

    #[test]
    fn the_scheduler_that_pays_most_counts_and_no_other_process() {
        let before = used([
            ("scheduler-1", 0.25, 50.0),
            ("scheduler-2", 0.5, 40.0),
            ("invoker-1", 0.0, 1.0),
        ]);
        let after = used([
            ("scheduler-1", 0.375, 60.0),
            ("scheduler-2", 0.5625, 45.0),
            ("invoker-1", 1.0, 900.0),
        ]);
        let wanted = Cost {
            cpu_percent: 56.25,
            cpu_more_percent: 12.5,
            resident_mb: 60.0 * MB_PER_MIB,
            resident_more_mb: 10.0 * MB_PER_MIB,
        };
        assert_eq!(Cost::between(&before, &after), wanted);
    }

    #[test]
    fn queues_are_all_different() {
        let plan = plan_of(3, 1, 1.0, (Duration::ZERO, Duration::ZERO));
        let mix = Mix::new(&plan).unwrap();
        let all: BTreeSet<QueueKey> = queues(&plan, &mix, 7).collect();
        assert_eq!(all.len(), 7);
        let actions: BTreeSet<_> = all.iter().map(|queue| &queue.action).collect();
        assert_eq!(actions.len(), 3);
    }
}
