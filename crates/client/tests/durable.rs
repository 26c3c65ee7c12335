//! Durable activations against fake schedulers: acceptance, keys, records by id, cancelling, dead letters.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::{Duration, UNIX_EPOCH};

use fake::{Fake, Seen, World, builder, cluster, eventually, key, leadership, queue_event, record};
use tokio::task::JoinHandle;
use whiskraft_client::{
    ActivationId, ActivationStatus, ByteSize, CallError, CancelOutcome, Client, Durability, Invocation,
    InvokeError, InvokeOptions, OptionsError, Progress, Rejection, ResultError, SchedulerId, idempotent_id,
};
use whiskraft_proto::v1;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_proto::v1::rejection::Kind;

const PAYLOAD: &str = r#"{"a":1}"#;

async fn led(count: u64) -> (World, Vec<Fake>, Client) {
    let (world, fakes) = cluster(count).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    (world, fakes, client)
}

fn spawn_submit(
    client: &Client,
    payload: &'static str,
    options: InvokeOptions,
) -> JoinHandle<Result<Invocation, InvokeError>> {
    let client = client.clone();
    tokio::spawn(async move {
        client
            .submit(&key().namespace, &key().action, payload, options)
            .await
    })
}

fn keyed(text: &str) -> InvokeOptions {
    InvokeOptions {
        idempotency_key: Some(text.to_owned()),
        ..InvokeOptions::default()
    }
}

fn id() -> ActivationId {
    ActivationId::from_bytes([3; 16])
}

fn known(state: State) -> v1::FindActivationResponse {
    v1::FindActivationResponse {
        state: state.into(),
        record: (state == State::Done).then(|| record(id().as_bytes())),
        key: (state != State::Gone).then(|| (&key()).into()),
        epoch: 1,
        durable: true,
        runs: 1,
        ..Default::default()
    }
}

fn unavailable() -> v1::Rejection {
    let reason = "no quorum".to_owned();
    v1::Rejection {
        kind: Some(Kind::Unavailable(v1::Unavailable { reason })),
    }
}

#[tokio::test]
async fn submissions_are_durable_and_calls_are_not_unless_they_say_so() {
    let (_world, fakes, client) = led(1).await;
    fakes[0].with(|state| state.mode = fake::Mode::Echo);
    let at = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let options = InvokeOptions {
        not_before: Some(at),
        ..InvokeOptions::default()
    };
    let delayed = spawn_submit(&client, PAYLOAD, options).await.unwrap().unwrap();
    assert!(delayed.is_durable());
    let memory = InvokeOptions {
        durability: Durability::Memory,
        ..InvokeOptions::default()
    };
    let plain = spawn_submit(&client, PAYLOAD, memory).await.unwrap().unwrap();
    assert!(!plain.is_durable());
    let (namespace, action) = (key().namespace, key().action);
    let call = client.invoke(&namespace, &action, PAYLOAD, InvokeOptions::default());
    call.await.unwrap();
    let sent: Vec<_> = fakes[0]
        .submissions(3)
        .await
        .iter()
        .map(|sent| (sent.durability(), sent.not_before_ms))
        .collect();
    let (quorum, memory) = (v1::Durability::Quorum, v1::Durability::Memory);
    assert_eq!(sent, [(quorum, 4_000_000_000_000), (memory, 0), (memory, 0)]);
    let refused = client.invoke(
        &namespace,
        &action,
        PAYLOAD,
        InvokeOptions {
            not_before: Some(at),
            ..InvokeOptions::default()
        },
    );
    assert_eq!(
        refused.await,
        Err(InvokeError::Options(OptionsError::DelayedInvoke))
    );
}

