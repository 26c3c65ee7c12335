//! Random events against a world with a journal: durable and other submissions, verdicts in any order, runs that fail,
//! invokers and leaders that die, queues that are handed over, wishes to cancel. The promises are checked where they can
//! break; at the end everything is healed, and every accepted activation has ended.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on fails the test"
)]

mod checks;
mod heal;
mod hosts;
mod journal;
mod leaders;
mod shell;
mod world;

use proptest::prelude::*;

use crate::world::{Event, World};

fn event() -> impl Strategy<Value = Event> {
    let pick = any::<u8>;
    prop_oneof![
        8 => pick().prop_map(Event::Submit),
        3 => pick().prop_map(Event::Delay),
        4 => pick().prop_map(Event::Resubmit),
        14 => (pick(), pick()).prop_map(|(pick, how)| Event::Journal(pick, how)),
        4 => (1_u64..400).prop_map(Event::Advance),
        2 => (1_000_u64..20_000).prop_map(Event::Advance),
        4 => pick().prop_map(Event::Grant),
        8 => pick().prop_map(Event::Read),
        8 => pick().prop_map(Event::Start),
        8 => (pick(), pick()).prop_map(|(pick, how)| Event::Complete(pick, how)),
        2 => pick().prop_map(Event::Refuse),
        5 => pick().prop_map(Event::Ask),
        3 => pick().prop_map(Event::Cancel),
        1 => pick().prop_map(Event::LoseInvoker),
        1 => pick().prop_map(Event::Disconnect),
        5 => pick().prop_map(Event::Connect),
        4 => pick().prop_map(Event::Confirm),
        1 => pick().prop_map(Event::LoseLeader),
        1 => pick().prop_map(Event::HandOff),
        4 => Just(Event::Recover),
        1 => any::<bool>().prop_map(Event::Fence),
        1 => any::<bool>().prop_map(Event::OnLoss),
    ]
}

proptest! {
    // `PROPTEST_CASES=20000` looks harder.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_whatever_happens_and_every_accepted_one_ends(
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
            checks::always(&world);
        }
        world.heal();
        checks::always(&world);
        checks::healed(&world);
    }
}
