//! The session: opening, keepalives, fencing, expiry.

use std::time::Duration;

use whiskraft_invoker::backend::simulated::Behaviour;
use whiskraft_invoker::{OpenError, StartError, StopReason};
use whiskraft_proto::v1;
use whiskraft_types::InvokerId;

use crate::fake::{Cluster, INVOKER, Said, action, backend, id, text};

fn conflict() -> Option<v1::rejection::Kind> {
    Some(v1::rejection::Kind::Conflict(v1::Conflict {}))
}

#[tokio::test]
async fn id_that_another_process_holds_is_a_clear_error() {
    let cluster = Cluster::start(1).await;
    cluster.refuse_sessions(conflict());
    let started = cluster
        .invoker(&backend(Behaviour::default()), |config| {
            config.held_grace = Duration::ZERO
        })
        .await;
    assert_eq!(
        started.err(),
        Some(StartError::Session(OpenError::Held(InvokerId(INVOKER))))
    );
}

#[tokio::test]
async fn session_is_opened_when_the_earlier_process_is_gone() {
    let cluster = Cluster::start(1).await;
    cluster.refuse_sessions(conflict());
    let backend = backend(Behaviour::default());
    let earlier_process_ends = async {
        cluster.sessions_refused(2).await;
        cluster.refuse_sessions(None);
    };
    let (started, ()) = tokio::join!(cluster.invoker(&backend, |_| {}), earlier_process_ends);
    assert!(started.is_ok());
}

#[tokio::test]
async fn refused_profile_is_a_clear_error() {
    let cluster = Cluster::start(1).await;
    cluster.refuse_sessions(Some(v1::rejection::Kind::Invalid(v1::Invalid {
        reason: "too many tags".into(),
    })));
    let error = cluster
        .invoker(&backend(Behaviour::default()), |_| {})
        .await
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "schedulers refuse invoker 7: too many tags");
}

#[tokio::test]
async fn keepalives_go_to_one_scheduler_and_move_when_it_is_silent() {
    let mut cluster = Cluster::with_ttl(2, Duration::from_millis(400)).await;
    let _invoker = cluster
        .invoker(&backend(Behaviour::default()), |_| {})
        .await
        .unwrap();
    let session = cluster.session();
    let [first, second] = &mut cluster.schedulers[..] else {
        panic!("two schedulers")
    };
    first.connected(session).await;
    second.connected(session).await;
    let keepalive = |said: &Said| match said {
        Said::Keepalive(seq) => Some(*seq),
        _ => None,
    };
    let (home, other) = tokio::select! {
        _ = first.hear(keepalive) => (first, second),
        _ = second.hear(keepalive) => (second, first),
    };
    home.mute_keepalives(true);
    let seq = other.hear(keepalive).await;
    assert!(seq > 1);
    other
        .hear(|said| matches!(said, Said::Memory(memory) if memory.healthy).then_some(()))
        .await;
}

#[tokio::test]
async fn opening_gives_no_lease_and_the_first_keepalive_does() {
    let mut cluster = Cluster::start(1).await;
    cluster.mute_keepalives(true);
    let _invoker = cluster
        .invoker(&backend(Behaviour::default()), |_| {})
        .await
        .unwrap();
    let session = cluster.session();
    cluster.schedulers[0].connected(session).await;
    cluster.schedulers[0].create_from(1, 1, action());
    let failed = cluster.schedulers[0].failed(1).await;
    assert!(failed.message.contains("fenced"), "{}", failed.message);
    cluster.mute_keepalives(false);
    cluster.schedulers[0].create(2).await;
}

#[tokio::test]
async fn first_keepalive_leaves_with_the_first_link() {
    // Keepalives are 6 s apart.
    let mut cluster = Cluster::with_ttl(1, Duration::from_secs(60)).await;
    let _invoker = cluster
        .invoker(&backend(Behaviour::default()), |_| {})
        .await
        .unwrap();
    let session = cluster.session();
    let unfenced = async {
        cluster.schedulers[0].connected(session).await;
        cluster.schedulers[0].create(1).await;
    };
    tokio::time::timeout(Duration::from_secs(3), unfenced)
        .await
        .unwrap();
}

