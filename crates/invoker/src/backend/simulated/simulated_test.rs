//! The promises that tests of the invoker rely on.

use super::*;
use crate::backend::spec::Context;

fn spec(concurrency: u32) -> ContainerSpec {
    ContainerSpec {
        name: "s".to_owned(),
        kind: "any".to_owned(),
        memory: ByteSize::mib(128),
        concurrency,
        environment: BTreeMap::new(),
    }
}

fn init() -> InitRequest {
    InitRequest {
        name: "n".to_owned(),
        main: String::new(),
        binary: false,
        code: None,
        env: BTreeMap::new(),
        context: Context::default(),
        timeout: Duration::from_secs(1),
        logs_max: ByteSize::ZERO,
    }
}

fn run(id: &str, timeout: Duration) -> RunRequest {
    RunRequest {
        payload: Bytes::from_static(b"{\"a\":1}"),
        run: 1,
        context: Context {
            activation_id: id.to_owned(),
            ..Context::default()
        },
        timeout,
        logs_max: ByteSize::ZERO,
    }
}

fn ended(outcome: RunOutcome) -> Ended {
    match outcome {
        RunOutcome::Ended(ended) => ended,
        RunOutcome::GiveBack(back) => panic!("given back: {back:?}"),
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_run_returns_its_arguments_and_is_remembered() {
    let backend = SimulatedBackend::new(Behaviour::default(), None);
    let instance = backend.create(spec(1)).await.unwrap();
    assert!(matches!(
        backend.init(instance, init()).await,
        InitOutcome::Ready(_)
    ));
    let ended = ended(backend.run(instance, run("one", LONG)).await);
    assert_eq!(
        (ended.status, &ended.result[..]),
        (ActivationStatus::Success, &b"{\"a\":1}"[..])
    );
    assert_eq!(
        (backend.started(), backend.created()),
        (vec!["one".to_owned()], 1)
    );
}

#[tokio::test]
async fn failures_are_switched_on_while_it_runs() {
    let backend = SimulatedBackend::new(Behaviour::default(), None);
    let instance = backend.create(spec(1)).await.unwrap();
    backend.set_behaviour(Behaviour {
        fail_create: true,
        fail_init: true,
        give_back: true,
        ..Behaviour::default()
    });
    assert!(backend.create(spec(1)).await.is_err());
    assert!(matches!(
        backend.init(instance, init()).await,
        InitOutcome::Failed(_)
    ));
    assert!(matches!(
        backend.run(instance, run("one", LONG)).await,
        RunOutcome::GiveBack(_)
    ));
    assert!(backend.started().is_empty(), "what is given back was not started");
}

#[tokio::test]
async fn a_run_longer_than_its_limit_times_out() {
    let backend = SimulatedBackend::new(
        Behaviour {
            run: LONG,
            ..Behaviour::default()
        },
        None,
    );
    let instance = backend.create(spec(1)).await.unwrap();
    let ended = ended(backend.run(instance, run("one", Duration::from_millis(1))).await);
    assert!(ended.timed_out && !ended.is_reusable());
}

#[tokio::test]
async fn a_killed_container_ends_its_run_and_is_reported_once() {
    let backend = SimulatedBackend::new(
        Behaviour {
            run: LONG,
            ..Behaviour::default()
        },
        None,
    );
    let mut events = backend.take_events().unwrap();
    assert!(backend.take_events().is_none());
    let instance = backend.create(spec(1)).await.unwrap();
    let kill = async {
        while backend.started().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(backend.pause(instance).await, Err(PauseError::Busy(instance)));
        backend.kill(instance).await;
        backend.kill(instance).await;
    };
    let (outcome, ()) = tokio::join!(backend.run(instance, run("one", LONG)), kill);
    assert_eq!(ended(outcome).status, ActivationStatus::DeveloperError);
    assert!(matches!(events.try_recv(), Ok(BackendEvent::Died { instance: died, .. }) if died == instance));
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn paused_and_removed_containers_run_nothing() {
    let backend = SimulatedBackend::new(Behaviour::default(), None);
    let instance = backend.create(spec(1)).await.unwrap();
    backend.pause(instance).await.unwrap();
    assert!(matches!(
        backend.run(instance, run("one", LONG)).await,
        RunOutcome::GiveBack(_)
    ));
    backend.resume(instance).await.unwrap();
    ended(backend.run(instance, run("two", LONG)).await);
    backend.remove(instance).await;
    assert!(matches!(
        backend.run(instance, run("three", LONG)).await,
        RunOutcome::GiveBack(_)
    ));
    assert_eq!(
        (backend.started(), backend.live()),
        (vec!["two".to_owned()], Vec::new())
    );
}

#[tokio::test]
async fn arguments_choose_the_length_of_the_run() {
    let backend = SimulatedBackend::new(
        Behaviour {
            run: LONG,
            ..Behaviour::default()
        },
        None,
    );
    let instance = backend.create(spec(1)).await.unwrap();
    let request = RunRequest {
        payload: Bytes::from_static(b"{\"sleep_ms\": 0.3}"),
        ..run("one", LONG)
    };
    let ended = ended(backend.run(instance, request).await);
    assert!(ended.took >= Duration::from_micros(300));
    assert_eq!(ended.status, ActivationStatus::Success);
}

#[tokio::test]
async fn the_first_runs_fail_if_the_arguments_say_so() {
    let backend = SimulatedBackend::new(Behaviour::default(), None);
    let instance = backend.create(spec(1)).await.unwrap();
    let mut request = RunRequest {
        payload: Bytes::from_static(b"{\"fail_runs\": 1}"),
        ..run("one", LONG)
    };
    let first = ended(backend.run(instance, request.clone()).await);
    assert_eq!(first.status, ActivationStatus::ApplicationError);
    assert!(first.is_reusable(), "the container did what it should");
    request.run = 2;
    let second = ended(backend.run(instance, request).await);
    assert_eq!(second.status, ActivationStatus::Success);
}

#[tokio::test]
async fn a_stamped_result_says_when_the_run_began() {
    let behaviour = Behaviour {
        run: Duration::from_millis(2),
        ..Behaviour::default()
    };
    let backend = SimulatedBackend::new(behaviour, None);
    let instance = backend.create(spec(1)).await.unwrap();
    let request = RunRequest {
        payload: Bytes::from_static(b"{\"n\": 7, \"stamp\": true}"),
        ..run("one", LONG)
    };
    let before = clock::wall().as_micros();
    let ended = ended(backend.run(instance, request).await);
    let after = clock::wall().as_micros();
    let result: serde_json::Value = serde_json::from_slice(&ended.result).unwrap();
    let began = u128::from(result["began_us"].as_u64().unwrap());
    assert!(
        before <= began && began + 2000 <= after,
        "{before} {began} {after}"
    );
    assert_eq!(result["n"], 7);
    assert_eq!(ended.size, Some(ended.result.len() as u64));
}
