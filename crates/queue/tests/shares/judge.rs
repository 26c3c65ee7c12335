//! Gray and flapping invokers are found soon, and noise is not taken for them.

use std::time::Duration;

use proptest::prelude::*;
use whiskraft_queue::{Judge, JudgeSettings, Observation, Random, Standing, SuspicionReason};
use whiskraft_types::{Instant, InvokerId};

fn at(millis: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(millis))
}

fn secs(secs: u64) -> Instant {
    at(secs * 1000)
}

fn judge() -> Judge {
    Judge::new(JudgeSettings::default())
}

fn run(slowness: f64) -> Observation {
    Observation::Run {
        slowness: Some(slowness),
    }
}

/// A judge that knows so many invokers, all well.
fn judge_of(invokers: u64) -> Judge {
    let mut judge = judge();
    (0..invokers).for_each(|invoker| judge.observe(at(0), InvokerId(invoker), Observation::Opened));
    judge
}

fn reason(judge: &Judge, now: Instant, invoker: u64) -> Option<SuspicionReason> {
    judge
        .suspects(now)
        .get(&InvokerId(invoker))
        .map(|suspicion| suspicion.reason)
}

fn standing(judge: &Judge, now: Instant, invoker: u64) -> Option<Standing> {
    judge
        .suspects(now)
        .get(&InvokerId(invoker))
        .map(|suspicion| suspicion.standing)
}

fn unit(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Around 1, with a tail: `sigma` of 1.5 puts one in a hundred above 30 times the median.
fn lognormal(random: &mut Random, sigma: f64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(random)).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * unit(random)).cos();
    (sigma * normal).exp()
}

/// Mean of such durations: what a queue's average comes to.
fn mean(sigma: f64) -> f64 {
    (sigma * sigma / 2.0).exp()
}

/// Runs of actions of several kinds on all invokers, `per_second` on each; the last one is `slower` times as slow.
/// Returns the moment in milliseconds at which each was first suspected.
fn first_suspicions(seed: u64, sigma: f64, slower: f64, per_second: u64, duration: u64) -> Vec<Option<u64>> {
    const INVOKERS: u64 = 10;
    let mut random = Random::seeded(seed);
    let mut judge = judge_of(INVOKERS);
    let mut first = vec![None; INVOKERS as usize];
    for tick in 0..duration * per_second {
        let now = 1_000 * tick / per_second;
        for invoker in 0..INVOKERS {
            // Mixed actions: some scatter little, some much; each is held against its own queue's mean.
            let sigma = sigma * unit(&mut random);
            let factor = if invoker == INVOKERS - 1 { slower } else { 1.0 };
            let slowness = factor * lognormal(&mut random, sigma) / mean(sigma);
            judge.observe(at(now), InvokerId(invoker), run(slowness));
        }
        for suspect in judge.suspects(at(now)).keys() {
            first[suspect.0 as usize].get_or_insert(now);
        }
    }
    first
}

#[test]
fn twenty_times_slower_is_found_within_ten_seconds() {
    for (sigma, per_second) in [(0.2, 1), (1.0, 1), (1.5, 2), (2.0, 2)] {
        let late: Vec<_> = (0..100)
            .filter(|seed| {
                let found = first_suspicions(*seed, sigma, 20.0, per_second, 10);
                found.last().unwrap().is_none()
            })
            .collect();
        assert!(
            late.len() <= 1,
            "scatter {sigma}, {per_second} runs a second: not found with seeds {late:?}"
        );
    }
}

#[test]
fn noise_is_not_taken_for_slowness() {
    // Two hundred invokers for five minutes at five runs a second: 300,000 runs for each scatter.
    for sigma in [0.5, 1.5, 2.5] {
        let wrong: usize = (0..20)
            .map(|seed| {
                first_suspicions(seed, sigma, 1.0, 5, 300)
                    .iter()
                    .flatten()
                    .count()
            })
            .sum();
        assert_eq!(
            wrong, 0,
            "scatter {sigma}: so many of 200 invokers suspected without reason"
        );
    }
}

#[test]
fn one_long_run_is_no_reason() {
    let mut judge = judge_of(3);
    for tick in 0..60 {
        for invoker in 0..3 {
            let slowness = if (tick, invoker) == (30, 0) { 1e6 } else { 1.0 };
            judge.observe(secs(tick), InvokerId(invoker), run(slowness));
            assert!(judge.suspects(secs(tick)).is_empty());
        }
    }
}

