//! Memory is short: creations wait for it instead of failing, and namespaces with less than their share get room.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::controller::Controller;
use common::invoker::{Invoker, Said};
use common::{Cluster, config, key, soon};
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_report::Change;
use whiskraft_scheduler::SchedulerConfig;
use whiskraft_state::{ContainerState, Event, State};
use whiskraft_types::{ActionLimits, ByteSize, InvokerId};

/// Two containers of this size fill the invoker.
fn half() -> ActionLimits {
    ActionLimits {
        memory: ByteSize::mib(2048),
        ..ActionLimits::default()
    }
}

/// A creation that fails is not tried again: who waits does not fail.
fn no_retries() -> SchedulerConfig {
    let mut config = config();
    config.creation.retries_max = 0;
    config
}

async fn waits_without_place(cluster: &Cluster, namespace: &str) {
    let what = format!("a creation of {namespace} has no place");
    cluster
        .until(&what, |state| {
            state.containers().any(|(_, row)| {
                row.key.namespace.as_str() == namespace
                    && row.state == ContainerState::InProgress
                    && row.invoker.is_none()
            })
        })
        .await;
}

async fn removed(invoker: &mut Invoker, scheduler: u64, create: &v1::CreateContainer) {
    let reason = "asked to".to_owned();
    invoker
        .report(
            scheduler,
            create,
            Change::Removed(v1::ContainerRemoved { reason }),
        )
        .await;
}

/// Of what runs one is told to end after its activation, and no other; it ends, and the next creation is answered.
async fn room_is_made(
    invoker: &mut Invoker,
    running: &[(u64, v1::CreateContainer, v1::Deliver)],
) -> (u64, v1::CreateContainer) {
    let victim = loop {
        match invoker.said().await {
            Said::Remove(_, removal) => break removal,
            Said::Create(_, create) => panic!("there is no memory for {create:?}"),
            _ => {}
        }
    };
    assert!(!victim.now, "what runs is not killed");
    let is_victim =
        |(_, create, _): &&(u64, v1::CreateContainer, v1::Deliver)| create.container == victim.container;
    let (scheduler, create, deliver) = running.iter().find(is_victim).unwrap();
    invoker
        .complete(*scheduler, create.key.as_ref().unwrap(), deliver, 0)
        .await;
    removed(invoker, *scheduler, create).await;
    // Those that have some wait as well, and longer.
    loop {
        match invoker.said().await {
            Said::Create(scheduler, create) => return (scheduler, create),
            Said::Remove(_, removal) => assert_eq!(removal.container, victim.container, "a second victim"),
            _ => {}
        }
    }
}

