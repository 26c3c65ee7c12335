//! Schedules against a fake scheduler: stored, read, listed, paused, deleted.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::{Duration, UNIX_EPOCH};

use fake::{Fake, STORED_AT_MS, builder, cluster};
use whiskraft_client::{
    ActivationId, Client, Expect, MissedPolicy, NamespaceName, Revision, ScheduleError, ScheduleProgress,
    ScheduleSpec,
};
use whiskraft_proto::{Message, v1};

async fn one() -> (Fake, Client) {
    let (_, mut fakes) = cluster(1).await;
    let client = builder(&fakes).connect().await.unwrap();
    (fakes.remove(0), client)
}

fn guest() -> NamespaceName {
    "guest".parse().unwrap()
}

fn spec() -> ScheduleSpec {
    ScheduleSpec {
        arguments: [("n".to_owned(), 7.into())].into(),
        missed: MissedPolicy::RunOnce,
        ..ScheduleSpec::new("guest/hello".parse().unwrap(), "*/5 * * * *")
    }
}

#[tokio::test]
async fn what_is_stored_is_read_back_with_what_became_of_it() {
    let (fake, client) = one().await;
    let revision = client
        .put_schedule(&guest(), "five", &spec(), Expect::Absent)
        .await
        .unwrap();
    let stored = client.get_schedule(&guest(), "five").await.unwrap();
    assert_eq!((stored.name.as_str(), stored.revision), ("five", revision));
    let from = Some(UNIX_EPOCH + Duration::from_millis(STORED_AT_MS));
    assert_eq!(stored.spec, ScheduleSpec { from, ..spec() });
    assert_eq!(stored.progress, ScheduleProgress::default());
    let state = v1::ScheduleState {
        slot_ms: 120_000,
        fired: 3,
        skipped: 1,
        last_id: vec![7; 16].into(),
        last_error: "no queue".to_owned(),
    };
    let body = (1, state.encode_to_vec());
    fake.with(|script| {
        script
            .store
            .documents
            .insert("schedule-state:guest/five".to_owned(), body)
    });
    let stored = client.get_schedule(&guest(), "five").await.unwrap();
    assert_eq!(
        stored.progress,
        ScheduleProgress {
            settled: Some(UNIX_EPOCH + Duration::from_secs(120)),
            fired: 3,
            skipped: 1,
            last: Some(ActivationId::from_bytes([7; 16])),
            last_error: "no queue".to_owned(),
        }
    );
}

#[tokio::test]
async fn a_repeated_write_knows_its_own_and_a_conflict_is_somebody_elses() {
    let (fake, client) = one().await;
    fake.with(|state| state.store.answers_unknown = 1);
    let revision = client
        .put_schedule(&guest(), "five", &spec(), Expect::Absent)
        .await;
    assert_eq!(revision, Ok(Revision(1)));
    let again = client
        .put_schedule(&guest(), "five", &spec(), Expect::Absent)
        .await;
    assert!(matches!(
        again,
        Err(ScheduleError::Conflict {
            current: Some(Revision(1)),
            ..
        })
    ));
}

#[tokio::test]
async fn what_the_cluster_refuses_says_why() {
    let (fake, client) = one().await;
    fake.with(|state| state.store.refusal = Some("cron expression \"x\": too few fields".to_owned()));
    let error = client
        .put_schedule(&guest(), "five", &spec(), Expect::Anything)
        .await
        .unwrap_err();
    assert!(matches!(&error, ScheduleError::Invalid { .. }), "{error:?}");
    assert!(error.to_string().contains("too few fields"), "{error}");
    let error = client
        .put_schedule(&guest(), "a//b", &spec(), Expect::Anything)
        .await
        .unwrap_err();
    assert!(matches!(&error, ScheduleError::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn a_pause_keeps_everything_and_its_end_begins_anew() {
    let (fake, client) = one().await;
    let from = Some(UNIX_EPOCH + Duration::from_secs(5));
    let started = ScheduleSpec { from, ..spec() };
    client
        .put_schedule(&guest(), "five", &started, Expect::Anything)
        .await
        .unwrap();
    let paused = client.pause_schedule(&guest(), "five", true).await.unwrap();
    let stored = client.get_schedule(&guest(), "five").await.unwrap();
    assert_eq!(
        stored.spec,
        ScheduleSpec {
            paused: true,
            ..started
        }
    );
    // Once is enough.
    assert_eq!(client.pause_schedule(&guest(), "five", true).await, Ok(paused));
    fake.with(|state| state.store.answers_lost = 1);
    client.pause_schedule(&guest(), "five", false).await.unwrap();
    let stored = client.get_schedule(&guest(), "five").await.unwrap();
    let from = Some(UNIX_EPOCH + Duration::from_millis(STORED_AT_MS));
    assert_eq!(stored.spec, ScheduleSpec { from, ..spec() });
}

#[tokio::test]
async fn schedules_are_listed_by_page_and_deleted_once() {
    let (_fake, client) = one().await;
    for name in ["a", "b", "c"] {
        client
            .put_schedule(&guest(), name, &spec(), Expect::Anything)
            .await
            .unwrap();
    }
    let first = client.list_schedules(&guest(), None, 2).await.unwrap();
    let names: Vec<_> = first.schedules.iter().map(|found| found.name.as_str()).collect();
    assert_eq!((names, first.next.as_deref()), (vec!["a", "b"], Some("b")));
    let second = client
        .list_schedules(&guest(), first.next.as_deref(), 2)
        .await
        .unwrap();
    assert_eq!((second.schedules[0].name.as_str(), second.next), ("c", None));
    assert_eq!(client.list_actions(&guest(), None, 10).await.unwrap().actions, []);
    client
        .delete_schedule(&guest(), "b", Expect::Anything)
        .await
        .unwrap();
    let gone = Err(ScheduleError::NotFound { name: "b".to_owned() });
    assert_eq!(
        client.delete_schedule(&guest(), "b", Expect::Anything).await,
        gone
    );
    assert!(matches!(
        client.get_schedule(&guest(), "b").await,
        Err(ScheduleError::NotFound { .. })
    ));
    assert!(matches!(
        client.pause_schedule(&guest(), "b", true).await,
        Err(ScheduleError::NotFound { .. })
    ));
}
