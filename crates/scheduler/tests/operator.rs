//! What operators ask: which queues there are and why they wait, where an activation is, that a scheduler is drained.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::{Controller, id};
use common::invoker::Invoker;
use common::{Cluster, key, rejection_kind, soon};
use tonic::transport::Channel;
use whiskraft_proto::v1;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_proto::v1::operator_client::OperatorClient;
use whiskraft_types::{ActionLimits, SchedulerId};

async fn operator(cluster: &Cluster, at: u64) -> OperatorClient<Channel> {
    OperatorClient::new(cluster.channel(at).await)
}

/// The first answer of a scheduler about its queues.
async fn queues(cluster: &Cluster, at: u64, request: v1::QueuesRequest) -> v1::QueuesResponse {
    let mut answers = operator(cluster, at)
        .await
        .queues(request)
        .await
        .unwrap()
        .into_inner();
    soon("answer about queues", answers.message())
        .await
        .unwrap()
        .unwrap()
}

fn names(answer: &v1::QueuesResponse) -> Vec<String> {
    let key = |queue: &v1::QueueStatus| queue.queue.clone().unwrap().key.unwrap().action;
    answer.queues.iter().map(key).collect()
}

/// Three queues of one scheduler: in the first nothing waits, in the second three since a while, in the third one.
async fn three_queues(cluster: &Cluster) -> (u64, Vec<(String, v1::QueueLeadership)>, Vec<Controller>) {
    let mut by_leader: std::collections::BTreeMap<u64, Vec<_>> = Default::default();
    for number in 0..7 {
        let action = format!("guest/a{number}");
        cluster.put_action(&action, ActionLimits::default()).await;
        let leadership = cluster.ensure(1, &key("guest", &action)).await.unwrap();
        by_leader
            .entry(leadership.leader)
            .or_default()
            .push((action, leadership));
    }
    let (leader, queues) = by_leader
        .into_iter()
        .find(|(_, queues)| queues.len() >= 3)
        .unwrap();
    let mut controller = Controller::connect(&queues[1].1.client_address, 1).await;
    for (queue, numbers) in [(1, 1..4), (2, 4..5)] {
        for number in numbers {
            controller.submit(&queues[queue].1, number, 1, "{}").await;
            controller.accepted(number).await;
        }
    }
    (leader, queues, vec![controller])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_listed_by_the_age_of_what_waits_filtered_and_cut() {
    let cluster = Cluster::start().await;
    let (leader, known, _controllers) = three_queues(&cluster).await;

    let all = queues(&cluster, leader, v1::QueuesRequest::default()).await;
    assert_eq!(
        (all.scheduler, all.queues_total, all.waiting_total),
        (leader, known.len() as u64, 4)
    );
    assert!(!all.fenced);
    assert_eq!(
        names(&all)[..2],
        [known[1].0.clone(), known[2].0.clone()],
        "longest waiting first"
    );
    assert_eq!(all.queues.len(), known.len());
    let first = &all.queues[0];
    let info = first.queue.as_ref().unwrap();
    assert_eq!(
        (first.waiting, info.leader, info.epoch),
        (3, leader, known[1].1.epoch)
    );
    assert!(first.containers_limit > 0 && !first.throttled);
    assert_ne!(
        first.wait_reason(),
        v1::WaitReason::Unspecified,
        "something waits"
    );
    assert!(!first.wait_detail.is_empty() && first.oldest_ms >= all.queues[1].oldest_ms);
    let idle = &all.queues[2];
    assert_eq!(
        (idle.waiting, idle.wait_reason()),
        (0, v1::WaitReason::Unspecified)
    );

    let waiting_only = v1::QueuesRequest {
        waiting_only: true,
        ..Default::default()
    };
    let waiting = queues(&cluster, leader, waiting_only).await;
    assert_eq!(names(&waiting), [known[1].0.clone(), known[2].0.clone()]);
    let one = queues(
        &cluster,
        leader,
        v1::QueuesRequest {
            limit: 1,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(names(&one), [known[1].0.clone()]);
    assert_eq!(one.waiting_total, 4, "totals are of all queues");
    assert_eq!(
        (one.queues_matching, waiting.queues_matching),
        (known.len() as u64, 2),
        "what the limit cuts off counts"
    );
    let short = known[2].0.trim_start_matches("guest/").to_owned();
    for action in [short, known[2].0.clone()] {
        let by_action = queues(
            &cluster,
            leader,
            v1::QueuesRequest {
                action,
                ..Default::default()
            },
        )
        .await;
        assert_eq!(names(&by_action), [known[2].0.clone()]);
    }
    let namespace = "somebody".to_owned();
    let none = queues(
        &cluster,
        leader,
        v1::QueuesRequest {
            namespace,
            ..Default::default()
        },
    )
    .await;
    assert_eq!((none.queues.len(), none.queues_matching), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_listing_changes_with_the_queues_and_ends_as_asked() {
    let mut cluster = Cluster::start().await;
    let (leader, known, controllers) = three_queues(&cluster).await;
    let mut client = operator(&cluster, leader).await;
    let once = client.queues(v1::QueuesRequest::default()).await.unwrap();
    let mut once = once.into_inner();
    assert!(soon("the answer", once.message()).await.unwrap().is_some());
    assert!(
        soon("the end", once.message()).await.unwrap().is_none(),
        "no interval: one answer"
    );

    let request = v1::QueuesRequest {
        interval_ms: 100,
        ..Default::default()
    };
    let mut watched = client.queues(request).await.unwrap().into_inner();
    let first = soon("first answer", watched.message()).await.unwrap().unwrap();
    assert_eq!(first.waiting_total, 4);
    controllers[0].submit(&known[2].1, 9, 1, "{}").await;
    let grown = async { while watched.message().await.unwrap().unwrap().waiting_total < 5 {} };
    soon("an answer with the new activation", grown).await;
    cluster.shutdown_role(leader).await;
    let ended = async { while let Ok(Some(_)) = watched.message().await {} };
    soon("the end of the stream with its process", ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_queues_are_limited_and_free_when_their_readers_go() {
    let cluster = Cluster::start().await;
    let mut client = operator(&cluster, 1).await;
    let request = v1::QueuesRequest {
        interval_ms: 60_000,
        ..Default::default()
    };
    let mut open = Vec::new();
    let refused = loop {
        match client.queues(request.clone()).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
        assert!(open.len() <= 1000, "no limit");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    drop(open);
    let again = async {
        while client.queues(request.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("room for a new stream", again).await;
}

async fn explain(cluster: &Cluster, at: u64, number: u8, namespace: &str) -> v1::ExplainResponse {
    let request = v1::ExplainRequest {
        id: id(number).to_vec().into(),
        namespace: namespace.to_owned(),
    };
    operator(cluster, at)
        .await
        .explain(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_is_explained_from_its_queue_to_its_end() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    let queue = key("guest", "guest/a");
    let leadership = cluster.ensure(1, &queue).await.unwrap();
    let leader = leadership.leader;
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    for number in 1..=2 {
        controller.submit(&leadership, number, 1, "{}").await;
        controller.accepted(number).await;
    }
    for namespace in ["guest", ""] {
        let second = explain(&cluster, leader, 2, namespace).await;
        let found = second.found.clone().unwrap();
        assert_eq!((found.state(), found.key), (State::Waiting, Some(queue.clone())));
        assert_eq!(
            (second.position, second.attempt, second.scheduler),
            (Some(1), 1, leader)
        );
        assert_eq!(second.queue.unwrap().waiting, 2);
    }
    let elsewhere = explain(&cluster, leader, 2, "somebody").await;
    assert_eq!(elsewhere.found.unwrap().state(), State::Unknown);
    let other = explain(&cluster, cluster.other_than(leader), 2, "").await;
    assert_eq!(other.found.unwrap().state(), State::Unknown, "led elsewhere");

    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    let first = explain(&cluster, leader, 1, "").await;
    assert_eq!(first.found.unwrap().state(), State::Delivered);
    assert_eq!(
        (first.container, first.invoker, first.position),
        (deliver.container, 7, None)
    );
    invoker.complete(leader, &queue, &deliver, 0).await;
    controller.record(1).await;
    let done = explain(&cluster, leader, 1, "guest").await;
    assert_eq!((done.container, done.invoker), (deliver.container, 7));
    let found = done.found.unwrap();
    assert_eq!(found.state(), State::Done);
    assert_eq!(found.record.unwrap().status(), v1::Status::Success);
}

async fn drain(
    cluster: &Cluster,
    at: u64,
    scheduler: u64,
    undo: bool,
) -> Result<v1::Drained, v1::rejection::Kind> {
    use v1::drain_response::Outcome;

    let request = v1::DrainRequest { scheduler, undo };
    match operator(cluster, at)
        .await
        .drain(request)
        .await
        .unwrap()
        .into_inner()
        .outcome
        .unwrap()
    {
        Outcome::Drained(drained) => Ok(drained),
        Outcome::Rejection(rejection) => Err(rejection_kind(Some(rejection))),
    }
}

async fn is_draining(cluster: &Cluster, at: u64, scheduler: u64) -> bool {
    let status = operator(cluster, at)
        .await
        .status(v1::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut members = status.nodes.into_iter().filter_map(|node| node.member);
    members
        .find(|member| member.scheduler == scheduler)
        .unwrap()
        .draining
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_ordered_through_any_scheduler_repeated_and_taken_back() {
    let cluster = Cluster::start().await;
    for _ in 0..2 {
        drain(&cluster, 1, 2, false).await.unwrap();
        assert!(is_draining(&cluster, 1, 2).await);
    }
    cluster.put_action("guest/a", ActionLimits::default()).await;
    for number in 0..8 {
        let leadership = cluster
            .ensure(1, &key(&format!("n{number}"), "guest/a"))
            .await
            .unwrap();
        assert_ne!(leadership.leader, 2, "a draining scheduler takes no queues");
    }
    drain(&cluster, 3, 2, true).await.unwrap();
    assert!(!is_draining(&cluster, 3, 2).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_leaves_the_queues_to_nobody_is_refused() {
    use v1::rejection::Kind;

    let cluster = Cluster::start().await;
    let unknown = drain(&cluster, 1, 9, false).await.unwrap_err();
    assert!(matches!(&unknown, Kind::Invalid(invalid) if invalid.reason.contains("not a member")));
    drain(&cluster, 1, 2, false).await.unwrap();
    drain(&cluster, 1, 3, false).await.unwrap();
    let last = drain(&cluster, 2, 1, false).await.unwrap_err();
    assert!(matches!(&last, Kind::Invalid(invalid) if invalid.reason.contains("no other live scheduler")));
    assert!(!cluster.read(|state| state.member(SchedulerId(1)).unwrap().draining));
    drain(&cluster, 1, 2, true).await.unwrap();
    drain(&cluster, 2, 1, false).await.unwrap();
}