/// Fills the invoker with two containers of a namespace that both run something; further activations wait.
async fn fill(
    cluster: &Cluster,
    invoker: &mut Invoker,
    namespace: &str,
    activations: u8,
) -> (Controller, Vec<(u64, v1::CreateContainer, v1::Deliver)>) {
    let leadership = cluster.ensure(1, &key(namespace, "guest/big")).await.unwrap();
    let controller = Controller::connect(&leadership.client_address, 1).await;
    for number in 1..=activations {
        controller.submit(&leadership, number, 1, "{}").await;
    }
    let mut running = Vec::new();
    while running.len() < 2 {
        let (scheduler, create) = invoker.serve_create().await;
        let (_, deliver) = invoker.next_deliver().await;
        invoker.started(scheduler, &deliver).await;
        running.push((scheduler, create, deliver));
    }
    cluster
        .until("both containers run", |state| {
            state
                .containers()
                .filter(|(_, row)| row.state == ContainerState::Running)
                .count()
                == 2
        })
        .await;
    (controller, running)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_without_memory_waits_and_takes_what_comes_free() {
    let cluster = Cluster::start_with(no_retries()).await;
    cluster.put_action("guest/big", half()).await;
    cluster.put_action("guest/other", half()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let (_controller, running) = fill(&cluster, &mut invoker, "guest", 2).await;
    let other = cluster.ensure(1, &key("guest", "guest/other")).await.unwrap();
    let mut controller = Controller::connect(&other.client_address, 2).await;
    controller.submit(&other, 9, 1, "{}").await;
    controller.accepted(9).await;
    waits_without_place(&cluster, "guest").await;

    for (scheduler, create, deliver) in &running {
        invoker
            .complete(*scheduler, &key("guest", "guest/big"), deliver, 0)
            .await;
        removed(&mut invoker, *scheduler, create).await;
    }
    let (scheduler, create) = invoker.serve_create().await;
    assert_eq!(create.key, Some(key("guest", "guest/other")));
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/other"), &deliver, 1)
        .await;
    assert_eq!(controller.record(9).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_waited_to_its_deadline_gives_its_slot_back() {
    let mut config = no_retries();
    config.creation.deadline = std::time::Duration::from_millis(1600);
    let cluster = Cluster::start_with(config).await;
    cluster.put_action("guest/big", half()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let (_controller, running) = fill(&cluster, &mut invoker, "guest", 4).await;
    waits_without_place(&cluster, "guest").await;
    let (state, mut events) = cluster.members[&cluster.any()].node.subscribe();
    let unplaced = |row: &whiskraft_state::ContainerRecord| row.invoker.is_none();
    let (waiting, _) = state.containers().find(|(_, row)| unplaced(row)).unwrap();
    loop {
        let batch = soon("the slot is free", events.next()).await.unwrap();
        let is_gone = batch
            .events
            .iter()
            .any(|event| matches!(event, Event::Container { id, removed: true, .. } if *id == waiting));
        if is_gone {
            break;
        }
    }
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_with_less_than_its_share_gets_room_and_no_more_than_it_needs() {
    let cluster = Cluster::start_with(no_retries()).await;
    cluster.put_action("guest/big", half()).await;
    cluster.put_action("guest/rare", half()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let (_flood, running) = fill(&cluster, &mut invoker, "flood", 4).await;
    waits_without_place(&cluster, "flood").await;

    let rare = cluster.ensure(1, &key("rare", "guest/rare")).await.unwrap();
    let mut controller = Controller::connect(&rare.client_address, 2).await;
    controller.submit(&rare, 9, 1, "{}").await;
    controller.accepted(9).await;
    let (scheduler, create) = room_is_made(&mut invoker, &running).await;
    assert_eq!(create.key, Some(key("rare", "guest/rare")));
    invoker.run(scheduler, &create, 1).await;
    let (scheduler, deliver) = loop {
        let (scheduler, deliver) = invoker.next_deliver().await;
        if deliver.id[0] == 9 {
            break (scheduler, deliver);
        }
    };
    invoker
        .complete(scheduler, &key("rare", "guest/rare"), &deliver, 1)
        .await;
    assert_eq!(controller.record(9).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_containers_gets_a_place_of_its_own_namespace() {
    let cluster = Cluster::start_with(no_retries()).await;
    cluster.put_action("guest/big", half()).await;
    cluster.put_action("guest/other", half()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let (_flood, running) = fill(&cluster, &mut invoker, "guest", 6).await;
    waits_without_place(&cluster, "guest").await;

    let other = cluster.ensure(1, &key("guest", "guest/other")).await.unwrap();
    let controller = Controller::connect(&other.client_address, 2).await;
    controller.submit(&other, 9, 1, "{}").await;
    let (_, create) = room_is_made(&mut invoker, &running).await;
    assert_eq!(create.key, Some(key("guest", "guest/other")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_came_back_holds_no_memory_until_it_is_tried_again() {
    let mut config = config();
    config.creation.retry_pause = std::time::Duration::from_secs(5);
    // Longer than the pause, or it is not tried again.
    config.creation.deadline = std::time::Duration::from_secs(20);
    let cluster = Cluster::start_with(config).await;
    cluster.put_action("guest/big", half()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let big = cluster.ensure(1, &key("guest", "guest/big")).await.unwrap();
    let controller = Controller::connect(&big.client_address, 1).await;
    controller.submit(&big, 1, 1, "{}").await;
    let (scheduler, create) = invoker.next_create().await;
    let is_promised = |memory| move |state: &State| state.promised_on(InvokerId(7)) == memory;
    cluster
        .until("it has its place", is_promised(half().memory))
        .await;
    let failed = Change::Failed(v1::ContainerCreationFailed {
        error: v1::CreationError::Whisk.into(),
        message: "no luck".to_owned(),
    });
    invoker.report(scheduler, &create, failed).await;
    waits_without_place(&cluster, "guest").await;
    cluster
        .until("its memory is free", is_promised(ByteSize::ZERO))
        .await;
}

/// While nobody waits for memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_its_place_with_its_slot() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/big", half()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let big = cluster.ensure(1, &key("guest", "guest/big")).await.unwrap();
    let mut controller = Controller::connect(&big.client_address, 1).await;
    controller.submit(&big, 1, 1, "{}").await;
    // After its first container the leader certainly knows the invoker.
    let (scheduler, create) = invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/big"), &deliver, 0)
        .await;
    controller.record(1).await;
    removed(&mut invoker, scheduler, &create).await;
    cluster
        .until("it is gone", |state| state.containers_len() == 0)
        .await;

    let (_, mut events) = cluster.members[&cluster.any()].node.subscribe();
    controller.submit(&big, 2, 1, "{}").await;
    let place = loop {
        let batch = soon("a slot is granted", events.next()).await.unwrap();
        let granted = batch.events.iter().find_map(|event| match event {
            Event::Container {
                record, before: None, ..
            } => Some(record.invoker.map(|(invoker, _)| invoker)),
            _ => None,
        });
        if let Some(place) = granted {
            break place;
        }
    };
    assert_eq!(place, Some(InvokerId(7)));
    let (scheduler, create) = invoker.serve_create().await;
    assert_eq!(create.resume, None);
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/big"), &deliver, 1)
        .await;
    assert_eq!(controller.record(2).await.status(), v1::Status::Success);
}

/// A place was chosen for it all the same. That promises of a reservation end with it `creation::place` tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_container_continues_where_it_is_and_leaves_memory_for_one_more() {
    let cluster = Cluster::start_with(no_retries()).await;
    cluster.put_action("guest/big", half()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let big = cluster.ensure(1, &key("guest", "guest/big")).await.unwrap();
    let mut controller = Controller::connect(&big.client_address, 1).await;
    controller.submit(&big, 1, 1, "{}").await;
    let (scheduler, paused) = invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/big"), &deliver, 0)
        .await;
    controller.record(1).await;
    invoker
        .report(scheduler, &paused, Change::Warm(v1::ContainerWarm {}))
        .await;
    cluster
        .until("it is paused", |state| {
            state
                .containers()
                .any(|(_, row)| row.state == ContainerState::Warm)
        })
        .await;

    controller.submit(&big, 2, 1, "{}").await;
    let (_, resumed) = invoker.serve_create().await;
    assert_eq!(resumed.resume, paused.container);
    let (_, deliver) = invoker.next_deliver().await;
    invoker.started(scheduler, &deliver).await;
    // There is memory for one more, and for one more only.
    controller.submit(&big, 3, 1, "{}").await;
    let (_, second) = invoker.serve_create().await;
    assert_eq!(second.resume, None);
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/big"), &deliver, 0)
        .await;
    assert_eq!(controller.record(3).await.status(), v1::Status::Success);
}
