//! Random events against a small world: a log that grants slots, invokers that run, lose and report, controllers that
//! submit until they have an answer, leaders that die. After each event every `invariant_…` is checked; at the end
//! everything is healed and must be served.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on fails the test"
)]

mod heal;
mod hosts;
mod invariants;
mod invoker;
mod log;
mod model;
mod shell;
mod world;

use proptest::prelude::*;

use crate::world::{Event, World};

fn event() -> impl Strategy<Value = Event> {
    let pick = any::<u8>;
    prop_oneof![
        12 => Just(Event::Submit),
        4 => pick().prop_map(Event::Resubmit),
        6 => (1_u64..400).prop_map(Event::Advance),
        1 => (1_000_u64..140_000).prop_map(Event::Advance),
        5 => pick().prop_map(Event::Grant),
        5 => pick().prop_map(Event::Place),
        6 => pick().prop_map(Event::Ready),
        1 => pick().prop_map(Event::FailCreation),
        8 => pick().prop_map(Event::Read),
        8 => pick().prop_map(Event::Start),
        8 => pick().prop_map(Event::Complete),
        2 => pick().prop_map(Event::Refuse),
        4 => pick().prop_map(Event::Ask),
        1 => pick().prop_map(Event::Pause),
        1 => pick().prop_map(Event::LoseContainer),
        1 => pick().prop_map(Event::LoseInvoker),
        1 => pick().prop_map(Event::Disconnect),
        5 => pick().prop_map(Event::Connect),
        6 => pick().prop_map(Event::Confirm),
        1 => Just(Event::LoseLeader),
        1 => any::<bool>().prop_map(Event::Fence),
        1 => any::<bool>().prop_map(Event::Drain),
        1 => Just(Event::Update),
        1 => pick().prop_map(Event::Instances),
        1 => pick().prop_map(Event::Mute),
        1 => pick().prop_map(Event::Delay),
        1 => pick().prop_map(Event::Others),
    ]
}

proptest! {
    // `PROPTEST_CASES=20000` looks harder.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_event_and_all_is_served_at_the_end(
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
            invariants::check_all(&world);
        }
        world.heal();
        invariants::check_all(&world);
        invariants::check_healed(&world);
    }

    #[test]
    fn same_events_give_the_same_outputs(events in proptest::collection::vec(event(), 1..80)) {
        let run = || {
            let mut world = World::new();
            events.iter().for_each(|event| world.apply(*event));
            world.trace
        };
        prop_assert_eq!(run(), run());
    }
}
