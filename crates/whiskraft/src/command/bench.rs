//! `whiskraft bench`: measures a cluster that runs, or one that it starts on this machine.

mod arguments;
mod clusters;
mod echo;
mod probe;
mod reports;

use clap::{Args, Subcommand};
use whiskraft_client::{Client, Settings};

use self::arguments::{LoadArgs, StartArgs};
use self::echo::{EchoArgs, ServerArgs, WorkerArgs};
use self::probe::{IdleArgs, LoseCommand, PutsArgs, RestartArgs, WatchArgs};
use self::reports::OutputArgs;
use super::{call_failure, connect_with};
use crate::arguments::whole;
use crate::bench::{self, Cluster, Place, Plan, Report, Role, Roles, RunReport};
use crate::cli::ClientArgs;
use crate::config::{Config, Overrides};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::signals::Signals;

/// Shown below the help of this command.
pub(crate) const EXAMPLES: &str = "\
Examples:
  whiskraft bench run --start                                   # three schedulers, two invokers, 1000/s for 10 s: one figure
  whiskraft bench run --start --rate 2000 --duration 20 --actions 100 --namespaces 10 --runs 5 --html report.html
  whiskraft bench run --start --closed 64 --durable 100 --forget      # durable acceptance, as 64 clients see it
  whiskraft bench run -e a:7401,b:7401 --rate 500 --json report.json  # a cluster that runs; its invokers must be simulated
  whiskraft bench run --start --rate 20 --cold --once --stages   # first activations: leader, slot, place, running
  whiskraft bench puts --clients 64                             # small documents stored per second
  whiskraft bench watch --watchers 1000                         # until a change has reached every watcher
  whiskraft bench idle                                          # what 100,000 queues cost that nobody uses
  whiskraft bench restart                                       # until 10,000 queues work after all schedulers were killed
  whiskraft bench lose scheduler --freeze                       # until the queues of a leader that stopped go on; also: lose invoker
  whiskraft bench cluster                                       # a cluster to measure from elsewhere; says how
  whiskraft bench echo                                          # the wire alone: what no scheduler can be faster than";

/// Below the help of a run.
const RUN_HELP: &str = "\
Open loop (--rate): activations are due at fixed times. They are sent when they are due, whatever has become of those before,
and every latency counts from when the activation was due, so that a stall shows in all that it held back. At most --under-way
are under way at once; what has to wait for room is sent late and counted. Closed loop (--closed): callers that wait for
their answers; it finds the highest rate, and its latencies are of a load that holds back.

Latencies: queueing (due until it begins in a container), end to end (due until the result is back), durable acceptance (due
until it is on the disks of a majority), sending (due until the SDK has it: what this program adds to all others). A
percentile is shown if at least one value is beyond it. Several --runs give the median and, in brackets, the extremes.
With --stages, of the first activation of each action, by a watch of the tables: leading (due until a new queue has a leader),
reserving (until its container is decided on and has a slot in the log), placing (until the log says where: nothing if it said so
with the slot),
starting (sent to the invoker, created, reported, in the log).

Rates count what ended well within the measured time. What processes use is read from /proc over the same time.";

/// Arguments of `whiskraft bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

