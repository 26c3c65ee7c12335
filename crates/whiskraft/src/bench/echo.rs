//! `whiskraft bench echo`: the wire alone, as the reference that a scheduler is held against.
//!
//! Three processes on loopback speak the services and messages of the product over its connections: this one is the controller, one
//! is where a scheduler would be, one is where an invoker would be. The one in the middle hands every [record](messages) on and
//! does nothing else: no queue, no ledger, no log. The controller [keeps](caller) so many records in flight.
//!
//! - **Invariant:** no more records are in flight than every channel has room for, so nobody here ever waits for room.

mod caller;
mod frames;
mod messages;
mod report;
mod server;
mod trio;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::caller::{Caller, Load};
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
/// A record that has not come back so long after the end of a run never will.
const GRACE: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct EchoPlan {
    /// Each with processes of its own.
    pub(crate) per_frame: Vec<PerFrame>,
    /// Records in flight, one number after the other on the same streams.
    pub(crate) in_flight: Vec<u32>,
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

/// Carries the plan out.
///
/// # Errors
/// If a process cannot be started, or one or its stream ends.
pub(crate) async fn measure(plan: EchoPlan, quiet: bool) -> Result<EchoReport, Failure> {
    let mut place = Place::here(0, 0);
    place.started_here = true;
    let mut cases = Vec::new();
    for per_frame in &plan.per_frame {
        let mut trio = Trio::start(*per_frame).await?;
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
    let mut caller = trio.caller(plan.payload_bytes, per_frame).await?;
    let mut cases = Vec::new();
    for in_flight in &plan.in_flight {
        let mut runs = Vec::new();
        for n in 1..=plan.runs {
            if !quiet {
                let (text, of) = (per_frame.text(), plan.runs);
                eprintln!("{text} per frame, {in_flight} in flight: run {n} of {of}");
            }
            let load = Load {
                clock: RunClock::start(),
                window: Window::after(plan.warm_up, plan.time),
                in_flight: *in_flight,
            };
            let run;
            (caller, run) = measure_once(caller, load, &roles).await?;
            let is_whole = run.lost == 0;
            runs.push(run);
            // What is still under way would be taken for records of the next run.
            if !is_whole {
                break;
            }
        }
        cases.push(Case::new(per_frame, *in_flight, runs));
    }
    Ok(cases)
}

/// One run: the load in a task of its own, so that processes are sampled when they should be.
async fn measure_once(mut caller: Caller, load: Load, roles: &Roles) -> Result<(Caller, EchoRun), Failure> {
    let Load { clock, window, .. } = load;
    let running = tokio::spawn(async move {
        let counts = caller.run(&load).await;
        (caller, counts)
    });
    let watched = roles.watch(clock, window, || {}).await;
    let (caller, counts) = running.await.expect("the load does not panic");
    let counts = counts.map_err(|error| Failure::new(Exit::Failed, "the load stopped").caused_by(error))?;
    let used = watched.used(counts.done_in_window);
    Ok((caller, EchoRun::new(window, &counts, used)))
}

/// What the payloads are: those of a run of no length.
fn payloads(len: usize) -> Arc<Arguments> {
    Arc::new(Arguments::new(0.0, len))
}
