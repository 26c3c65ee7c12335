//! What goes wrong on the host, and the shutdown.

use std::time::Duration;

use whiskraft_invoker::backend::simulated::Behaviour;
use whiskraft_invoker::{InvokerConfig, StopReason};
use whiskraft_proto::v1;

use crate::fake::{Cluster, action, backend, container};

#[tokio::test]
async fn failed_creation_is_told_with_its_kind() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour {
        fail_create: true,
        ..Behaviour::default()
    });
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create_from(1, 1, action());
    assert_eq!(scheduler.failed(1).await.error(), v1::CreationError::Whisk);
    scheduler.create_from(
        2,
        1,
        v1::Action {
            code_sha256: vec![1, 2].into(),
            ..action()
        },
    );
    assert_eq!(
        scheduler.failed(2).await.error(),
        v1::CreationError::NonExecutable
    );
    let limits = Some(v1::ActionLimits {
        memory_bytes: 2 << 30,
        ..action().limits.unwrap()
    });
    scheduler.create_from(3, 1, v1::Action { limits, ..action() });
    assert_eq!(
        scheduler.failed(3).await.error(),
        v1::CreationError::ResourceNotEnough
    );
}

#[tokio::test]
async fn given_back_activation_is_refused_and_its_container_goes() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour {
        give_back: true,
        ..Behaviour::default()
    });
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.running(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.refused(1).await;
    scheduler.removed(1).await;
    assert!(backend.live().is_empty());
}

#[tokio::test]
async fn failed_init_ends_the_activation_and_the_container() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour {
        fail_init: true,
        ..Behaviour::default()
    });
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.running(1).await;
    scheduler.deliver(1, 1, 1);
    let completed = scheduler.completed(1).await;
    assert_eq!(completed.credits, 0);
    let record = completed.record.unwrap();
    assert_eq!(record.status(), v1::Status::DeveloperError);
    assert!(record.init_ms.is_some());
    // Until the result is acknowledged, a new leader has to find this invoker in the containers table.
    scheduler.ack_result(1);
    scheduler.removed(1).await;
}

#[tokio::test]
async fn death_of_an_idle_container_is_noticed() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.running(1).await;
    backend.kill(backend.live()[0]).await;
    scheduler.removed(1).await;
    assert!(backend.live().is_empty());
}

#[tokio::test]
async fn container_removed_at_once_ends_what_runs_in_it() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour {
        run: Duration::from_secs(50),
        ..Behaviour::default()
    });
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.running(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.started(1).await;
    let remove = vec![v1::RemoveContainer {
        container: Some(container(1)),
        now: true,
    }];
    scheduler.control(v1::ControlDown {
        remove,
        ..Default::default()
    });
    let status = scheduler.completed(1).await.record.unwrap().status();
    assert_ne!(status, v1::Status::Success);
    scheduler.ack_result(1);
    scheduler.removed(1).await;
}

#[tokio::test]
async fn reports_are_repeated_until_acknowledged() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour::default());
    let change = |config: &mut InvokerConfig| config.report_repeat = Duration::from_millis(50);
    let _invoker = cluster.invoker(&backend, change).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.mute_reports(true);
    scheduler.create_from(1, 1, action());
    for _ in 0..3 {
        scheduler.running(1).await;
    }
    // What happens meanwhile waits for its turn.
    let remove = vec![v1::RemoveContainer {
        container: Some(container(1)),
        now: true,
    }];
    scheduler.control(v1::ControlDown {
        remove,
        ..Default::default()
    });
    scheduler.running(1).await;
    scheduler.mute_reports(false);
    scheduler.removed(1).await;
}

#[tokio::test]
async fn shutdown_lets_running_work_finish_and_refuses_the_rest() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour {
        run: Duration::from_millis(200),
        ..Behaviour::default()
    });
    let invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.create(2).await;
    scheduler.deliver(1, 1, 1);
    scheduler.started(1).await;
    let stopping = tokio::spawn(invoker.shutdown());
    // The idle container goes first, which shows that the shutdown has begun.
    scheduler
        .hear(|said| {
            matches!(said, crate::fake::Said::Withdraw(w) if w.container == Some(container(2))).then_some(())
        })
        .await;
    scheduler.deliver(2, 2, 1);
    scheduler.refused(2).await;
    let completed = scheduler.completed(1).await;
    assert_eq!(
        (completed.record.unwrap().status(), completed.credits),
        (v1::Status::Success, 0)
    );
    scheduler.ack_result(1);
    assert_eq!(stopping.await.unwrap(), StopReason::Shutdown);
    assert!(backend.live().is_empty());
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_its_grace() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour {
        run: Duration::from_secs(50),
        ..Behaviour::default()
    });
    let invoker = cluster
        .invoker(&backend, |config| {
            config.shutdown_grace = Duration::from_millis(50)
        })
        .await
        .unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.started(1).await;
    let stopping = tokio::spawn(invoker.shutdown());
    let record = scheduler.completed(1).await.record.unwrap();
    assert_ne!(record.status(), v1::Status::Success);
    scheduler.ack_result(1);
    assert_eq!(stopping.await.unwrap(), StopReason::Shutdown);
}