#[test]
fn two_activations_without_an_answer_make_a_suspect() {
    let mut judge = judge_of(3);
    judge.observe(secs(1), InvokerId(0), Observation::Silent);
    judge.observe(secs(2), InvokerId(0), run(1.0));
    judge.observe(secs(3), InvokerId(0), Observation::Silent);
    assert_eq!(reason(&judge, secs(3), 0), None);
    judge.observe(secs(4), InvokerId(0), Observation::Silent);
    assert_eq!(reason(&judge, secs(4), 0), Some(SuspicionReason::Silent));
    assert_eq!(judge.next_change(secs(4)), Some(secs(14)));
    assert_eq!(standing(&judge, secs(13), 0), Some(Standing::PassedOver));
}

#[test]
fn half_of_the_creations_failing_makes_a_suspect() {
    let mut judge = judge_of(3);
    let create = |judge: &mut Judge, failed: bool| {
        let seen = if failed {
            Observation::CreationFailed
        } else {
            Observation::Created
        };
        judge.observe(secs(1), InvokerId(0), seen);
        reason(judge, secs(1), 0)
    };
    for failed in [true, true, false, false, false, false, true, false, true] {
        assert_eq!(create(&mut judge, failed), None);
    }
    assert_eq!(create(&mut judge, true), Some(SuspicionReason::Failing));
    let mut judge = judge_of(3);
    assert_eq!(
        [true, true, true].map(|failed| create(&mut judge, failed)),
        [None, None, Some(SuspicionReason::Failing)]
    );
}

#[test]
fn restart_is_forgiven_and_flapping_is_put_off_ever_longer() {
    let mut judge = judge_of(3);
    let flap = |judge: &mut Judge, at: u64| {
        judge.observe(secs(at), InvokerId(0), Observation::Ended);
        let until = judge
            .suspects(secs(at))
            .get(&InvokerId(0))
            .map(|suspicion| suspicion.until);
        judge.observe(secs(at + 1), InvokerId(0), Observation::Opened);
        until.map(|until| until.saturating_since(secs(at)).as_secs())
    };
    let lengths = [100, 115, 130, 145, 160, 175].map(|at| flap(&mut judge, at));
    assert_eq!(lengths, [None, Some(10), Some(20), Some(40), Some(60), Some(60)]);
    // Opening again does not end it.
    assert_eq!(reason(&judge, secs(180), 0), Some(SuspicionReason::Flapping));
    // Long after, a restart is a restart again, and flapping starts at the bottom.
    assert_eq!([1_000, 1_030].map(|at| flap(&mut judge, at)), [None, Some(10)]);
    assert_eq!([2_000, 2_061].map(|at| flap(&mut judge, at)), [None, None]);
}

#[test]
fn slow_one_stays_away_while_its_own_runs_say_so() {
    let mut judge = judge_of(3);
    let runs = |judge: &mut Judge, secs_from: u64, secs_to: u64, slowness: f64| {
        for second in secs_from..secs_to {
            for invoker in 0..3 {
                let slowness = if invoker == 0 { slowness } else { 1.0 };
                judge.observe(secs(second), InvokerId(invoker), run(slowness));
            }
        }
        reason(judge, secs(secs_to - 1), 0)
    };
    assert_eq!(runs(&mut judge, 0, 10, 20.0), Some(SuspicionReason::Slow));
    assert_eq!(runs(&mut judge, 10, 100, 20.0), Some(SuspicionReason::Slow));
    assert_eq!(runs(&mut judge, 100, 120, 1.0), None);
    assert_eq!(runs(&mut judge, 120, 300, 1.0), None);
}

/// One that was caught for a reason and is passed over no more, at 20 s.
fn on_trial_for(bad: Observation) -> Judge {
    let mut judge = judge_of(3);
    for invoker in 1..3 {
        (0..10).for_each(|_| judge.observe(secs(1), InvokerId(invoker), run(1.0)));
    }
    (0..5).for_each(|_| judge.observe(secs(1), InvokerId(0), bad));
    assert_eq!(standing(&judge, secs(1), 0), Some(Standing::PassedOver));
    assert_eq!(standing(&judge, secs(20), 0), Some(Standing::OnTrial));
    judge
}

#[test]
fn on_trial_it_gets_one_container_at_a_time_until_runs_went_well() {
    let mut judge = on_trial_for(Observation::Silent);
    for time in [20, 21, 22] {
        assert_eq!(standing(&judge, secs(time), 0), Some(Standing::OnTrial));
        judge.observe(secs(time), InvokerId(0), Observation::Placed);
        assert_eq!(standing(&judge, secs(time), 0), Some(Standing::Probed));
        judge.observe(secs(time), InvokerId(0), Observation::Created);
        assert_eq!(
            standing(&judge, secs(time), 0),
            Some(Standing::Probed),
            "what it runs is wanted"
        );
        judge.observe(secs(time), InvokerId(0), Observation::Run { slowness: None });
    }
    assert_eq!(standing(&judge, secs(22), 0), None);
}

