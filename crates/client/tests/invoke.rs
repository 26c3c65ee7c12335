//! Invocations against fake schedulers: the path of one activation, rejections, bounds, deadlines.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::Duration;

use fake::{Mode, Seen, builder, cluster, key, leadership, queue_event, record};
use serde_json::json;
use whiskraft_client::{
    ActivationId, Client, GivingUp, InvokeError, InvokeOptions, Payload, PayloadError, Rejection, Settings,
    ThrottleScope,
};
use whiskraft_proto::v1;
use whiskraft_proto::v1::rejection::Kind;

async fn invoke(
    client: &Client,
    options: InvokeOptions,
) -> Result<whiskraft_client::ActivationRecord, InvokeError> {
    client
        .invoke(&key().namespace, &key().action, json!({"a": 1}), options)
        .await
}

fn spawn_invoke(
    client: &Client,
    options: InvokeOptions,
) -> tokio::task::JoinHandle<Result<whiskraft_client::ActivationRecord, InvokeError>> {
    let client = client.clone();
    tokio::spawn(async move { invoke(&client, options).await })
}

fn soon(ms: u64) -> InvokeOptions {
    InvokeOptions {
        deadline: Duration::from_millis(ms),
        ..InvokeOptions::default()
    }
}

#[tokio::test]
async fn new_queues_are_asked_for_together() {
    let (_, fakes) = cluster(1).await;
    fakes[0].with(|state| {
        state.mode = Mode::Echo;
        state.ensure = Some(leadership(&fakes[0], 1));
    });
    let client = builder(&fakes).connect().await.unwrap();
    let calls = (0..1000).map(|n| {
        let (client, action) = (client.clone(), format!("lib/a{n}").parse().unwrap());
        let namespace = key().namespace;
        async move {
            let options = InvokeOptions::default();
            client.invoke(&namespace, &action, json!({}), options).await
        }
    });
    let records = futures::future::join_all(calls).await;
    assert!(records.iter().all(Result::is_ok));
    let questions = fakes[0].with(|state| {
        let questions = |seen: &Seen| match seen {
            Seen::Ensures(queues) => Some(*queues),
            _ => None,
        };
        state.seen.iter().filter_map(questions).collect::<Vec<_>>()
    });
    assert_eq!(questions.iter().sum::<usize>(), 1000);
    assert!(questions.len() < 100, "{questions:?}");
}

#[tokio::test]
async fn who_has_lost_touch_and_takes_itself_for_the_writer_of_the_log_is_not_asked_for_ever() {
    let (_, fakes) = cluster(2).await;
    let reason = "lost touch".to_owned();
    let lost = v1::queue_ensured::Outcome::Rejection(Rejection::Unavailable { reason }.into());
    fakes[0].with(|state| (state.log_leader, state.ensure) = (1, Some(lost)));
    fakes[1].with(|state| {
        (state.mode, state.log_leader) = (Mode::Echo, 1);
        state.ensure = Some(leadership(&fakes[1], 1));
    });
    let client = builder(&fakes).connect().await.unwrap();
    for n in 0..9 {
        let action = format!("lib/a{n}").parse().unwrap();
        let options = InvokeOptions::default();
        let namespace = key().namespace;
        let called = client.invoke(&namespace, &action, json!({}), options);
        called.await.unwrap();
    }
}

