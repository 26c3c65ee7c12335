//! Cases of namespace limits and throttles.

use super::*;
use crate::command::{Command, ContainerChange};
use crate::world::{World, namespace, queue};

fn throttles(events: &[Event]) -> Vec<bool> {
    let one = |event: &Event| {
        if let Event::NamespaceThrottle(_, throttled) = event {
            Some(*throttled)
        } else {
            None
        }
    };
    events.iter().filter_map(one).collect()
}

#[test]
fn unknown_namespace_has_default_limits() {
    let world = World::new();
    assert_eq!(
        world.state.namespace_limits(&namespace("nobody")),
        NamespaceLimits::default()
    );
    assert!(!world.state.is_namespace_throttled(&namespace("nobody")));
}

#[test]
fn namespace_is_throttled_exactly_while_all_its_slots_are_used() {
    let mut world = World::new();
    world.limit_namespace("guest", 2);
    let key = queue("guest", "hello");
    world.ensure(&key);
    let first = world.run(&key, 1);
    assert!(!world.state.is_namespace_throttled(&key.namespace));
    let (session, request) = (world.leader_session(&key), world.request(&key, 1));
    let events = world.events(Command::ReserveSlots {
        session,
        requests: vec![request],
    });
    assert_eq!(
        events.last(),
        Some(&Event::NamespaceThrottle(key.namespace.clone(), true))
    );
    assert!(world.state.is_namespace_throttled(&key.namespace));
    // Pausing one gives its slot back.
    let applied = world.update(first, ContainerChange::Warm);
    assert_eq!(throttles(&applied.events), [false]);
    assert!(!world.state.is_namespace_throttled(&key.namespace));
}

#[test]
fn end_of_an_invoker_ends_the_throttle_that_its_containers_caused() {
    let mut world = World::new();
    world.limit_namespace("guest", 1);
    let key = queue("guest", "hello");
    world.ensure(&key);
    let id = world.run(&key, 1);
    let invoker = world.invoker_session(1);
    assert!(world.state.is_namespace_throttled(&key.namespace));
    assert_eq!(
        throttles(&world.update(id, ContainerChange::Running).events),
        [] as [bool; 0]
    );
    assert_eq!(throttles(&world.expire(&[invoker])), [false]);
}

#[test]
fn throttle_follows_a_limit_that_changes() {
    let mut world = World::new();
    let key = queue("guest", "hello");
    world.ensure(&key);
    world.run(&key, 1);
    assert_eq!(throttles(&world.limit_namespace("guest", 1)), [true]);
    assert_eq!(throttles(&world.limit_namespace("guest", 0)), [] as [bool; 0]);
    assert_eq!(world.limit_namespace("guest", 0), []);
    let events = world.events(Command::DeleteNamespace {
        name: namespace("guest"),
    });
    assert_eq!(events.first(), Some(&Event::Namespace(namespace("guest"), None)));
    assert_eq!(throttles(&events), [false]);
}

#[test]
fn namespace_that_may_use_nothing_is_throttled_without_containers() {
    let mut world = World::new();
    assert_eq!(throttles(&world.limit_namespace("nobody", 0)), [true]);
    assert!(world.state.is_namespace_throttled(&namespace("nobody")));
    let snapshot: Vec<Event> = world.state.snapshot().collect();
    assert!(snapshot.contains(&Event::NamespaceThrottle(namespace("nobody"), true)));
}

#[test]
fn unknown_namespace_cannot_be_deleted() {
    let response = World::new().respond(Command::DeleteNamespace {
        name: namespace("nobody"),
    });
    assert_eq!(response, Response::Refused(Refusal::NotFound));
}

#[test]
fn limits_out_of_range_are_refused_with_value_and_range() {
    let usual = NamespaceLimits::default();
    let weight = |weight| NamespaceLimits {
        weight,
        ..usual.clone()
    };
    let over = |over_provision_percent| NamespaceLimits {
        over_provision_percent,
        ..usual.clone()
    };
    let rate = |rate| NamespaceLimits {
        invocations_per_minute: Some(rate),
        ..usual.clone()
    };
    let refused = [
        (weight(0), "weight is 0, 1 to 10000 are allowed"),
        (weight(10_001), "weight is 10001, 1 to 10000 are allowed"),
        (over(99), "over-provision percent is 99, 100 to 1000 are allowed"),
        (
            over(1001),
            "over-provision percent is 1001, 100 to 1000 are allowed",
        ),
        (
            rate(0),
            "invocations per minute is 0, 1 to 4294967295 are allowed",
        ),
    ];
    let mut world = World::new();
    let mut put = |limits| {
        world.respond(Command::PutNamespace {
            name: namespace("guest"),
            limits,
        })
    };
    for (limits, reason) in refused {
        let reason = reason.to_owned();
        assert_eq!(put(limits), Response::Refused(Refusal::Invalid { reason }));
    }
    for limits in [
        weight(1),
        weight(10_000),
        over(100),
        over(1000),
        rate(1),
        rate(u32::MAX),
    ] {
        assert_eq!(put(limits), Response::Done);
    }
}

#[test]
fn namespace_with_excess_is_throttled_when_the_excess_is_used_too() {
    let mut world = World::new();
    world.limit_over("guest", 1, 200);
    let (first, second) = (queue("guest", "hello"), queue("guest", "other"));
    world.put_action("other", None);
    world.ensure_all([&first, &second]);
    world.run(&first, 1);
    assert!(!world.state.is_namespace_throttled(&first.namespace));
    world.run(&second, 1);
    assert!(world.state.is_namespace_throttled(&first.namespace));
    assert_eq!(throttles(&world.limit_over("guest", 1, 300)), [false]);
}