impl BenchArgs {
    /// The settings that these arguments override.
    pub(crate) fn overrides(&self) -> Overrides {
        match &self.command {
            BenchCommand::Run(args) => args.client.overrides(),
            _ => Overrides::default(),
        }
    }
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Make load, and report rates, latencies and what processes use
    #[command(after_help = RUN_HELP, mut_group("StartArgs", |group| group.requires("start")))]
    Run(Box<RunArgs>),
    /// Store small documents, and report rate and time
    #[command(after_help = format!("{}\n\n{}", probe::PUTS_HELP, probe::HELP))]
    Puts(PutsArgs),
    /// Change a namespace before many watchers, and time until each knows
    #[command(after_help = format!("{}\n\n{}", probe::WATCH_HELP, probe::HELP))]
    Watch(WatchArgs),
    /// Make queues that nobody uses, and report what they cost each scheduler
    #[command(after_help = probe::HELP)]
    Idle(IdleArgs),
    /// Kill all schedulers, start them again, and time until every queue works
    #[command(after_help = probe::HELP)]
    Restart(RestartArgs),
    /// Kill or stop processes, and time until work goes on without them
    #[command(subcommand, after_help = format!("{}\n\n{}", probe::LOSE_HELP, probe::HELP))]
    Lose(LoseCommand),
    /// Start a cluster to be measured on this machine, until Ctrl-C
    Cluster(StartArgs),
    /// Measure the wire alone: the same messages over the same hops, with nothing behind them
    #[command(after_help = echo::HELP)]
    Echo(EchoArgs),
    /// The process in the middle of an echo
    #[command(hide = true)]
    EchoServer(ServerArgs),
    /// The process at the end of an echo
    #[command(hide = true)]
    EchoWorker(WorkerArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Measure so many times, one after the other on the same cluster, unless --fresh
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32, 1, 1000>)]
    runs: u32,
    /// Start a cluster for this, and end it afterwards; --endpoints is then of no account
    #[arg(long, help_heading = "Cluster")]
    start: bool,
    /// Start a new cluster for each of the --runs, so that none inherits what another has left behind
    #[arg(long, requires = "start", help_heading = "Cluster")]
    fresh: bool,
    #[command(flatten)]
    cluster: StartArgs,
    /// Processes of this machine to watch, by role, as scheduler=4711,4712; may be repeated
    #[arg(long, value_name = "ROLE=PID,…", help_heading = "Cluster")]
    watch: Vec<Role>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Carries the command out.
///
/// # Errors
/// If the cluster cannot be used or started, or nothing ended well.
pub(crate) async fn run(args: BenchArgs, config: &Config) -> Result<(), Failure> {
    match args.command {
        BenchCommand::Run(args) => measure(*args, config).await,
        BenchCommand::Puts(args) => probe::run(args.probe()).await,
        BenchCommand::Watch(args) => probe::run(args.probe()).await,
        BenchCommand::Idle(args) => probe::run(args.probe()).await,
        BenchCommand::Restart(args) => probe::run(args.probe()).await,
        BenchCommand::Lose(command) => probe::run(command.probe()).await,
        BenchCommand::Cluster(args) => serve(&args).await,
        BenchCommand::Echo(args) => echo::run(args).await,
        BenchCommand::EchoServer(args) => echo::serve(args).await,
        BenchCommand::EchoWorker(args) => echo::work(args).await,
    }
}

async fn measure(args: RunArgs, config: &Config) -> Result<(), Failure> {
    let plan = args.load.plan()?;
    args.output.begin()?;
    // From here on no signal ends this process and leaves another one behind.
    let mut signals = Signals::install()?;
    let (place, runs) = match args.start {
        true => on_own_clusters(&args, &plan, &mut signals).await?,
        false => on_cluster(&args, &plan, (&config.endpoints, None), args.runs, &mut signals).await?,
    };
    show(&args, &Report::new(plan, place, runs))
}

/// The runs on a cluster that is started for them, or on one for each.
async fn on_own_clusters(
    args: &RunArgs,
    plan: &Plan,
    signals: &mut Signals,
) -> Result<(Place, Vec<RunReport>), Failure> {
    let (clusters, runs_each) = match args.fresh {
        true => (args.runs, 1),
        false => (1, args.runs),
    };
    let mut first = None;
    let mut runs = Vec::new();
    for n in 1..=clusters {
        let quiet = args.output.quiet;
        let mut cluster = match args.fresh {
            true => clusters::start_for_run(&args.cluster, n, signals, quiet).await?,
            false => unless(signals, clusters::start(&args.cluster.options(), quiet)).await?,
        };
        let endpoints = cluster.endpoints().to_vec();
        let on = (&endpoints[..], Some(&mut cluster));
        let measured = on_cluster(args, plan, on, runs_each, signals).await;
        let (place, more) = clusters::end(cluster, measured).await?;
        first.get_or_insert(place);
        runs.extend(more);
        if runs.last().is_some_and(|run| run.interrupted) {
            break;
        }
    }
    Ok((first.expect("there is at least one run"), runs))
}