#[tokio::test]
async fn a_blocking_call_returns_the_record_and_sends_a_receipt() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    fakes[0].with(|state| state.mode = Mode::Echo);
    let client = builder(&fakes).connect().await.unwrap();
    let id = ActivationId::from_bytes([9; 16]);
    let options = InvokeOptions {
        id: Some(id),
        transaction: "t1".to_owned(),
        subject: "ada".to_owned(),
        api_key: "uuid:secret".to_owned(),
        cause: Some(ActivationId::from_bytes([1; 16])),
        ..InvokeOptions::default()
    };
    let record = invoke(&client, options).await.unwrap();
    assert_eq!((record.id, &record.result[..]), (id, b"{\"ok\":true}".as_slice()));
    assert_eq!(fakes[0].received(1).await, [id.as_bytes().to_vec()]);
    let sent = &fakes[0].submissions_now()[0];
    assert_eq!(sent.payload, "{\"a\":1}");
    assert_eq!((sent.epoch, sent.attempt, sent.blocking), (1, 1, true));
    assert_eq!((sent.transaction.as_str(), sent.subject.as_str()), ("t1", "ada"));
    assert_eq!(
        (sent.api_key.as_str(), sent.cause.as_str()),
        ("uuid:secret", "01".repeat(16).as_str())
    );
    assert!(
        sent.deadline_ms > 59_000 && sent.deadline_ms <= 60_000,
        "{}",
        sent.deadline_ms
    );
    assert_eq!(fakes[0].ensures(), 0, "the watch had named the leader");
}

#[tokio::test]
async fn a_submission_returns_once_accepted_and_the_result_comes_later() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let submitting = {
        let client = client.clone();
        tokio::spawn(async move {
            client
                .submit(
                    &key().namespace,
                    &key().action,
                    Payload::empty(),
                    InvokeOptions::default(),
                )
                .await
        })
    };
    let sent = fakes[0].submissions(1).await[0].clone();
    assert!(!sent.blocking && sent.deadline_ms == 0);
    assert!(!submitting.is_finished());
    fakes[0].accept(&sent.id).await;
    let mut invocation = submitting.await.unwrap().unwrap();
    assert_eq!(
        (invocation.id().as_bytes().as_slice(), invocation.attempts()),
        (&sent.id[..], 1)
    );
    // Waiting may be given up and taken up again; a dropped client does not end it.
    assert!(
        tokio::time::timeout(Duration::ZERO, invocation.result())
            .await
            .is_err()
    );
    drop(client);
    fakes[0].complete(&sent.id).await;
    let record = invocation.result().await.unwrap();
    assert_eq!(
        invocation.result().await.unwrap(),
        record,
        "it answers the same again"
    );
}

#[tokio::test]
async fn an_unknown_queue_is_ensured_and_all_that_wait_follow() {
    let (_world, fakes) = cluster(2).await;
    for fake in &fakes {
        fake.with(|state| state.ensure = Some(leadership(&fakes[1], 3)));
    }
    let client = builder(&fakes).connect().await.unwrap();
    let calls: Vec<_> = (0..10)
        .map(|_| spawn_invoke(&client, InvokeOptions::default()))
        .collect();
    for sent in fakes[1].submissions(10).await {
        assert_eq!((sent.epoch, sent.attempt), (3, 1));
        fakes[1].complete(&sent.id).await;
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(client.stats().ensures, 1);
}

#[tokio::test]
async fn not_leader_no_queue_draining_and_unavailable_are_retried_inside() {
    let (world, fakes) = cluster(2).await;
    world.log(queue_event(1, 1));
    for fake in &fakes {
        fake.with(|state| state.ensure = Some(leadership(&fakes[0], 1)));
    }
    let client = builder(&fakes).connect().await.unwrap();
    fakes[1].connected().await;
    let call = spawn_invoke(&client, InvokeOptions::default());
    let refusals = [
        Kind::NoQueue(v1::NoQueue {}),
        Kind::Draining(v1::Draining {}),
        Kind::Unavailable(v1::Unavailable {
            reason: "fenced".to_owned(),
        }),
        Kind::NotLeader(v1::NotLeader { leader: 2, epoch: 2 }),
    ];
    for (count, refusal) in (1..).zip(refusals) {
        let sent = fakes[0].submissions(count).await[count - 1].clone();
        assert_eq!(sent.attempt, 1, "a refused activation has not run");
        fakes[0].reject(&sent.id, refusal).await;
    }
    let sent = fakes[1].submissions(1).await[0].clone();
    assert_eq!((sent.epoch, sent.attempt), (2, 1));
    fakes[1].complete(&sent.id).await;
    call.await.unwrap().unwrap();
    assert_eq!((client.stats().retried, client.stats().resubmitted), (4, 0));
}

#[tokio::test]
async fn throttled_is_final_and_says_when_to_come_back() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let call = spawn_invoke(&client, InvokeOptions::default());
    let sent = fakes[0].submissions(1).await[0].clone();
    let scope = v1::throttled::Scope::Action.into();
    fakes[0]
        .reject(
            &sent.id,
            Kind::Throttled(v1::Throttled {
                scope,
                limit: Some(10_000),
                retry_after_ms: 700,
            }),
        )
        .await;
    let Err(InvokeError::Rejected {
        attempts: 1,
        may_have_run: false,
        rejection,
        ..
    }) = call.await.unwrap()
    else {
        panic!("not rejected");
    };
    let expected = Rejection::Throttled {
        scope: ThrottleScope::Action,
        limit: Some(10_000),
        retry_after: Duration::from_millis(700),
    };
    assert_eq!(rejection, expected);
    assert_eq!(client.stats().unfinished, 0);
}

