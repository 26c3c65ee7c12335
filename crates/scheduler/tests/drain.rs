//! A scheduler is drained: its queues go to others, and what ran goes on where it is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeMap;

use common::controller::{Answer, Controller, id};
use common::invoker::{Invoker, Said, record};
use common::{Cluster, key, soon};
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_report::Change;
use whiskraft_state::{Command, ContainerState};
use whiskraft_types::{ActionLimits, SchedulerId};

const ACTION: &str = "guest/hello";

async fn set_draining(cluster: &Cluster, id: u64, draining: bool) {
    let command = Command::SetDraining {
        id: SchedulerId(id),
        draining,
    };
    let node = &cluster.members[&cluster.any()].node;
    soon("the order is in the log", node.propose(command))
        .await
        .unwrap();
}

/// Waits until a scheduler leads nothing and nothing on its way is its; asked on all.
async fn drained(cluster: &Cluster, id: u64) {
    for at in cluster.members.keys() {
        cluster
            .until_on(
                *at,
                "no queue, slot or creation is attributed to it",
                move |state| {
                    let session = state.scheduler_session(SchedulerId(id)).unwrap();
                    let under_way = state.containers().any(|(container, row)| {
                        container.session == session
                            && row.state == ContainerState::InProgress
                            && row.invoker.is_none()
                    });
                    state.queues_led(session) == 0 && !under_way
                },
            )
            .await;
    }
}

async fn leadership_after(cluster: &Cluster, old: &v1::QueueLeadership) -> v1::QueueLeadership {
    let at = cluster.other_than(old.leader);
    let new = cluster.ensure(at, &key("guest", ACTION)).await.unwrap();
    assert_ne!(new.leader, old.leader);
    assert!(new.epoch > old.epoch);
    new
}