/// Carries work out unless a signal comes first.
async fn unless<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        name = signals.next() => Err(Failure::new(Exit::Failed, format!("{name}: stopped"))),
    }
}

/// So many runs on a cluster that is there.
async fn on_cluster(
    args: &RunArgs,
    plan: &Plan,
    (endpoints, mut cluster): (&[String], Option<&mut Cluster>),
    count: u32,
    signals: &mut Signals,
) -> Result<(Place, Vec<RunReport>), Failure> {
    let clients = clients(endpoints, plan).await?;
    let status = clients[0].status().await.map_err(call_failure)?;
    let mut place = Place::here(status.nodes.len() as u64, status.invokers.len() as u64);
    let mut roles = args.watch.clone();
    if let Some(cluster) = cluster.as_deref() {
        (place.started_here, place.in_memory) = (true, cluster.is_in_memory());
        place.new_per_run = args.fresh;
        roles.extend(cluster.roles());
    }
    let roles = Roles::new(roles);
    if let Some(pid) = roles.missing() {
        return Err(Failure::new(
            Exit::Usage,
            format!("there is no process {pid} to watch"),
        ));
    }
    let prepared = unless(signals, bench::prepare(clients.clone(), plan, args.output.quiet)).await?;
    let mut runs = Vec::new();
    for n in 1..=count {
        if count > 1 && !args.output.quiet {
            eprintln!("run {n} of {count}");
        }
        let run = bench::measure(&prepared, plan, &roles, args.output.quiet, signals).await?;
        let interrupted = run.interrupted;
        runs.push(run);
        if interrupted {
            break;
        }
        if let Some(cluster) = cluster.as_deref_mut() {
            cluster.check()?;
        }
    }
    for client in clients {
        client.close().await;
    }
    Ok((place, runs))
}

/// The clients that make the load. Their own bounds are above those of the plan, so that they are not what is measured.
async fn clients(endpoints: &[String], plan: &Plan) -> Result<Vec<Client>, Failure> {
    let unfinished_max = plan.under_way_max as usize + 1;
    let payloads = plan.payload_bytes.max(64) as u64 * unfinished_max as u64;
    let defaults = Settings::default();
    let settings = Settings {
        unfinished_max,
        unfinished_bytes_max: defaults.unfinished_bytes_max.max(2 * payloads),
        ..defaults
    };
    let mut clients = Vec::new();
    for _ in 0..plan.connections {
        clients.push(connect_with(endpoints, settings.clone()).await?);
    }
    Ok(clients)
}

/// Leaves a cluster running and says how to use it.
async fn serve(args: &StartArgs) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let cluster = unless(&mut signals, clusters::start(&args.options(), false)).await?;
    let watch = cluster.roles().into_iter().map(|role| {
        let pids: Vec<_> = role.pids.iter().map(ToString::to_string).collect();
        format!(" --watch {}={}", role.name, pids.join(","))
    });
    output::line(format!(
        "data and logs are in {}; Ctrl-C ends everything. In another terminal:\n  whiskraft bench run -e {}{}",
        cluster.dir().display(),
        cluster.endpoints().join(","),
        watch.collect::<String>()
    ));
    signals.next().await;
    clusters::end(cluster, Ok(())).await
}

fn show(args: &RunArgs, report: &Report) -> Result<(), Failure> {
    let (text, page) = (|| bench::render(report), || bench::page(report));
    args.output.show(report, text, page)?;
    if report.is_usable() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        "a run was interrupted, or nothing ended well in it",
    ))
}
