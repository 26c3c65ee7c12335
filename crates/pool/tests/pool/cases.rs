//! What the pool does, case by case.

use std::time::Duration;

use crate::world::{TTL, World, container, id, key};
use whiskraft_pool::{Change, Finished, Input, Life, Output, PoolSettings};
use whiskraft_types::{ActivationId, ByteSize, CreationError, Epoch, SchedulerId};

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

#[test]
fn container_asks_once_before_its_code_is_loaded_and_then_up_to_its_concurrency() {
    let mut world = world();
    let c = world.running(0, 256, 3);
    assert_eq!(changes(&world, c), [&Change::Running]);
    assert_eq!(world.asks(c), 1);
    world.deliver(id(1), c);
    assert!(matches!(&world.out[..], [Output::Run { init: true, .. }, ..]));
    assert_eq!(world.asks(c), 0);
    let worker = world.worker(c);
    world.step(Input::Initialised { worker });
    assert_eq!(world.asks(c), 2);
    world.deliver(id(2), c);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Run { init: false, .. }))
    );
    world.step(Input::Finished(Finished {
        worker,
        id: id(1),
        record: id(1),
        len: 1,
        reusable: true,
        healthy: true,
    }));
    assert_eq!(world.asks(c), 2, "a finished run brings its ask along");
}

#[test]
fn delivery_without_ask_or_container_or_in_another_epoch_is_refused() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    world.deliver(id(2), c);
    world.containers.insert(container(99), 0);
    world.deliver(id(3), container(99));
    assert_eq!(world.refused, [id(2), id(3)]);
    let old = world.delivery(0, id(4), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.change_leader(0);
    world.arrive();
    world.step(old);
    assert_eq!(world.refused, [id(2), id(3), id(4)]);
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn repeated_id_is_never_started_again() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.deliver(id(1), b);
    assert_eq!(
        world.asks(b),
        1,
        "the ask that the repetition took is given again"
    );
    let worker = world.worker(a);
    world.finish(worker, true);
    world.deliver(id(1), b);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Completed(done) if done.record == id(1))),
        "the stored result is the answer: {:?}",
        world.out
    );
    assert_eq!(world.asks(b), 1);
    assert_eq!(world.starts[&id(1)], 1);
}

#[test]
fn new_leader_hears_what_is_in_flight_and_what_is_unacknowledged() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.deliver(id(2), b);
    let worker = world.worker(b);
    world.finish(worker, true);
    world.change_leader(0);
    world.arrive();
    let Some(Output::Register(registration)) = world.out.first() else {
        panic!("{:?}", world.out)
    };
    assert_eq!(
        (registration.to, registration.epoch),
        (world.leaders[0].id, Epoch(2))
    );
    assert_eq!(registration.unacknowledged, [id(2)]);
    let told: Vec<_> = registration
        .containers
        .iter()
        .map(|told| (told.container, told.in_flight.clone(), told.credits, told.warmed))
        .collect();
    assert_eq!(told, [(a, vec![id(1)], 0, false), (b, vec![], 1, true)]);
    let worker = world.worker(a);
    world.finish(worker, true);
    assert!(
        matches!(&world.out[..], [Output::Completed(done), ..] if done.epoch == Epoch(2)),
        "{:?}",
        world.out
    );
}

#[test]
fn leader_without_anything_here_gets_an_empty_registration() {
    let mut world = world();
    world.step(Input::Reregister {
        from: SchedulerId(3),
        key: key(1),
        epoch: Epoch(5),
    });
    assert!(
        matches!(&world.out[0], Output::Register(told) if told.containers.is_empty() && told.unacknowledged.is_empty())
    );
    world.step(Input::Reregister {
        from: SchedulerId(2),
        key: key(1),
        epoch: Epoch(4),
    });
    assert!(world.out.is_empty(), "an older leadership is no news");
}

