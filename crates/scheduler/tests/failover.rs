//! The leader of a queue goes: the queue moves, and nothing that may run already runs a second time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::time::Duration;

use common::controller::{Answer, Controller, id};
use common::invoker::{Invoker, Said, record};
use common::{Cluster, key};
use whiskraft_proto::v1;
use whiskraft_types::{ActionLimits, SchedulerId};

const ACTION: &str = "guest/hello";

/// Waits until somebody else leads the queue; gives that leadership.
async fn moved(cluster: &Cluster, old: &v1::QueueLeadership) -> v1::QueueLeadership {
    cluster
        .until_on(
            cluster.other_than(old.leader),
            "the queue has a new leader",
            |state| {
                state.queues().any(|(_, queue)| {
                    queue.epoch.0 > old.epoch
                        && queue.leader.is_some_and(|(id, _)| id != SchedulerId(old.leader))
                })
            },
        )
        .await;
    let new = cluster
        .ensure_for(cluster.other_than(old.leader), &key("guest", ACTION), true)
        .await
        .unwrap();
    assert_ne!(new.leader, old.leader);
    new
}

fn register(epoch: u64, container: Option<v1::ContainerId>, in_flight: &[u8], credits: u32) -> v1::Register {
    let in_flight = in_flight
        .iter()
        .map(|number| id(*number).to_vec().into())
        .collect();
    let containers = container.map(|container| v1::RegisteredContainer {
        container: Some(container),
        revision: 1,
        in_flight,
        credits,
        warmed: true,
    });
    v1::Register {
        key: Some(key("guest", ACTION)),
        epoch,
        containers: containers.into_iter().collect(),
        unacknowledged: Vec::new(),
    }
}

/// An activation that its leader has delivered, and nobody has said a word of it since.
struct Begun {
    cluster: Cluster,
    old: v1::QueueLeadership,
    /// Whoever submitted it stays connected.
    _controller: Controller,
    invoker: Invoker,
    create: v1::CreateContainer,
    deliver: v1::Deliver,
}

