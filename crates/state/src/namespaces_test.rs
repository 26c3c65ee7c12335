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
