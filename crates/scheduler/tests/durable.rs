//! Durable activations: accepted once a majority has them on disk, ended once it has their records, found by id from
//! every scheduler.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::{Answer, Controller, id};
use common::invoker::{Invoker, Said, record};
use common::{Cluster, key, soon};
use whiskraft_proto::v1;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_raft::Settings;
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
        if let Said::CompletedAck(_, acked) = invoker.said().await {
            break assert_eq!(acked, id(1));
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
        assert_eq!(done(&cluster, number).await.record.unwrap().run, 1);
    }
}

/// Asks until an activation has ended.
async fn done(cluster: &Cluster, number: u8) -> v1::FindActivationResponse {
    let at = cluster.any();
    let wait = async {
        loop {
            let found = cluster.find(at, id(number)).await;
            if found.state() == State::Done {
                return found;
            }
        }
    };
    soon("the end of an activation", wait).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_when_its_leader_dies_is_adopted_and_ends_in_the_journal() {
    let (mut cluster, old, mut controller) = cluster().await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&old, 1, r#"{"n":1}"#).await;
    controller.accepted(1).await;
    let (_, create) = invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker.started(scheduler, &deliver).await;
    drop(controller);
    cluster.crash(old.leader).await;
    let (new, reregister) = invoker.next_reregister().await;
    let container = v1::RegisteredContainer {
        container: create.container,
        revision: create.revision,
        in_flight: vec![deliver.id.clone()],
        credits: 0,
        warmed: true,
    };
    let register = v1::Register {
        key: Some(key("guest", ACTION)),
        epoch: reregister.epoch,
        containers: vec![container],
        unacknowledged: Vec::new(),
    };
    let registers = vec![register];
    let up = v1::PullUp {
        registers,
        ..Default::default()
    };
    invoker.pull(new, up).await;
    let deliver = v1::Deliver {
        epoch: reregister.epoch,
        ..deliver
    };
    invoker.complete(new, &key("guest", ACTION), &deliver, 1).await;
    let found = done(&cluster, 1).await;
    assert_eq!((found.durable, found.runs), (true, 1));
    let delivered = invoker
        .heard()
        .into_iter()
        .filter(|said| matches!(said, Said::Deliver(..)));
    assert_eq!(delivered.count(), 0, "it started once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_its_dead_leader_never_journaled_is_taken_from_the_invoker() {
    let (mut cluster, old, mut controller) = cluster().await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit_durable(&old, 1, r#"{"n":1}"#).await;
    controller.accepted(1).await;
    let (_, create) = invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    drop(controller);
    cluster.crash(old.leader).await;
    let (new, reregister) = invoker.next_reregister().await;
    let container = v1::RegisteredContainer {
        container: create.container,
        revision: create.revision,
        warmed: true,
        ..Default::default()
    };
    let register = v1::Register {
        key: Some(key("guest", ACTION)),
        epoch: reregister.epoch,
        containers: vec![container],
        unacknowledged: vec![record(invoker.id, &deliver)],
    };
    let registers = vec![register];
    let up = v1::PullUp {
        registers,
        ..Default::default()
    };
    invoker.pull(new, up).await;
    let found = done(&cluster, 1).await;
    assert_eq!(found.record.unwrap().result.as_ref(), br#"{"n":1}"#);
    loop {
        match invoker.said().await {
            Said::CompletedAck(_, acked) => break assert_eq!(acked, id(1)),
            Said::Deliver(..) => panic!("it has run"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_schedulers_stop_and_what_was_accepted_runs_when_they_are_back() {
    let (mut cluster, old, mut controller) = cluster().await;
    // Without an invoker: whatever one of them had may have begun, and would end.
    controller.submit_durable(&old, 1, r#"{"n":1}"#).await;
    controller.accepted(1).await;
    let mut client = ControllerClient::new(cluster.channel(old.leader).await);
    let cancel = v1::CancelActivationRequest {
        id: id(1).to_vec().into(),
        namespace: "guest".to_owned(),
    };
    client.cancel_activation(cancel).await.unwrap();
    let record = controller.record(1).await;
    controller.submit_durable(&old, 2, r#"{"n":2}"#).await;
    controller.accepted(2).await;
    drop((controller, client));

    cluster.restart_all(Settings::default()).await;
    let found = cluster.find(2, id(1)).await;
    assert_eq!(found.record, Some(record), "a record outlives them all");
    let mut invoker = Invoker::start(8, &cluster.addresses()).await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!(deliver.id.as_ref(), id(2));
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    done(&cluster, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_durable_activations_and_no_others() {
    let (mut cluster, old, controller) = cluster().await;
    drop(controller);
    let full = Settings {
        disk_reserve: u64::MAX,
        ..Settings::default()
    };
    cluster.restart_all(full).await;
    let leadership = cluster.ensure(old.leader, &key("guest", ACTION)).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit_durable(&leadership, 1, "{}").await;
    let refused = controller.rejection(1).await;
    assert!(
        matches!(refused, v1::rejection::Kind::StorageFull(_)),
        "{refused:?}"
    );
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&leadership, 2, 1, "{}").await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    controller.record(2).await;
    assert_eq!(cluster.find(1, id(1)).await.state(), State::Unknown);
}