#[tokio::test]
async fn a_dropped_handle_of_a_durable_one_leaves_nothing_behind() {
    let (world, fakes, client) = led(2).await;
    let submitting = spawn_submit(&client, PAYLOAD, InvokeOptions::default());
    let kept = spawn_submit(&client, PAYLOAD, InvokeOptions::default());
    let sent = fakes[0].submissions(2).await;
    for sent in &sent {
        fakes[0].accept(&sent.id).await;
    }
    let (dropped, mut kept) = (submitting.await.unwrap().unwrap(), kept.await.unwrap().unwrap());
    let dropped_id = dropped.id();
    drop(dropped);
    eventually(|| client.stats().forgotten == 1).await;
    assert_eq!(client.stats().unfinished_bytes, PAYLOAD.len() as u64);
    // Only the kept one is sent again, and the result of the other is confirmed to whoever has it.
    world.change(&fakes, queue_event(2, 2)).await;
    let again = fakes[1].submissions(1).await;
    assert_eq!(again[0].id, kept.id().as_bytes().as_slice());
    fakes[1].complete(dropped_id.as_bytes()).await;
    fakes[1].complete(kept.id().as_bytes()).await;
    assert_eq!(fakes[1].received(2).await[0], dropped_id.as_bytes());
    assert!(kept.result().await.is_ok());
    assert_eq!(fakes[1].submissions_now().len(), 1);
}

#[tokio::test]
async fn a_submission_that_nobody_waits_for_is_forgotten_once_accepted() {
    let (_world, fakes, client) = led(1).await;
    let submitting = spawn_submit(&client, PAYLOAD, InvokeOptions::default());
    let sent = fakes[0].submissions(1).await;
    submitting.abort();
    assert!(submitting.await.is_err());
    assert_eq!(client.stats().unfinished, 1, "nobody has it durably yet");
    fakes[0].accept(&sent[0].id).await;
    eventually(|| client.stats().forgotten == 1).await;
    assert_eq!(client.stats().unfinished, 0);
}

#[tokio::test]
async fn the_same_key_is_the_same_activation_here_and_elsewhere() {
    let (_world, fakes, client) = led(1).await;
    let first = spawn_submit(&client, PAYLOAD, keyed("order-7"));
    let sent = fakes[0].submissions(1).await;
    let expected = idempotent_id(&key().namespace, &key().action, "order-7");
    assert_eq!(sent[0].id, expected.as_bytes().as_slice());
    assert_eq!(
        (sent[0].attempt, sent[0].durability()),
        (1, v1::Durability::Quorum)
    );
    let second = spawn_submit(&client, PAYLOAD, keyed("order-7"));
    let conflict = spawn_submit(&client, "{}", keyed("order-7")).await.unwrap();
    assert_eq!(
        conflict.map(|invocation| invocation.id()),
        Err(InvokeError::KeyConflict {
            id: expected,
            key: "order-7".to_owned()
        })
    );
    fakes[0].accept(&sent[0].id).await;
    let (first, mut second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!((first.id(), second.id()), (expected, expected));
    // One handle of two is not all of them.
    drop(first);
    fakes[0].complete(&sent[0].id).await;
    assert_eq!(second.result().await.unwrap().id, expected);
    assert_eq!((second.attempts(), client.stats().submitted), (1, 1));

    // Later the cluster knows the key: it says what it is.
    let again = spawn_submit(&client, "{}", keyed("order-7"));
    fakes[0].submissions(2).await;
    fakes[0]
        .reject(expected.as_bytes(), Kind::Conflict(v1::Conflict {}))
        .await;
    let error = again.await.unwrap().unwrap_err();
    assert!(matches!(&error, InvokeError::KeyConflict { .. }), "{error:?}");
    assert!(error.to_string().contains("use another key"), "{error}");
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_for_until_the_deadline() {
    let (_world, fakes, client) = led(1).await;
    fakes[0].with(|state| state.ensure = Some(leadership(&fakes[0], 1)));
    let options = InvokeOptions {
        deadline: Duration::from_millis(500),
        ..InvokeOptions::default()
    };
    let submitting = spawn_submit(&client, PAYLOAD, options);
    let sent = fakes[0].submissions(1).await[0].clone();
    fakes[0].reject(&sent.id, unavailable().kind.unwrap()).await;
    let again = fakes[0].submissions(2).await[1].clone();
    assert_eq!((&again.id, again.attempt), (&sent.id, 1));
    fakes[0].reject(&sent.id, unavailable().kind.unwrap()).await;
    let error = submitting.await.unwrap().unwrap_err();
    let InvokeError::NotConfirmed { cause, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(cause.contains("no quorum") && error.is_retryable(), "{cause}");
}

#[tokio::test]
async fn the_first_who_knows_the_end_is_enough() {
    let (_world, fakes, client) = led(3).await;
    fakes[0].die().await;
    fakes[1].with(|state| state.find = known(State::Delivered));
    fakes[2].with(|state| {
        state.find = v1::FindActivationResponse {
            runs: 3,
            accepted_ms: 1000,
            not_before_ms: 2000,
            dead_letter: true,
            ..known(State::Done)
        };
    });
    let found = client
        .find_activation(&key().namespace, id())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(found.progress, Progress::Done(_)));
    assert_eq!(
        (found.scheduler, found.key, found.runs),
        (SchedulerId(3), Some(key()), 3)
    );
    assert!(found.durable && found.dead_letter);
    let at = |secs| Some(UNIX_EPOCH + Duration::from_secs(secs));
    assert_eq!((found.accepted, found.not_before), (at(1), at(2)));
    // Of those that have not ended the one that knows more counts.
    fakes[2].with(|state| state.find = known(State::Delayed));
    let found = client
        .find_activation(&key().namespace, id())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.progress, found.scheduler),
        (Progress::Delivered, SchedulerId(2))
    );
    fakes[2].with(|state| state.find = known(State::Gone));
    let found = client
        .find_activation(&key().namespace, id())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.progress, found.key), (Progress::Gone, None));
}