#[test]
fn container_of_which_nothing_is_heard_makes_room_for_the_next() {
    let mut judge = on_trial_for(Observation::Silent);
    judge.observe(secs(20), InvokerId(0), Observation::Placed);
    assert_eq!(judge.next_change(secs(20)), Some(secs(30)));
    assert_eq!(standing(&judge, secs(30), 0), Some(Standing::OnTrial));
    judge.observe(secs(30), InvokerId(0), Observation::Placed);
    judge.observe(secs(31), InvokerId(0), Observation::Ended);
    judge.observe(secs(32), InvokerId(0), Observation::Opened);
    assert_eq!(
        standing(&judge, secs(32), 0),
        Some(Standing::OnTrial),
        "its container has gone with its session"
    );
    // Who gets no work for long is trusted without.
    assert_eq!(standing(&judge, secs(311), 0), None);
}

#[test]
fn on_trial_the_first_bad_sign_is_enough() {
    let signs = [
        (Observation::Silent, SuspicionReason::Silent),
        (Observation::CreationFailed, SuspicionReason::Failing),
        (run(20.0), SuspicionReason::Slow),
        (Observation::Late { slowness: 50.0 }, SuspicionReason::Slow),
    ];
    for (bad, _) in signs {
        for (sign, wanted) in signs {
            let mut judge = on_trial_for(bad);
            judge.observe(secs(20), InvokerId(0), sign);
            assert_eq!(
                reason(&judge, secs(20), 0),
                Some(wanted),
                "{sign:?} after {bad:?}"
            );
            assert_eq!(
                standing(&judge, secs(39), 0),
                Some(Standing::PassedOver),
                "twice as long"
            );
            assert_eq!(standing(&judge, secs(40), 0), Some(Standing::OnTrial));
        }
    }
}

#[test]
fn restart_on_trial_is_forgiven_to_all_but_those_that_flap() {
    let mut judge = on_trial_for(Observation::Silent);
    judge.observe(secs(21), InvokerId(0), Observation::Ended);
    assert_eq!(standing(&judge, secs(21), 0), Some(Standing::OnTrial));

    let mut judge = judge_of(2);
    for time in [0, 10, 70] {
        judge.observe(secs(time), InvokerId(0), Observation::Opened);
        judge.observe(secs(time + 1), InvokerId(0), Observation::Ended);
    }
    assert_eq!(reason(&judge, secs(71), 0), Some(SuspicionReason::Flapping));
    assert_eq!(standing(&judge, secs(90), 0), Some(Standing::PassedOver));
}

#[test]
fn creations_clear_one_whose_creations_failed_and_nobody_else() {
    let mut judge = on_trial_for(Observation::CreationFailed);
    (0..3).for_each(|_| judge.observe(secs(20), InvokerId(0), run(1.0)));
    assert_eq!(standing(&judge, secs(20), 0), Some(Standing::OnTrial));
    (0..10).for_each(|_| judge.observe(secs(20), InvokerId(0), Observation::Created));
    assert_eq!(standing(&judge, secs(20), 0), None);
    let mut judge = on_trial_for(Observation::Silent);
    (0..9).for_each(|_| judge.observe(secs(20), InvokerId(0), Observation::Created));
    assert_eq!(standing(&judge, secs(20), 0), Some(Standing::OnTrial));
}

#[test]
fn what_is_placed_on_one_that_is_passed_over_is_no_trial() {
    let mut judge = judge_of(2);
    (0..2).for_each(|_| judge.observe(secs(1), InvokerId(0), Observation::Silent));
    // Everybody else was suspected too.
    judge.observe(secs(10), InvokerId(0), Observation::Placed);
    assert_eq!(standing(&judge, secs(11), 0), Some(Standing::OnTrial));
}

/// Gives an invoker a container each time it may have one; each runs once, for `took` milliseconds, and is heard of a
/// second after its end. The others go on working. Returns when containers were placed, in milliseconds.
fn placements(seed: u64, sigma: f64, slower: f64, took: u64) -> Vec<u64> {
    const STEP: u64 = 250;
    let mut random = Random::seeded(seed);
    let mut judge = judge_of(4);
    let mut pending = std::collections::VecDeque::new();
    let mut placed = Vec::new();
    for now in (0..120_000).step_by(STEP as usize) {
        let mut slowness = |factor: f64| factor * lognormal(&mut random, sigma) / mean(sigma);
        for invoker in 1..4 {
            judge.observe(at(now), InvokerId(invoker), run(slowness(1.0)));
        }
        while pending.front().is_some_and(|done| *done <= now) {
            pending.pop_front();
            judge.observe(at(now), InvokerId(0), run(slowness(slower)));
        }
        if matches!(standing(&judge, at(now), 0), None | Some(Standing::OnTrial)) {
            judge.observe(at(now), InvokerId(0), Observation::Placed);
            placed.push(now);
            pending.push_back(now + took + 1_000);
        }
    }
    placed
}

