//! What goes wrong on the host, and the shutdown.

use std::time::Duration;

use whiskraft_invoker::backend::simulated::Behaviour;
use whiskraft_invoker::{InvokerConfig, StopReason};
use whiskraft_proto::v1;

use crate::fake::{Said, action, container, serving};

#[tokio::test]
async fn failed_creation_is_told_with_its_kind() {
    let (mut cluster, _backend, _invoker) = serving(
        Behaviour {
            fail_create: true,
            ..Behaviour::default()
        },
        |_| {},
    )
    .await;
    let scheduler = &mut cluster.schedulers[0];
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
    let (mut cluster, backend, _invoker) = serving(
        Behaviour {
            give_back: true,
            ..Behaviour::default()
        },
        |_| {},
    )
    .await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.running(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.refused(1).await;
    scheduler.removed(1).await;
    assert!(backend.live().is_empty());
}

#[tokio::test]
async fn failed_init_ends_the_activation_and_the_container() {
    let (mut cluster, _backend, _invoker) = serving(
        Behaviour {
            fail_init: true,
            ..Behaviour::default()
        },
        |_| {},
    )
    .await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.running(1).await;
    scheduler.deliver(1, 1, 1);
    let completed = scheduler.completed(1).await;
    assert_eq!((completed.credits, completed.run_us), (0, 0), "it never ran");
    let record = completed.record.unwrap();
    assert_eq!(record.status(), v1::Status::DeveloperError);
    assert!(record.init_ms.is_some());
    // Until the result is acknowledged, a new leader has to find this invoker in the containers table.
    scheduler.ack_result(1);
    scheduler.removed(1).await;
}

#[tokio::test]
async fn death_of_an_idle_container_is_noticed() {
    let (mut cluster, backend, _invoker) = serving(Behaviour::default(), |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.running(1).await;
    backend.kill(backend.live()[0]).await;
    scheduler.removed(1).await;
    assert!(backend.live().is_empty());
}

#[tokio::test]
async fn container_removed_at_once_ends_what_runs_in_it() {
    let (mut cluster, _backend, _invoker) = serving(
        Behaviour {
            run: Duration::from_secs(50),
            ..Behaviour::default()
        },
        |_| {},
    )
    .await;
    let scheduler = &mut cluster.schedulers[0];
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
    let change = |config: &mut InvokerConfig| config.report_repeat = Duration::from_millis(50);
    let (mut cluster, _backend, _invoker) = serving(Behaviour::default(), change).await;
    let scheduler = &mut cluster.schedulers[0];
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
    let (mut cluster, backend, invoker) = serving(
        Behaviour {
            run: Duration::from_millis(200),
            ..Behaviour::default()
        },
        |_| {},
    )
    .await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.create(2).await;
    scheduler.deliver(1, 1, 1);
    scheduler.started(1).await;
    let stopping = tokio::spawn(invoker.shutdown());
    // The idle container goes first, which shows that the shutdown has begun.
    scheduler
        .hear(|said| matches!(said, Said::Withdraw(w) if w.container == Some(container(2))).then_some(()))
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
    let (mut cluster, _backend, invoker) = serving(
        Behaviour {
            run: Duration::from_secs(50),
            ..Behaviour::default()
        },
        |config| config.shutdown_grace = Duration::from_millis(50),
    )
    .await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.started(1).await;
    let stopping = tokio::spawn(invoker.shutdown());
    let record = scheduler.completed(1).await.record.unwrap();
    assert_ne!(record.status(), v1::Status::Success);
    scheduler.ack_result(1);
    assert_eq!(stopping.await.unwrap(), StopReason::Shutdown);
}

#[tokio::test]
async fn shutdown_ends_the_session_when_everything_is_said() {
    let (mut cluster, _backend, invoker) = serving(Behaviour::default(), |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    let stopping = tokio::spawn(invoker.shutdown());
    scheduler.removed(1).await;
    // Its id is free when it has stopped: a new process needs no patience.
    let reason = tokio::time::timeout(Duration::from_millis(900), stopping).await;
    assert_eq!(reason.expect("at once").unwrap(), StopReason::Shutdown);
    scheduler
        .hear(|said| matches!(said, Said::Leaving).then_some(()))
        .await;
}

#[tokio::test]
async fn shutdown_ends_although_nobody_ends_the_session() {
    let (mut cluster, _backend, invoker) = serving(Behaviour::default(), |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.mute_leaving(true);
    let stopping = tokio::spawn(invoker.shutdown());
    scheduler
        .hear(|said| matches!(said, Said::Leaving).then_some(()))
        .await;
    assert_eq!(stopping.await.unwrap(), StopReason::Shutdown);
}

#[tokio::test]
async fn length_of_a_run_is_told_in_microseconds() {
    let (mut cluster, _backend, _invoker) = serving(Behaviour::default(), |_| {}).await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.deliver_payload(1, 1, 1, br#"{"sleep_ms": 2.5}"#);
    let completed = scheduler.completed(1).await;
    assert!(completed.run_us >= 2_500, "{}", completed.run_us);
}

#[tokio::test]
async fn metrics_and_health_are_served_where_asked_for() {
    let (mut cluster, _backend, invoker) = serving(Behaviour::default(), |config| {
        config.metrics_listen = Some("127.0.0.1:0".to_owned());
    })
    .await;
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.completed(1).await;
    let address = invoker.metrics_address().unwrap();
    let (status, text) = http_get(address, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"whiskraft_invoker_creations_total{error="",outcome="created"} 1"#,
        r#"whiskraft_invoker_activations_total{status="success"} 1"#,
        r#"whiskraft_invoker_containers{state="ready"} 1"#,
        "whiskraft_invoker_results_kept 1",
        "whiskraft_invoker_connected_schedulers 1",
    ] {
        assert!(
            text.lines().any(|found| found.trim() == line),
            "{line} is not in\n{text}"
        );
    }
    assert_eq!(http_get(address, "/healthz").await.0, 200);
    assert_eq!(http_get(address, "/ping").await.0, 200);
    assert_eq!(http_get(address, "/").await.0, 404);
    // An activation that still runs keeps it draining, and not healthy.
    scheduler.deliver_payload(2, 1, 1, br#"{"sleep_ms": 50000}"#);
    scheduler.started(2).await;
    let draining = tokio::spawn(invoker.shutdown());
    while http_get(address, "/healthz").await.0 != 503 {
        tokio::task::yield_now().await;
    }
    draining.abort();
}

/// Status and whole text of an answer.
async fn http_get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}
