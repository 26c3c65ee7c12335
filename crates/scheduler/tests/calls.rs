//! Activations that call others and keep their containers until these have ended.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::Controller;
use common::invoker::Invoker;
use common::{Cluster, key};
use whiskraft_proto::v1;
use whiskraft_types::ActionLimits;

const REFUSAL: &str = "Too many concurrent requests in flight.";

fn refusal_of(record: &v1::ActivationRecord) -> String {
    assert_eq!(record.status(), v1::Status::DeveloperError);
    String::from_utf8(record.result.to_vec()).unwrap()
}

/// A namespace that may have two containers, and two actions.
async fn namespace_of_two() -> (Cluster, Invoker) {
    let cluster = Cluster::start().await;
    cluster.put_namespace("guest", 2).await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    cluster.put_action("guest/b", ActionLimits::default()).await;
    let invoker = Invoker::start(7, &cluster.addresses()).await;
    (cluster, invoker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recursion_beyond_the_limit_is_refused_and_its_callers_go_on() {
    let (cluster, mut invoker) = namespace_of_two().await;
    let queue = cluster.ensure(1, &key("guest", "guest/a")).await.unwrap();
    let mut controller = Controller::connect(&queue.client_address, 1).await;
    controller.submit(&queue, 1, 1, "{}").await;
    invoker.serve_create().await;
    invoker.next_deliver().await;
    controller.call(&queue, 2, 1).await;
    invoker.serve_create().await;
    let (scheduler, second) = invoker.next_deliver().await;

    controller.call(&queue, 3, 2).await;
    let refused = controller.record(3).await;
    assert!(refusal_of(&refused).contains(REFUSAL), "{refused:?}");
    // As long as a queue without any container would have waited.
    assert!(refused.wait_ms >= 750, "{refused:?}");
    invoker
        .complete(scheduler, &key("guest", "guest/a"), &second, 1)
        .await;
    assert_eq!(controller.record(2).await.status(), v1::Status::Success);
    controller.call(&queue, 4, 1).await;
    let (_, fourth) = invoker.next_deliver().await;
    assert_eq!(fourth.container, second.container);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_of_two_leaders_that_wait_for_each_other_are_told() {
    let (cluster, mut invoker) = namespace_of_two().await;
    let first = cluster.ensure(1, &key("guest", "guest/a")).await.unwrap();
    let second = cluster.ensure(1, &key("guest", "guest/b")).await.unwrap();
    assert_ne!(first.leader, second.leader, "the knot is over two schedulers");
    let mut at_first = Controller::connect(&first.client_address, 1).await;
    let at_second = Controller::connect(&second.client_address, 2).await;
    at_first.submit(&first, 1, 1, "{}").await;
    invoker.serve_create().await;
    invoker.next_deliver().await;
    at_second.call(&second, 2, 1).await;
    invoker.serve_create().await;
    let (scheduler, called) = invoker.next_deliver().await;

    at_first.call(&first, 3, 2).await;
    let refused = at_first.record(3).await;
    assert!(refusal_of(&refused).contains(REFUSAL), "{refused:?}");
    invoker
        .complete(scheduler, &key("guest", "guest/b"), &called, 1)
        .await;
}