#[tokio::test]
async fn a_result_is_waited_for_by_id() {
    let (_world, fakes, client) = led(1).await;
    let result = async |wait| client.result(&key().namespace, id(), wait).await;
    assert_eq!(
        result(Duration::ZERO).await,
        Err(ResultError::Unknown { id: id() })
    );
    fakes[0].with(|state| state.find = known(State::Delayed));
    assert!(matches!(
        result(Duration::ZERO).await,
        Err(ResultError::NotYet { found, .. }) if found.progress == Progress::Delayed
    ));
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move {
            client
                .result(&key().namespace, id(), Duration::from_secs(60))
                .await
        })
    };
    // It looks again: after a first look that found it running there is another one.
    fakes[0]
        .until("two looks of the waiting one", |state| looks(state, 4))
        .await;
    fakes[0].with(|state| state.find = known(State::Done));
    assert_eq!(waiting.await.unwrap().unwrap().id, id());
    fakes[0].with(|state| state.find = known(State::Gone));
    assert_eq!(
        result(Duration::from_secs(60)).await,
        Err(ResultError::Gone { id: id() })
    );
}

fn looks(state: &fake::State, count: usize) -> Option<()> {
    let looks = state.seen.iter().filter(|seen| matches!(seen, Seen::Find(_)));
    (looks.count() >= count).then_some(())
}