#[tokio::test]
async fn the_deadline_returns_the_id_and_the_activation_goes_on() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let call = spawn_invoke(&client, soon(300));
    let sent = fakes[0].submissions(1).await[0].clone();
    fakes[0].accept(&sent.id).await;
    let Err(InvokeError::Deadline {
        id,
        attempts,
        accepted,
    }) = call.await.unwrap()
    else {
        panic!("no deadline")
    };
    assert_eq!(
        (id.as_bytes().as_slice(), attempts, accepted),
        (&sent.id[..], 1, true)
    );
    assert_eq!(client.stats().unfinished, 1);
    fakes[0].complete(&sent.id).await;
    fakes[0].received(1).await;
    assert_eq!((client.stats().unfinished, client.stats().completed), (0, 1));
}

#[tokio::test]
async fn a_deadline_before_anybody_accepted_is_a_definite_failure() {
    let (_world, fakes) = cluster(1).await;
    let reason = "no live scheduler can lead the queue".to_owned();
    let unavailable = v1::Rejection {
        kind: Some(Kind::Unavailable(v1::Unavailable { reason })),
    };
    fakes[0].with(|state| {
        state.ensure = Some(v1::queue_ensured::Outcome::Rejection(unavailable));
    });
    let client = builder(&fakes).connect().await.unwrap();
    let error = invoke(&client, soon(300)).await.unwrap_err();
    let InvokeError::NotAccepted {
        attempts: 0, cause, ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(cause.contains("no live scheduler"), "{cause}");
    assert_eq!((client.stats().unfinished, client.stats().failed), (0, 1));
}

#[tokio::test]
async fn without_any_result_it_is_given_up_and_a_late_result_is_dropped() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let giving_up = GivingUp {
        time_limit_std: Duration::from_millis(10),
        factor: 3,
        addend: Duration::from_millis(100),
        ..GivingUp::default()
    };
    let client = builder(&fakes)
        .settings(Settings {
            giving_up,
            ..Settings::default()
        })
        .connect()
        .await
        .unwrap();
    let options = InvokeOptions {
        time_limit: Some(Duration::from_millis(50)),
        ..InvokeOptions::default()
    };
    let call = spawn_invoke(&client, options);
    let sent = fakes[0].submissions(1).await[0].clone();
    fakes[0].accept(&sent.id).await;
    let Err(InvokeError::NoResult { waited, .. }) = call.await.unwrap() else {
        panic!("not given up")
    };
    assert!(waited >= Duration::from_millis(250), "{waited:?}");
    fakes[0].complete(&sent.id).await;
    fakes[0].received(1).await;
    assert_eq!(client.stats().results_late, 1);
}

