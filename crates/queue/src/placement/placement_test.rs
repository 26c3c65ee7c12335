//! Placement by its rules, case by case. Every case holds for both policies unless it says which.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{ByteSize, CreationError, InvokerId, WaitReason};

use super::*;

/// Choices are random among equals, so each case is asked with this many seeds.
const SEEDS: u64 = 64;

fn invoker(id: u64) -> Candidate {
    Candidate {
        invoker: InvokerId(id),
        usable: true,
        suspect: false,
        on_trial: false,
        total: ByteSize::mib(1024),
        free: ByteSize::mib(1024),
        tags: Vec::new(),
        dedicated: Vec::new(),
        kinds: Vec::new(),
        zone: String::new(),
    }
}

fn tagged(id: u64, tags: &[&str]) -> Candidate {
    Candidate {
        tags: texts(tags),
        ..invoker(id)
    }
}

fn free(id: u64, mib: u64) -> Candidate {
    Candidate {
        free: ByteSize::mib(mib),
        ..invoker(id)
    }
}

fn down(candidate: Candidate) -> Candidate {
    Candidate {
        usable: false,
        ..candidate
    }
}

fn suspect(candidate: Candidate) -> Candidate {
    Candidate {
        suspect: true,
        ..candidate
    }
}

fn full(candidate: Candidate) -> Candidate {
    Candidate {
        free: ByteSize::ZERO,
        ..candidate
    }
}

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| (*text).to_owned()).collect()
}

fn request() -> PlacementRequest {
    PlacementRequest {
        namespace: "guest".parse().expect("a valid name"),
        kind: "python:3".to_owned(),
        memory: ByteSize::mib(256),
        tags: Vec::new(),
        strict: true,
        blackbox: false,
        zones: BTreeMap::new(),
        failed: Vec::new(),
        refused: Vec::new(),
    }
}

fn with_tags(tags: &[&str], strict: bool) -> PlacementRequest {
    PlacementRequest {
        tags: texts(tags),
        strict,
        ..request()
    }
}

fn blackbox() -> PlacementRequest {
    PlacementRequest {
        blackbox: true,
        ..request()
    }
}

/// All that may come out under a policy, over many seeds; a shortage must come out with all of them.
fn outcomes(
    policy: PlacementPolicy,
    request: &PlacementRequest,
    of: &[Candidate],
) -> Result<BTreeSet<u64>, Shortage> {
    let placement = policy.placement(PlacementSettings::default());
    let place = |seed| {
        let mut candidates = Candidates::new(of.iter().rev().cloned());
        placement.place(request, &mut candidates, &mut Random::seeded(seed))
    };
    let all: Result<BTreeSet<u64>, _> = (0..SEEDS)
        .map(|seed| place(seed).map(|invoker| invoker.0))
        .collect();
    let says_room = placement
        .explain(request, &Candidates::new(of.iter().cloned()))
        .ends_with("has room for it now");
    assert_eq!(says_room, all.is_ok(), "the explanation says something else");
    all
}

/// Asserts that exactly these come out, under every policy.
fn check(request: &PlacementRequest, of: &[Candidate], expected: Result<&[u64], Shortage>) {
    let expected = expected.map(|ids| ids.iter().copied().collect::<BTreeSet<u64>>());
    for policy in PlacementPolicy::ALL {
        assert_eq!(
            outcomes(policy, request, of),
            expected,
            "{policy}: {request:?} over {of:#?}"
        );
    }
}

fn many(count: u64) -> Vec<Candidate> {
    (0..count).map(invoker).collect()
}

#[test]
fn without_tags_the_managed_part_then_tagged_ones() {
    let mut of = many(10);
    of.push(tagged(10, &["gpu"]));
    check(&request(), &of, Ok(&[0, 1, 2, 3, 4, 5, 6, 7, 8]));
    of[..9]
        .iter_mut()
        .for_each(|candidate| *candidate = full(candidate.clone()));
    check(&request(), &of, Ok(&[10]));
    of[10] = full(of[10].clone());
    check(&request(), &of, Err(Shortage::Memory));
}

