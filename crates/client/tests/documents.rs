//! Actions, code and namespaces against fake schedulers, lost answers included; questions about the cluster.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::Duration;

use fake::{Fake, Seen, builder, cluster, key, record};
use serde_json::json;
use whiskraft_client::{
    ActionError, ActionLimits, ActionSpec, ActivationId, CallError, Client, Expect, Health, Progress,
    Revision, SchedulerId, Settings,
};
use whiskraft_proto::v1;

fn spec(name: &str, code: &[u8]) -> ActionSpec {
    let mut spec = ActionSpec::new(name.parse().unwrap(), "python:3", code.to_vec());
    spec.limits = ActionLimits {
        concurrency: 7,
        ..ActionLimits::default()
    };
    spec.parameters.insert("who".to_owned(), json!(["you", 1]));
    spec
}

fn uploads(fake: &Fake) -> Vec<usize> {
    fake.with(|state| {
        let chunks = |seen: &Seen| match seen {
            Seen::PutBlob(chunks) => Some(*chunks),
            _ => None,
        };
        state.seen.iter().filter_map(chunks).collect()
    })
}

async fn one() -> (Fake, Client) {
    let (_, mut fakes) = cluster(1).await;
    let client = builder(&fakes).connect().await.unwrap();
    (fakes.remove(0), client)
}

#[tokio::test]
async fn an_action_reads_back_with_its_code() {
    let (fake, client) = one().await;
    let code = vec![b'#'; 600_000];
    let spec = spec("guest/pkg/hello", &code);
    let revision = client.put_action(&spec, Expect::Anything).await.unwrap();
    assert_eq!(uploads(&fake), [3], "600,000 bytes in chunks of 256 KiB");
    let stored = client.get_action(&spec.name).await.unwrap();
    assert_eq!(
        (stored.revision, &stored.name, stored.kind.as_str()),
        (revision, &spec.name, "python:3")
    );
    assert_eq!(
        (stored.limits.concurrency, &stored.parameters),
        (7, &spec.parameters)
    );
    assert_eq!(client.action_code(&stored).await.unwrap(), code);
}

#[tokio::test]
async fn code_that_the_cluster_has_is_not_uploaded_again() {
    let (fake, client) = one().await;
    client
        .put_action(&spec("guest/a", b"same"), Expect::Anything)
        .await
        .unwrap();
    client
        .put_action(&spec("guest/b", b"same"), Expect::Anything)
        .await
        .unwrap();
    assert_eq!(uploads(&fake).len(), 1);
    client
        .put_action(&spec("guest/b", b"other"), Expect::Anything)
        .await
        .unwrap();
    assert_eq!(uploads(&fake).len(), 2);
    client
        .put_action(&spec("guest/c", b""), Expect::Anything)
        .await
        .unwrap();
    assert_eq!(uploads(&fake).len(), 2, "no code, no blob");
}

