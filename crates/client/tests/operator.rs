//! Questions and orders of operators: asked of every scheduler, put together, nobody left out silently.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::Duration;

use fake::{Fake, Seen, builder, cluster, key, namespace_event, record};
use whiskraft_client::{
    ActivationId, CallError, Client, NamespaceLimits, Progress, QueueFilter, Rejection, SchedulerId,
    WaitReason,
};
use whiskraft_proto::v1;
use whiskraft_proto::v1::drain_response::Outcome;
use whiskraft_proto::v1::find_activation_response::State;

fn queue(action: &str, leader: u64, epoch: u64, oldest_ms: u64) -> v1::QueueStatus {
    v1::QueueStatus {
        queue: Some(v1::QueueInfo {
            key: Some(v1::QueueKey {
                namespace: "guest".to_owned(),
                action: action.to_owned(),
            }),
            leader,
            epoch,
            revision: 1,
            removed: false,
        }),
        waiting: u64::from(oldest_ms > 0),
        oldest_ms,
        wait_reason: v1::WaitReason::NoMemory.into(),
        wait_detail: "256 MiB wanted".to_owned(),
        last_decision: "2 more".to_owned(),
        decided_ago_ms: 40,
        throttled: true,
        containers_limit: 30,
        containers_old: 1,
        ..Default::default()
    }
}

fn leads(fake: &Fake, queues: Vec<v1::QueueStatus>) {
    fake.with(|state| {
        state.operations.queues = v1::QueuesResponse {
            queues_total: queues.len() as u64,
            queues_matching: queues.len() as u64,
            waiting_total: 5,
            queues,
            ..Default::default()
        };
    });
}

async fn three() -> (Vec<Fake>, Client) {
    let (_, fakes) = cluster(3).await;
    let client = builder(&fakes).connect().await.unwrap();
    for fake in &fakes {
        fake.connected().await;
    }
    (fakes, client)
}

#[tokio::test]
async fn queues_of_all_schedulers_come_longest_waiting_first() {
    let (fakes, client) = three().await;
    leads(
        &fakes[0],
        vec![queue("lib/a", 1, 1, 500), queue("lib/moving", 1, 2, 9_000)],
    );
    leads(
        &fakes[1],
        vec![queue("lib/b", 2, 1, 7_000), queue("lib/moving", 2, 3, 100)],
    );
    fakes[2].with(|state| state.operations.queues.fenced = true);
    let filter = QueueFilter {
        namespace: Some(key().namespace),
        waiting_only: true,
        limit: Some(2),
        ..QueueFilter::default()
    };
    let snapshot = client.operator().queues(&filter).await.unwrap();
    let names: Vec<_> = snapshot
        .queues
        .iter()
        .map(|status| status.queue.key.action.to_string())
        .collect();
    assert_eq!(
        names,
        ["lib/b", "lib/a"],
        "the newer leadership of a moving queue counts"
    );
    assert_eq!(
        (
            snapshot.queues_total,
            snapshot.queues_matching,
            snapshot.waiting_total
        ),
        (4, 3, 10)
    );
    assert_eq!(snapshot.fenced, [SchedulerId(3)]);
    assert!(snapshot.answered.len() == 3 && snapshot.silent.is_empty());
    let first = &snapshot.queues[0];
    assert_eq!(first.wait_reason, Some(WaitReason::NoMemory));
    assert_eq!(
        (first.wait_detail.as_str(), first.last_decision.as_str()),
        ("256 MiB wanted", "2 more")
    );
    assert_eq!(first.decided_ago, Duration::from_millis(40));
    assert!(first.throttled && first.containers_limit == 30 && first.containers_old == 1);
    let asked = fakes[1].with(|state| {
        state.seen.iter().rev().find_map(|seen| match seen {
            Seen::Queues(request) => Some(request.clone()),
            _ => None,
        })
    });
    let asked = asked.unwrap();
    assert_eq!(
        (asked.namespace.as_str(), asked.waiting_only, asked.limit),
        ("guest", true, 2)
    );
}

#[tokio::test]
async fn who_did_not_answer_is_named_and_nobody_at_all_is_an_error() {
    let (fakes, client) = three().await;
    leads(&fakes[0], vec![queue("lib/a", 1, 1, 500)]);
    let operator = client.operator();
    let mut watch = operator.watch_queues(QueueFilter::default(), Duration::from_millis(1));
    assert!(watch.next().await.unwrap().silent.is_empty());
    fakes[1].die().await;
    let snapshot = watch.next().await.unwrap();
    let [(SchedulerId(2), error)] = snapshot.silent.as_slice() else {
        panic!("{snapshot:?}")
    };
    assert!(error.to_string().contains("down by the test"), "{error}");
    assert_eq!(snapshot.queues.len(), 1);
    fakes[0].die().await;
    fakes[2].die().await;
    assert!(matches!(watch.next().await, Err(CallError::Unreachable { .. })));
}