#[test]
fn creation_of_an_earlier_leader_fails() {
    let mut world = world();
    world.step(Input::Reregister {
        from: SchedulerId(3),
        key: key(0),
        epoch: Epoch(5),
    });
    let c = world.create(0, 256, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::Unknown,
            ..
        }]
    ));
}

#[test]
fn result_is_kept_until_acknowledged_and_restated_when_the_stream_opens() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.step(Input::PullOpened {
        scheduler: world.leaders[0].id,
    });
    assert!(matches!(&world.out[..], [Output::Register(told)] if told.unacknowledged == [id(1)]));
    world.step(Input::ResultsAcked { ids: vec![id(1)] });
    assert_eq!(world.pool.unacknowledged_len(), 0);
    world.step(Input::PullOpened {
        scheduler: world.leaders[0].id,
    });
    assert!(matches!(&world.out[..], [Output::Register(told)] if told.unacknowledged.is_empty()));
}

#[test]
fn full_results_stop_the_asking_until_some_are_acknowledged() {
    for settings in [
        PoolSettings {
            results_len_max: 2,
            ..PoolSettings::default()
        },
        PoolSettings {
            results_bytes_max: ByteSize::bytes(200),
            ..PoolSettings::default()
        },
    ] {
        let mut world = World::new(PoolSettings {
            memory: ByteSize::mib(crate::world::TOTAL_MIB),
            ..settings
        });
        let c = world.running(0, 256, 1);
        let worker = world.worker(c);
        for number in 1..=2 {
            world.deliver(id(number), c);
            world.finish(worker, true);
        }
        assert_eq!(world.asks(c), 0);
        world.step(Input::ResultsAcked { ids: vec![id(1)] });
        assert_eq!(world.asks(c), 1);
    }
}

#[test]
fn removal_is_told_when_the_last_result_is_acknowledged() {
    let mut world = world();
    let c = world.running(0, 256, 2);
    let worker = world.worker(c);
    for number in 1..=2 {
        world.deliver(id(number), c);
        world.finish(worker, true);
    }
    ack_all(&mut world);
    world.step(Input::Remove {
        container: c,
        now: true,
    });
    world.settle();
    assert_eq!(world.life(c), None);
    let is_told = |world: &World| matches!(changes(world, c)[..], [.., Change::Removed { .. }]);
    assert!(
        !is_told(&world),
        "a new leader must still ask here for the results"
    );
    world.step(Input::ResultsAcked { ids: vec![id(1)] });
    assert!(!is_told(&world), "one result is left");
    world.step(Input::ResultsAcked { ids: vec![id(2)] });
    assert!(is_told(&world));
}

#[test]
fn end_of_a_resumed_container_is_told_when_the_results_of_its_old_id_are_acknowledged() {
    let mut world = world();
    let old = warm(&mut world, 256);
    let new = world.create(0, 256, 1, Some(old));
    world.settle();
    ack_all(&mut world);
    world.step(Input::Remove {
        container: new,
        now: false,
    });
    world.settle();
    assert_eq!(world.life(new), None);
    let is_told = |world: &World| matches!(changes(world, new)[..], [.., Change::Removed { .. }]);
    assert!(!is_told(&world));
    world.step(Input::ResultsAcked {
        ids: vec![result_of_warm(old)],
    });
    assert!(is_told(&world));
}

#[test]
fn failure_of_a_resumed_container_is_held_back_like_a_removal() {
    let mut world = world();
    let old = warm(&mut world, 256);
    let new = world.create(0, 256, 1, Some(old));
    let worker = world.worker(new);
    let host = world.hosts[&worker].clone();
    world.fail_one(worker, &host);
    world.gone(worker);
    let worker = world.worker(new);
    assert_eq!(world.life(new), Some(Life::Creating));
    let host = world.hosts[&worker].clone();
    world.fail_one(worker, &host);
    assert_eq!(world.life(new), None);
    assert!(changes(&world, new).is_empty());
    world.step(Input::ResultsAcked {
        ids: vec![result_of_warm(old)],
    });
    assert!(matches!(changes(&world, new)[..], [Change::Failed { .. }]));
}

