//! Durable activations: accepted once a majority has them on disk, ended once it has their records, found by id from
//! every scheduler.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::{Answer, Controller, id};
use common::invoker::{Invoker, Said};
use common::{Cluster, key};
use whiskraft_proto::v1;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_types::ActionLimits;

const ACTION: &str = "guest/hello";

/// A cluster with an action, its queue, and a controller at the leader.
async fn cluster() -> (Cluster, v1::QueueLeadership, Controller) {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let leadership = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let controller = Controller::connect(&leadership.client_address, 1).await;
    (cluster, leadership, controller)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_activation_is_accepted_runs_and_is_found_from_every_scheduler() {
    let (cluster, leadership, mut controller) = cluster().await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&leadership, 1, r#"{"n":1}"#).await;
    controller.accepted(1).await;
    for scheduler in 1..=3 {
        let found = cluster.find(scheduler, id(1)).await;
        assert_eq!(found.state(), State::Waiting, "from scheduler {scheduler}");
        assert!(found.durable && found.record.is_none());
    }
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!(
        (deliver.run, deliver.payload.as_ref()),
        (1, br#"{"n":1}"#.as_slice())
    );
    invoker.started(scheduler, &deliver).await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    let record = controller.record(1).await;
    assert_eq!(
        (record.result.as_ref(), record.run),
        (br#"{"n":1}"#.as_slice(), 1)
    );
    // The invoker need not wait for the controller: the journal has it.
    loop {
        match invoker.said().await {
            Said::CompletedAck(_, acked) => break assert_eq!(acked, id(1)),
            _ => {}
        }
    }
    for scheduler in 1..=3 {
        let found = cluster.find(scheduler, id(1)).await;
        assert_eq!(found.state(), State::Done, "from scheduler {scheduler}");
        assert_eq!(found.record.as_ref(), Some(&record));
        assert!(found.durable);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_joins_what_is_there_and_another_payload_is_a_conflict() {
    let (cluster, leadership, mut controller) = cluster().await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&leadership, 1, r#"{"n":1}"#).await;
    controller.submit_durable(&leadership, 1, r#"{"n":1}"#).await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    controller.submit_durable(&leadership, 1, r#"{"n":2}"#).await;
    let conflict = controller.rejection(1).await;
    assert!(
        matches!(conflict, v1::rejection::Kind::Conflict(_)),
        "{conflict:?}"
    );
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    let record = controller.record(1).await;

    // After its end the journal answers, to whomever.
    let mut other = Controller::connect(&leadership.client_address, 2).await;
    other.submit_durable(&leadership, 1, r#"{"n":1}"#).await;
    assert_eq!(other.record(1).await, record);
    other.submit_durable(&leadership, 1, r#"{"n":2}"#).await;
    let conflict = other.rejection(1).await;
    assert!(
        matches!(conflict, v1::rejection::Kind::Conflict(_)),
        "{conflict:?}"
    );
    let delivered = invoker
        .heard()
        .into_iter()
        .filter(|said| matches!(said, Said::Deliver(..)));
    assert_eq!(delivered.count(), 0, "it ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_leaves_its_durable_activations_to_the_next_without_any_controller() {
    let (mut cluster, old, mut controller) = cluster().await;
    controller.submit_durable(&old, 1, r#"{"n":1}"#).await;
    controller.submit_durable(&old, 2, r#"{"n":2}"#).await;
    for _ in 0..2 {
        assert!(matches!(controller.answer().await, (_, Answer::Accepted)));
    }
    drop(controller);
    cluster.crash(old.leader).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let mut order = Vec::new();
    invoker.serve_create().await;
    for _ in 0..2 {
        let (scheduler, deliver) = invoker.next_deliver().await;
        order.push(deliver.id[0]);
        invoker
            .complete(scheduler, &key("guest", ACTION), &deliver, 1)
            .await;
    }
    assert_eq!(order, [1, 2], "in the order of their acceptance");
    for number in 1..=2 {
        let at = cluster.any();
        let found = loop {
            let found = cluster.find(at, id(number)).await;
            if found.state() == State::Done {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(found.record.unwrap().run, 1);
    }
}
