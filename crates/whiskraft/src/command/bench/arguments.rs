//! Arguments of `whiskraft bench`: what load, and what cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use whiskraft_types::{ByteSize, NamespaceName};

use crate::arguments::{parse_rate, whole};
use crate::bench::{ARGUMENTS_LEN_MAX, ClusterOptions, Load, Plan};
use crate::exit::{Exit, Failure};
use crate::units::{parse_duration, parse_time};

/// Most actions and namespaces of a load.
const ACTIONS_MAX: u64 = 100_000;
/// Most activations under way at once.
const UNDER_WAY_MAX: u64 = 1_000_000;
/// Activations per second unless told otherwise.
const RATE: f64 = 1000.0;
/// Containers that the namespaces together may have unless told otherwise: enough for 20,000/s of 20 ms each.
const CONTAINERS_TOGETHER: u32 = 480;
/// Memory that an invoker pretends to have unless told otherwise: more than any load asks for, as it is only counted.
const MEMORY: &str = "16384GiB";

/// What load.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// Activations per second, due at fixed times whatever becomes of those before [default: 1000]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Instead of a rate: so many callers, each of which waits for its answer before it goes on
    #[arg(long, value_name = "CALLERS", conflicts_with = "rate", value_parser = whole::<u32, 1, 100_000>)]
    closed: Option<u32>,
    /// Length of the measured part
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    time: Duration,
    /// Load before the measured part
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Actions, invoked in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32, 1, ACTIONS_MAX>)]
    actions: u32,
    /// Instead of --actions: as many as there are activations, so that each is invoked once; with --rate
    #[arg(long, conflicts_with_all = ["actions", "closed"])]
    once: bool,
    /// Namespaces that the actions are spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32, 1, ACTIONS_MAX>)]
    namespaces: u32,
    /// Length of a simulated run in milliseconds, as 20 or 0.5
    #[arg(long, value_name = "MS", default_value = "0", value_parser = parse_ms)]
    duration: f64,
    /// Bytes of the arguments of an activation, which are also its result [default: as few as can be]
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = whole::<u32, 0, ARGUMENTS_LEN_MAX>)]
    payload: u32,
    /// Share of the activations, in per cent, that are submitted durably instead of being waited for
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = whole::<u32, 0, 100>)]
    durable: u32,
    /// Forget durable ones once they are accepted, instead of waiting for their results
    #[arg(long, requires = "durable")]
    forget: bool,
    /// Durable ones begin so long after they are accepted: longer than the run, their acceptance is all that is measured
    #[arg(long, value_name = "TIME", default_value = "0s", requires = "forget", value_parser = parse_duration)]
    delay: Duration,
    /// Most containers of each namespace [default: one per action, and 480 in all namespaces together]
    #[arg(long, value_name = "N", value_parser = whole::<u32, 1, 1_000_000>)]
    containers: Option<u32>,
    /// Activations that one container runs at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32, 1, 500>)]
    concurrency: u32,
    /// SDK clients that share the load, each with a stream to every scheduler
    #[arg(long, visible_alias = "callers", value_name = "N", default_value_t = 2, value_parser = whole::<u32, 1, 1000>)]
    connections: u32,
    /// Most activations under way at once; more are sent late, and counted
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = whole::<u32, 1, UNDER_WAY_MAX>)]
    under_way: u32,
    /// Longest wait for one activation
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    timeout: Duration,
    /// Begin without running each action once before: neither its queue nor a container of it is there
    #[arg(long)]
    cold: bool,
    /// Watch the tables and tell the stages of each action's first activation; with --rate and --cold
    #[arg(long, requires = "cold", conflicts_with = "closed")]
    stages: bool,
    /// Namespaces are called this, a dash, and a number from 0; their limits and actions are overwritten
    #[arg(long, value_name = "NAME", default_value = "bench")]
    prefix: NamespaceName,
}

impl LoadArgs {
    /// The plan that they ask for.
    ///
    /// # Errors
    /// If there are more namespaces than actions.
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let rate = self.rate.unwrap_or(RATE);
        let (actions, namespaces) = match self.once {
            true => {
                let actions = actions_once(rate, self.warm_up + self.time)?;
                (actions, self.namespaces.min(actions))
            }
            false => (self.actions, self.namespaces),
        };
        if namespaces > actions {
            let text = format!(
                "--namespaces {namespaces} is more than --actions {actions}: some would have no action"
            );
            return Err(Failure::new(Exit::Usage, text));
        }
        let plan = Plan {
            load: match self.closed {
                Some(callers) => Load::Closed { callers },
                None => Load::Open { rate },
            },
            actions,
            namespaces,
            prefix: self.prefix.clone(),
            containers: 0,
            concurrency: self.concurrency,
            run_ms: self.duration,
            payload_bytes: self.payload as usize,
            durable_percent: self.durable,
            forget: self.forget,
            delay: self.delay,
            connections: self.connections,
            // Callers of a closed loop bound it themselves.
            under_way_max: self.under_way.max(self.closed.unwrap_or(0)),
            timeout: self.timeout,
            warm_up: self.warm_up,
            time: self.time,
            cold: self.cold,
            stages: self.stages,
        };
        let enough = CONTAINERS_TOGETHER
            .div_ceil(namespaces)
            .max(plan.actions_per_namespace());
        Ok(Plan {
            containers: self.containers.unwrap_or(enough),
            ..plan
        })
    }
}