#[test]
fn blackbox_part_is_the_end_of_the_order() {
    check(&blackbox(), &many(10), Ok(&[9]));
    check(&blackbox(), &many(20), Ok(&[18, 19]));
    // Few share: the parts overlap.
    check(&blackbox(), &many(1), Ok(&[0]));
    check(&request(), &many(1), Ok(&[0]));
    // A full part waits or goes to the tagged ones; it does not spill over.
    let mut of = many(10);
    of[9] = full(invoker(9));
    check(&blackbox(), &of, Err(Shortage::Memory));
    of.push(tagged(10, &["gpu"]));
    check(&blackbox(), &of, Ok(&[10]));
}

/// W17 of the original: there the parts move with load, and 10 sorts before 2.
#[test]
fn parts_do_not_move_when_invokers_fill_up_or_fail_and_10_comes_after_2() {
    for disturb in [full as fn(Candidate) -> Candidate, down, suspect] {
        let mut of = many(20);
        of[..9]
            .iter_mut()
            .for_each(|candidate| *candidate = disturb(candidate.clone()));
        check(&blackbox(), &of, Ok(&[18, 19]));
        of[18] = disturb(of[18].clone());
        check(&blackbox(), &of, Ok(&[19]));
        check(&request(), &of, Ok(&[9, 10, 11, 12, 13, 14, 15, 16, 17]));
    }
}

#[test]
fn part_of_which_nobody_is_left_is_served_by_the_other() {
    let mut of = many(10);
    of[9] = down(invoker(9));
    check(&blackbox(), &of, Ok(&[0, 1, 2, 3, 4, 5, 6, 7, 8]));
    // Tagged ones come before, as they do for a full part.
    of.push(tagged(10, &["gpu"]));
    check(&blackbox(), &of, Ok(&[10]));
}

#[test]
fn strict_tags_are_had_or_waited_for() {
    let of = [invoker(0), tagged(1, &["cpu", "gpu"]), tagged(2, &["gpu"])];
    check(&with_tags(&["gpu"], true), &of, Ok(&[1, 2]));
    check(&with_tags(&["gpu", "cpu"], true), &of, Ok(&[1]));
    check(&with_tags(&["fpga"], true), &of, Err(Shortage::Tags));
    let full_gpu = [invoker(0), full(tagged(1, &["gpu"]))];
    check(&with_tags(&["gpu"], true), &full_gpu, Err(Shortage::Memory));
    let down_gpu = [invoker(0), down(tagged(1, &["gpu"]))];
    check(&with_tags(&["gpu"], true), &down_gpu, Err(Shortage::Tags));
}

#[test]
fn relaxed_tags_are_preferred_then_untagged_then_other_tags() {
    let request = with_tags(&["gpu"], false);
    let mut of = vec![tagged(0, &["gpu"]), invoker(1), tagged(2, &["cpu"])];
    check(&request, &of, Ok(&[0]));
    of[0] = full(of[0].clone());
    check(&request, &of, Ok(&[1]));
    of[1] = full(of[1].clone());
    check(&request, &of, Ok(&[2]));
    of[2] = full(of[2].clone());
    check(&request, &of, Err(Shortage::Memory));
}

#[test]
fn nobody_may_run_it_or_those_who_may_lack_memory() {
    let only = |kinds: &[&str]| Candidate {
        kinds: texts(kinds),
        ..invoker(0)
    };
    let dedicated = |to: &str| Candidate {
        dedicated: vec![to.parse().expect("a valid name")],
        ..invoker(0)
    };
    check(&request(), &[], Err(Shortage::Invokers));
    check(&request(), &[down(invoker(0))], Err(Shortage::Invokers));
    check(&request(), &[only(&["nodejs"])], Err(Shortage::Invokers));
    check(&request(), &[only(&["python:2"])], Err(Shortage::Invokers));
    check(&request(), &[only(&["python"])], Ok(&[0]));
    check(&request(), &[only(&["go", "python:3"])], Ok(&[0]));
    check(&request(), &[dedicated("other")], Err(Shortage::Invokers));
    check(&request(), &[dedicated("guest")], Ok(&[0]));
    check(&request(), &[free(0, 255)], Err(Shortage::Memory));
    check(&request(), &[free(0, 256)], Ok(&[0]));
    check(
        &request(),
        &[full(dedicated("guest")), down(invoker(1))],
        Err(Shortage::Memory),
    );
    // Nobody at all comes before nobody with the tags.
    check(
        &with_tags(&["gpu"], true),
        &[down(tagged(0, &["gpu"]))],
        Err(Shortage::Invokers),
    );
}