fn register(
    epoch: u64,
    create: &v1::CreateContainer,
    in_flight: &[u8],
    credits: u32,
    unacknowledged: Vec<v1::ActivationRecord>,
) -> v1::PullUp {
    let in_flight = in_flight
        .iter()
        .map(|number| id(*number).to_vec().into())
        .collect();
    let container = v1::RegisteredContainer {
        container: create.container,
        revision: create.revision,
        in_flight,
        credits,
        warmed: true,
    };
    let register = v1::Register {
        key: Some(key("guest", ACTION)),
        epoch,
        containers: vec![container],
        unacknowledged,
    };
    v1::PullUp {
        registers: vec![register],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_scheduler_leads_nothing_and_each_activation_starts_once() {
    let cluster = Cluster::start().await;
    let limits = ActionLimits {
        concurrency: 3,
        instances: Some(1),
        ..ActionLimits::default()
    };
    cluster.put_action(ACTION, limits).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let mut controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    for number in 1..=4 {
        controller.submit(&old, number, 1, "{}").await;
    }
    let (scheduler, create) = invoker.next_create().await;
    invoker.run(scheduler, &create, 3).await;
    let mut starts: BTreeMap<u8, u32> = BTreeMap::new();
    let mut delivered = BTreeMap::new();
    while delivered.len() < 3 {
        let (_, deliver) = invoker.next_deliver().await;
        *starts.entry(deliver.id[0]).or_default() += 1;
        delivered.insert(deliver.id[0], deliver);
    }
    // 1 is started, 2 is finished and unconfirmed, 3 is delivered, 4 waits.
    invoker.started(scheduler, &delivered[&1]).await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &delivered[&2], 0)
        .await;
    controller.record(2).await;
    for at in cluster.members.keys() {
        cluster
            .until_on(*at, "the container runs", |state| {
                state
                    .containers()
                    .any(|(_, row)| row.state == ContainerState::Running)
            })
            .await;
    }

    set_draining(&cluster, old.leader, true).await;
    let mut sent_on: Vec<u8> = Vec::new();
    while sent_on.len() < 3 {
        match controller.answer().await {
            (_, Answer::Accepted) => {}
            (id, Answer::Rejected(v1::rejection::Kind::NotLeader(_))) => sent_on.push(id[0]),
            other => panic!("not told where to go: {other:?}"),
        }
    }
    sent_on.sort_unstable();
    assert_eq!(sent_on, [1, 3, 4]);
    drained(&cluster, old.leader).await;
    let new = leadership_after(&cluster, &old).await;
    let (asking, reregister) = invoker.next_reregister().await;
    assert_eq!((asking, reregister.epoch), (new.leader, new.epoch));

    let mut controller = Controller::connect(&new.client_address, 1).await;
    let mut ended = Vec::new();
    for number in 1..=4 {
        controller.submit(&new, number, 2, "{}").await;
        controller.accepted(number).await;
        if number == 2 {
            // Its outcome came along with the queue.
            controller.record(2).await;
            ended.push(2);
        }
    }
    let unacknowledged = vec![record(7, &delivered[&2])];
    invoker
        .pull(
            new.leader,
            register(new.epoch, &create, &[1, 3], 1, unacknowledged),
        )
        .await;
    let (_, last) = invoker.next_deliver().await;
    *starts.entry(last.id[0]).or_default() += 1;
    delivered.insert(last.id[0], last);
    for number in [1, 3, 4] {
        let deliver = v1::Deliver {
            epoch: new.epoch,
            ..delivered[&number].clone()
        };
        invoker
            .complete(new.leader, &key("guest", ACTION), &deliver, 1)
            .await;
    }
    while ended.len() < 4 {
        if let (id, Answer::Completed(record)) = controller.answer().await {
            assert_eq!(record.status(), v1::Status::Success);
            ended.push(id[0]);
        }
    }
    for said in invoker.heard() {
        if let Said::Deliver(_, deliver) = said {
            *starts.entry(deliver.id[0]).or_default() += 1;
        }
    }
    assert_eq!(starts, BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_of_a_container_that_went_is_found_by_the_next_leader() {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let mut controller = Controller::connect(&old.client_address, 1).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    controller.submit(&old, 1, 1, "{}").await;
    let (scheduler, create) = invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 0)
        .await;
    controller.record(1).await;
    let reason = "idle".to_owned();
    invoker
        .report(
            scheduler,
            &create,
            Change::Removed(v1::ContainerRemoved { reason }),
        )
        .await;
    invoker.all_acked().await;

    set_draining(&cluster, old.leader, true).await;
    drained(&cluster, old.leader).await;
    let new = leadership_after(&cluster, &old).await;
    invoker.next_reregister().await;
    let mut controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 1, 2, "{}").await;
    controller.accepted(1).await;
    let register = v1::Register {
        key: Some(key("guest", ACTION)),
        epoch: new.epoch,
        containers: Vec::new(),
        unacknowledged: vec![record(7, &deliver)],
    };
    let registers = vec![register];
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                registers,
                ..Default::default()
            },
        )
        .await;
    assert_eq!(controller.record(1).await.status(), v1::Status::Success);
    let again = invoker
        .heard()
        .into_iter()
        .any(|said| matches!(said, Said::Deliver(..) | Said::Create(..)));
    assert!(!again, "it ran a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_moves_without_work_asks_for_no_container() {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let mut controller = Controller::connect(&old.client_address, 1).await;
    controller.submit(&old, 1, 1, "{}").await;
    let (scheduler, create) = invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 0)
        .await;
    controller.record(1).await;
    controller.confirm(1).await;
    let reason = "idle".to_owned();
    invoker
        .report(
            scheduler,
            &create,
            Change::Removed(v1::ContainerRemoved { reason }),
        )
        .await;
    invoker.all_acked().await;
    set_draining(&cluster, old.leader, true).await;
    drained(&cluster, old.leader).await;
    let new = leadership_after(&cluster, &old).await;
    let (_, reregister) = invoker.next_reregister().await;
    let register = v1::Register {
        key: reregister.key,
        epoch: new.epoch,
        ..Default::default()
    };
    let registers = vec![register];
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                registers,
                ..Default::default()
            },
        )
        .await;
    // A later queue's container shows that the moved one had its chance to ask.
    cluster.put_action("guest/other", ActionLimits::default()).await;
    let other = cluster.ensure(1, &key("guest", "guest/other")).await.unwrap();
    let controller = Controller::connect(&other.client_address, 2).await;
    controller.submit(&other, 2, 1, "{}").await;
    let (_, create) = invoker.next_create().await;
    assert_eq!(create.key, Some(key("guest", "guest/other")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_stay_where_they_are_while_nobody_takes_them() {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    for id in (1..=3).filter(|id| *id != old.leader) {
        set_draining(&cluster, id, true).await;
    }
    set_draining(&cluster, old.leader, true).await;
    let mut controller = Controller::connect(&old.client_address, 1).await;
    controller.submit(&old, 1, 1, "{}").await;
    let (_, create) = invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    assert_eq!(scheduler, old.leader);
    invoker
        .complete(scheduler, &key("guest", ACTION), &deliver, 1)
        .await;
    assert_eq!(controller.record(1).await.status(), v1::Status::Success);
    controller.confirm(1).await;

    // One takes queues again.
    let willing = cluster.other_than(old.leader);
    set_draining(&cluster, willing, false).await;
    drained(&cluster, old.leader).await;
    let new = leadership_after(&cluster, &old).await;
    assert_eq!(new.leader, willing);
    invoker.next_reregister().await;
    invoker
        .pull(willing, register(new.epoch, &create, &[], 1, Vec::new()))
        .await;
    // The drain is undone: it is a candidate like the others.
    set_draining(&cluster, old.leader, false).await;
    set_draining(&cluster, willing, true).await;
    drained(&cluster, willing).await;
    assert_eq!(leadership_after(&cluster, &new).await.leader, old.leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_under_way_leaves_with_its_queue_and_its_failure_frees_the_slot() {
    let cluster = Cluster::start().await;
    cluster.put_action(ACTION, ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let old = cluster.ensure(1, &key("guest", ACTION)).await.unwrap();
    let controller = Controller::connect(&old.client_address, 1).await;
    controller.submit(&old, 1, 1, "{}").await;
    let (scheduler, create) = invoker.next_create().await;
    set_draining(&cluster, old.leader, true).await;
    drained(&cluster, old.leader).await;
    let failed = Change::Failed(v1::ContainerCreationFailed {
        error: v1::CreationError::Whisk.into(),
        message: "it did not start".to_owned(),
    });
    invoker.report(scheduler, &create, failed).await;
    invoker.all_acked().await;
    let id = whiskraft_types::ContainerId::from(create.container.unwrap());
    cluster
        .until("its slot is free", |state| state.container(id).is_none())
        .await;
    let new = leadership_after(&cluster, &old).await;
    let (_, reregister) = invoker.next_reregister().await;
    let register = v1::Register {
        key: reregister.key,
        epoch: new.epoch,
        ..Default::default()
    };
    let registers = vec![register];
    invoker
        .pull(
            new.leader,
            v1::PullUp {
                registers,
                ..Default::default()
            },
        )
        .await;
    let controller = Controller::connect(&new.client_address, 1).await;
    controller.submit(&new, 1, 2, "{}").await;
    let (asking, again) = invoker.next_create().await;
    assert_eq!((asking, again.leader), (new.leader, new.leader));
}
