//! What the pool does, case by case; here is what the cases share.

mod again;
mod idle;
mod leaders;
mod results;
mod room;
mod runs;
mod session;
mod work;

use std::time::Duration;

use crate::world::{World, id};
use whiskraft_pool::{Change, Input, Life};
use whiskraft_types::ActivationId;

const GRACE: Duration = Duration::from_secs(10);
const KEEP: Duration = Duration::from_secs(600);

fn world() -> World {
    World::with_memory_mib(crate::world::TOTAL_MIB)
}

/// What ran in a container of `warm`; its result is not acknowledged.
fn result_of_warm(c: whiskraft_types::ContainerId) -> ActivationId {
    id(200 + u8::try_from(c.seq).unwrap())
}

/// A paused container with its code loaded.
fn warm(world: &mut World, memory: u64) -> whiskraft_types::ContainerId {
    let c = world.running(0, memory, 1);
    world.deliver(result_of_warm(c), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.pass(GRACE, false);
    world.settle();
    assert_eq!(world.life(c), Some(Life::Paused));
    c
}

fn changes(world: &World, c: whiskraft_types::ContainerId) -> Vec<&Change> {
    world
        .reports
        .iter()
        .filter(|report| report.container == c)
        .map(|report| &report.change)
        .collect()
}

fn ack_all(world: &mut World) {
    let seqs = world.reports.iter().map(|report| report.seq).collect();
    world.step(Input::ReportsAcked { seqs });
}