#[tokio::test]
async fn the_answer_that_knows_most_explains_an_activation() {
    let (fakes, client) = three().await;
    let id = ActivationId::from_bytes([3; 16]);
    let known = |state: State, epoch| v1::ExplainResponse {
        found: Some(v1::FindActivationResponse {
            state: state.into(),
            record: (state == State::Done).then(|| record(id.as_bytes())),
            key: Some((&key()).into()),
            epoch,
            ..Default::default()
        }),
        position: (state == State::Waiting).then_some(7),
        waited_ms: 1500,
        attempt: 2,
        container: Some(v1::ContainerId { session: 4, seq: 5 }),
        invoker: 9,
        queue: Some(queue("lib/hello", 1, epoch, 1500)),
        ..Default::default()
    };
    let operator = client.operator();
    let best = async || operator.explain(id, Some(&key().namespace)).await.unwrap().best;
    assert_eq!(best().await, None);
    fakes[1].with(|state| state.operations.explain = known(State::Waiting, 8));
    let waiting = best().await.unwrap();
    assert_eq!(waiting.found.progress, Progress::Waiting);
    assert_eq!(
        (waiting.position, waiting.waited, waiting.attempt),
        (Some(7), Duration::from_millis(1500), 2)
    );
    assert_eq!(waiting.queue.unwrap().wait_reason, Some(WaitReason::NoMemory));
    for (fake, state) in [(0, State::Delivered), (2, State::Started), (0, State::Done)] {
        fakes[fake].with(|script| script.operations.explain = known(state, 1));
        let found = best().await.unwrap();
        assert_eq!(found.found.scheduler.0, fake as u64 + 1, "{state:?} knows more");
        assert_eq!(found.invoker.unwrap().0, 9);
    }
    fakes[0].die().await;
    let explained = operator.explain(id, None).await.unwrap();
    assert!(explained.best.is_some() && explained.silent.len() == 1 && explained.answered.len() == 2);
}

#[tokio::test]
async fn a_scheduler_is_drained_and_undrained_by_any_scheduler() {
    let (fakes, client) = three().await;
    let reason = "no other live scheduler could take the queues of scheduler 2".to_owned();
    let refused = v1::Rejection {
        kind: Some(v1::rejection::Kind::Invalid(v1::Invalid {
            reason: reason.clone(),
        })),
    };
    for fake in &fakes {
        fake.with(|state| {
            let drained = Outcome::Drained(v1::Drained { queues_left: 12 });
            state.operations.drain = vec![drained];
        });
    }
    let operator = client.operator();
    assert_eq!(operator.drain(SchedulerId(2)).await, Ok(12));
    assert_eq!(operator.undrain(SchedulerId(2)).await, Ok(()));
    let orders: Vec<_> = fakes
        .iter()
        .flat_map(|fake| fake.with(|state| state.seen.clone()))
        .filter_map(|seen| match seen {
            Seen::Drain(request) => Some((request.scheduler, request.undo)),
            _ => None,
        })
        .collect();
    assert!(orders.len() == 2 && orders.contains(&(2, false)) && orders.contains(&(2, true)));
    for fake in &fakes {
        fake.with(|state| state.operations.drain = vec![Outcome::Rejection(refused.clone())]);
    }
    let Err(CallError::Rejected { rejection, .. }) = operator.drain(SchedulerId(2)).await else {
        panic!("refused for good")
    };
    assert_eq!(rejection, Rejection::Invalid { reason });
}

#[tokio::test]
async fn limits_of_a_namespace_are_written_and_read_back() {
    let (world, fakes) = cluster(2).await;
    let client = builder(&fakes).connect().await.unwrap();
    let name = key().namespace;
    assert_eq!(client.namespace(&name).await, Ok(None));
    world.log(namespace_event(4, false));
    let limits = client.namespace(&name).await.unwrap().unwrap();
    let expected = NamespaceLimits {
        containers: 4,
        over_provision_percent: 150,
        invocations_per_minute: Some(600),
        weight: 200,
    };
    assert_eq!(limits, expected);
    let changed = NamespaceLimits {
        invocations_per_minute: None,
        weight: 7,
        ..limits
    };
    client.put_namespace(&name, &changed).await.unwrap();
    assert_eq!(client.namespace(&name).await, Ok(Some(changed)));
    assert_eq!(client.namespaces().await.unwrap().len(), 1);
}
