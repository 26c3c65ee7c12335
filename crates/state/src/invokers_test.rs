//! Cases of invoker records.

use super::*;
use crate::world::{World, profile};

#[test]
fn new_invoker_gets_nothing_before_it_reports_health() {
    let mut world = World::new();
    let session = world.open_invoker(7, 1);
    let row = world.state.invoker(InvokerId(7)).unwrap();
    assert_eq!(
        (row.session, row.healthy, &row.profile),
        (session, false, &profile())
    );
}

#[test]
fn report_changes_the_record_once() {
    let mut world = World::new();
    let session = world.open_invoker(7, 1);
    let events = world.report(7, session, true);
    let row = world.state.invoker(InvokerId(7)).unwrap().clone();
    assert_eq!(
        (row.healthy, row.busy, row.reclaimable),
        (true, ByteSize::mib(1), ByteSize::mib(2))
    );
    assert_eq!(events, [Event::Invoker(InvokerId(7), Some(row))]);
    assert_eq!(world.report(7, session, true), []);
}

#[test]
fn report_of_an_older_session_is_ignored() {
    let mut world = World::new();
    let old = world.open_invoker(7, 1);
    world.expire(&[old]);
    world.open_invoker(7, 2);
    assert_eq!(world.report(7, old, true), []);
    assert!(!world.state.invoker(InvokerId(7)).unwrap().healthy);
    assert_eq!(world.report(99, old, true), []);
}
