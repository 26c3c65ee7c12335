//! Entitlements against a model that fills all vessels at the same speed, and whose turn it is.

use std::cmp::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use whiskraft_queue::{FairShares, NamespaceUse, useful_memory};
use whiskraft_types::{ByteSize, Instant, NamespaceName};

pub(crate) fn name(index: usize) -> NamespaceName {
    format!("n{index:02}").parse().unwrap()
}

/// `(weight, held, wanted)` by index, in bytes: small numbers hit equality often.
pub(crate) type Use = (u32, u64, u64);

pub(crate) fn uses(of: &[Use]) -> Vec<NamespaceUse> {
    let one = |(index, (weight, held, wanted)): (usize, &Use)| NamespaceUse {
        namespace: name(index),
        weight: *weight,
        held: ByteSize::bytes(*held),
        wanted: ByteSize::bytes(*wanted),
        waits_since: Instant::default(),
    };
    of.iter().enumerate().map(one).collect()
}

pub(crate) fn some_uses() -> impl Strategy<Value = Vec<Use>> {
    let weight = prop_oneof![Just(100_u32), 1_u32..5, 1_u32..10_000];
    let memory = || prop_oneof![Just(0_u64), 1_u64..20, 1_u64..100_000];
    proptest::collection::vec((weight, memory(), memory()), 1..12)
}

/// Raises the level until one more namespace has all it wants, again and again.
fn fill(total: u64, of: &[Use]) -> Vec<f64> {
    let mut entitled: Vec<Option<f64>> = vec![None; of.len()];
    loop {
        let open = || of.iter().zip(&entitled).filter(|(_, done)| done.is_none());
        let used: f64 = entitled.iter().flatten().sum();
        let weights: f64 = open().map(|((weight, ..), _)| f64::from(*weight)).sum();
        let level = (total as f64 - used).max(0.0) / weights.max(1.0);
        let full = |((weight, held, wanted), done): (&Use, &Option<f64>)| {
            done.is_none() && (held + wanted) as f64 <= level * f64::from(*weight)
        };
        let before = entitled.clone();
        for (index, pair) in of.iter().zip(&before).enumerate() {
            if full(pair) {
                entitled[index] = Some((pair.0.1 + pair.0.2) as f64);
            }
        }
        if entitled == before {
            let rest = of.iter().zip(entitled);
            return rest
                .map(|((weight, ..), done)| done.unwrap_or(level * f64::from(*weight)))
                .collect();
        }
    }
}

fn bytes(shares: &FairShares, index: usize) -> u64 {
    shares.entitled(&name(index)).as_bytes()
}

