//! `whiskraft bench echo`: what the wire alone can do here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::reports::{is_stdout, show, write};
use crate::arguments::whole;
use crate::bench::ARGUMENTS_LEN_MAX;
use crate::bench::echo::{self, EchoPlan, IN_FLIGHT_MAX, LoadPlan, PerFrame};
use crate::exit::{Exit, Failure};
use crate::signals::Signals;
use crate::units::{parse_duration, parse_time};

/// Below the help.
pub(super) const HELP: &str = "\
What it is for: no scheduler can be faster than its wire. This is the wire: three processes on loopback, with the services, messages and
connection settings of the product, and nothing behind them. The controller (this process) submits, the server hands each
record on to the worker, the worker answers with its payload, the server hands that back. No queue, no ledger, no log, no
acknowledgements. Measure it beside `whiskraft bench run --start --closed N` and compare rates at the same number in
flight: what the scheduler reaches of it is its share of raw tonic, the rest is what a scheduler costs.

Closed loop: so many records are in flight, and each that comes back is followed by the next. One per frame is what
calls cost that share nothing; with what is ready in one frame, the cost of a frame is shared, as in the product.
Latencies are from when a record was sent. They grow with the number in flight, as the rate does not.

At a rate: records are due at fixed times, whatever comes back, and go to several servers in turn; latencies are from when
they were due. That is what the queueing latency and the processor time of `whiskraft bench run --start --rate N` are held against.

Examples:
  whiskraft bench echo                                          # 64 and 512 in flight, one per frame and what is ready
  whiskraft bench echo --in-flight 512 --per-frame ready --runs 5 --time 10s --json echo.json
  whiskraft bench echo --rate 2000,20000 --servers 3 --per-frame ready  # over three servers, as over three schedulers";

/// Arguments of `whiskraft bench echo`.
#[derive(Debug, Args)]
pub(super) struct EchoArgs {
    /// Records in flight; several numbers, with commas, are measured one after the other
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [64, 512], value_parser = whole::<u32, 1, IN_FLIGHT_MAX>)]
    in_flight: Vec<u32>,
    /// Send so many records a second instead; several numbers, with commas, are measured one after the other
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "in_flight", value_parser = whole::<u32, 1, 1_000_000>)]
    rate: Vec<u32>,
    /// Servers that records at a rate go to in turn, each with a worker of its own
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rate", value_parser = whole::<u32, 1, 16>)]
    servers: u32,
    /// Records that one gRPC message carries; both, with a comma, are measured one after the other
    #[arg(long, value_name = "WHICH,…", value_delimiter = ',', default_values = ["one", "ready"])]
    per_frame: Vec<PerFrame>,
    /// Bytes of a record's payload, which is also its result [default: as few as can be]
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = whole::<u32, 0, ARGUMENTS_LEN_MAX>)]
    payload: u32,
    /// Length of the measured part
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    time: Duration,
    /// Load before the measured part
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Measure each so many times, one after the other with the same processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u32, 1, 1000>)]
    runs: u32,
    /// Write the report as JSON to this file; - is standard output, instead of the tables
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short = 'q', help_heading = "Output")]
    quiet: bool,
}

/// Arguments of the process in the middle.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    per_frame: PerFrame,
}

/// Arguments of the worker.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    #[arg(long)]
    server: SocketAddr,
    #[arg(long)]
    per_frame: PerFrame,
}

/// Measures.
///
/// # Errors
/// If a process cannot be started or ends, or a record is lost or wrong.
pub(super) async fn run(args: EchoArgs) -> Result<(), Failure> {
    let file = args.json.as_deref().filter(|file| !is_stdout(file));
    // What cannot be written is better known before than after.
    file.map_or(Ok(()), |file| write(file, ""))?;
    let plan = EchoPlan {
        per_frame: args.per_frame,
        loads: match &args.rate[..] {
            [] => args.in_flight.into_iter().map(LoadPlan::InFlight).collect(),
            rates => rates.iter().copied().map(LoadPlan::PerSecond).collect(),
        },
        servers: args.servers,
        payload_bytes: args.payload as usize,
        warm_up: args.warm_up,
        time: args.time,
        runs: args.runs,
    };
    let mut signals = Signals::install()?;
    let report = super::unless(&mut signals, echo::measure(plan, args.quiet)).await?;
    show(args.json.as_deref(), &report, || echo::render(&report))?;
    if report.is_usable() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        "a record was lost or came back wrong, or none came back",
    ))
}

/// Serves as the process in the middle.
///
/// # Errors
/// If the address cannot be used.
pub(super) async fn serve(args: ServerArgs) -> Result<(), Failure> {
    echo::serve(args.listen, args.per_frame).await
}

/// Serves as the worker.
///
/// # Errors
/// If the server cannot be reached.
pub(super) async fn work(args: WorkerArgs) -> Result<(), Failure> {
    echo::work(args.server, args.per_frame).await
}
