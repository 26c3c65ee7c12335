//! Containers, deliveries, results, changes of leader.

use std::time::Duration;

use sha2::{Digest, Sha256};
use whiskraft_invoker::backend::simulated::Behaviour;
use whiskraft_proto::v1;

use crate::fake::{Cluster, INVOKER, Said, action, backend, container, id, key, text};

#[tokio::test]
async fn delivered_activation_runs_and_its_record_comes_back() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour {
        init: Duration::from_millis(5),
        ..Behaviour::default()
    });
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;

    let action = v1::Action {
        parameters: [("greeting".to_owned(), "\"hi\"".to_owned())].into(),
        ..action()
    };
    scheduler.create_from(1, 1, action);
    scheduler.running(1).await;
    let credit = scheduler.credit(1).await;
    assert_eq!(
        (credit.count, credit.warmed, credit.epoch, credit.key),
        (1, false, 1, Some(key()))
    );

    scheduler.deliver_payload(1, 1, 1, br#"{"name":"you"}"#);
    let completed = scheduler.completed(1).await;
    let record = completed.record.unwrap();
    assert_eq!(
        (completed.container, completed.epoch, completed.credits),
        (Some(container(1)), 1, 1)
    );
    assert_eq!(record.status(), v1::Status::Success);
    assert_eq!(record.result, r#"{"greeting":"hi","name":"you"}"#);
    assert_eq!(
        (record.invoker, record.container),
        (Some(INVOKER), Some(container(1)))
    );
    assert!(record.init_ms.is_some() && record.wait_ms >= 1000, "{record:?}");

    scheduler.deliver(2, 1, 1);
    let record = scheduler.completed(2).await.record.unwrap();
    assert_eq!(record.init_ms, None, "the code is loaded once");
}

#[tokio::test]
async fn code_is_fetched_once_and_checked() {
    let mut cluster = Cluster::start(2).await;
    let code = b"main() { echo; }";
    let hash = Sha256::digest(code).to_vec();
    cluster.put_blob(&hash, code);
    cluster.put_blob(&[9; 32], b"not what was asked for");
    let _invoker = cluster
        .invoker(&backend(Behaviour::default()), |_| {})
        .await
        .unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;

    for seq in 1..=3 {
        scheduler.create_from(
            seq,
            1,
            v1::Action {
                code_sha256: hash.clone().into(),
                ..action()
            },
        );
    }
    for seq in 1..=3 {
        scheduler.running(seq).await;
    }
    assert_eq!(
        cluster.blob_reads(),
        1,
        "whoever wants it too waits for the first fetch"
    );

    let scheduler = &mut cluster.schedulers[0];
    for (seq, hash) in [(4, [8; 32]), (5, [9; 32])] {
        scheduler.create_from(
            seq,
            1,
            v1::Action {
                code_sha256: hash.to_vec().into(),
                ..action()
            },
        );
        let failed = scheduler.failed(seq).await;
        assert_eq!(failed.error(), v1::CreationError::Fetch, "{failed:?}");
    }
}

#[tokio::test]
async fn repeated_delivery_is_answered_from_memory() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    let first = scheduler.completed(1).await.record;
    scheduler.deliver(1, 1, 1);
    assert_eq!(scheduler.completed(1).await.record, first);
    assert_eq!(backend.started(), [text(1)]);
}

