//! Containers: limits over queues, creations that fail, invokers that are lost.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeMap;

use common::controller::{Answer, Controller};
use common::invoker::{Invoker, Said};
use common::{Cluster, config, key, soon};
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_report::Change;
use whiskraft_state::{ContainerState, Event};
use whiskraft_types::{ActionLimits, CreationError, CreationErrorClass, InvokerId};

fn failed(error: v1::CreationError) -> Change {
    Change::Failed(v1::ContainerCreationFailed {
        error: error.into(),
        message: "it did not start".to_owned(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_queues_never_exceed_the_limit_of_their_namespace() {
    let cluster = Cluster::start().await;
    cluster.put_namespace("guest", 2).await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    cluster.put_action("guest/b", ActionLimits::default()).await;
    let (state, mut events) = cluster.members[&cluster.any()].node.subscribe();
    assert_eq!(state.containers_len(), 0);

    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let mut controllers = Vec::new();
    for (identity, action) in [(1, "guest/a"), (2, "guest/b")] {
        let leadership = cluster.ensure(1, &key("guest", action)).await.unwrap();
        let controller = Controller::connect(&leadership.client_address, identity).await;
        for number in 1..=20 {
            controller
                .submit(&leadership, 100 * identity + number, 1, "{}")
                .await;
        }
        controllers.push(controller);
    }
    let mut keys: BTreeMap<(u64, u64), Option<v1::QueueKey>> = BTreeMap::new();
    let name = |container: Option<v1::ContainerId>| container.map(|id| (id.session, id.seq)).unwrap();
    let mut done = 0;
    while done < 40 {
        match invoker.said().await {
            Said::Create(scheduler, create) => {
                keys.insert(name(create.container), create.key.clone());
                invoker.run(scheduler, &create, 1).await;
            }
            Said::Deliver(scheduler, deliver) => {
                let key = keys[&name(deliver.container)].clone().unwrap();
                invoker.complete(scheduler, &key, &deliver, 1).await;
                done += 1;
            }
            // The other queue has no container, so one that idles makes room.
            Said::Remove(scheduler, remove) => {
                let key = keys[&name(remove.container)].clone();
                let gone = v1::CreateContainer {
                    container: remove.container,
                    key,
                    ..Default::default()
                };
                let reason = "asked to".to_owned();
                invoker
                    .report(scheduler, &gone, Change::Removed(v1::ContainerRemoved { reason }))
                    .await;
            }
            _ => {}
        }
    }
    for controller in &mut controllers {
        let mut ended = 0;
        while ended < 20 {
            if let (_, Answer::Completed(record)) = controller.answer().await {
                assert_eq!(record.status(), v1::Status::Success);
                ended += 1;
            }
        }
    }

    // Every log revision of it, as the log says.
    let mut slots = BTreeMap::new();
    let mut most = 0;
    let last = cluster.read(|state| state.revision());
    while events.revision() < last {
        let Ok(batch) = soon("events", events.next()).await else {
            panic!("lagged")
        };
        for event in &batch.events {
            if let Event::Container {
                id, record, removed, ..
            } = event
            {
                match record.state {
                    ContainerState::InProgress | ContainerState::Running if !removed => slots.insert(*id, ()),
                    _ => slots.remove(id),
                };
            }
        }
        most = most.max(slots.len());
        assert!(
            slots.len() <= 2,
            "{} slots at revision {}",
            slots.len(),
            batch.revision
        );
    }
    assert_eq!(most, 2, "the limit was never used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_fails_is_tried_elsewhere_and_keeps_its_slot() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut invokers = [
        Invoker::start(7, &cluster.addresses()).await,
        Invoker::start(8, &cluster.addresses()).await,
    ];
    cluster
        .until("both invokers are healthy", |state| {
            state.invokers().filter(|(_, row)| row.healthy).count() == 2
        })
        .await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;

    let [first, second] = &mut invokers;
    let (at_first, scheduler, create) = tokio::select! {
        (scheduler, create) = first.next_create() => (true, scheduler, create),
        (scheduler, create) = second.next_create() => (false, scheduler, create),
    };
    let (failing, other) = if at_first {
        (first, second)
    } else {
        (second, first)
    };
    failing
        .report(scheduler, &create, failed(v1::CreationError::Whisk))
        .await;
    let (scheduler, again) = other.next_create().await;
    assert_eq!(again.container, create.container);
    // Late words of the one that failed, through every scheduler, are not about the container that is elsewhere now.
    for at in cluster.members.keys() {
        let reason = "late".to_owned();
        failing
            .report(*at, &create, failed(v1::CreationError::Whisk))
            .await;
        failing
            .report(*at, &create, Change::Running(v1::ContainerRunning {}))
            .await;
        failing
            .report(*at, &create, Change::Removed(v1::ContainerRemoved { reason }))
            .await;
    }
    failing.all_acked().await;
    other.run(scheduler, &again, 1).await;
    let (scheduler, deliver) = other.next_deliver().await;
    other
        .complete(scheduler, &key("guest", "guest/hello"), &deliver, 1)
        .await;
    assert_eq!(controller.record(1).await.invoker, Some(other.id));
}

/// With two retries the third refusal would be the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_is_refused_for_want_of_memory_waits_for_it() {
    let mut config = config();
    config.creation.retries_max = 2;
    let cluster = Cluster::start_with(config).await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;
    let (_, first) = invoker.next_create().await;
    let mut refused = first.clone();
    let mut on = 0;
    for _ in 0..4 {
        let at = leadership.leader;
        invoker
            .report(at, &refused, failed(v1::CreationError::ResourceNotEnough))
            .await;
        (on, refused) = invoker.next_create().await;
        assert_eq!(refused.container, first.container, "the creation goes on");
    }
    invoker.run(on, &refused, 1).await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/hello"), &deliver, 1)
        .await;
    assert_eq!(controller.record(1).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_fails_by_the_actions_fault_fails_its_activations() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;
    let (scheduler, create) = invoker.next_create().await;
    invoker
        .report(scheduler, &create, failed(v1::CreationError::NonExecutable))
        .await;
    let record = controller.record(1).await;
    assert_eq!(record.status(), v1::Status::DeveloperError);
    assert_eq!(&record.result[..], br#"{"error":"it did not start"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_without_answer_gives_its_slot_back() {
    let mut config = config();
    config.creation.deadline = std::time::Duration::from_millis(1600);
    let cluster = Cluster::start_with(config).await;
    cluster.put_namespace("guest", 1).await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;
    let (_, silent) = invoker.next_create().await;
    // With one slot in the namespace a second creation shows that the first one's slot is free again.
    let mut called_off = false;
    let (scheduler, create) = loop {
        match invoker.said().await {
            Said::Remove(_, remove) => {
                assert_eq!((remove.container, remove.now), (silent.container, true));
                called_off = true;
            }
            Said::Create(scheduler, create) => break (scheduler, create),
            _ => {}
        }
    };
    assert!(called_off, "the invoker was not told to stop");
    assert_ne!(create.container, silent.container);
    invoker.run(scheduler, &create, 1).await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/hello"), &deliver, 1)
        .await;
    assert_eq!(controller.record(1).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ran_on_a_lost_invoker_ends_with_a_typed_error_and_is_not_run_again() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut lost = Invoker::start(7, &cluster.addresses()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;
    lost.serve_create().await;
    let (scheduler, deliver) = lost.next_deliver().await;
    lost.started(scheduler, &deliver).await;
    let mut other = Invoker::start(8, &cluster.addresses()).await;
    drop(lost);

    let record = controller.record(1).await;
    assert_eq!(record.status(), v1::Status::WhiskError);
    let text = String::from_utf8_lossy(&record.result).into_owned();
    assert!(text.contains("may have started on invoker 7"), "{text}");
    assert!(cluster.read(|state| {
        state
            .containers_on(whiskraft_types::InvokerId(7))
            .next()
            .is_none()
    }));

    // The queue goes on, with a container elsewhere.
    controller.submit(&leadership, 2, 1, "{}").await;
    other.serve_create().await;
    let (scheduler, deliver) = other.next_deliver().await;
    assert_eq!(deliver.id[0], 2);
    other
        .complete(scheduler, &key("guest", "guest/hello"), &deliver, 1)
        .await;
    assert_eq!(controller.record(2).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_with_the_same_invoker_id_is_refused() {
    use common::invoker::request;
    use v1::open_invoker_session_response::Outcome;

    let cluster = Cluster::start().await;
    let first = Invoker::start(7, &cluster.addresses()).await;
    let mut client = v1::invoker_client::InvokerClient::new(cluster.channel(2).await);
    let outcome = client
        .open_session(request(7, 99))
        .await
        .unwrap()
        .into_inner()
        .outcome
        .unwrap();
    let Outcome::Rejection(rejection) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(matches!(rejection.kind, Some(v1::rejection::Kind::Conflict(_))));
    let again = client
        .open_session(request(7, 7))
        .await
        .unwrap()
        .into_inner()
        .outcome
        .unwrap();
    let Outcome::Opened(again) = again else {
        panic!("{again:?}")
    };
    assert_eq!((again.session, again.schedulers.len()), (first.session, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_container_makes_room_for_a_queue_that_has_none() {
    let cluster = Cluster::start().await;
    cluster.put_namespace("guest", 1).await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    cluster.put_action("guest/b", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let first = cluster.ensure(1, &key("guest", "guest/a")).await.unwrap();
    let mut controller = Controller::connect(&first.client_address, 1).await;
    controller.submit(&first, 1, 1, "{}").await;
    let (_, idle) = invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/a"), &deliver, 1)
        .await;
    controller.record(1).await;

    // The only slot is held by a container that waits for work, of a queue that another scheduler may lead.
    let second = cluster.ensure(1, &key("guest", "guest/b")).await.unwrap();
    let mut controller = Controller::connect(&second.client_address, 2).await;
    controller.submit(&second, 2, 1, "{}").await;
    let removal = loop {
        match invoker.said().await {
            Said::Remove(_, removal) => break removal,
            Said::Create(..) => panic!("a second container in a namespace of one"),
            _ => {}
        }
    };
    assert_eq!((removal.container, removal.now), (idle.container, false));
    let reason = "asked to".to_owned();
    invoker
        .report(
            first.leader,
            &idle,
            Change::Removed(v1::ContainerRemoved { reason }),
        )
        .await;
    invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/b"), &deliver, 1)
        .await;
    assert_eq!(controller.record(2).await.status(), v1::Status::Success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoker_that_leaves_gives_its_id_and_slots_back_at_once() {
    let cluster = Cluster::start().await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let mut controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;
    let (scheduler, create) = invoker.serve_create().await;
    let (_, deliver) = invoker.next_deliver().await;
    invoker
        .complete(scheduler, &key("guest", "guest/hello"), &deliver, 0)
        .await;
    assert_eq!(controller.record(1).await.status(), v1::Status::Success);
    assert!(create.container.is_some());
    let leaving = v1::ControlUp {
        leaving: Some(v1::Leaving {}),
        ..Default::default()
    };
    // Keepalives go on, so that nothing but the message can end the session.
    let home = cluster.any();
    invoker.control(home, leaving).await;
    while !matches!(invoker.said().await, Said::Expired) {}
    cluster
        .until("the invoker and its container are gone", |state| {
            state.invoker(InvokerId(7)).is_none() && state.containers_len() == 0
        })
        .await;
    // Another process gets the id without waiting for a time to live.
    Invoker::start(7, &cluster.addresses()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_failed_creation_is_tried_again_or_fails_at_once_by_its_class() {
    let mut config = config();
    config.creation.retry_pause = std::time::Duration::from_millis(10);
    let cluster = Cluster::start_with(config).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    for (number, error) in (1..).zip(CreationError::ALL) {
        let action = format!("guest/a{number}");
        cluster.put_action(&action, ActionLimits::default()).await;
        let leadership = cluster.ensure(1, &key("guest", &action)).await.unwrap();
        let mut controller = Controller::connect(&leadership.client_address, number).await;
        controller.submit(&leadership, number, 1, "{}").await;
        let (scheduler, create) = invoker.next_create().await;
        assert_eq!(create.key, Some(key("guest", &action)));
        invoker.report(scheduler, &create, failed(error.into())).await;
        if error.class() == CreationErrorClass::Whisk {
            let (scheduler, again) = invoker.next_create().await;
            assert_eq!(again.container, create.container, "{error:?}: the slot is kept");
            invoker.run(scheduler, &again, 1).await;
            let (scheduler, deliver) = invoker.next_deliver().await;
            invoker
                .complete(scheduler, &key("guest", &action), &deliver, 1)
                .await;
            assert_eq!(controller.record(number).await.status(), v1::Status::Success);
        } else {
            let record = controller.record(number).await;
            assert_eq!(record.status(), v1::Status::DeveloperError, "{error:?}");
            assert_eq!(&record.result[..], br#"{"error":"it did not start"}"#);
        }
    }
    cluster
        .until("nothing is left in progress", |state| {
            state
                .containers()
                .all(|(_, row)| row.state != ContainerState::InProgress)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_comes_after_it_was_given_up_is_told_to_go() {
    let mut config = config();
    config.creation.deadline = std::time::Duration::from_millis(1600);
    let cluster = Cluster::start_with(config).await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let controller = Controller::connect(&leadership.client_address, 1).await;
    controller.submit(&leadership, 1, 1, "{}").await;
    let (scheduler, late) = invoker.next_create().await;
    let id = whiskraft_types::ContainerId::from(late.container.unwrap());
    cluster
        .until_on(scheduler, "it is given up", |state| state.container(id).is_none())
        .await;
    // Late, and twice.
    invoker.run(scheduler, &late, 1).await;
    invoker.run(scheduler, &late, 1).await;
    loop {
        if let Said::Remove(_, removal) = invoker.said().await
            && removal.container == late.container
            && !removal.now
        {
            break;
        }
    }
    invoker.all_acked().await;
    assert!(
        cluster.read(|state| state.container(id).is_none()),
        "its slot stays free"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lowered_limit_is_reached_as_containers_finish() {
    let cluster = Cluster::start().await;
    cluster.put_namespace("guest", 3).await;
    cluster.put_action("guest/hello", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let leadership = cluster.ensure(1, &key("guest", "guest/hello")).await.unwrap();
    let controller = Controller::connect(&leadership.client_address, 1).await;
    for number in 1..=9 {
        controller.submit(&leadership, number, 1, "{}").await;
    }
    let mut running = BTreeMap::new();
    while running.len() < 3 {
        let (scheduler, create) = invoker.serve_create().await;
        let (_, deliver) = invoker.next_deliver().await;
        let id = whiskraft_types::ContainerId::from(create.container.unwrap());
        running.insert(id, (scheduler, create, deliver));
    }
    cluster
        .until_on(leadership.leader, "three containers run", |state| {
            state
                .containers()
                .filter(|(_, row)| row.state == ContainerState::Running)
                .count()
                == 3
        })
        .await;
    let newest = {
        let rows = cluster.read(|state| {
            let rows = state.containers().map(|(id, row)| (row.since, id));
            rows.collect::<std::collections::BTreeSet<_>>()
        });
        let newest = rows.into_iter().rev().take(2).map(|(_, id)| id);
        newest.collect::<std::collections::BTreeSet<_>>()
    };
    cluster.put_namespace("guest", 1).await;
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 2 {
        if let Said::Remove(_, removal) = invoker.said().await {
            assert!(!removal.now, "what runs is not killed");
            told.insert(whiskraft_types::ContainerId::from(removal.container.unwrap()));
        }
    }
    assert_eq!(told, newest);
    for id in &told {
        let (scheduler, create, deliver) = &running[id];
        invoker
            .complete(*scheduler, &key("guest", "guest/hello"), deliver, 0)
            .await;
        let reason = "asked to".to_owned();
        invoker
            .report(
                *scheduler,
                create,
                Change::Removed(v1::ContainerRemoved { reason }),
            )
            .await;
    }
    invoker.all_acked().await;
    cluster
        .until("one is left", |state| state.containers_len() == 1)
        .await;
    // A raised limit counts at once.
    cluster.put_namespace("guest", 2).await;
    invoker.next_create().await;
}

/// Goes on submitting, as callers who are refused do, until an invoker is told something that `pick` takes.
async fn until_told<T>(
    invoker: &mut Invoker,
    controller: &mut Controller,
    leadership: &v1::QueueLeadership,
    mut number: u8,
    pick: impl Fn(Said) -> Option<T>,
) -> T {
    controller.submit(leadership, number, 1, "{}").await;
    loop {
        tokio::select! {
            said = invoker.said() => if let Some(picked) = pick(said) {
                return picked;
            },
            (_, answer) = controller.answer() => if !matches!(answer, Answer::Accepted) {
                number += 1;
                controller.submit(leadership, number, 1, "{}").await;
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_at_work_makes_room_for_a_queue_that_has_none() {
    let cluster = Cluster::start().await;
    cluster.put_namespace("guest", 1).await;
    cluster.put_action("guest/a", ActionLimits::default()).await;
    cluster.put_action("guest/b", ActionLimits::default()).await;
    let mut invoker = Invoker::start(7, &cluster.addresses()).await;
    let first = cluster.ensure(1, &key("guest", "guest/a")).await.unwrap();
    let controller = Controller::connect(&first.client_address, 1).await;
    // It never runs out of work.
    controller.submit(&first, 1, 1, "{}").await;
    controller.submit(&first, 2, 1, "{}").await;
    let (_, busy) = invoker.serve_create().await;
    let (scheduler, deliver) = invoker.next_deliver().await;

    let second = cluster.ensure(1, &key("guest", "guest/b")).await.unwrap();
    let mut other = Controller::connect(&second.client_address, 2).await;
    let removal = until_told(&mut invoker, &mut other, &second, 3, |said| match said {
        Said::Remove(_, removal) => Some(removal),
        Said::Create(..) => panic!("a second container in a namespace of one"),
        _ => None,
    })
    .await;
    assert_eq!((removal.container, removal.now), (busy.container, false));
    invoker
        .complete(scheduler, &key("guest", "guest/a"), &deliver, 0)
        .await;
    let reason = "asked to".to_owned();
    let gone = Change::Removed(v1::ContainerRemoved { reason });
    invoker.report(first.leader, &busy, gone).await;
    // Both queues want the slot; the one that had none comes first.
    let create = until_told(&mut invoker, &mut other, &second, 103, |said| match said {
        Said::Create(_, create) => Some(create),
        _ => None,
    })
    .await;
    assert_eq!(create.key, Some(key("guest", "guest/b")));
}
