//! `whiskraft bench puts`, `watch`, `idle`, `restart`, `lose`: one property of a cluster each.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::arguments::StartArgs;
use super::reports::OutputArgs;
use super::{clusters, unless};
use crate::arguments::{parse_rate, whole};
use crate::bench::Place;
use crate::bench::probe::{
    Fanout, Finding, Idle, LoseInvoker, LoseScheduler, Probe, Puts, Restart, What, page, render, report,
};
use crate::exit::{Exit, Failure};
use crate::signals::Signals;
use crate::units::{parse_duration, parse_time};

/// Fewest schedulers of which one can be lost.
const SCHEDULERS_MIN: u32 = 3;

/// Below the help of each.
pub(super) const HELP: &str = "\
A cluster is started for each run, on this machine and on loopback, and ended afterwards; nothing else is touched. Several
--runs give the median and, in brackets, the extremes. A percentile is shown if at least one value is beyond it. What
processes use is read from /proc.";

/// Below the help of `puts`.
pub(super) const PUTS_HELP: &str = "\
Closed loop: each client waits until its document is stored, that is on the disks of a majority and applied, and goes on with
the next. Its time is that of the whole call through the SDK. Compare with what the same clients get of etcd:
scripts/bench-peers.sh --whiskraft FILE puts both in one table.";

/// Below the help of `watch`.
pub(super) const WATCH_HELP: &str = "\
Open loop: a namespace is changed at fixed times, and each watcher's event is timed from the moment when the change was due,
just before it is sent: through the log, out of it on the scheduler that the watcher asked, to the watcher.";

/// Below the help of `lose`.
pub(super) const LOSE_HELP: &str = "\
Examples:
  whiskraft bench lose invoker                                  # SIGKILL, until no scheduler counts it as healthy
  whiskraft bench lose invoker --busy 2                         # the same while both processors are busy: no false expiry?
  whiskraft bench lose scheduler --times 5                      # SIGKILL under a steady load, until its queues go on
  whiskraft bench lose scheduler --freeze                       # SIGSTOP instead";

/// Below the help of `lose scheduler`.
const LOSE_SCHEDULER_HELP: &str = "\
Takeover: from the signal until, for each queue that the lost scheduler led, an activation is done that was due after the
signal. Elsewhere: end to end of activations of all other queues that were due within 3 s of it.";

/// Below the help of `lose invoker`.
const LOSE_INVOKER_HELP: &str = "\
Out of rotation: from the signal until the metrics of every scheduler count it as healthy no more; they place no container on
it then. Expired: from the signal until every scheduler's tables say that it is not healthy or has no session; its containers, and
what ran there, are known to be gone then. False expiries: sessions of others, schedulers too, that ended meanwhile.";

/// What all of them take.
#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Measure so many times, each on a new cluster
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32, 1, 1000>)]
    runs: u32,
    #[command(flatten)]
    cluster: StartArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// How long.
#[derive(Debug, Clone, Copy, Args)]
struct TimeArgs {
    /// Length of the measured part
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    time: Duration,
    /// What comes before it
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
}

/// Arguments of `bench puts`.
#[derive(Debug, Args)]
pub(super) struct PutsArgs {
    /// Clients, each with one put under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole::<u32, 1, 100_000>)]
    clients: u32,
    /// SDK clients that they share
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = whole::<u32, 1, 1000>)]
    connections: u32,
    /// What is stored
    #[arg(long, value_name = "WHAT", default_value = "action")]
    what: What,
    /// Different names, written in turn
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = whole::<u32, 1, 1_000_000>)]
    keys: u32,
    /// Bytes of an action's default arguments
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = whole::<u32, 0, 65_536>)]
    bytes: u32,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    common: ProbeArgs,
}

/// Arguments of `bench watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Watchers of the one namespace
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = whole::<u32, 1, 100_000>)]
    watchers: u32,
    /// Watchers that share an SDK client
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<u32, 1, 1000>)]
    per_connection: u32,
    /// Changes per second
    #[arg(long, value_name = "PER_SECOND", default_value = "50", value_parser = parse_rate)]
    rate: f64,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    common: ProbeArgs,
}

/// Arguments of `bench idle`.
#[derive(Debug, Args)]
pub(super) struct IdleArgs {
    /// Queues
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = whole::<u32, 1, 1_000_000>)]
    queues: u32,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    common: ProbeArgs,
}

/// Arguments of `bench restart`.
#[derive(Debug, Args)]
pub(super) struct RestartArgs {
    /// Queues, each with a container
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = whole::<u32, 1, 100_000>)]
    queues: u32,
    #[command(flatten)]
    common: ProbeArgs,
}

/// What is lost.
#[derive(Debug, Subcommand)]
pub(super) enum LoseCommand {
    /// Kill invokers, or stop them in their tracks, and time until no scheduler counts them as healthy
    #[command(after_help = LOSE_INVOKER_HELP)]
    Invoker(LoseInvokerArgs),
    /// Kill leaders of queues, or stop them in their tracks, and time until their queues go on
    #[command(after_help = LOSE_SCHEDULER_HELP)]
    Scheduler(LoseSchedulerArgs),
}

