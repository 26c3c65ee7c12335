//! Which containers come free, by hand and against a model that plays the calls out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn id(number: u32) -> ActivationId {
    ActivationId::from_bytes(u128::from(number).to_be_bytes())
}

/// `free`, ids in flight, and `5<1` for a call of 1 that is in this queue: it waits unless it is in flight as well.
fn queue(text: &str) -> Calls {
    let mut calls = Calls::default();
    for word in text.split_whitespace() {
        if word == "free" {
            calls.is_free = true;
        } else if let Some((called, caller)) = word.split_once('<') {
            calls.calls.push(Call {
                caller: id(caller.parse().unwrap()),
                id: id(called.parse().unwrap()),
                waits: true,
            });
        } else {
            calls.in_flight.push(id(word.parse().unwrap()));
        }
    }
    for call in &mut calls.calls {
        call.waits = !calls.in_flight.contains(&call.id);
    }
    calls
}

fn free(queues: &[&str]) -> Vec<bool> {
    let queues: Vec<_> = queues.iter().map(|text| queue(text)).collect();
    (0..queues.len())
        .map(|whose| comes_free(&queues, whose))
        .collect()
}

#[test]
fn recursion_that_holds_every_container_is_a_knot() {
    assert_eq!(free(&["1 2 3<1 4<2"]), [false]);
    // Two levels: 3 runs for 1 and calls 5.
    assert_eq!(free(&["1 2 3 4 3<1 4<2 5<3 6<4"]), [false]);
}

#[test]
fn one_that_waits_for_nobody_ends() {
    assert_eq!(free(&["1 2 3<1"]), [true]);
    assert_eq!(free(&["1 2 3<1 2<1"]), [true]);
    assert_eq!(free(&["free 1 2 3<1 4<2"]), [true]);
    assert_eq!(free(&["1 2"]), [true]);
}

#[test]
fn calls_in_other_queues_count() {
    assert_eq!(free(&["1 2 5<3 6<4", "3 4 3<1 4<2"]), [false, false]);
    // 4 works: its caller hears from it, then 5 or 6 has a container.
    assert_eq!(free(&["1 2 5<3", "3 4 3<1 4<2"]), [true, true]);
    // What the other queue has nobody said.
    assert_eq!(free(&["1 2 5<3 6<4"]), [true]);
}

#[test]
fn one_call_of_several_that_never_ends_is_enough() {
    assert_eq!(free(&["1 3<1", "2 2<1"]), [false, true]);
    assert_eq!(free(&["1 3<1 4<1"]), [false]);
}

#[test]
fn queue_without_containers_serves_nobody() {
    assert_eq!(free(&["1", "2<1"]), [false, false]);
}

/// Two or three queues with a few activations, called by others at random.
fn namespace() -> impl Strategy<Value = Vec<Calls>> {
    let one = (0..3_usize, any::<bool>(), proptest::option::of(0..12_usize));
    (
        proptest::collection::vec(one, 1..12),
        proptest::collection::vec(proptest::bool::weighted(0.2), 3),
    )
        .prop_map(|(all, free)| {
            let mut queues: Vec<_> = free
                .into_iter()
                .map(|is_free| Calls {
                    is_free,
                    ..Calls::default()
                })
                .collect();
            for (number, (place, runs, caller)) in all.iter().enumerate() {
                let this = id(u32::try_from(number).unwrap());
                if *runs {
                    queues[*place].in_flight.push(this);
                }
                // Only an earlier one can have called it.
                if let Some(caller) = caller.filter(|caller| *caller < number) {
                    queues[*place].calls.push(Call {
                        caller: id(u32::try_from(caller).unwrap()),
                        id: this,
                        waits: !runs,
                    });
                }
            }
            queues
        })
}

/// The same question played out: whatever can end ends, and serves what waits there, until nothing changes.
fn played(queues: &[Calls]) -> Vec<bool> {
    let calls: Vec<_> = queues
        .iter()
        .enumerate()
        .flat_map(|(place, queue)| queue.calls.iter().map(move |call| (place, *call)))
        .collect();
    let mut free: Vec<_> = queues.iter().map(|queue| queue.is_free).collect();
    let mut running: BTreeMap<_, _> = queues
        .iter()
        .enumerate()
        .flat_map(|(place, queue)| queue.in_flight.iter().map(move |id| (*id, place)))
        .collect();
    loop {
        let is_open = |call: &Call, place: usize| {
            if call.waits {
                !free[place]
            } else {
                running.contains_key(&call.id)
            }
        };
        let next = running.iter().find(|(id, _)| {
            let mut own = calls.iter().filter(|(_, call)| call.caller == **id);
            !own.any(|(place, call)| is_open(call, *place))
        });
        let Some((id, place)) = next.map(|(id, place)| (*id, *place)) else {
            return free;
        };
        running.remove(&id);
        free[place] = true;
    }
}

proptest! {
    #[test]
    fn judgement_is_what_playing_it_out_shows(queues in namespace()) {
        let judged: Vec<_> = (0..queues.len()).map(|whose| comes_free(&queues, whose)).collect();
        prop_assert_eq!(judged, played(&queues));
    }
}