#[test]
fn slow_one_gets_a_handful_of_containers_once_it_is_known() {
    for sigma in [0.2, 0.5, 1.0] {
        for seed in 0..50 {
            let placed = placements(seed, sigma, 20.0, 400);
            let late = placed.iter().filter(|at| **at > 10_000).count();
            // The suspicions that end in two minutes last 10, 20 and 40 s. A trial takes five runs at most.
            assert!(late <= 15, "scatter {sigma}, seed {seed}: {late} late placements");
        }
    }
}

#[test]
fn one_that_has_recovered_is_trusted_again_soon() {
    let mut wrong = 0;
    for sigma in [0.5, 1.0, 1.5, 2.0] {
        for seed in 0..100 {
            let mut random = Random::seeded(seed);
            let mut judge = on_trial_for(run(20.0));
            // How much the others scatter is known before the trial.
            for step in 0..80 {
                let now = at(10_500 + step * 250);
                let from = if now < secs(20) { 1 } else { 0 };
                for invoker in from..3 {
                    let slowness = lognormal(&mut random, sigma) / mean(sigma);
                    judge.observe(now, InvokerId(invoker), run(slowness));
                }
            }
            wrong += usize::from(standing(&judge, secs(31), 0).is_some());
        }
    }
    assert!(
        wrong <= 8,
        "{wrong} of 400 were not trusted after forty honest runs"
    );
}

#[test]
fn alone_nobody_is_suspected() {
    let mut judge = judge_of(1);
    for second in 0..60 {
        let bad = [
            Observation::Ended,
            Observation::Silent,
            Observation::CreationFailed,
            run(60.0),
        ];
        bad.into_iter()
            .for_each(|seen| judge.observe(secs(second), InvokerId(0), seen));
        assert!(judge.suspects(secs(second)).is_empty());
    }
    judge.observe(secs(60), InvokerId(1), Observation::Opened);
    assert!(reason(&judge, secs(60), 0).is_some());
}

#[test]
fn invokers_without_a_session_are_forgotten_and_others_kept() {
    let mut judge = judge_of(100);
    for invoker in 2..100 {
        judge.observe(secs(1), InvokerId(invoker), Observation::Ended);
    }
    judge.observe(secs(1_000), InvokerId(0), Observation::Created);
    assert_eq!(judge.known(), 2);
}

fn observation() -> impl Strategy<Value = Observation> {
    prop_oneof![
        Just(Observation::Opened),
        Just(Observation::Ended),
        Just(Observation::Silent),
        Just(Observation::Created),
        Just(Observation::CreationFailed),
        Just(Observation::Placed),
        Just(Observation::Run { slowness: None }),
        Just(Observation::Late { slowness: 40.0 }),
        prop_oneof![
            0.01_f64..100.0,
            Just(0.0),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(-1.0)
        ]
        .prop_map(run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn suspicions_are_short_and_change_when_it_says(
        seen in proptest::collection::vec((0_u64..30_000, 0_u64..4, observation()), 1..80),
    ) {
        let (mut now, mut judge) = (0, judge());
        for (pause, invoker, seen) in seen {
            now += pause;
            judge.observe(at(now), InvokerId(invoker), seen);
            let suspects = judge.suspects(at(now));
            prop_assert!(suspects.is_empty() || judge.known() >= 2);
            prop_assert!(judge.known() <= 4);
            for suspicion in suspects.values() {
                let longest = match suspicion.standing {
                    Standing::PassedOver => 60_000,
                    Standing::Probed => 10_000,
                    Standing::OnTrial => 300_000,
                };
                prop_assert!(suspicion.until > at(now) && suspicion.until <= at(now + longest));
            }
            if let Some(change) = judge.next_change(at(now)) {
                let just_before = Instant::from_origin(change.since_origin() - Duration::from_nanos(1));
                prop_assert_eq!(&judge.suspects(just_before), &suspects);
                prop_assert!(suspects.is_empty() || judge.suspects(change) != suspects);
            } else {
                prop_assert!(suspects.is_empty());
            }
        }
    }
}
