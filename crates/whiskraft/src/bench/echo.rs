//! `whiskraft bench echo`: the wire alone, as the reference that a scheduler is held against.
//!
//! Processes on loopback speak the services and messages of the product over its connections: this one is the controller, some
//! are where schedulers would be, each with one where an invoker would be. Those in the middle hand every [record](messages) on and
//! do nothing else: no queue, no ledger, no log. The controller [keeps](caller) so many records in flight on one stream, or
//! [sends](paced) at a rate over those of all servers.
//!
//! - **Invariant:** no more records are in flight than every channel has room for, so nobody here ever waits for room.

mod caller;
mod frames;
mod link;
mod messages;
mod paced;
mod report;
mod server;
mod trio;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::caller::{Caller, Counts, Load};
use self::paced::{Pace, Paced};
use self::trio::Trio;
use super::arguments::Arguments;
use super::report::Place;
use super::run_clock::RunClock;
use super::schedule::Window;
use super::usage::Roles;
use crate::exit::{Exit, Failure};

pub(crate) use frames::PerFrame;
pub(crate) use report::{Case, EchoReport, EchoRun, render};
pub(crate) use server::serve;
pub(crate) use worker::work;

/// Most records in flight, and the room of every channel.
pub(crate) const IN_FLIGHT_MAX: u64 = 1 << 16;
/// Numbers of records that a run may use: more than there can be in one.
const FIRST_STEP: u64 = 1 << 40;
/// A record that has not come back so long after the end of a run never will.
const GRACE: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct EchoPlan {
    /// Each with processes of its own.
    pub(crate) per_frame: Vec<PerFrame>,
    /// One load after the other on the same streams.
    pub(crate) loads: Vec<LoadPlan>,
    /// Servers, each with a worker of its own.
    pub(crate) servers: u32,
    /// Bytes of a record's payload.
    pub(crate) payload_bytes: usize,
    /// What comes before the measured part, in seconds.
    #[serde(serialize_with = "super::plan::seconds")]
    pub(crate) warm_up: Duration,
    /// Length of the measured part.
    #[serde(serialize_with = "super::plan::seconds")]
    pub(crate) time: Duration,
    /// Runs of each.
    pub(crate) runs: u32,
}

/// When records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoadPlan {
    /// So many are in flight on one stream, each followed by the next as soon as it is back.
    InFlight(u32),
    /// So many a second, whatever comes back, over the streams of all servers in turn.
    PerSecond(u32),
}

/// The controller, as a load needs it.
enum Controller {
    Closed(Caller),
    Open(Paced),
}

/// Carries the plan out.
///
/// # Errors
/// If a process cannot be started, or one or its stream ends.
pub(crate) async fn measure(plan: EchoPlan, quiet: bool) -> Result<EchoReport, Failure> {
    let mut place = Place::here(0, 0);
    place.started_here = true;
    let mut cases = Vec::new();
    for per_frame in &plan.per_frame {
        let mut trio = Trio::start(plan.servers, *per_frame).await?;
        let measured = measure_cases(&plan, *per_frame, &mut trio, quiet).await;
        // A process that ended explains a failure better than what it looked like from here.
        let alive = trio.members.check();
        trio.members.end().await;
        alive?;
        cases.extend(measured?);
    }
    Ok(EchoReport::new(plan, place, cases))
}

async fn measure_cases(
    plan: &EchoPlan,
    per_frame: PerFrame,
    trio: &mut Trio,
    quiet: bool,
) -> Result<Vec<Case>, Failure> {
    let roles = Roles::new(trio.members.roles());
    let payloads = payloads(plan.payload_bytes);
    let mut links = trio.links(per_frame).await?;
    let mut controller = match (&plan.loads[..], links.pop()) {
        ([LoadPlan::InFlight(_), ..], Some(link)) => Controller::Closed(Caller::new(link, payloads)),
        (_, last) => {
            links.extend(last);
            Controller::Open(Paced::new(links, payloads))
        }
    };
    let (mut cases, mut first) = (Vec::new(), 0);
    for load in &plan.loads {
        let mut runs = Vec::new();
        for n in 1..=plan.runs {
            if !quiet {
                let (text, of) = (per_frame.text(), plan.runs);
                eprintln!("{text} per frame, {load}: run {n} of {of}");
            }
            let window = Window::after(plan.warm_up, plan.time);
            let run;
            (controller, run) = measure_once(controller, (*load, window, first), &roles).await?;
            first += FIRST_STEP;
            let is_whole = run.lost == 0;
            runs.push(run);
            // What is still under way would be taken for records of the next run.
            if !is_whole {
                break;
            }
        }
        cases.push(Case::new(per_frame, *load, runs));
    }
    Ok(cases)
}

/// One run: the load in a task of its own, so that processes are sampled when they should be.
async fn measure_once(
    mut controller: Controller,
    (load, window, first): (LoadPlan, Window, u64),
    roles: &Roles,
) -> Result<(Controller, EchoRun), Failure> {
    let clock = RunClock::start();
    let running = tokio::spawn(async move {
        let counts = controller.run(load, clock, window, first).await;
        (controller, counts)
    });
    let watched = roles.watch(clock, window, || {}).await;
    let (controller, counts) = running.await.expect("the load does not panic");
    let counts = counts?;
    let used = watched.used(counts.done_in_window);
    Ok((controller, EchoRun::new(window, &counts, used)))
}

impl Controller {
    async fn run(
        &mut self,
        load: LoadPlan,
        clock: RunClock,
        window: Window,
        first: u64,
    ) -> Result<Counts, Failure> {
        let stopped = |error| Failure::new(Exit::Failed, "the load stopped").caused_by(error);
        match (self, load) {
            (Self::Closed(caller), LoadPlan::InFlight(in_flight)) => {
                let load = Load {
                    clock,
                    window,
                    in_flight,
                };
                caller.run(&load).await.map_err(stopped)
            }
            (Self::Open(paced), LoadPlan::PerSecond(rate)) => {
                let pace = Pace {
                    clock,
                    window,
                    rate,
                    first,
                };
                paced.run(pace).await
            }
            (Self::Closed(_), LoadPlan::PerSecond(_)) | (Self::Open(_), LoadPlan::InFlight(_)) => {
                Err(Failure::new(Exit::Usage, "a plan has loads of one kind"))
            }
        }
    }
}

impl std::fmt::Display for LoadPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InFlight(count) => write!(f, "{count} in flight"),
            Self::PerSecond(rate) => write!(f, "{rate} per second"),
        }
    }
}

/// What the payloads are: those of a run of no length.
fn payloads(len: usize) -> Arc<Arguments> {
    Arc::new(Arguments::new(0.0, len))
}