async fn begun() -> Begun {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&old, 1, 1, r#"{"run":1}"#).await;
    let (_, create) = invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    Begun {
        cluster,
        old,
        _controller: controller,
        invoker,
        create,
        deliver,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resubmitted_activations_wait_until_every_invoker_has_registered() {
    let mut cluster = Cluster::start().await;
    let revision = cluster.put_action(ACTION, ActionLimits::default()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&old, 1, 1, r#"{"run":1}"#).await;
    let (_, create) = invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker.started(scheduler, &deliver).await;
    cluster
        .until_on(
            cluster.other_than(old.leader),
            "the container runs for the others too",
            |state| {
                state
                    .containers()
                    .any(|(_, row)| row.state == whiskraft_state::ContainerState::Running)
            },
        )
        .await;

    cluster.crash(old.leader).await;
    let new = moved(&cluster, &old).await;
    let (asking, reregister) = invoker.next_reregister().await;
    assert_eq!((asking, reregister.epoch), (new.leader, new.epoch));
    let mut controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 1, 2, r#"{"run":1}"#).await;
    controller.submit(&new, 2, 2, r#"{"run":2}"#).await;
    controller.accepted(1).await;
    controller.accepted(2).await;

    // The container is free for one more, but nothing may go out before the invoker has said what it has.
    let credit = v1::Credit {
        container: create.container,
        key: create.key.clone(),
        epoch: new.epoch,
        count: 1,
        warmed: true,
    };
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                credits: vec![credit],
                ..Default::default()
            },
        )
        .await;
    controller.submit(&new, 3, 1, r#"{"run":3}"#).await;
    controller.accepted(3).await;
    // Fresh activations do not wait.
    let (_, fresh) = invoker.next_deliver().await;
    assert_eq!(fresh.id[0], 3);

    let mut registration = register(new.epoch, create.container, &[1, 3], 1);
    registration.containers[0].revision = revision;
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                registers: vec![registration],
                ..Default::default()
            },
        )
        .await;
    let (_, held) = invoker.next_deliver().await;
    assert_eq!((held.id[0], held.attempt), (2, 2));
    for deliver in [
        &v1::Deliver {
            epoch: new.epoch,
            ..deliver
        },
        &fresh,
        &held,
    ] {
        invoker
            .complete(new.leader, &key("guest", ACTION), deliver, 0)
            .await;
    }
    let mut ended: Vec<u8> = Vec::new();
    while ended.len() < 3 {
        if let (id, Answer::Completed(record)) = controller.answer().await {
            assert_eq!(record.status(), v1::Status::Success);
            ended.push(id[0]);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2, 3]);
    let again = invoker
        .heard()
        .into_iter()
        .any(|said| matches!(said, Said::Deliver(..)));
    assert!(!again, "something ran a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_the_old_leader_took_along_comes_from_the_invoker() {
    let Begun {
        mut cluster,
        old,
        mut invoker,
        create,
        deliver,
        _controller,
    } = begun().await;
    cluster
        .until_on(
            cluster.other_than(old.leader),
            "the container runs for the others too",
            |state| {
                state
                    .containers()
                    .any(|(_, row)| row.state == whiskraft_state::ContainerState::Running)
            },
        )
        .await;
    cluster.crash(old.leader).await;
    let new = moved(&cluster, &old).await;
    invoker.next_reregister().await;
    let mut registration = register(new.epoch, create.container, &[], 1);
    registration.unacknowledged = vec![record(7, &deliver)];
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                registers: vec![registration],
                ..Default::default()
            },
        )
        .await;
    let mut controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 1, 2, r#"{"run":1}"#).await;
    assert_eq!(&controller.record(1).await.result[..], br#"{"run":1}"#);
    controller.confirm(1).await;
    loop {
        match invoker.said().await {
            Said::CompletedAck(_, acked) => {
                assert_eq!(acked, id(1));
                break;
            }
            Said::Deliver(..) => panic!("it ran a second time"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoker_that_keeps_results_of_a_container_that_has_ended_is_asked_for_them() {
    use whiskraft_state::ContainerState;

    let Begun {
        mut cluster,
        old,
        mut invoker,
        create,
        deliver,
        _controller,
    } = begun().await;
    // Its pull stream does not get through, the report does.
    let ended = v1::container_report::Change::Ended(v1::ContainerEnded {
        reason: "unusable".to_owned(),
    });
    invoker.report(old.leader, &create, ended).await;
    cluster
        .until_on(
            cluster.other_than(old.leader),
            "it has ended for the others too, and its slot is free",
            |state| {
                let is_remembered = state
                    .containers()
                    .any(|(_, row)| row.state == ContainerState::Ended);
                is_remembered && !state.containers().any(|(_, row)| row.state.holds_slot())
            },
        )
        .await;
    cluster.crash(old.leader).await;
    let new = moved(&cluster, &old).await;
    invoker.next_reregister().await;
    let mut registration = register(new.epoch, create.container, &[], 0);
    registration.containers.clear();
    registration.unacknowledged = vec![record(7, &deliver)];
    let mut controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 1, 2, r#"{"run":1}"#).await;
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                registers: vec![registration],
                ..Default::default()
            },
        )
        .await;
    assert_eq!(&controller.record(1).await.result[..], br#"{"run":1}"#);
    let again = invoker
        .heard()
        .into_iter()
        .any(|said| matches!(said, Said::Deliver(..)));
    assert!(!again, "it ran a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_began_of_a_deleted_action_is_found_again_after_a_failover() {
    let Begun {
        mut cluster,
        old,
        mut invoker,
        create,
        deliver,
        _controller,
    } = begun().await;
    let other = cluster.other_than(old.leader);
    cluster.delete_action(other, ACTION).await;
    cluster.crash(old.leader).await;
    let new = moved(&cluster, &old).await;
    let other = cluster.other_than(old.leader);
    let refused = cluster.ensure(other, &key("guest", ACTION)).await;
    assert!(
        matches!(&refused, Err(rejection) if matches!(rejection.kind, Some(v1::rejection::Kind::NoAction(_)))),
        "{refused:?}"
    );
    let found = cluster
        .ensure_for(other, &key("guest", ACTION), true)
        .await
        .unwrap();
    assert_eq!((found.leader, found.epoch), (new.leader, new.epoch));
    invoker.next_reregister().await;
    let registration = register(new.epoch, create.container, &[1], 0);
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                registers: vec![registration],
                ..Default::default()
            },
        )
        .await;
    let mut controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 1, 2, r#"{"run":1}"#).await;
    controller.accepted(1).await;
    let deliver = v1::Deliver {
        epoch: new.epoch,
        ..deliver
    };
    invoker
        .complete(new.leader, &key("guest", ACTION), &deliver, 0)
        .await;
    assert_eq!(controller.record(1).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_is_shut_down_tells_where_its_queues_are() {
    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let mut controller = Controller::connect(&old.client_address, 1).await;
    controller.submit(&old, 1, 1, "{}").await;
    controller.accepted(1).await;
    cluster.shutdown_role(old.leader).await;
    let v1::rejection::Kind::NotLeader(advice) = controller.rejection(1).await else {
        panic!("not told where to go")
    };
    let new = moved(&cluster, &old).await;
    assert_eq!((advice.leader, advice.epoch), (new.leader, new.epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_without_a_quorum_says_so_at_once() {
    use v1::rejection::Kind;

    let mut cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let leadership = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    for id in (1..=3).filter(|id| *id != leadership.leader) {
        cluster.crash(id).await;
    }
    // Until its lease is over it may accept; after that it must not.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut number = 0;
    loop {
        number += 1;
        controller.submit(&leadership, number, 1, "{}").await;
        match controller.answer().await {
            (_, Answer::Accepted) => {}
            (_, Answer::Rejected(Kind::Unavailable(_))) => break,
            other => panic!("neither accepted nor unavailable: {other:?}"),
        }
        pace.tick().await;
    }
    let key = key("guest", ACTION);
    let asked = cluster.ensure(leadership.leader, &key);
    let answer = tokio::time::timeout(Duration::from_secs(1), asked)
        .await
        .expect("it hung");
    assert!(matches!(answer.unwrap_err().kind, Some(Kind::Unavailable(_))));
}

/// The invoker lives, as its session says, and never registers with the next leader: it does with the one after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_moves_on_if_its_leader_does_not_hear_an_invoker() {
    let Begun {
        mut cluster,
        old,
        _controller,
        mut invoker,
        create,
        deliver,
    } = begun().await;
    invoker.started(old.leader, &deliver).await;
    cluster
        .until_on(
            cluster.other_than(old.leader),
            "the container runs for the others too",
            |state| {
                state
                    .containers()
                    .any(|(_, row)| row.state == whiskraft_state::ContainerState::Running)
            },
        )
        .await;
    cluster.crash(old.leader).await;
    let new = moved(&cluster, &old).await;
    let (asking, _) = invoker.next_reregister().await;
    assert_eq!(asking, new.leader);
    let controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 2, 2, r#"{"run":2}"#).await;

    let third = 6 - old.leader - new.leader;
    let (asking, reregister) = invoker.next_reregister().await;
    assert_eq!(asking, third, "the queue has moved on");
    let registration = register(reregister.epoch, create.container, &[1], 1);
    let registration = v1::PullUp {
        registers: vec![registration],
        ..Default::default()
    };
    invoker.pull(third, registration).await;
    let (asking, held) = invoker.next_deliver().await;
    assert_eq!((asking, held.id[0], held.attempt), (third, 2, 2));
}
