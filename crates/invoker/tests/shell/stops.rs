//! Cancelled activations, and several runs of one.

use std::time::Duration;

use whiskraft_invoker::backend::simulated::Behaviour;
use whiskraft_proto::v1;

use crate::fake::{action, serving};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn stopped_run_ends_now_with_its_container_and_its_record_says_why() {
    let behaviour = Behaviour {
        run: LONG,
        ..Behaviour::default()
    };
    let (mut cluster, backend, _invoker) = serving(behaviour, |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.create(2).await;
    scheduler.deliver(1, 1, 1);
    scheduler.deliver(2, 2, 1);
    scheduler.started(1).await;
    scheduler.started(2).await;
    scheduler.stop(9, 1);
    scheduler.stop(1, 1);
    scheduler.stop(1, 1);
    let completed = scheduler.completed(1).await;
    assert_eq!((completed.credits, completed.run_us), (0, 0));
    let record = completed.record.unwrap();
    assert!(record.cancelled);
    assert_eq!(record.status(), v1::Status::ApplicationError);
    assert_eq!(record.result, r#"{"error":"The activation was cancelled."}"#);
    scheduler.ack_result(1);
    scheduler.removed(1).await;
    assert_eq!(backend.live().len(), 1, "nobody stopped the other one");
}

#[tokio::test]
async fn stopped_before_its_start_it_is_refused() {
    let behaviour = Behaviour {
        init: LONG,
        ..Behaviour::default()
    };
    let (mut cluster, backend, _invoker) = serving(behaviour, |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.stop(1, 1);
    let reason = scheduler.refused(1).await;
    assert!(reason.contains("cancelled"), "{reason}");
    scheduler.removed(1).await;
    assert!(backend.started().is_empty());
}

#[tokio::test]
async fn run_beside_others_goes_on() {
    let (mut cluster, backend, _invoker) = serving(Behaviour::default(), |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    let limits = Some(v1::ActionLimits {
        concurrency: 2,
        ..action().limits.unwrap()
    });
    scheduler.create_from(1, 1, v1::Action { limits, ..action() });
    scheduler.running(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.completed(1).await;
    scheduler.ack_result(1);
    backend.set_behaviour(Behaviour {
        run: Duration::from_millis(300),
        ..Behaviour::default()
    });
    scheduler.deliver(2, 1, 1);
    scheduler.deliver(3, 1, 1);
    scheduler.started(2).await;
    scheduler.started(3).await;
    scheduler.stop(2, 1);
    for number in [2, 3] {
        let record = scheduler.completed(number).await.record.unwrap();
        assert!(!record.cancelled);
        assert_eq!(record.status(), v1::Status::Success);
    }
}

#[tokio::test]
async fn record_names_its_run_and_only_a_later_one_is_started() {
    let (mut cluster, backend, _invoker) = serving(Behaviour::default(), |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    let run = |completed: v1::Completed| completed.record.unwrap().run;
    assert_eq!(
        run(scheduler.completed(1).await),
        1,
        "nothing said is the first run"
    );
    scheduler.deliver_run(1, 4, 1);
    assert_eq!(run(scheduler.completed(1).await), 4);
    for before in [4, 3] {
        scheduler.deliver_run(1, before, 1);
        assert_eq!(run(scheduler.completed(1).await), 4);
    }
    assert_eq!(backend.started().len(), 2);
}
