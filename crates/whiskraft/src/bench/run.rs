//! One run of a plan: sends, samples what processes use at both ends of the measured window, waits for what is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::call::Caller;
use super::closed::Callers;
use super::kind::Kind;
use super::open::{Sender, Sent};
use super::plan::{Load, Plan};
use super::prepare::Prepared;
use super::report::{Curve, RunReport, percentiles};
use super::run_clock::RunClock;
use super::schedule::{Schedule, Window};
use super::stages::StageWatch;
use super::tally::{Tallies, Tally};
use super::usage::{Roles, Watched};
use crate::exit::Failure;
use crate::signals::Signals;

/// Activations end by themselves at their deadline; one that has not so long after it never will.
const GRACE: Duration = Duration::from_secs(5);

/// What makes the load.
enum Maker {
    Open(Sender, Schedule),
    Closed(Callers<Caller>),
}

/// What was due and what became of it before the SDK had it.
struct Made {
    due: u64,
    sent: Sent,
}

/// Carries the plan out once. The first SIGINT or SIGTERM ends it early.
///
/// # Errors
/// If a thread is refused, or a second signal comes.
pub(crate) async fn measure(
    prepared: &Prepared,
    plan: &Plan,
    roles: &Roles,
    quiet: bool,
    signals: &mut Signals,
) -> Result<RunReport, Failure> {
    let Prepared { clients, mix } = prepared;
    let window = plan.window();
    let caller = Caller::new(
        clients.clone(),
        Arc::clone(mix),
        RunClock::start(),
        plan,
        Tallies::new(window),
    );
    let caller = Arc::new(caller);
    let stages = match plan.stages {
        true => Some(StageWatch::start(&clients[0], caller.clock).await?),
        false => None,
    };
    let mut maker = Maker::start(plan, &caller, window)?;
    let bar = progress(window, quiet);
    let samples = tokio::select! {
        samples = roles.watch(caller.clock, window, || show(&caller, &bar)) => Some(samples),
        name = signals.next() => {
            eprintln!("{name}: waiting for what is under way; once more to give up");
            None
        }
    };
    bar.finish_and_clear();
    let interrupted = samples.is_none();
    if interrupted {
        maker.stop();
    }
    let containers = clients[0]
        .status()
        .await
        .ok()
        .map(|status| status.containers_running);
    let finish = async {
        let made = maker.finish().await;
        // Whatever is under way ends by itself at its deadline, once for acceptance and once for the result.
        let _ = tokio::time::timeout(2 * plan.timeout + GRACE, caller.under_way.idle()).await;
        made
    };
    let made = signals.or_force(finish).await?;
    let mut tally = caller.tallies.take(window);
    if let (Some(stages), Load::Open { rate }) = (stages, plan.load) {
        let schedule = Schedule::new(rate, window);
        tally.times.extend(stages.times(mix, &schedule, window).await);
    }
    let step_us = caller.clock.step_us();
    let watched = match samples {
        Some(watched) => watched,
        None => roles.during(caller.clock, std::future::ready(())).await,
    };
    let report = summary(window, interrupted, &made, tally, &watched);
    Ok(RunReport {
        containers,
        clock_step_us: step_us,
        ..report
    })
}

impl Maker {
    fn start(plan: &Plan, caller: &Arc<Caller>, window: Window) -> Result<Self, Failure> {
        let caller = Arc::clone(caller);
        Ok(match plan.load {
            Load::Closed { callers } => Self::Closed(Callers::start(caller, callers, window)),
            Load::Open { rate } => {
                let schedule = Schedule::new(rate, window);
                let sender = Sender::start(caller, schedule, window, plan.under_way_max)?;
                Self::Open(sender, schedule)
            }
        })
    }

    fn stop(&mut self) {
        match self {
            Self::Open(sender, _) => sender.stop(),
            Self::Closed(callers) => callers.stop(),
        }
    }

    async fn finish(self) -> Made {
        match self {
            Self::Open(sender, schedule) => Made {
                due: schedule.count_in_window(),
                sent: sender.finish().await,
            },
            Self::Closed(callers) => {
                let begun = callers.finish().await;
                let sent = Sent {
                    sent: begun,
                    ..Sent::default()
                };
                Made { due: begun, sent }
            }
        }
    }
}

fn show(caller: &Caller, bar: &ProgressBar) {
    bar.set_position(u64::try_from(caller.clock.elapsed().as_millis()).unwrap_or(u64::MAX));
    let (done, under_way) = (caller.tallies.done_in_window(), caller.under_way.count());
    bar.set_message(format!("{done} done, {under_way} under way"));
}

fn progress(window: Window, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {elapsed}/{prefix} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let length = u64::try_from(window.to.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(length).with_style(style);
    bar.set_prefix(format!("{}s", window.to.as_secs()));
    bar
}

fn summary(window: Window, interrupted: bool, made: &Made, tally: Tally, watched: &Watched) -> RunReport {
    let window_s = window.to.saturating_sub(window.from).as_secs_f64();
    let latency: BTreeMap<Kind, Curve> = tally
        .times
        .into_iter()
        .filter(|(_, times)| times.count() > 0)
        .map(|(kind, times)| (kind, Curve(times)))
        .collect();
    RunReport {
        interrupted: interrupted || made.sent.interrupted,
        window_s,
        due: made.due,
        done: tally.done,
        failed: tally.ended - tally.done,
        unfinished: made.sent.sent.saturating_sub(tally.ended),
        never_sent: made.due.saturating_sub(made.sent.sent),
        held_back: made.sent.held_back,
        late: tally.late,
        offered_per_s: made.due as f64 / window_s,
        achieved_per_s: tally.done_in_window as f64 / window_s,
        errors: tally.reasons.into_counts(),
        unstamped: tally.unstamped,
        too_early: tally.too_early,
        clock_step_us: 0,
        latency: percentiles(&latency),
        used: watched.used(tally.done_in_window),
        containers: None,
        interval_s: tally.interval.as_secs_f64(),
        points: tally.points,
        times: latency,
    }
}