#[tokio::test]
async fn cancelling_goes_on_until_somebody_can_do_it() {
    use v1::cancel_activation_response::Outcome;

    let (_world, fakes, client) = led(1).await;
    let answer = |outcome: Outcome| v1::CancelActivationResponse {
        outcome: outcome.into(),
        rejection: None,
    };
    let refusal = |rejection| v1::CancelActivationResponse {
        outcome: Outcome::Unspecified.into(),
        rejection: Some(rejection),
    };
    let not_leader = v1::Rejection {
        kind: Some(Kind::NotLeader(v1::NotLeader { leader: 2, epoch: 2 })),
    };
    let cancel = async || client.cancel(&key().namespace, id()).await;
    let script = vec![
        refusal(unavailable()),
        refusal(not_leader),
        answer(Outcome::Stopping),
    ];
    fakes[0].with(|state| state.asked.cancel = script);
    assert_eq!(cancel().await, Ok(CancelOutcome::Stopping));
    for (outcome, expected) in [
        (Outcome::Unknown, CancelOutcome::Unknown),
        (Outcome::BeforeStart, CancelOutcome::BeforeStart),
        (Outcome::Ended, CancelOutcome::Ended),
    ] {
        fakes[0].with(|state| state.asked.cancel = vec![answer(outcome)]);
        assert_eq!(cancel().await, Ok(expected));
    }
    fakes[0].with(|state| state.asked.cancel = vec![answer(Outcome::Unspecified)]);
    assert!(matches!(cancel().await, Err(CallError::BadAnswer { .. })));
    let asked = fakes[0].with(|state| match state.seen.last() {
        Some(Seen::Cancel(request)) => request.clone(),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        (asked.namespace.as_str(), &asked.id[..]),
        ("guest", id().as_bytes().as_slice())
    );
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page() {
    let (_world, fakes, client) = led(1).await;
    let letter = v1::DeadLetter {
        id: id().as_bytes().to_vec().into(),
        key: Some((&key()).into()),
        runs: 4,
        ended_ms: 5000,
        status: v1::Status::DeveloperError.into(),
        error: "no such table".to_owned(),
        payload_len: 7,
    };
    let page = |next: &'static [u8]| v1::ListDeadLettersResponse {
        letters: vec![letter.clone()],
        next: next.into(),
        rejection: None,
    };
    fakes[0].with(|state| state.asked.list = vec![page(b"cursor"), page(b"")]);
    let first = client
        .dead_letters(&key().namespace, None, None, 0)
        .await
        .unwrap();
    let found = &first.letters[0];
    assert_eq!((found.id, &found.key, found.runs), (id(), &key(), 4));
    assert_eq!(found.ended, Some(UNIX_EPOCH + Duration::from_secs(5)));
    assert_eq!(
        (found.status, found.error.as_str(), found.payload_len),
        (
            ActivationStatus::DeveloperError,
            "no such table",
            ByteSize::bytes(7)
        )
    );
    let action = key().action;
    let namespace = key().namespace;
    let second = client.dead_letters(&namespace, Some(&action), first.next.as_ref(), 5);
    assert_eq!(second.await.unwrap().next, None);
    let asked = fakes[0].with(|state| match state.seen.last() {
        Some(Seen::List(request)) => request.clone(),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        (asked.action.as_str(), &asked.after[..], asked.limit),
        ("lib/hello", b"cursor".as_slice(), 5)
    );
}

#[tokio::test]
async fn letters_are_run_again_or_taken_off_a_thousand_at_a_time() {
    let (_world, fakes, client) = led(1).await;
    let ids: Vec<_> = (0..1001_u128)
        .map(|n| ActivationId::from_bytes(n.to_be_bytes()))
        .collect();
    let redriven = |error: &str, new_id: &[u8]| v1::RedriveDeadLettersResponse {
        redriven: vec![v1::Redriven {
            id: id().as_bytes().to_vec().into(),
            new_id: new_id.to_vec().into(),
            error: error.to_owned(),
        }],
        rejection: None,
    };
    let refused = v1::RedriveDeadLettersResponse {
        redriven: Vec::new(),
        rejection: Some(unavailable()),
    };
    let script = vec![
        refused,
        redriven("", &[8; 16]),
        redriven("it is no dead letter", b""),
    ];
    fakes[0].with(|state| state.asked.redrive = script);
    let outcomes: Vec<_> = client
        .redrive(&key().namespace, &ids)
        .await
        .unwrap()
        .into_iter()
        .map(|redriven| redriven.outcome)
        .collect();
    let new_id = ActivationId::from_bytes([8; 16]);
    assert_eq!(outcomes, [Ok(new_id), Err("it is no dead letter".to_owned())]);

    let purged = |purged| v1::PurgeDeadLettersResponse {
        purged,
        rejection: None,
    };
    fakes[0].with(|state| state.asked.purge = vec![purged(1000), purged(1)]);
    assert_eq!(client.purge(&key().namespace, &ids).await, Ok(1001));
    let lens = fakes[0].with(|state| {
        let len = |seen: &Seen| match seen {
            Seen::Redrive(request) => Some(request.ids.len()),
            Seen::Purge(request) => Some(request.ids.len()),
            _ => None,
        };
        state.seen.iter().filter_map(len).collect::<Vec<_>>()
    });
    assert_eq!(lens, [1000, 1000, 1, 1000, 1]);
    let rejection = v1::Rejection {
        kind: Some(Kind::Invalid(v1::Invalid {
            reason: "too many".to_owned(),
        })),
    };
    fakes[0].with(|state| {
        state.asked.purge = vec![v1::PurgeDeadLettersResponse {
            purged: 0,
            rejection: Some(rejection),
        }];
    });
    assert!(matches!(
        client.purge(&key().namespace, &ids).await,
        Err(CallError::Rejected {
            rejection: Rejection::Invalid { .. },
            ..
        })
    ));
}