#[test]
fn shortages_name_their_error_and_what_is_waited_for() {
    let named = [Shortage::Invokers, Shortage::Tags, Shortage::Memory].map(|s| (s.error(), s.wait_reason()));
    assert_eq!(
        named,
        [
            (CreationError::NoAvailableInvokers, WaitReason::NoInvoker),
            (CreationError::NoAvailableResources, WaitReason::NoInvoker),
            (CreationError::NoAvailableResources, WaitReason::NoMemory),
        ]
    );
}

#[test]
fn suspects_get_nothing_while_anybody_else_serves_it() {
    check(&request(), &[suspect(invoker(0)), invoker(1)], Ok(&[1]));
    check(
        &request(),
        &[suspect(invoker(0)), full(invoker(1))],
        Err(Shortage::Memory),
    );
    check(&request(), &[suspect(invoker(0)), tagged(1, &["gpu"])], Ok(&[1]));
    // One that does not serve the request is nobody to wait for.
    check(&request(), &[suspect(invoker(0)), down(invoker(1))], Ok(&[0]));
    check(
        &request(),
        &[suspect(invoker(0)), suspect(invoker(1))],
        Ok(&[0, 1]),
    );
    let gpu = with_tags(&["gpu"], true);
    check(&gpu, &[suspect(tagged(0, &["gpu"])), invoker(1)], Ok(&[0]));
    let relaxed = with_tags(&["gpu"], false);
    check(&relaxed, &[suspect(tagged(0, &["gpu"])), invoker(1)], Ok(&[1]));
}

#[test]
fn one_on_trial_gets_one_container_of_a_batch() {
    let on_trial = Candidate {
        on_trial: true,
        ..invoker(0)
    };
    for policy in PlacementPolicy::ALL {
        let placement = policy.placement(PlacementSettings::default());
        for seed in 0..SEEDS {
            let mut candidates = Candidates::new([on_trial.clone(), free(1, 640), free(2, 640)]);
            let mut random = Random::seeded(seed);
            let placed: Vec<_> = (0..4)
                .map(|_| placement.place(&request(), &mut candidates, &mut random).unwrap())
                .collect();
            let there = placed.iter().filter(|at| **at == InvokerId(0)).count();
            assert!(there <= 1, "{policy}, seed {seed}: {placed:?}");
        }
        // It is asked like anybody else until then.
        check_alone(&*placement, &on_trial);
    }
}

fn check_alone(placement: &dyn Placement, candidate: &Candidate) {
    let mut candidates = Candidates::new([candidate.clone(), full(invoker(1))]);
    let mut random = Random::seeded(1);
    let mut place = || placement.place(&request(), &mut candidates, &mut random);
    assert_eq!(place(), Ok(InvokerId(0)));
    assert_eq!(place(), Err(Shortage::Memory), "then the others are waited for");
}

#[test]
fn invokers_that_failed_it_come_last_of_all_groups() {
    let request = PlacementRequest {
        failed: vec![InvokerId(0)],
        refused: Vec::new(),
        ..request()
    };
    check(&request, &[invoker(0), invoker(1)], Ok(&[1]));
    check(&request, &[invoker(0), tagged(1, &["gpu"])], Ok(&[1]));
    check(&request, &[invoker(0), full(invoker(1))], Ok(&[0]));
}

#[test]
fn zones_with_fewer_containers_of_the_queue_are_preferred_among_those_that_fit() {
    let zone = |id: u64, zone: &str| Candidate {
        zone: zone.to_owned(),
        ..invoker(id)
    };
    let of = vec![
        zone(0, "a"),
        zone(1, "b"),
        zone(2, "c"),
        zone(3, "c"),
        full(zone(4, "d")),
    ];
    let request = PlacementRequest {
        zones: [("a".to_owned(), 2), ("b".to_owned(), 1), ("c".to_owned(), 1)].into(),
        ..request()
    };
    check(&request, &of, Ok(&[1, 2, 3]));
}

#[test]
fn batch_never_promises_memory_twice() {
    for policy in PlacementPolicy::ALL {
        let placement = policy.placement(PlacementSettings::default());
        let (mut candidates, mut random) = (Candidates::new([free(0, 512), free(1, 700)]), Random::seeded(1));
        let mut placed = BTreeMap::<_, u32>::new();
        for _ in 0..4 {
            let invoker = placement
                .place(&request(), &mut candidates, &mut random)
                .expect("there is room");
            *placed.entry(invoker.0).or_default() += 1;
        }
        assert_eq!(placed, [(0, 2), (1, 2)].into(), "{policy}");
        let next = placement.place(&request(), &mut candidates, &mut random);
        assert_eq!(next, Err(Shortage::Memory));
        // Of the second one 188 MiB are left, more than the smallest container; the first one has dropped out.
        assert_eq!(candidates.left(InvokerId(0)), None);
        assert_eq!(candidates.left(InvokerId(1)), Some(ByteSize::mib(188)));
    }
}