/// Actions for a load of this length in which each is invoked once.
fn actions_once(rate: f64, time: Duration) -> Result<u32, Failure> {
    let count = (rate * time.as_secs_f64()).ceil();
    if count > ACTIONS_MAX as f64 {
        let text = format!(
            "--once needs {count} actions, and at most {ACTIONS_MAX} can be stored: lower --rate or --time"
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(count as u32)
}

fn parse_ms(text: &str) -> Result<f64, String> {
    let ms = text
        .parse::<f64>()
        .ok()
        .filter(|ms| (0.0..=600_000.0).contains(ms));
    ms.ok_or_else(|| format!("{text:?} must be milliseconds from 0 to 600000, for example 20 or 0.5"))
}

/// What cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster that is started")]
pub(super) struct StartArgs {
    /// Scheduler processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole::<u32, 1, 9>)]
    schedulers: u32,
    /// Processes of simulated invokers
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = whole::<u32, 1, 100>)]
    invokers: u32,
    /// Memory that each invoker pretends to have
    #[arg(long, value_name = "SIZE", default_value = MEMORY)]
    memory: ByteSize,
    /// Directory for data and logs, on the disk that is to be measured [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Setting of every scheduler, as raft.lanes=1; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    scheduler_set: Vec<String>,
    /// Setting of every invoker, as backend.simulated.create=10ms; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    invoker_set: Vec<String>,
}

impl StartArgs {
    /// The cluster that they ask for.
    pub(super) fn options(&self) -> ClusterOptions {
        ClusterOptions {
            schedulers: self.schedulers,
            invokers: self.invokers,
            memory: self.memory,
            scheduler_set: self.scheduler_set.clone(),
            invoker_set: self.invoker_set.clone(),
            dir: self.dir.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn plan(args: &str) -> Result<Plan, Failure> {
        let args = std::iter::once("bench").chain(args.split_whitespace());
        Only::try_parse_from(args).unwrap().load.plan()
    }

    #[test]
    fn without_arguments_it_is_a_thousand_a_second() {
        let plan = plan("").unwrap();
        assert_eq!(plan.load, Load::Open { rate: 1000.0 });
        assert_eq!((plan.actions, plan.namespaces, plan.containers), (1, 1, 480));
        assert_eq!(
            (plan.time, plan.warm_up),
            (Duration::from_secs(10), Duration::from_secs(2))
        );
    }

    #[test]
    fn containers_are_enough_for_every_action() {
        let containers = |args: &str| plan(args).unwrap().containers;
        assert_eq!(containers("--actions 100 --namespaces 10"), 48);
        assert_eq!(containers("--actions 10000 --namespaces 1000"), 10);
        assert_eq!(containers("--actions 100 --namespaces 10 --containers 3"), 3);
    }

    #[test]
    fn once_means_an_action_for_each_activation() {
        let once = plan("--namespaces 100 --once --rate 2.5 --warm-up 1s --time 4s --cold --stages").unwrap();
        assert_eq!((once.actions, once.namespaces), (13, 13));
        assert!(once.cold && once.stages);
        let error = plan("--once --rate 20000").unwrap_err().to_string();
        assert!(error.contains("--once needs 240000 actions"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = plan("--actions 2 --namespaces 3").unwrap_err().to_string();
        assert!(
            error.contains("--namespaces 3") && error.contains("--actions 2"),
            "{error}"
        );
        for args in [
            "--rate 0",
            "--closed 0",
            "--rate 5 --closed 5",
            "--duration -1",
            "--durable 101",
            "--actions 100001",
            "--payload 65537",
            "--forget",
            "--durable 100 --delay 5s",
            "--time 0s",
            "--stages",
            "--cold --stages --closed 1",
            "--once --closed 1",
            "--once --actions 5",
        ] {
            let all = std::iter::once("bench").chain(args.split_whitespace());
            assert!(Only::try_parse_from(all).is_err(), "{args}");
        }
        let closed = plan("--closed 64 --under-way 5 --duration 0.5").unwrap();
        assert_eq!((closed.under_way_max, closed.run_ms), (64, 0.5));
    }
}
