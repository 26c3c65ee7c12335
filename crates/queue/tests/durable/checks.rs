//! What must hold after every event, and what must hold once all is healed.

use crate::world::{Answer, World};

/// What must hold at any time; the rest is asserted where it can break.
pub(crate) fn always(world: &World) {
    starts_once_per_run(world);
    everything_is_somewhere(world);
}

/// What must hold once everything is healed.
pub(crate) fn healed(world: &World) {
    for (id, row) in &world.rows {
        assert!(row.ended.is_some(), "{id} was accepted and never ended: {row:?}");
    }
    for (id, call) in &world.calls {
        let Some(answer) = &call.answer else {
            panic!("{id} has no answer: {call:?}");
        };
        if let (Answer::Ended(outcome), Some(row)) = (answer, world.rows.get(id)) {
            assert_eq!(row.ended.as_ref(), Some(outcome), "{id}");
        }
    }
    assert!(
        world.asks.is_empty(),
        "wishes without an answer: {:?}",
        world.asks
    );
    assert!(world.pending.is_empty());
    assert_eq!(world.queue.open_len(), 0, "{:?}", world.queue.view());
    assert!(
        world.removed,
        "the idle queue did not end: {:?}",
        world.queue.view()
    );
    for host in world.hosts.values() {
        assert!(host.results.is_empty(), "never acknowledged: {:?}", host.results);
    }
}

/// A run starts once. Of one in memory that may run again when its invoker is lost, a new leader does not know how many
/// runs there were.
fn starts_once_per_run(world: &World) {
    for ((id, run), count) in &world.starts {
        let is_exact = world.is_durable(*id) || *run == 1;
        assert!(
            *count <= 1 || !is_exact,
            "run {run} of {id} started {count} times"
        );
    }
}

/// Nothing is counted twice or not at all.
fn everything_is_somewhere(world: &World) {
    let view = world.queue.view();
    let sum = view.journaling + view.waiting + view.delayed + view.in_flight + view.ending + view.done;
    assert_eq!(sum, world.queue.ledger_len(), "{view:?}");
    // The journal answers a fenced leader, who listens later.
    if !world.fenced {
        assert_eq!(view.journaling + view.ending, world.pending.len(), "{view:?}");
    }
}