/// Compares `held / weight`.
fn by_ratio(a: &Use, b: &Use) -> Ordering {
    (u128::from(a.1) * u128::from(b.0)).cmp(&(u128::from(b.1) * u128::from(a.0)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_entitlements_add_up_to_what_there_is_or_what_is_wanted(total in 0_u64..300_000, of in some_uses()) {
        let shares = FairShares::new(ByteSize::bytes(total), uses(&of));
        let sum: u64 = (0..of.len()).map(|index| bytes(&shares, index)).sum();
        let demand: u64 = of.iter().map(|(_, held, wanted)| held + wanted).sum();
        prop_assert!(sum <= total.min(demand));
        prop_assert!(sum + of.len() as u64 >= total.min(demand), "{} of {} is nobody's", sum, total.min(demand));
    }

    #[test]
    fn entitlements_are_those_of_the_model(total in 0_u64..300_000, of in some_uses()) {
        let shares = FairShares::new(ByteSize::bytes(total), uses(&of));
        for (index, wanted) in fill(total, &of).into_iter().enumerate() {
            let found = bytes(&shares, index) as f64;
            prop_assert!((found - wanted).abs() <= of.len() as f64 + 1.0, "{}: {} instead of {}", index, found, wanted);
        }
    }

    #[test]
    fn invariant_below_entitlement_is_served_before_above(total in 0_u64..300_000, of in some_uses()) {
        let shares = FairShares::new(ByteSize::bytes(total), uses(&of));
        let names: Vec<_> = (0..of.len()).map(name).collect();
        let waiting: Vec<_> = (0..of.len()).filter(|index| of[*index].2 > 0).collect();
        let next = shares.next(waiting.iter().map(|index| &names[*index]));
        let below = |index: usize| of[index].1 < bytes(&shares, index);
        let is_above = next.as_ref().is_some_and(|next| {
            let index = names.iter().position(|name| name == next).unwrap();
            of[index].1 > bytes(&shares, index) + of.len() as u64
        });
        prop_assert!(!is_above || !waiting.iter().any(|index| below(*index)));
        prop_assert_eq!(next.is_none(), waiting.is_empty());
    }

    #[test]
    fn invariant_no_memory_lies_idle_while_somebody_waits(
        total in 1_u64..300_000, of in some_uses(), memory in 1_u64..1_000, free in 0_u64..2_000,
    ) {
        let shares = FairShares::new(ByteSize::bytes(total), uses(&of));
        let names: Vec<_> = (0..of.len()).map(name).collect();
        let waiting = (0..of.len()).filter(|index| of[*index].2 > 0).map(|index| &names[index]);
        if let Some(next) = shares.next(waiting) {
            prop_assert!(shares.may_take(&next, ByteSize::bytes(memory), ByteSize::bytes(free)));
        }
    }

    #[test]
    fn memory_is_refused_only_for_those_who_hold_less_and_are_owed_it(
        total in 1_u64..300_000, of in some_uses(), memory in 1_u64..1_000, free in 0_u64..50_000,
    ) {
        let shares = FairShares::new(ByteSize::bytes(total), uses(&of));
        for (index, own) in of.iter().enumerate() {
            let owed = |(other, use_): (usize, &Use)| {
                let is_before = by_ratio(use_, own) == Ordering::Less;
                let owed = use_.2.min(bytes(&shares, other).saturating_sub(use_.1));
                if is_before { owed } else { 0 }
            };
            let owed: u64 = of.iter().enumerate().map(owed).sum();
            let is_above = own.1 + memory > bytes(&shares, index);
            let is_short = owed > 0 && free < memory + owed;
            let may = shares.may_take(&name(index), ByteSize::bytes(memory), ByteSize::bytes(free));
            prop_assert_eq!(may, !(is_above && is_short));
        }
    }

    #[test]
    fn of_those_that_hold_the_same_the_one_that_waits_longest_is_next(
        total in 0_u64..300_000, of in some_uses(), since in proptest::collection::vec(0_u64..4, 12),
    ) {
        let at = |index: usize| Instant::from_origin(Duration::from_secs(since[index]));
        let mut with_times = uses(&of);
        with_times.iter_mut().enumerate().for_each(|(index, one)| one.waits_since = at(index));
        let shares = FairShares::new(ByteSize::bytes(total), with_times);
        let names: Vec<_> = (0..of.len()).map(name).collect();
        let next = shares.next(&names).unwrap();
        let next = names.iter().position(|name| *name == next).unwrap();
        for other in 0..of.len() {
            let order = by_ratio(&of[next], &of[other]).then(since[next].cmp(&since[other]));
            prop_assert!(order != Ordering::Greater, "{} before {}", next, other);
        }
    }

    /// Empty cluster, everybody wants everything, all containers are alike.
    #[test]
    fn invariant_nobody_exceeds_its_weight_by_more_than_one_container(
        weights in proptest::collection::vec(1_u32..20, 1..12), places in 1_u64..200,
    ) {
        const MEMORY: u64 = 256;
        let of: Vec<Use> = weights.iter().map(|weight| (*weight, 0, places * MEMORY)).collect();
        let mut shares = FairShares::new(ByteSize::bytes(places * MEMORY), uses(&of));
        let names: Vec<_> = (0..of.len()).map(name).collect();
        let mut held = vec![0_u64; of.len()];
        for place in 0..places {
            let next = shares.next(&names).unwrap();
            let free = ByteSize::bytes((places - place) * MEMORY);
            prop_assert!(shares.may_take(&next, ByteSize::bytes(MEMORY), free));
            shares.take(&next, ByteSize::bytes(MEMORY));
            held[names.iter().position(|name| *name == next).unwrap()] += MEMORY;
        }
        let is_whole = (0..of.len()).all(|index| bytes(&shares, index).is_multiple_of(MEMORY));
        for (index, held) in held.into_iter().enumerate() {
            let entitled = bytes(&shares, index);
            prop_assert!(held <= entitled + of.len() as u64 + MEMORY, "{} holds {} of {}", index, held, entitled);
            prop_assert!(!is_whole || held == entitled, "{} holds {} of {}", index, held, entitled);
        }
    }
}

#[test]
fn who_wants_little_leaves_the_rest_to_the_others_by_weight() {
    let of = [(100, 0, 10), (100, 500, 500), (300, 0, 5_000)];
    let shares = FairShares::new(ByteSize::bytes(410), uses(&of));
    assert_eq!([0, 1, 2].map(|index| bytes(&shares, index)), [10, 100, 300]);
    assert_eq!(shares.surplus(), [(name(1), ByteSize::bytes(400))]);
    assert_eq!(
        [0, 1, 2].map(|index| shares.may_reclaim(&name(index))),
        [true, false, true]
    );
}

#[test]
fn plenty_for_all_leaves_nobody_above() {
    let of = [(1, 900, 0), (10_000, 50, 50)];
    let shares = FairShares::new(ByteSize::bytes(1_000), uses(&of));
    assert!(shares.surplus().is_empty());
    assert!(shares.may_take(&name(0), ByteSize::bytes(100), ByteSize::bytes(200)));
    assert!(!shares.may_take(&name(0), ByteSize::bytes(100), ByteSize::bytes(149)));
}

#[test]
fn most_above_by_weight_comes_first() {
    let of = [(1, 300, 0), (10, 900, 0), (5, 0, 5_000)];
    let shares = FairShares::new(ByteSize::bytes(160), uses(&of));
    let order: Vec<_> = shares.surplus().into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, [name(0), name(1)]);
}

/// Within one batch nobody is served twice before an equal, however long it has waited.
#[test]
fn who_was_served_waits_behind_its_equals() {
    let names = [name(0), name(1)];
    let mut of = uses(&[(100, 0, 20), (100, 0, 10)]);
    of[1].waits_since = Instant::from_origin(Duration::from_secs(9));
    let mut shares = FairShares::new(ByteSize::bytes(10), of);
    for expected in [0, 1, 0] {
        let next = shares.next(&names).unwrap();
        assert_eq!(next, name(expected));
        shares.take(&next, ByteSize::bytes(10));
        // What it holds ends at once.
        shares.lose(&next, ByteSize::bytes(10));
    }
}

/// Entitled to less than one container, or to nothing at all.
#[test]
fn first_container_is_always_a_claim() {
    let of = [(1, 0, 10), (100, 0, 0), (1_000_000_000, 100, 0), (1, 5, 10)];
    let shares = FairShares::new(ByteSize::bytes(100), uses(&of));
    assert_eq!(bytes(&shares, 0), 0);
    assert_eq!(
        [0, 1, 2, 3].map(|index| shares.may_reclaim(&name(index))),
        [true, false, false, false]
    );
}

/// Each time the one place that there is has become free again, so all hold the same: nothing.
#[test]
fn equals_take_turns_over_batches() {
    let of = [(100, 0, 10); 3];
    let names = [name(0), name(1), name(2)];
    let mut last = None;
    let mut served = Vec::new();
    for _ in 0..7 {
        let mut shares = FairShares::new(ByteSize::bytes(10), uses(&of)).after(last);
        let next = shares.next(&names).unwrap();
        shares.take(&next, ByteSize::bytes(10));
        last = shares.last().cloned();
        served.push(next);
    }
    assert_eq!(served, [0, 1, 2, 0, 1, 2, 0].map(name));
}

/// Four invokers of eight, containers of three: two fit on each, and what is left belongs to nobody. Were it shared out, the one
/// that holds all places would be entitled to all of them.
#[test]
fn rests_too_small_for_a_container_are_nobodys() {
    let size = ByteSize::bytes;
    let full = [(size(8), size(2)); 4];
    let total = useful_memory(full, size(3));
    assert_eq!(total, size(24));
    let shares = FairShares::new(total, uses(&[(1, 24, 30), (1, 0, 3)]));
    assert_eq!(shares.surplus(), [(name(0), size(3))]);
    assert!(shares.may_reclaim(&name(1)));
    let roomy = [(size(8), size(5)), (size(8), size(2))];
    assert_eq!(
        useful_memory(roomy, size(3)),
        size(14),
        "a rest that fits one counts"
    );
    assert_eq!(useful_memory(roomy, size(1)), size(16));
}