#[test]
fn results_of_an_evicted_container_hold_the_end_of_the_one_that_was_to_resume_it() {
    let mut world = world();
    let old = warm(&mut world, 256);
    world.step(Input::Remove {
        container: old,
        now: true,
    });
    world.settle();
    let new = world.create(0, 256, 1, Some(old));
    world.settle();
    assert_eq!(world.life(new), Some(Life::Fresh));
    world.step(Input::Remove {
        container: new,
        now: true,
    });
    world.settle();
    let is_told = |world: &World| matches!(changes(world, new)[..], [.., Change::Removed { .. }]);
    ack_all(&mut world);
    assert!(!is_told(&world));
    world.step(Input::ResultsAcked {
        ids: vec![result_of_warm(old)],
    });
    assert!(is_told(&world));
}

#[test]
fn idle_container_withdraws_then_pauses_then_goes() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.step(Input::ResultsAcked { ids: vec![id(1)] });
    ack_all(&mut world);
    world.pass(GRACE - Duration::from_millis(1), false);
    assert!(world.down.is_empty());
    world.pass(Duration::from_millis(1), false);
    assert_eq!(world.down.len(), 1, "the asks are withdrawn");
    assert_eq!(
        world.life(c),
        Some(Life::Ready),
        "nothing is paused before the ack"
    );
    world.arrive();
    assert_eq!(world.life(c), Some(Life::Pausing));
    world.paused(worker);
    assert_eq!(world.life(c), Some(Life::Paused));
    assert_eq!(changes(&world, c), [&Change::Running, &Change::Warm]);
    assert_eq!(world.pool.memory_use().reclaimable, ByteSize::mib(256));
    ack_all(&mut world);
    world.pass(KEEP, false);
    assert_eq!(world.life(c), Some(Life::Removing));
    assert!(
        matches!(changes(&world, c)[..], [.., Change::Removed { .. }]),
        "told before it goes"
    );
    assert_eq!(
        world.pool.memory_real(),
        ByteSize::mib(256),
        "counted until nothing is left"
    );
    world.settle();
    assert_eq!(world.pool.memory_real(), ByteSize::ZERO);
}

#[test]
fn withdraw_that_nobody_answers_ends_the_container() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    world.pass(GRACE, false);
    world.down.clear();
    world.pass(GRACE - Duration::from_millis(1), false);
    assert_eq!(world.life(c), Some(Life::Ready));
    world.pass(Duration::from_millis(1), false);
    assert_eq!(world.life(c), Some(Life::Removing));
}

#[test]
fn delivery_that_crosses_the_withdraw_runs_and_the_container_asks_again() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.finish(worker, true);
    let crossing = world.delivery(0, id(2), c);
    world.pass(GRACE, false);
    world.down.push_front((world.leaders[0].id, crossing));
    world.arrive();
    assert_eq!(world.starts[&id(2)], 1);
    assert_eq!(world.life(c), Some(Life::Ready));
    world.finish(worker, true);
    assert_eq!(world.asks(c), 1);
}

#[test]
fn container_that_never_got_code_is_removed_when_idle() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.pass(GRACE, false);
    world.arrive();
    assert_eq!(world.life(c), Some(Life::Removing));
}

#[test]
fn granted_warm_container_is_resumed_under_its_new_id() {
    let mut world = world();
    let old = warm(&mut world, 256);
    let new = world.create(0, 256, 1, Some(old));
    assert_eq!((world.life(old), world.life(new)), (None, Some(Life::Resuming)));
    world.settle();
    assert_eq!(world.life(new), Some(Life::Ready));
    assert_eq!(changes(&world, new), [&Change::Running]);
    assert_eq!(world.asks(new), 1);
    world.deliver(id(1), new);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Run { init: false, .. }))
    );
}

