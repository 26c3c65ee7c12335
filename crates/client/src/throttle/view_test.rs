//! The throttle view against the rule of the original, and everything that must end a throttle.

use whiskraft_types::{NamespaceLimits, Revision, SessionId};

use super::*;

const NOW: Instant = Instant::ORIGIN;

fn key() -> QueueKey {
    QueueKey {
        namespace: "guest".parse().unwrap(),
        action: "lib/hello".parse().unwrap(),
    }
}

fn throttle(of_action: bool, throttled: bool) -> WatchEvent {
    WatchEvent::Throttle(Throttle {
        namespace: key().namespace,
        action: of_action.then(|| key().action),
        throttled,
    })
}

fn queue(epoch: u64, removed: bool) -> WatchEvent {
    WatchEvent::Queue(Queue {
        key: key(),
        leader: None,
        epoch: Epoch(epoch),
        revision: Revision(1),
        removed,
    })
}

fn container(seq: u64, state: ContainerState) -> WatchEvent {
    WatchEvent::Container(Container {
        container: ContainerId {
            session: SessionId(1),
            seq,
        },
        key: key(),
        revision: Revision(1),
        invoker: None,
        state,
    })
}

fn namespace_removed() -> WatchEvent {
    WatchEvent::Namespace(Namespace {
        name: key().namespace,
        limits: NamespaceLimits::default(),
        removed: true,
    })
}

fn view(events: &[WatchEvent]) -> ThrottleView {
    let mut view = ThrottleView::default();
    events.iter().for_each(|event| view.apply(NOW, event));
    view
}

fn scope(view: &ThrottleView) -> Option<ThrottleScope> {
    view.check(NOW, &key()).map(|found| found.scope)
}

#[test]
fn the_table_of_the_original_holds() {
    let has_container = container(1, ContainerState::Running);
    for of_namespace in [true, false] {
        let namespace = throttle(false, of_namespace);
        assert_eq!(
            scope(&view(&[
                namespace.clone(),
                throttle(true, true),
                has_container.clone()
            ])),
            Some(ThrottleScope::Action)
        );
        assert_eq!(
            scope(&view(&[namespace, throttle(true, false), has_container.clone()])),
            None,
            "containers exist: it may wait"
        );
    }
    assert_eq!(
        scope(&view(&[throttle(false, true)])),
        Some(ThrottleScope::Namespace)
    );
    assert_eq!(scope(&view(&[throttle(false, false)])), None);
    assert_eq!(scope(&view(&[])), None);
}

#[test]
fn an_action_is_free_for_as_long_as_it_has_a_container() {
    let mut view = view(&[throttle(false, true)]);
    let steps = [
        (container(1, ContainerState::InProgress), None),
        (container(1, ContainerState::Running), None),
        (container(2, ContainerState::InProgress), None),
        (container(1, ContainerState::Removed), None),
        (
            container(2, ContainerState::Removed),
            Some(ThrottleScope::Namespace),
        ),
    ];
    for (event, expected) in steps {
        view.apply(NOW, &event);
        assert_eq!(scope(&view), expected, "after {event:?}");
    }
}

#[test]
fn everything_that_ends_the_throttle_of_an_action_ends_it_here() {
    let ends = [
        throttle(true, false),
        queue(2, false),
        queue(1, true),
        namespace_removed(),
    ];
    for end in ends {
        let mut view = view(&[queue(1, false), throttle(true, true), queue(1, false)]);
        assert_eq!(
            scope(&view),
            Some(ThrottleScope::Action),
            "the same epoch changes nothing"
        );
        view.apply(NOW, &end);
        assert_eq!(scope(&view), None, "after {end:?}");
    }
}

#[test]
fn everything_that_ends_the_throttle_of_a_namespace_ends_it_here() {
    for end in [throttle(false, false), namespace_removed()] {
        let mut view = view(&[throttle(false, true)]);
        view.apply(NOW, &end);
        assert_eq!(scope(&view), None, "after {end:?}");
    }
}

#[test]
fn a_flag_before_its_queue_in_a_snapshot_counts() {
    assert_eq!(
        scope(&view(&[throttle(true, true), queue(4, false)])),
        Some(ThrottleScope::Action)
    );
}

#[test]
fn what_a_snapshot_lacks_is_over_and_what_it_has_goes_on() {
    let later = NOW + Duration::from_secs(9);
    let mut known = view(&[queue(1, false), throttle(true, true), throttle(false, true)]);
    known.on_refusal(
        NOW,
        &key(),
        ThrottleScope::Action,
        Some(9),
        Duration::from_millis(300),
    );
    let snapshot = |events: &[WatchEvent]| {
        let mut view = ThrottleView::default();
        events.iter().for_each(|event| view.apply(later, event));
        view
    };
    known.replace(snapshot(&[queue(1, false), throttle(true, true)]));
    let found = known.check(later, &key()).unwrap();
    assert_eq!(
        (found.since, found.limit, found.retry_after),
        (NOW, Some(9), Duration::from_millis(300))
    );
    known.replace(snapshot(&[queue(2, false), throttle(true, true)]));
    assert_eq!(known.check(later, &key()).unwrap().since, later, "another epoch");
    known.replace(snapshot(&[queue(2, false)]));
    assert_eq!(known.check(later, &key()), None);
}

#[test]
fn a_rate_is_known_from_refusals_and_ends_by_itself() {
    let mut view = view(&[]);
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    view.on_refusal(NOW, &key(), ThrottleScope::Rate, Some(60), minute);
    let found = view.check(NOW + second, &key()).unwrap();
    assert_eq!(
        (found.scope, found.limit, found.retry_after, found.since),
        (ThrottleScope::Rate, Some(60), Duration::from_secs(59), NOW)
    );
    let other = QueueKey {
        action: "lib/other".parse().unwrap(),
        ..key()
    };
    assert!(view.check(NOW, &other).is_some(), "the rate is the namespace's");
    assert_eq!(view.check(NOW + minute, &key()), None);
}

#[test]
fn refusals_give_the_advice_and_never_a_flag_that_nobody_would_clear() {
    let mut view = view(&[]);
    for scope in [
        ThrottleScope::Action,
        ThrottleScope::Namespace,
        ThrottleScope::Stream,
        ThrottleScope::Results,
    ] {
        view.on_refusal(NOW, &key(), scope, None, Duration::from_secs(5));
        assert_eq!(view.check(NOW, &key()), None, "{scope:?}");
    }
    view.apply(NOW, &throttle(false, true));
    assert_eq!(view.check(NOW, &key()).unwrap().retry_after, RETRY_AFTER);
    view.on_refusal(
        NOW,
        &key(),
        ThrottleScope::Namespace,
        None,
        Duration::from_secs(5),
    );
    assert_eq!(
        view.check(NOW, &key()).unwrap().retry_after,
        Duration::from_secs(5)
    );
}

#[test]
fn flags_of_others_do_not_count() {
    let view = view(&[throttle(true, true), throttle(false, true)]);
    let other = QueueKey {
        namespace: "other".parse().unwrap(),
        ..key()
    };
    assert_eq!(view.check(NOW, &other), None);
}
