//! Each fault does what it says, and chance repeats itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use whiskraft_types::ActivationStatus;

use super::*;
use crate::backend::clock;
use crate::backend::simulated::{Behaviour, SimulatedBackend};
use crate::backend::spec::Context;

const MINUTE: Duration = Duration::from_secs(60);

fn faulty(faults: Faults) -> (Arc<SimulatedBackend>, Arc<dyn Backend>) {
    let inner = SimulatedBackend::new(Behaviour::default(), None);
    (Arc::clone(&inner), FaultyBackend::wrap(inner, faults))
}

fn spec() -> ContainerSpec {
    ContainerSpec {
        name: "s".to_owned(),
        kind: "any".to_owned(),
        memory: ByteSize::mib(128),
        concurrency: 1,
        environment: BTreeMap::new(),
    }
}

fn run(payload: &'static str, timeout: Duration) -> RunRequest {
    RunRequest {
        payload: Bytes::from_static(payload.as_bytes()),
        run: 1,
        context: Context::default(),
        timeout,
        logs_max: ByteSize::ZERO,
    }
}

async fn ended(backend: &dyn Backend, payload: &'static str, timeout: Duration) -> Ended {
    let instance = backend.create(spec()).await.unwrap();
    match backend.run(instance, run(payload, timeout)).await {
        RunOutcome::Ended(ended) => ended,
        RunOutcome::GiveBack(back) => panic!("given back: {back:?}"),
    }
}

#[test]
fn a_backend_without_faults_is_not_wrapped() {
    let (inner, backend) = faulty(Faults {
        seed: 7,
        ack_delay: MINUTE,
        ..Faults::default()
    });
    let inner: Arc<dyn Backend> = inner;
    assert!(Arc::ptr_eq(&inner, &backend));
}

#[tokio::test]
async fn slow_runs_last_longer_and_say_so() {
    let (_, backend) = faulty(Faults {
        slow_factor: 4.0,
        ..Faults::default()
    });
    let start = clock::now();
    let ended = ended(&*backend, r#"{"sleep_ms": 5}"#, MINUTE).await;
    assert_eq!(ended.status, ActivationStatus::Success);
    assert!(ended.took >= Duration::from_millis(20), "{:?}", ended.took);
    assert!(start.elapsed() >= ended.took);
}

#[tokio::test]
async fn a_slow_run_still_has_its_time_limit() {
    let (_, backend) = faulty(Faults {
        slow_factor: 1000.0,
        ..Faults::default()
    });
    let limit = Duration::from_millis(10);
    let ended = ended(&*backend, r#"{"sleep_ms": 1}"#, limit).await;
    assert!(ended.timed_out && !ended.is_reusable());
    assert_eq!(ended.took, limit);
}

#[tokio::test]
async fn a_swallowed_activation_is_never_answered() {
    let (inner, backend) = faulty(Faults {
        silent: Share::ALL,
        ..Faults::default()
    });
    let instance = backend.create(spec()).await.unwrap();
    let mut swallowed = backend.run(instance, run("{}", Duration::from_millis(1)));
    assert!((&mut swallowed).now_or_never().is_none());
    let past_the_limit = tokio::time::timeout(Duration::from_millis(20), swallowed).await;
    assert!(past_the_limit.is_err() && inner.started().is_empty());
}

#[tokio::test]
async fn failing_creations_say_what_they_were_told_to() {
    let (inner, backend) = faulty(Faults {
        create_failures: Share::ALL,
        create_failure: CreationError::BlackBox,
        create_delay: Duration::from_millis(5),
        ..Faults::default()
    });
    let start = clock::now();
    let failed = backend.create(spec()).await.unwrap_err();
    assert_eq!((failed.error, inner.created()), (CreationError::BlackBox, 0));
    assert!(
        start.elapsed() >= Duration::from_millis(5),
        "failures are slow too"
    );
}

#[tokio::test]
async fn memory_that_is_not_there_is_refused_until_a_container_goes() {
    let (inner, backend) = faulty(Faults {
        true_memory: Some(ByteSize::mib(256)),
        ..Faults::default()
    });
    let first = backend.create(spec()).await.unwrap();
    backend.create(spec()).await.unwrap();
    let refused = backend.create(spec()).await.unwrap_err();
    assert_eq!(refused.error, CreationError::ResourceNotEnough);
    backend.remove(first).await;
    backend.remove(first).await;
    backend.create(spec()).await.unwrap();
    assert!(backend.create(spec()).await.is_err());
    assert_eq!(inner.live().len(), 2);
}

#[tokio::test]
async fn a_creation_that_failed_inside_takes_no_memory() {
    let (inner, backend) = faulty(Faults {
        true_memory: Some(ByteSize::mib(128)),
        ..Faults::default()
    });
    let broken = |fail_create| Behaviour {
        fail_create,
        ..Behaviour::default()
    };
    inner.set_behaviour(broken(true));
    assert!(backend.create(spec()).await.is_err());
    inner.set_behaviour(broken(false));
    assert!(backend.create(spec()).await.is_ok());
}

#[tokio::test]
async fn a_late_answer_is_about_a_container_that_exists() {
    let (inner, backend) = faulty(Faults {
        ack_losses: Share::ALL,
        ack_delay: MINUTE,
        ..Faults::default()
    });
    let creation = tokio::time::timeout(Duration::from_millis(20), backend.create(spec())).await;
    assert!(creation.is_err(), "the answer is late");
    assert_eq!(inner.live().len(), 1, "only the answer is late");
}

#[tokio::test]
async fn same_seed_same_fate() {
    let fates = async |seed| {
        let (_, backend) = faulty(Faults {
            seed,
            create_failures: Share::new(0.5).unwrap(),
            ..Faults::default()
        });
        let mut fates = Vec::new();
        for _ in 0..64 {
            fates.push(backend.create(spec()).await.is_ok());
        }
        fates
    };
    let one = fates(1).await;
    assert_eq!(one, fates(1).await);
    assert_ne!(one, fates(2).await);
    assert!(one.contains(&true) && one.contains(&false));
}

#[tokio::test]
async fn failing_pauses_leave_the_container_alone() {
    let (_, backend) = faulty(Faults {
        pause_failures: Share::ALL,
        ..Faults::default()
    });
    let instance = backend.create(spec()).await.unwrap();
    assert_eq!(backend.pause(instance).await, Err(PauseError::Gone(instance)));
    assert!(matches!(
        backend.run(instance, run("{}", MINUTE)).await,
        RunOutcome::Ended(_)
    ));
}