#[test]
fn failed_resume_is_served_with_a_new_container() {
    let mut world = world();
    let old = warm(&mut world, crate::world::TOTAL_MIB);
    let new = world.create(0, crate::world::TOTAL_MIB, 1, Some(old));
    let worker = world.worker(new);
    let host = world.hosts[&worker].clone();
    world.fail_one(worker, &host);
    world.settle();
    assert_eq!(world.life(new), Some(Life::Fresh));
    assert_ne!(world.worker(new), worker);
    assert_eq!(changes(&world, new), [&Change::Running]);
}

#[test]
fn longest_unused_warm_container_is_evicted_and_its_memory_waited_for() {
    let mut world = world();
    let (oldest, newer) = (warm(&mut world, 512), warm(&mut world, 512));
    ack_all(&mut world);
    let c = world.create(1, 512, 1, None);
    assert_eq!(world.life(oldest), Some(Life::Removing));
    assert_eq!(world.life(newer), Some(Life::Paused));
    assert_eq!(
        world.life(c),
        Some(Life::Waiting),
        "not created before the memory is free"
    );
    let worker = world.worker(oldest);
    world.gone(worker);
    assert_eq!(world.life(c), Some(Life::Creating));
}

#[test]
fn no_room_is_said_at_once_together_with_the_memory() {
    let mut world = world();
    world.running(0, 768, 1);
    let c = world.create(1, 512, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::ResourceNotEnough,
            ..
        }]
    ));
    assert!(world.out.iter().any(|output| matches!(output, Output::Memory(_))));
}

#[test]
fn creation_past_its_deadline_fails_and_leaves_nothing() {
    let mut world = world();
    let c = world.create(0, 256, 1, None);
    world.pass(Duration::from_secs(20), false);
    assert!(
        changes(&world, c).is_empty(),
        "the slot is taken until nothing is left"
    );
    world.settle();
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::Timeout,
            ..
        }]
    ));
    assert!(world.pool.is_empty());
}

#[test]
fn unusable_container_finishes_the_others_and_goes() {
    let mut world = world();
    let c = world.running(0, 256, 2);
    let worker = world.worker(c);
    world.deliver(id(1), c);
    world.step(Input::Initialised { worker });
    world.deliver(id(2), c);
    world
        .hosts
        .get_mut(&worker)
        .unwrap()
        .runs
        .iter_mut()
        .for_each(|run| run.1 = false);
    world.finish(worker, false);
    assert_eq!(world.life(c), Some(Life::Ready), "another activation runs");
    assert_eq!(world.asks(c), 0);
    world.finish(worker, true);
    assert_eq!(world.life(c), Some(Life::Removing));
    assert_eq!(world.completed, [id(1), id(2)]);
}

#[test]
fn idle_death_is_noticed_and_told_when_nothing_is_left() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    ack_all(&mut world);
    let worker = world.worker(c);
    world.step(Input::Died {
        worker,
        reason: "killed".to_owned(),
    });
    assert_eq!(world.asks(c), 0, "the asks are withdrawn at once");
    world.settle();
    assert_eq!(
        *changes(&world, c)[1],
        Change::Removed {
            reason: "killed".to_owned()
        }
    );
}

#[test]
fn given_back_activation_is_refused_and_the_container_asks_again() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.deliver(id(1), c);
    let worker = world.worker(c);
    world.not_started(worker, true);
    assert_eq!(world.refused, [id(1)]);
    assert_eq!(world.asks(c), 1);
    world.deliver(id(1), c);
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Run { init: true, .. }))
    );
}

#[test]
fn run_that_lasts_is_told_as_started_where_it_runs() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    let (here, there) = (world.worker(a), world.worker(b));
    world.step(Input::Begun {
        worker: there,
        id: id(1),
    });
    assert!(world.out.is_empty(), "it does not run there");
    world.step(Input::Begun {
        worker: here,
        id: id(1),
    });
    assert!(matches!(&world.out[..], [Output::Started { container, .. }] if *container == a));
}