#[tokio::test]
async fn code_with_another_hash_is_refused() {
    let (fake, client) = one().await;
    let spec = spec("guest/hello", b"good");
    client.put_action(&spec, Expect::Anything).await.unwrap();
    fake.with(|state| {
        state
            .store
            .blobs
            .values_mut()
            .for_each(|blob| *blob = b"evil".to_vec())
    });
    let stored = client.get_action(&spec.name).await.unwrap();
    let error = client.action_code(&stored).await.unwrap_err();
    assert!(
        matches!(error, ActionError::Call(CallError::BadAnswer { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_write_that_expects_something_else_is_a_conflict() {
    let (_fake, client) = one().await;
    let spec = spec("guest/hello", b"1");
    let revision = client.put_action(&spec, Expect::Absent).await.unwrap();
    let conflict = |current| ActionError::Conflict {
        name: "guest/hello".to_owned(),
        current,
    };
    assert_eq!(
        client.put_action(&spec, Expect::Absent).await,
        Err(conflict(Some(revision)))
    );
    let next = client
        .put_action(&spec, Expect::Revision(revision))
        .await
        .unwrap();
    assert_eq!(
        client.put_action(&spec, Expect::Revision(revision)).await,
        Err(conflict(Some(next)))
    );
    let absent = whiskraft_client::ActionSpec {
        name: "guest/none".parse().unwrap(),
        ..spec
    };
    let error = client
        .put_action(&absent, Expect::Revision(Revision(9)))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        ActionError::Conflict {
            name: "guest/none".to_owned(),
            current: None
        }
    );
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised_as_ours() {
    let (fake, client) = one().await;
    let spec = spec("guest/hello", b"1");
    client.put_action(&spec, Expect::Anything).await.unwrap();
    client.delete_action(&spec.name, Expect::Anything).await.unwrap();
    fake.with(|state| state.store.answers_lost = 1);
    let revision = client.put_action(&spec, Expect::Absent).await.unwrap();
    assert_eq!(client.get_action(&spec.name).await.unwrap().revision, revision);
    fake.with(|state| state.store.answers_lost = 1);
    client.delete_action(&spec.name, Expect::Anything).await.unwrap();
}

#[tokio::test]
async fn a_write_that_was_done_before_its_scheduler_lost_touch_is_recognised_as_ours() {
    let (fake, client) = one().await;
    let spec = spec("guest/hello", b"1");
    fake.with(|state| state.store.answers_unknown = 1);
    let revision = client.put_action(&spec, Expect::Absent).await.unwrap();
    assert_eq!(client.get_action(&spec.name).await.unwrap().revision, revision);
    fake.with(|state| state.store.answers_unknown = 1);
    client.delete_action(&spec.name, Expect::Anything).await.unwrap();
}

/// Sizes of the calls with changes that a scheduler has seen.
fn calls(fake: &Fake) -> Vec<usize> {
    fake.with(|state| {
        let changes = |seen: &Seen| match seen {
            Seen::Changes(changes) => Some(*changes),
            _ => None,
        };
        state.seen.iter().filter_map(changes).collect()
    })
}

/// Stores so many new actions at the same time.
async fn put_many(client: &Client, count: usize) -> Vec<Result<Revision, ActionError>> {
    let puts = (0..count).map(|n| {
        let (client, spec) = (client.clone(), spec(&format!("guest/a{n}"), b""));
        async move { client.put_action(&spec, Expect::Absent).await }
    });
    futures::future::join_all(puts).await
}

#[tokio::test]
async fn what_is_written_while_calls_are_under_way_goes_with_the_next() {
    let (fake, client) = one().await;
    fake.with(|state| state.store.pause = Duration::from_millis(50));
    let mut revisions: Vec<_> = put_many(&client, 1200)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 1200);
    let calls = calls(&fake);
    assert_eq!(calls.iter().sum::<usize>(), 1200);
    assert!(
        calls.len() < 10 && calls.iter().all(|changes| *changes <= 512),
        "{calls:?}"
    );
}

#[tokio::test]
async fn a_lost_answer_counts_for_every_write_of_its_call() {
    let (fake, client) = one().await;
    fake.with(|state| {
        state.store.pause = Duration::from_millis(20);
        state.store.answers_lost = 3;
    });
    assert!(put_many(&client, 100).await.iter().all(Result::is_ok));
    let name = "guest/a7".parse().unwrap();
    let again = client.put_action(&spec("guest/a7", b""), Expect::Absent).await;
    let current = Some(client.get_action(&name).await.unwrap().revision);
    let name = name.to_string();
    assert_eq!(again, Err(ActionError::Conflict { name, current }));
}

#[tokio::test]
async fn whoever_stops_waiting_hurts_nobody() {
    let (fake, client) = one().await;
    fake.with(|state| state.store.pause = Duration::from_millis(20));
    let mut puts = Vec::new();
    for n in 0..90 {
        let (client, spec) = (client.clone(), spec(&format!("guest/a{n}"), b""));
        puts.push(tokio::spawn(async move {
            client.put_action(&spec, Expect::Absent).await
        }));
    }
    fake.until("a call", |state| {
        let is_call = |seen: &Seen| matches!(seen, Seen::Changes(_));
        state.seen.iter().any(is_call).then_some(())
    })
    .await;
    for (n, put) in puts.into_iter().enumerate() {
        match n % 3 {
            0 => put.abort(),
            _ => drop(put.await.unwrap().unwrap()),
        }
    }
}

#[tokio::test]
async fn a_delete_that_only_waited_has_deleted_nothing() {
    let (_, fakes) = cluster(1).await;
    let settings = Settings {
        call_deadline: Duration::from_secs(2),
        ..Settings::default()
    };
    let client = builder(&fakes).settings(settings).connect().await.unwrap();
    fakes[0].with(|state| state.store.pause = Duration::from_secs(60));
    let mut puts = Vec::new();
    for under_way in 1..=2 {
        let (client, spec) = (client.clone(), spec(&format!("guest/a{under_way}"), b""));
        puts.push(tokio::spawn(async move {
            client.put_action(&spec, Expect::Anything).await
        }));
        fakes[0]
            .until("a call", |state| {
                let is_call = |seen: &&Seen| matches!(seen, Seen::Changes(_));
                (state.seen.iter().filter(is_call).count() == under_way).then_some(())
            })
            .await;
    }
    // These two end with their time; until then nothing else leaves.
    fakes[0].with(|state| state.store.pause = Duration::ZERO);
    let name = "guest/none".parse().unwrap();
    let deleted = client.delete_action(&name, Expect::Anything).await;
    let name = name.to_string();
    assert_eq!(deleted, Err(ActionError::NotFound { name }));
    for put in puts {
        put.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn writes_go_to_the_scheduler_that_writes_the_log_until_it_fails() {
    let (_, fakes) = cluster(3).await;
    fakes
        .iter()
        .for_each(|fake| fake.with(|state| state.log_leader = 2));
    let client = builder(&fakes).connect().await.unwrap();
    // Once it is connected, and one of them has been asked: in turn, no more than one of three would go there.
    let mut in_a_row = 0;
    while in_a_row < 9 {
        let before = calls(&fakes[1]).len();
        let stored = client.put_action(&spec("guest/a", b""), Expect::Anything).await;
        stored.unwrap();
        in_a_row = if calls(&fakes[1]).len() > before {
            in_a_row + 1
        } else {
            0
        };
    }
    fakes[1].die().await;
    let before = calls(&fakes[1]).len();
    for _ in 0..9 {
        let stored = client.put_action(&spec("guest/a", b""), Expect::Anything).await;
        stored.unwrap();
    }
    assert_eq!(calls(&fakes[1]).len(), before);
}

#[tokio::test]
async fn a_missing_action_is_not_found() {
    let (_fake, client) = one().await;
    let name = "guest/none".parse().unwrap();
    let missing = ActionError::NotFound {
        name: "guest/none".to_owned(),
    };
    assert_eq!(client.get_action(&name).await, Err(missing.clone()));
    assert_eq!(client.delete_action(&name, Expect::Anything).await, Err(missing));
}

#[tokio::test]
async fn a_list_continues_where_a_page_ended() {
    let (_fake, client) = one().await;
    for name in ["guest/a", "guest/b", "guest/pkg/c", "other/d"] {
        client
            .put_action(&spec(name, b""), Expect::Anything)
            .await
            .unwrap();
    }
    let namespace = "guest".parse().unwrap();
    let first = client.list_actions(&namespace, None, 2).await.unwrap();
    let rest = client
        .list_actions(&namespace, first.next.as_deref(), 2)
        .await
        .unwrap();
    let names: Vec<_> = first
        .actions
        .iter()
        .chain(&rest.actions)
        .map(|action| action.name.to_string())
        .collect();
    assert_eq!(names, ["guest/a", "guest/b", "guest/pkg/c"]);
    assert_eq!(rest.next, None);
}

#[tokio::test]
async fn questions_go_to_a_scheduler_that_answers() {
    let (_, fakes) = cluster(2).await;
    let client = builder(&fakes).connect().await.unwrap();
    for fake in &fakes {
        fake.connected().await;
    }
    fakes[0].die().await;
    for _ in 0..4 {
        assert_eq!(client.status().await.unwrap().scheduler, SchedulerId(2));
    }
    let all = client.status_all().await;
    assert!(
        matches!(
            all[0],
            (SchedulerId(1), Err(CallError::Unreachable { tries: 1, .. }))
        ),
        "{all:?}"
    );
    assert!(matches!(all[1], (SchedulerId(2), Ok(_))));
    fakes[1].die().await;
    let error = client.status().await.unwrap_err();
    let CallError::Unreachable { tries, cause, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(*tries > 2 && cause.contains("down by the test"), "{error}");
    let error = client.status_of(SchedulerId(9)).await.unwrap_err();
    assert!(matches!(
        error,
        CallError::NoSuchScheduler {
            scheduler: SchedulerId(9),
            ..
        }
    ));
}

#[tokio::test]
async fn an_activation_is_found_wherever_it_is() {
    use v1::find_activation_response::State;

    let (_, fakes) = cluster(3).await;
    let client = builder(&fakes).connect().await.unwrap();
    let id = ActivationId::from_bytes([3; 16]);
    let find = async || client.find_activation(&key().namespace, id).await;
    assert_eq!(find().await, Ok(None));
    let known = |state: State, epoch| v1::FindActivationResponse {
        state: state.into(),
        record: (state == State::Done).then(|| record(id.as_bytes())),
        key: Some((&key()).into()),
        epoch,
        ..Default::default()
    };
    fakes[0].with(|state| state.find = known(State::Waiting, 1));
    fakes[2].with(|state| state.find = known(State::Started, 2));
    let found = find().await.unwrap().unwrap();
    assert_eq!(
        (found.progress, found.scheduler),
        (Progress::Started, SchedulerId(3))
    );
    fakes[0].with(|state| state.find = known(State::Done, 1));
    assert!(matches!(
        find().await.unwrap().unwrap().progress,
        Progress::Done(_)
    ));
    // Nobody knows it, and one who might could not be asked: no answer is better than a wrong one.
    fakes[0].die().await;
    fakes[2].with(|state| state.find = known(State::Unknown, 0));
    assert!(matches!(find().await, Err(CallError::Unreachable { .. })));
}

#[tokio::test]
async fn invoker_health_is_a_list_without_holes() {
    let (fake, client) = one().await;
    let invoker = |invoker, healthy| v1::InvokerInfo {
        invoker,
        session: 1,
        healthy,
        ..Default::default()
    };
    fake.with(|state| state.operations.invokers = vec![invoker(4, true), invoker(2, false)]);
    let lines: Vec<_> = client
        .invoker_health()
        .await
        .unwrap()
        .iter()
        .map(|line| (line.invoker.0, line.health))
        .collect();
    assert_eq!(
        lines,
        [(2, Health::Unhealthy), (3, Health::Offline), (4, Health::Healthy)]
    );
}