#[tokio::test]
async fn new_leader_gets_what_is_in_flight_and_what_is_unacknowledged() {
    let mut cluster = Cluster::start(2).await;
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let [old, new] = &mut cluster.schedulers[..] else {
        panic!("two schedulers")
    };
    old.connected(session).await;
    new.connected(session).await;
    old.create(1).await;
    old.create(2).await;
    old.deliver(1, 1, 1);
    old.completed(1).await;
    old.deliver(2, 1, 1);
    old.completed(2).await;
    old.ack_result(1);
    backend.set_behaviour(Behaviour {
        run: Duration::from_millis(300),
        ..Behaviour::default()
    });
    old.deliver(3, 2, 1);
    old.started(3).await;

    new.reregister(2);
    let register = new.register(2).await;
    let unacknowledged: Vec<_> = register
        .unacknowledged
        .iter()
        .map(|record| record.id.clone())
        .collect();
    assert_eq!(unacknowledged, [id(2)]);
    let told: Vec<_> = register
        .containers
        .iter()
        .map(|told| (told.container, told.in_flight.clone(), told.credits, told.warmed))
        .collect();
    let expected = [
        (Some(container(1)), vec![], 1, true),
        (Some(container(2)), vec![id(3)], 0, told[1].3),
    ];
    assert_eq!(told, expected);

    // The old leader does not know yet: its deliveries are refused, unstarted.
    old.deliver(4, 1, 1);
    old.refused(4).await;
    let completed = new.completed(3).await;
    assert_eq!((completed.epoch, completed.credits), (2, 1));
    new.deliver(5, 1, 2);
    new.completed(5).await;
    assert_eq!(backend.started(), [text(1), text(2), text(3), text(5)]);
}

#[tokio::test]
async fn reopened_stream_begins_with_everything_there_is() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.completed(1).await;
    scheduler.hang_up();
    scheduler.connected(session).await;
    let register = scheduler.register(1).await;
    assert_eq!(register.containers[0].credits, 1);
    assert_eq!(register.unacknowledged[0].id, id(1));
    scheduler.ack_result(1);
    scheduler.deliver(2, 1, 1);
    scheduler.completed(2).await;
    scheduler.hang_up();
    scheduler.connected(session).await;
    let unacknowledged = scheduler.register(1).await.unacknowledged;
    assert_eq!(
        unacknowledged
            .iter()
            .map(|record| record.id.clone())
            .collect::<Vec<_>>(),
        [id(2)]
    );
}

#[tokio::test]
async fn idle_container_is_paused_and_resumed_under_its_new_id() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour::default());
    let change = |config: &mut whiskraft_invoker::InvokerConfig| {
        config.pool.pause_grace = Duration::from_millis(50);
    };
    let _invoker = cluster.invoker(&backend, change).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.completed(1).await;
    scheduler.running(1).await;
    scheduler
        .hear(|said| {
            matches!(said, Said::Withdraw(withdraw) if withdraw.container == Some(container(1))).then_some(())
        })
        .await;
    let withdraw_acks = vec![v1::WithdrawAck {
        container: Some(container(1)),
    }];
    scheduler.pull(v1::PullDown {
        withdraw_acks,
        ..Default::default()
    });
    scheduler.warm(1).await;

    let create = v1::CreateContainer {
        container: Some(container(2)),
        key: Some(key()),
        epoch: 1,
        leader: 1,
        revision: 3,
        action: Some(action()),
        resume: Some(container(1)),
        deadline_ms: 20_000,
        evict_first: Vec::new(),
    };
    scheduler.control(v1::ControlDown {
        create: vec![create],
        ..Default::default()
    });
    assert!(scheduler.credit(2).await.warmed);
    scheduler.deliver(2, 2, 1);
    let completed = scheduler.completed(2).await;
    assert_eq!(completed.record.unwrap().container, Some(container(2)));
    assert_eq!(backend.created(), 1);
}

#[tokio::test]
async fn scheduler_that_joined_later_is_found_when_it_is_named() {
    let mut cluster = Cluster::start(2).await;
    let second = cluster.forget_member(2);
    let _invoker = cluster
        .invoker(&backend(Behaviour::default()), |_| {})
        .await
        .unwrap();
    let session = cluster.session();
    cluster.schedulers[0].connected(session).await;
    cluster.add_member(second);
    let create = v1::CreateContainer {
        container: Some(container(1)),
        key: Some(key()),
        epoch: 1,
        leader: 2,
        revision: 3,
        action: Some(action()),
        resume: None,
        deadline_ms: 20_000,
        evict_first: Vec::new(),
    };
    cluster.schedulers[0].control(v1::ControlDown {
        create: vec![create],
        ..Default::default()
    });
    cluster.schedulers[1].connected(session).await;
    assert_eq!(cluster.schedulers[1].register(1).await.containers[0].credits, 1);
}