#[tokio::test]
async fn two_results_settle_once() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let call = spawn_invoke(&client, InvokeOptions::default());
    let sent = fakes[0].submissions(1).await[0].clone();
    let completed = v1::CompletedActivation {
        record: Some(record(&sent.id)),
        epoch: 1,
    };
    let frame = v1::ResultFrame {
        completed: vec![completed.clone(), completed],
        ..Default::default()
    };
    fakes[0].say(frame).await;
    fakes[0].accept(&sent.id).await;
    assert!(call.await.unwrap().is_ok());
    assert_eq!(fakes[0].received(2).await.len(), 2);
    assert_eq!((client.stats().completed, client.stats().results_late), (1, 1));
}

#[tokio::test]
async fn the_window_of_a_stream_is_respected() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    fakes[0].with(|state| state.window = 3);
    let client = builder(&fakes).connect().await.unwrap();
    let calls: Vec<_> = (0..8)
        .map(|_| spawn_invoke(&client, InvokeOptions::default()))
        .collect();
    for answered in 0..8 {
        let want = (answered + 3).min(8);
        let sent = fakes[0].submissions(want).await;
        assert_eq!(sent.len(), want, "{answered} answered");
        fakes[0].accept(&sent[answered].id).await;
    }
    for sent in fakes[0].submissions_now() {
        fakes[0].complete(&sent.id).await;
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn bad_payloads_are_refused_without_a_round_trip() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    fakes[0].with(|state| state.payload_len_max = 20);
    let client = builder(&fakes).connect().await.unwrap();
    let call = async |payload: Payload| match client
        .invoke(&key().namespace, &key().action, payload, soon(2000))
        .await
    {
        Err(InvokeError::Payload(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        call(json!("text").into()).await,
        PayloadError::NotObjectOrArray { found: "a string" }
    );
    assert!(matches!(call("{".into()).await, PayloadError::NotJson { .. }));
    let large = json!({"text": "x".repeat(100)});
    assert_eq!(
        call(large.into()).await,
        PayloadError::TooLarge {
            len: 111,
            len_max: 20
        }
    );
    assert_eq!(client.stats().submitted, 0);
}

#[tokio::test]
async fn a_full_client_and_an_id_in_use_are_told_apart() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let settings = Settings {
        unfinished_max: 2,
        ..Settings::default()
    };
    let client = builder(&fakes).settings(settings).connect().await.unwrap();
    let id = ActivationId::from_bytes([5; 16]);
    let options = InvokeOptions {
        id: Some(id),
        ..InvokeOptions::default()
    };
    let first = spawn_invoke(&client, options.clone());
    fakes[0].submissions(1).await;
    assert_eq!(
        invoke(&client, options).await.unwrap_err(),
        InvokeError::IdInUse { id }
    );
    let second = spawn_invoke(&client, InvokeOptions::default());
    fakes[0].submissions(2).await;
    let full = invoke(&client, InvokeOptions::default()).await.unwrap_err();
    assert_eq!(
        full,
        InvokeError::Full {
            unfinished: 2,
            bytes: 14
        }
    );
    for sent in fakes[0].submissions_now() {
        fakes[0].complete(&sent.id).await;
    }
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_ends_its_activation() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let call = spawn_invoke(&client, InvokeOptions::default());
    let sent = fakes[0].submissions(1).await[0].clone();
    let broken = v1::ActivationRecord {
        status: 0,
        ..record(&sent.id)
    };
    let completed = vec![v1::CompletedActivation {
        record: Some(broken),
        epoch: 1,
    }];
    fakes[0]
        .say(v1::ResultFrame {
            completed,
            ..Default::default()
        })
        .await;
    assert!(matches!(call.await.unwrap(), Err(InvokeError::Garbled { .. })));
    assert_eq!(fakes[0].received(1).await.len(), 1);
}

#[tokio::test]
async fn closing_ends_what_is_unfinished() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let call = spawn_invoke(&client, InvokeOptions::default());
    fakes[0].submissions(1).await;
    client.close().await;
    assert!(matches!(call.await.unwrap(), Err(InvokeError::Closed { .. })));
    assert!(matches!(
        invoke(&client, soon(1000)).await,
        Err(InvokeError::Closed { .. })
    ));
}