fn long_init() -> Behaviour {
    Behaviour {
        init: Duration::from_millis(1200),
        ..Behaviour::default()
    }
}

#[tokio::test]
async fn lease_that_ends_during_init_is_noticed_before_the_start() {
    let mut cluster = Cluster::with_ttl(1, Duration::from_millis(1000)).await;
    let backend = backend(long_init());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    cluster.schedulers[0].connected(session).await;
    cluster.schedulers[0].create(1).await;
    cluster.mute_keepalives(true);
    cluster.schedulers[0].deliver(1, 1, 1);
    let reason = cluster.schedulers[0].refused(1).await;
    assert!(reason.contains("between init and start"), "{reason}");
    assert!(backend.started().is_empty());
}

#[tokio::test]
async fn init_may_outlast_the_lease_it_began_under_while_keepalives_are_answered() {
    let mut cluster = Cluster::with_ttl(1, Duration::from_millis(1000)).await;
    let backend = backend(long_init());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let scheduler = &mut cluster.schedulers[0];
    scheduler.connected(session).await;
    scheduler.create(1).await;
    scheduler.deliver(1, 1, 1);
    scheduler.completed(1).await;
}

#[tokio::test]
async fn fenced_invoker_starts_nothing_and_comes_back() {
    let mut cluster = Cluster::with_ttl(1, Duration::from_millis(800)).await;
    let backend = backend(Behaviour {
        run: Duration::from_millis(900),
        ..Behaviour::default()
    });
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    cluster.schedulers[0].connected(session).await;
    cluster.schedulers[0].create(1).await;
    cluster.schedulers[0].create(2).await;
    cluster.schedulers[0].create(3).await;
    cluster.schedulers[0].deliver(1, 1, 1);
    cluster.schedulers[0].started(1).await;
    cluster.mute_keepalives(true);
    backend.set_behaviour(Behaviour::default());
    let scheduler = &mut cluster.schedulers[0];
    // Activations run until the lease ends. The last of them may finish after that, unheard.
    for number in (2..=240).cycle() {
        scheduler.deliver(number, 2, 1);
        let mut keepalives = 0;
        let ran = scheduler
            .hear(|said| match said {
                Said::Refused(_) => Some(false),
                Said::Completed(completed) => {
                    (completed.record.as_ref().unwrap().id == id(number)).then_some(true)
                }
                Said::Keepalive(_) => {
                    keepalives += 1;
                    (keepalives > 10).then_some(false)
                }
                _ => None,
            })
            .await;
        if !ran {
            break;
        }
        scheduler.ack_result(number);
    }
    scheduler.deliver(250, 3, 1);
    let reason = scheduler.refused(250).await;
    assert!(reason.contains("fenced"), "{reason}");
    assert!(!backend.started().contains(&text(250)));

    cluster.mute_keepalives(false);
    let scheduler = &mut cluster.schedulers[0];
    scheduler.completed(1).await;
    scheduler.credit(3).await;
    scheduler.deliver(251, 3, 1);
    scheduler.completed(251).await;
}

#[tokio::test]
async fn expired_session_takes_all_containers_and_the_next_one_starts_afresh() {
    let mut cluster = Cluster::start(2).await;
    let backend = backend(Behaviour {
        run: Duration::from_secs(50),
        ..Behaviour::default()
    });
    let change =
        |config: &mut whiskraft_invoker::InvokerConfig| config.held_grace = Duration::from_millis(100);
    let invoker = cluster.invoker(&backend, change).await.unwrap();
    let first = cluster.session();
    cluster.schedulers[0].connected(first).await;
    cluster.schedulers[1].connected(first).await;
    cluster.schedulers[0].create(1).await;
    cluster.schedulers[0].deliver(1, 1, 1);
    cluster.schedulers[0].started(1).await;

    cluster.expire();
    cluster.schedulers[0].connected(first + 1).await;
    cluster.schedulers[1].connected(first + 1).await;
    assert!(
        backend.live().is_empty(),
        "nothing of the old session is left when the new one is used"
    );
    backend.set_behaviour(Behaviour::default());
    let scheduler = &mut cluster.schedulers[0];
    scheduler.create(2).await;
    scheduler.deliver(2, 2, 1);
    scheduler.completed(2).await;

    // Gone for good: another process took the id meanwhile.
    cluster.refuse_sessions(conflict());
    cluster.expire();
    let stopped = tokio::time::timeout(Duration::from_secs(60), invoker.stopped())
        .await
        .unwrap();
    assert_eq!(
        stopped,
        StopReason::NoSession(OpenError::Held(InvokerId(INVOKER)))
    );
}

