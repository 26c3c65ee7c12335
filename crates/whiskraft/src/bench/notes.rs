//! What a reader of the figures has to know before believing them.

use super::kind::Kind;
use super::plan::{Load, Plan};
use super::report::{Place, RunReport};
use super::usage::Used;

/// Processors that others may use before it is worth a note.
const OTHERS_CORES: f64 = 0.1;
/// Standstill that a busy machine does not explain.
const STILL_S: f64 = 0.5;
/// Share of late activations from which on the load generator is the one that is measured.
const LATE_SHARE: f64 = 0.01;
/// Steps of the wall clock that nobody would see in a queueing latency.
const STEP_US: i64 = 50;

/// Notes on runs of a plan, the gravest first.
pub(super) fn notes(plan: &Plan, place: &Place, runs: &[RunReport]) -> Vec<String> {
    let sum = |count: fn(&RunReport) -> u64| runs.iter().map(count).sum::<u64>();
    let mut notes = Vec::new();
    let mut note = |is_so: bool, text: String| {
        if is_so {
            notes.push(text);
        }
    };
    let interrupted = runs.iter().filter(|run| run.interrupted).count();
    note(
        interrupted > 0,
        format!("{interrupted} runs were interrupted: their figures are of a part only"),
    );
    let not_done = sum(|run| run.due - run.done.min(run.due));
    note(
        not_done > 0,
        format!("{not_done} activations that were due did not end well; latencies are of the others"),
    );
    let (due, late) = (sum(|run| run.due), sum(|run| run.late));
    note(
        late as f64 > due as f64 * LATE_SHARE,
        format!(
            "{late} of {due} activations were handed to the SDK more than 1 ms late: the load generator is part of these figures"
        ),
    );
    let held_back = sum(|run| run.held_back + run.never_sent);
    note(
        held_back > 0,
        format!(
            "{held_back} activations had to wait, or were never sent, because {} were under way",
            plan.under_way_max
        ),
    );
    let used: Vec<&Used> = runs.iter().map(|run| &run.used).collect();
    for text in machine_notes(place, &used) {
        note(true, text);
    }
    note(
        place.in_memory,
        "the schedulers' data is on a file system in memory: a sync costs nothing there".to_owned(),
    );
    let unstamped = sum(|run| run.unstamped);
    note(
        unstamped > 0,
        format!(
            "{unstamped} results did not say when they began: queueing is known of simulated containers only"
        ),
    );
    let early = sum(|run| run.too_early);
    note(
        early > 0,
        format!("{early} activations began before they were due, by the invoker's clock: clocks differ"),
    );
    let step = runs
        .iter()
        .map(|run| run.clock_step_us)
        .max_by_key(|step| step.abs())
        .unwrap_or(0);
    note(
        step.abs() > STEP_US,
        format!("the wall clock was set by {step} µs during a run: queueing is off by so much"),
    );
    let p50 = |run: &RunReport, kind| run.latency.get(&kind).and_then(|times| times.p50_ms);
    let is_behind = |run: &&RunReport| p50(run, Kind::Leading) > p50(run, Kind::Queueing);
    let behind = runs.iter().filter(is_behind).count();
    if behind > 0 {
        notes.push(format!(
            "in {behind} runs half of the activations began before the watch told that their queues have leaders: it is behind, and the \
             stages of a creation are of little worth"
        ));
    }
    if let Load::Closed { callers } = plan.load {
        notes.push(format!(
            "latencies are of {callers} callers that wait for their answers, not of a load that goes on regardless"
        ));
    }
    notes
}

/// Notes on who else used the machine.
pub(super) fn machine_notes(place: &Place, used: &[&Used]) -> Vec<String> {
    let most =
        |value: fn(&Used) -> Option<f64>| used.iter().filter_map(|used| value(used)).fold(0.0, f64::max);
    let (others, stolen) = (most(|used| used.others_cores), most(|used| used.stolen_cores));
    let mut notes = Vec::new();
    if others > OTHERS_CORES {
        notes.push(format!(
            "processes that are not watched used up to {others:.1} of {} processors",
            place.cores
        ));
    }
    if stolen > OTHERS_CORES {
        notes.push(format!(
            "the hypervisor gave up to {stolen:.1} processors to others"
        ));
    }
    let still = used.iter().map(|used| used.stood_still_s).fold(0.0, f64::max);
    if still > STILL_S {
        notes.push(format!(
            "this process, or the machine, stood still for up to {still:.1} s: figures of that run are of little worth"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, run};
    use super::*;

    #[test]
    fn a_clean_run_needs_few_words_and_a_bad_one_says_what_is_wrong() {
        let mut bad = run(1);
        (bad.interrupted, bad.held_back, bad.unstamped) = (true, 3, 7);
        (bad.clock_step_us, bad.too_early) = (-900, 1);
        bad.used.stood_still_s = 6.5;
        let [slow, quick] = [3, 2].map(|ms| run(ms).latency[&Kind::EndToEnd]);
        bad.latency = [(Kind::Leading, slow), (Kind::Queueing, quick)].into();
        let mut good = run(1);
        (good.done, good.failed, good.late) = (good.due, 0, 0);
        good.used.others_cores = Some(0.01);
        let place = report(vec![run(1)]).place;
        let mut plan = super::super::plan::tests::plan();
        assert!(notes(&plan, &place, &[good]).is_empty());
        plan.load = Load::Closed { callers: 5 };
        let text = notes(&plan, &place, &[bad]).join("\n");
        for part in [
            "1 runs were interrupted",
            "1 activations that were due did not end well",
            "2 of 100 activations were handed to the SDK more than 1 ms late",
            "3 activations had to wait",
            "up to 0.2 of 2 processors",
            "7 results did not say",
            "set by -900 µs",
            "stood still for up to 6.5 s",
            "in 1 runs half of the activations began before the watch told",
            "5 callers that wait",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