#[test]
fn built_in_chooses_evenly_among_equals() {
    let placement = BuiltInPlacement::default();
    let mut random = Random::seeded(3);
    let mut chosen = [0_u32; 4];
    for _ in 0..4_000 {
        let mut candidates = Candidates::new(many(4));
        let invoker = placement
            .place(&request(), &mut candidates, &mut random)
            .expect("there is room");
        chosen[invoker.0 as usize] += 1;
    }
    assert!(
        chosen.iter().all(|count| (900..1_100).contains(count)),
        "{chosen:?}"
    );
}

#[test]
fn least_loaded_goes_by_the_part_that_will_be_free() {
    let sized = |id, total, free| Candidate {
        total: ByteSize::mib(total),
        free: ByteSize::mib(free),
        ..invoker(id)
    };
    let least = |of: &[Candidate]| outcomes(PlacementPolicy::LeastLoaded, &request(), of);
    // Half of 4 GiB beats a quarter of 8 GiB; afterwards 7/16 against 7/32.
    assert_eq!(
        least(&[sized(0, 4096, 2048), sized(1, 8192, 2048)]),
        Ok([0].into())
    );
    // Before it both are free in full; afterwards the small one is full.
    assert_eq!(least(&[sized(0, 256, 256), sized(1, 8192, 8192)]), Ok([1].into()));
    let built_in = outcomes(
        PlacementPolicy::BuiltIn,
        &request(),
        &[sized(0, 256, 256), sized(1, 8192, 8192)],
    );
    assert_eq!(built_in, Ok([0, 1].into()));
}

#[test]
fn least_loaded_keeps_a_batch_level() {
    let (mut candidates, mut random) = (Candidates::new(many(4)), Random::seeded(9));
    for _ in 0..8 {
        let placed = LeastLoaded::default().place(&request(), &mut candidates, &mut random);
        placed.expect("there is room");
    }
    let left: Vec<_> = candidates
        .iter()
        .map(|candidate| candidate.free.as_mib())
        .collect();
    assert_eq!(left, [512; 4]);
}

#[test]
fn policies_are_read_by_name() {
    for policy in PlacementPolicy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    let error = "random".parse::<PlacementPolicy>().expect_err("no such policy");
    assert_eq!(
        error.to_string(),
        "\"random\" is no placement policy; write built-in or least-loaded"
    );
}

#[test]
fn explanations_say_what_is_missing() {
    let explain = |request: &PlacementRequest, of: &[Candidate]| {
        BuiltInPlacement::default().explain(request, &Candidates::new(of.iter().cloned()))
    };
    assert_eq!(
        explain(&request(), &[]),
        "no invoker may run python:3 actions of guest: none has a session"
    );
    let other_kind = Candidate {
        kinds: texts(&["go"]),
        ..invoker(3)
    };
    assert_eq!(
        explain(&request(), &[down(invoker(1)), down(invoker(2)), other_kind]),
        "no invoker may run python:3 actions of guest: 2 unhealthy or not connected, 1 of other kinds"
    );
    assert_eq!(
        explain(
            &with_tags(&["gpu", "ssd"], true),
            &[invoker(1), tagged(2, &["gpu"])]
        ),
        "none of 2 invokers that may run python:3 actions of guest has the tags gpu, ssd"
    );
    assert_eq!(
        explain(&request(), &[free(1, 64), free(2, 128)]),
        "256 MiB is needed and the freest of 2 invokers has 128 MiB left"
    );
    let huge = PlacementRequest {
        memory: ByteSize::mib(2048),
        ..request()
    };
    assert_eq!(
        explain(&huge, &[invoker(1)]),
        "2 GiB is needed and the largest of 1 invoker has 1 GiB in all"
    );
    // Of the part that it may use, not of all there are.
    let mut of = many(10);
    of[9] = free(9, 128);
    assert_eq!(
        explain(&blackbox(), &of),
        "256 MiB is needed and the freest of 1 invoker has 128 MiB left"
    );
}