#[test]
fn fenced_invoker_starts_nothing_and_keeps_results_for_later() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.pass(TTL, true);
    assert!(world.pool.is_fenced(world.now));
    world.deliver(id(2), b);
    assert_eq!(world.refused, [id(2)]);
    let worker = world.worker(a);
    world.finish(worker, true);
    assert!(world.completed.is_empty());
    assert_eq!(world.pool.unacknowledged_len(), 1);
    let c = world.create(0, 256, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::Whisk,
            ..
        }]
    ));
    world.renew();
    assert_eq!(world.completed, [id(1)]);
    assert_eq!((world.asks(a), world.asks(b)), (1, 1), "both ask again");
}

#[test]
fn ended_session_takes_everything_with_it() {
    let mut world = world();
    let (a, b) = (world.running(0, 256, 1), world.running(0, 256, 1));
    world.deliver(id(1), a);
    world.deliver(id(2), b);
    let worker = world.worker(b);
    world.finish(worker, true);
    world.reports.clear();
    world.step(Input::SessionExpired);
    assert_eq!(world.pool.unacknowledged_len(), 0);
    assert_eq!(world.emptied, 0);
    world.settle();
    assert_eq!(world.emptied, 1);
    assert_eq!(
        world.completed,
        [id(2)],
        "what was killed by it has no result to send"
    );
    assert!(world.reports.is_empty());
    world.open_session();
    let c = world.running(0, 256, 1);
    assert_eq!(world.asks(c), 1);
}

#[test]
fn shutdown_refuses_new_work_and_lets_running_work_finish() {
    let mut world = world();
    let warm = warm(&mut world, 128);
    let (busy, idle) = (world.running(0, 128, 1), world.running(0, 128, 1));
    world.deliver(id(1), busy);
    let late = world.delivery(0, id(2), idle);
    world.step(Input::Drain);
    assert_eq!(
        (world.life(warm), world.life(idle)),
        (Some(Life::Removing), Some(Life::Removing))
    );
    assert_eq!(world.life(busy), Some(Life::Initialising));
    assert!(!world.pool.memory_use().healthy);
    world.step(late);
    let c = world.create(0, 128, 1, None);
    assert!(matches!(
        changes(&world, c)[..],
        [Change::Failed {
            error: CreationError::ShuttingDown,
            ..
        }]
    ));
    assert_eq!(world.refused, [id(2)]);
    world.settle();
    assert_eq!((world.completed.last(), world.emptied), (Some(&id(1)), 1));
}

#[test]
fn end_of_the_shutdown_grace_removes_what_still_runs() {
    let mut world = world();
    let busy = world.running(0, 128, 1);
    world.deliver(id(1), busy);
    world.step(Input::Drain);
    world.step(Input::DrainEnded);
    assert_eq!(world.life(busy), Some(Life::Removing));
    world.settle();
    assert_eq!((&world.completed[..], world.emptied), (&[id(1)][..], 1));
}

#[test]
fn reports_are_repeated_until_acknowledged() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    world.step(Input::RepeatReports);
    assert!(matches!(&world.out[..], [Output::Report(report)] if report.container == c));
    ack_all(&mut world);
    world.step(Input::RepeatReports);
    assert!(world.out.is_empty());
}

#[test]
fn repeated_creation_changes_nothing() {
    let mut world = world();
    let c = world.create(0, 256, 1, None);
    world.next_container = c.seq;
    world.create(0, 256, 1, None);
    assert!(world.out.is_empty(), "{:?}", world.out);
    assert_eq!(world.pool.containers().count(), 1);
}

#[test]
fn refused_asks_are_repeated_after_a_while() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let from = world.leaders[0].id;
    world.step(Input::PullRefused { from, container: c });
    world.step(Input::PullRefused { from, container: c });
    assert!(world.out.is_empty());
    world.now = world.now + Duration::from_millis(499);
    world.step(Input::Tick);
    assert!(
        !world
            .out
            .iter()
            .any(|output| matches!(output, Output::Credit { .. }))
    );
    world.now = world.now + Duration::from_millis(1);
    world.step(Input::Tick);
    assert!(
        matches!(&world.out[..], [Output::Credit { count: 1, .. }, ..]),
        "{:?}",
        world.out
    );
}