#[tokio::test]
async fn expiry_that_happened_while_disconnected_is_learned_from_the_hello() {
    let mut cluster = Cluster::start(1).await;
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let first = cluster.session();
    cluster.schedulers[0].connected(first).await;
    cluster.schedulers[0].create(1).await;
    cluster.schedulers[0].hang_up();
    cluster.expire();
    cluster.schedulers[0].connected(first + 1).await;
    assert!(backend.live().is_empty());
}

#[tokio::test]
async fn an_idle_invoker_joins_the_cluster_that_was_put_in_the_place_of_its_own() {
    let mut cluster = Cluster::with_ttl(1, Duration::from_millis(500)).await;
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let first = cluster.session();
    cluster.schedulers[0].connected(first).await;
    cluster.schedulers[0].create(1).await;
    cluster.become_another();
    cluster.schedulers[0].connected(first + 1001).await;
    assert!(backend.live().is_empty(), "nothing of the old cluster is left");
}

#[tokio::test]
async fn one_with_results_of_its_own_cluster_does_not() {
    let mut cluster = Cluster::with_ttl(2, Duration::from_millis(500)).await;
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let first = cluster.session();
    cluster.schedulers[0].connected(first).await;
    cluster.schedulers[0].create(1).await;
    cluster.schedulers[0].deliver(1, 1, 1);
    // Nobody confirms it.
    cluster.schedulers[0].completed(1).await;
    cluster.become_another();
    // Refused by both, several times each, and long past its lease.
    cluster.hellos_refused(12).await;
    assert_eq!(cluster.session(), first + 1000, "it opened no session");
    assert_eq!(backend.live().len(), 1);
}

/// Forwards connections to `to` until it is frozen; then nothing passes, and nobody is told.
async fn freezable_proxy(to: String, frozen: tokio::sync::watch::Receiver<bool>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, mut frozen) = (to.clone(), frozen.clone());
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                    _ = frozen.wait_for(|frozen| *frozen) => {}
                }
                // Holds both connections open.
                std::future::pending::<()>().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn silent_scheduler_is_noticed_in_time_to_keep_the_lease() {
    let mut cluster = Cluster::start(2).await;
    let (freeze, frozen) = tokio::sync::watch::channel(false);
    let mut first = cluster.forget_member(1);
    first.client_address = freezable_proxy(first.client_address, frozen).await;
    cluster.add_member(first);
    let backend = backend(Behaviour::default());
    let _invoker = cluster.invoker(&backend, |_| {}).await.unwrap();
    let session = cluster.session();
    let [first, second] = &mut cluster.schedulers[..] else {
        panic!("two schedulers")
    };
    first.connected(session).await;
    second.connected(session).await;
    let keepalive = |said: &Said| match said {
        Said::Keepalive(seq) => Some(*seq),
        _ => None,
    };
    // A home that does not answer is left for the other one, so that the first one is home.
    second.mute_keepalives(true);
    while first.hear(keepalive).await < 5 {}
    second.mute_keepalives(false);
    second.create(1).await;
    freeze.send_replace(true);
    // The session lives for 2 s; the other scheduler gets a keepalive long before that.
    let moved = second.hear(|said| keepalive(said).filter(|seq| *seq > 5));
    tokio::time::timeout(Duration::from_millis(1500), moved)
        .await
        .unwrap();
    second.deliver(1, 1, 1);
    second.completed(1).await;
}
