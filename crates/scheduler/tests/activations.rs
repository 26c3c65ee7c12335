//! The way of an activation through one leader, and what a controller hears when it asks wrongly.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::{Answer, Controller, id};
use common::invoker::{Invoker, Said};
use common::{Cluster, key, rejection_kind, soon};
use whiskraft_proto::v1;
use whiskraft_proto::v1::rejection::Kind;
use whiskraft_types::ActionLimits;

const ACTION: &str = "guest/hello";

struct Stage {
    cluster: Cluster,
    leadership: v1::QueueLeadership,
    controller: Controller,
    invoker: Invoker,
}

/// A cluster with one action, its queue, a controller at the leader and an invoker.
async fn stage() -> Stage {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let leadership = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let controller = Controller::connect(&leadership.client_address, 1).await;
    let invoker = Invoker::start(7, &cluster.addresses()).await;
    Stage {
        cluster,
        leadership,
        controller,
        invoker,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_is_delivered_and_its_result_comes_back() {
    let Stage {
        cluster: _cluster,
        leadership,
        mut controller,
        mut invoker,
        ..
    } = stage().await;
    controller.submit(&leadership, 1, 1, r#"{"a":1}"#).await;
    controller.accepted(1).await;
    let (scheduler, create) = invoker.serve_create().await;
    assert_eq!(
        (scheduler, create.leader, create.epoch),
        (leadership.leader, leadership.leader, leadership.epoch)
    );
    assert_eq!(create.action.unwrap().name, ACTION);

    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!(&deliver.payload[..], br#"{"a":1}"#);
    assert_eq!((&deliver.id[..], deliver.attempt), (&id(1)[..], 1));
    invoker.started(scheduler, &deliver).await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    let record = controller.record(1).await;
    assert_eq!(
        (record.status(), &record.result[..]),
        (v1::Status::Success, &br#"{"a":1}"#[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_invoker_may_forget_a_result_only_after_the_controller_has_it() {
    let Stage {
        cluster: _cluster,
        leadership,
        mut controller,
        mut invoker,
        ..
    } = stage().await;
    controller.submit(&leadership, 1, 1, "{}").await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    controller.record(1).await;
    // The second run shows that whatever the scheduler said about the first has arrived by now.
    controller.submit(&leadership, 2, 1, "{}").await;
    loop {
        match invoker.said().await {
            Said::Deliver(..) => break,
            Said::CompletedAck(..) => panic!("acknowledged before the controller confirmed"),
            _ => {}
        }
    }
    controller.confirm(1).await;
    loop {
        if let Said::CompletedAck(_, acked) = invoker.said().await {
            assert_eq!(acked, id(1));
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_waits_for_a_controller_that_is_away() {
    let Stage {
        cluster: _cluster,
        leadership,
        mut controller,
        mut invoker,
        ..
    } = stage().await;
    controller.submit(&leadership, 1, 1, "{}").await;
    controller.accepted(1).await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker.started(scheduler, &deliver).await;
    drop(controller);
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    let mut back = Controller::connect(&leadership.client_address, 1).await;
    back.submit(&leadership, 1, 2, "{}").await;
    assert_eq!(back.record(1).await.status(), v1::Status::Success);
    let again = invoker
        .heard()
        .into_iter()
        .any(|said| matches!(said, Said::Deliver(..)));
    assert!(!again, "the activation ran a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_the_wrong_scheduler_or_epoch_hears_the_right_one() {
    let Stage {
        cluster,
        leadership,
        mut controller,
        ..
    } = stage().await;
    let other = cluster.other_than(leadership.leader);
    cluster
        .until_on(other, "the other scheduler knows the queue", |state| {
            state.queues().next().is_some()
        })
        .await;
    let mut elsewhere = Controller::connect(&cluster.members[&other].address, 2).await;
    elsewhere.submit(&leadership, 1, 1, "{}").await;
    let Kind::NotLeader(advice) = elsewhere.rejection(1).await else {
        panic!("not told where to go")
    };
    assert_eq!(
        (advice.leader, advice.epoch),
        (leadership.leader, leadership.epoch)
    );

    let stale = v1::QueueLeadership {
        epoch: leadership.epoch - 1,
        ..leadership.clone()
    };
    controller.submit(&stale, 2, 1, "{}").await;
    let Kind::NotLeader(advice) = controller.rejection(2).await else {
        panic!("stale epoch accepted")
    };
    assert_eq!(
        (advice.leader, advice.epoch),
        (leadership.leader, leadership.epoch)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_have_typed_answers_and_do_not_end_the_stream() {
    let Stage {
        cluster: _cluster,
        leadership,
        mut controller,
        mut invoker,
        ..
    } = stage().await;
    let too_large = "x".repeat(usize::try_from(controller.welcome.payload_len_max).unwrap() + 1);
    controller.submit(&leadership, 1, 1, &too_large).await;
    assert!(matches!(controller.rejection(1).await, Kind::TooLarge(_)));

    let nowhere = v1::QueueLeadership {
        key: Some(key("guest", "guest/nothing")),
        ..leadership.clone()
    };
    controller.submit(&nowhere, 2, 1, "{}").await;
    assert!(matches!(controller.rejection(2).await, Kind::NoQueue(_)));

    let malformed = v1::QueueLeadership {
        key: Some(key(" guest", ACTION)),
        ..leadership.clone()
    };
    controller.submit(&malformed, 3, 1, "{}").await;
    let Kind::Invalid(invalid) = controller.rejection(3).await else {
        panic!("malformed name accepted")
    };
    assert!(
        invalid.reason.contains("illegal characters"),
        "{}",
        invalid.reason
    );

    controller.submit(&leadership, 4, 1, "{}").await;
    controller.accepted(4).await;
    controller.submit(&leadership, 4, 1, r#"{"other":1}"#).await;
    assert!(matches!(controller.rejection(4).await, Kind::Conflict(_)));

    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    assert_eq!(controller.record(4).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_submission_runs_once() {
    let Stage {
        cluster: _cluster,
        leadership,
        mut controller,
        mut invoker,
        ..
    } = stage().await;
    for attempt in 1..=3 {
        controller.submit(&leadership, 1, attempt, "{}").await;
        controller.accepted(1).await;
    }
    controller.submit(&leadership, 2, 1, "{}").await;
    invoker.serve_create().await;
    let mut delivered = Vec::new();
    for _ in 0..2 {
        let (scheduler, deliver) = invoker.next_deliver().await;
        delivered.push(deliver.id[0]);
        invoker
            .complete(scheduler, &key("guest", ACTION), &deliver, 1)
            .await;
    }
    assert_eq!(delivered, [1, 2]);
    assert!(matches!(controller.outcome(2).await, Answer::Completed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ensuring_a_queue_is_idempotent_and_needs_the_action() {
    let cluster = Cluster::start().await;
    let missing = cluster.ensure(1, &key("guest", ACTION)).await.unwrap_err();
    assert!(matches!(rejection_kind(Some(missing)), Kind::NoAction(no) if no.action == ACTION));

    cluster.put_action(ACTION, ActionLimits::default()).await;
    let key = key("guest", ACTION);
    let all = futures::future::join_all((1..=3).map(|at| cluster.ensure(at, &key))).await;
    let all: Vec<_> = all.into_iter().map(|answer| answer.unwrap()).collect();
    assert!(
        all.iter()
            .all(|one| (one.leader, one.epoch) == (all[0].leader, all[0].epoch)),
        "{all:?}"
    );
    assert!(!all[0].client_address.is_empty());
    assert_eq!(cluster.read(|state| state.queues().count()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_is_found_by_id_in_its_namespace_only() {
    use v1::find_activation_response::State;

    let Stage {
        cluster,
        leadership,
        mut controller,
        mut invoker,
    } = stage().await;
    controller.submit(&leadership, 1, 1, "{}").await;
    controller.accepted(1).await;
    let mut client = v1::controller_client::ControllerClient::new(cluster.channel(leadership.leader).await);
    let mut find = async |namespace: &str| {
        let request = v1::FindActivationRequest {
            id: id(1).to_vec().into(),
            namespace: namespace.to_owned(),
        };
        soon("find", client.find_activation(request))
            .await
            .unwrap()
            .into_inner()
    };
    assert_eq!(find("guest").await.state(), State::Waiting);
    assert_eq!(find("other").await.state(), State::Unknown);
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker.started(scheduler, &deliver).await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 0)
        .await;
    controller.record(1).await;
    let found = find("guest").await;
    assert_eq!(
        (found.state(), &found.record.unwrap().result[..]),
        (State::Done, &b"{}"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_that_the_log_never_gives_is_answered_all_the_same() {
    let Stage {
        cluster: _cluster,
        leadership,
        mut controller,
        ..
    } = stage().await;
    let future = v1::QueueLeadership {
        epoch: leadership.epoch + 1_000_000,
        ..leadership.clone()
    };
    controller.submit(&future, 1, 1, "{}").await;
    let Kind::NotLeader(advice) = controller.rejection(1).await else {
        panic!("accepted in an epoch that does not exist")
    };
    assert_eq!(
        (advice.leader, advice.epoch),
        (leadership.leader, leadership.epoch)
    );
}