#[test]
fn repeated_registration_tells_how_things_stand_and_changes_nothing() {
    let mut world = world();
    let c = world.running(0, 256, 1);
    let again = |world: &World| Input::Reregister {
        from: world.leaders[0].id,
        key: key(0),
        epoch: world.leaders[0].epoch,
    };
    let credits = |world: &World| match &world.out[0] {
        Output::Register(registration) => registration.containers[0].credits,
        other => panic!("{other:?}"),
    };
    world.change_leader(0);
    world.arrive();
    let crossing = world.delivery(0, id(1), c);
    let input = again(&world);
    world.step(input);
    assert_eq!(credits(&world), 1);
    world.step(crossing);
    assert_eq!(world.starts[&id(1)], 1);
    let input = again(&world);
    world.step(input);
    assert_eq!(credits(&world), 0, "the ask was answered by the delivery");
    let worker = world.worker(c);
    world.finish(worker, true);
    world.pass(GRACE, false);
    let input = again(&world);
    world.step(input);
    assert_eq!(credits(&world), 0, "the asks are being withdrawn");
    assert_eq!(
        world.out.len(),
        1,
        "the withdraw is not repeated: {:?}",
        world.out
    );
}

#[test]
fn containers_of_a_queue_that_is_gone_go_too() {
    let mut world = world();
    let (c, other) = (world.running(0, 256, 1), world.running(1, 256, 1));
    world.step(Input::QueueGone {
        from: SchedulerId(9),
        key: key(0),
    });
    assert_eq!(world.life(c), Some(Life::Fresh), "only its leader may say so");
    world.step(Input::QueueGone {
        from: world.leaders[0].id,
        key: key(0),
    });
    assert_eq!(
        (world.life(c), world.life(other)),
        (Some(Life::Removing), Some(Life::Fresh))
    );
}

#[test]
fn failed_creations_make_the_invoker_unhealthy_for_a_while() {
    let mut world = world();
    for _ in 0..3 {
        let c = world.create(0, 256, 1, None);
        let worker = world.worker(c);
        let host = world.hosts[&worker].clone();
        world.fail_one(worker, &host);
    }
    assert!(
        world
            .out
            .iter()
            .any(|output| matches!(output, Output::Memory(memory) if !memory.healthy))
    );
    world.pass(Duration::from_secs(30), false);
    assert!(world.pool.memory_use().healthy);
}

#[test]
fn memory_amounts_are_reported_at_intervals() {
    let mut world = world();
    let told = |world: &World| world.out.iter().any(|output| matches!(output, Output::Memory(_)));
    world.create(0, 256, 1, None);
    assert!(!told(&world), "within a second of the first report");
    world.now = world.pool.next_deadline().unwrap();
    world.step(Input::Tick);
    assert!(told(&world));
}

#[test]
fn unknown_ids_change_nothing() {
    let mut world = world();
    world.running(0, 256, 1);
    let worker = whiskraft_pool::WorkerId(77);
    let record: ActivationId = id(1);
    for input in [
        Input::Created { worker },
        Input::Gone { worker },
        Input::Paused { worker },
        Input::Finished(Finished {
            worker,
            id: id(1),
            record,
            len: 1,
            reusable: true,
            healthy: true,
        }),
        Input::Remove {
            container: container(77),
            now: true,
        },
        Input::WithdrawAcked {
            from: SchedulerId(1),
            container: container(1),
        },
        Input::ResultsAcked { ids: vec![id(9)] },
        Input::ReportsAcked { seqs: vec![99] },
    ] {
        world.step(input);
        assert!(world.out.is_empty(), "{:?}", world.out);
    }
}