/// Arguments of `bench lose invoker`.
#[derive(Debug, Args)]
pub(super) struct LoseInvokerArgs {
    #[command(flatten)]
    lose: LoseArgs,
    /// Threads that keep processors busy all the time, beside the cluster
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u32, 0, 1000>)]
    busy: u32,
    #[command(flatten)]
    common: ProbeArgs,
}

/// Arguments of `bench lose scheduler`.
#[derive(Debug, Args)]
pub(super) struct LoseSchedulerArgs {
    #[command(flatten)]
    lose: LoseArgs,
    /// Queues that the load goes through in turn
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = whole::<u32, 1, 1000>)]
    queues: u32,
    /// Activations per second, of no length
    #[arg(long, value_name = "PER_SECOND", default_value = "600", value_parser = parse_rate)]
    rate: f64,
    #[command(flatten)]
    common: ProbeArgs,
}

/// How often something is lost.
#[derive(Debug, Clone, Copy, Args)]
struct LoseArgs {
    /// How often, in each run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = whole::<u32, 1, 1000>)]
    times: u32,
    /// Time before each loss in which all goes well
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pause: Duration,
    /// Stop it in its tracks (SIGSTOP) and let it go on afterwards, instead of killing it
    #[arg(long)]
    freeze: bool,
}

/// Measures.
///
/// # Errors
/// If the cluster cannot be started, or refuses something, or what is waited for does not come.
pub(super) async fn run((probe, args): (Probe, ProbeArgs)) -> Result<(), Failure> {
    let schedulers = args.cluster.options().schedulers;
    if matches!(probe, Probe::LoseScheduler(_)) && schedulers < SCHEDULERS_MIN {
        let text = format!("--schedulers {schedulers} is too few: one that is lost must leave a majority");
        let advice = format!("give at least {SCHEDULERS_MIN}");
        return Err(Failure::new(Exit::Usage, text).advise(advice));
    }
    args.output.begin()?;
    // From here on no signal ends this process and leaves another one behind.
    let mut signals = Signals::install()?;
    let quiet = args.output.quiet;
    let mut place = None;
    let mut findings: Vec<Finding> = Vec::new();
    for n in 1..=args.runs {
        if args.runs > 1 && !quiet {
            eprintln!("run {n} of {}", args.runs);
        }
        let mut cluster = clusters::start_for_run(&args.cluster, n, &mut signals, quiet).await?;
        place.get_or_insert_with(|| {
            let options = cluster.options();
            let mut place = Place::here(options.schedulers.into(), options.invokers.into());
            (place.started_here, place.new_per_run) = (true, true);
            place.in_memory = cluster.is_in_memory();
            place
        });
        let found = unless(&mut signals, probe.run(&mut cluster, quiet)).await;
        findings.push(clusters::end(cluster, found).await?);
    }
    let report = report(probe, place.expect("there is at least one run"), findings);
    args.output.show(&report, || render(&report), || page(&report))?;
    if report.is_usable() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "nothing ended well in a run"))
}

impl PutsArgs {
    pub(super) fn probe(self) -> (Probe, ProbeArgs) {
        let puts = Puts {
            clients: self.clients,
            connections: self.connections,
            what: self.what,
            keys: self.keys,
            bytes: self.bytes as usize,
            warm_up: self.time.warm_up,
            time: self.time.time,
        };
        (Probe::Puts(puts), self.common)
    }
}

impl WatchArgs {
    pub(super) fn probe(self) -> (Probe, ProbeArgs) {
        let fanout = Fanout {
            watchers: self.watchers,
            per_connection: self.per_connection,
            rate: self.rate,
            warm_up: self.time.warm_up,
            time: self.time.time,
        };
        (Probe::Watch(fanout), self.common)
    }
}

impl IdleArgs {
    pub(super) fn probe(self) -> (Probe, ProbeArgs) {
        let idle = Idle {
            queues: self.queues,
            warm_up: self.time.warm_up,
            time: self.time.time,
        };
        (Probe::Idle(idle), self.common)
    }
}

impl RestartArgs {
    pub(super) fn probe(self) -> (Probe, ProbeArgs) {
        let queues = self.queues;
        (Probe::Restart(Restart { queues }), self.common)
    }
}

impl LoseCommand {
    pub(super) fn probe(self) -> (Probe, ProbeArgs) {
        match self {
            Self::Invoker(args) => {
                let lose = LoseInvoker {
                    times: args.lose.times,
                    freeze: args.lose.freeze,
                    pause: args.lose.pause,
                    busy: args.busy,
                };
                (Probe::LoseInvoker(lose), args.common)
            }
            Self::Scheduler(args) => {
                let lose = LoseScheduler {
                    times: args.lose.times,
                    freeze: args.lose.freeze,
                    pause: args.lose.pause,
                    queues: args.queues,
                    rate: args.rate,
                };
                (Probe::LoseScheduler(lose), args.common)
            }
        }
    }
}
