//! The throttle view as a controller sees it: from a watch that breaks, resumes and starts over.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::Duration;

use fake::{
    Fake, World, builder, cluster, container_event, eventually, key, namespace_event, queue_event,
    throttle_event,
};
use serde_json::json;
use whiskraft_client::{
    Client, InvokeError, InvokeOptions, QueueKey, Rejection, Settings, ThrottleChange, ThrottleScope,
};
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_info::State;

fn scope(client: &Client) -> Option<ThrottleScope> {
    client.throttle(&key()).map(|throttle| throttle.scope)
}

/// A cluster of one in which the queue and its namespace are throttled, and a client that knows it.
async fn throttled() -> (World, Vec<Fake>, Client) {
    let (world, fakes) = cluster(1).await;
    for event in [
        queue_event(1, 1),
        throttle_event("lib/hello", true),
        throttle_event("", true),
    ] {
        world.log(event);
    }
    let client = builder(&fakes).connect().await.unwrap();
    assert_eq!(scope(&client), Some(ThrottleScope::Action));
    (world, fakes, client)
}

fn resync() -> v1::WatchFrame {
    let resync = v1::Resync {
        reason: "behind".to_owned(),
    };
    v1::WatchFrame {
        frame: Some(v1::watch_frame::Frame::Resync(resync)),
    }
}

#[tokio::test]
async fn the_two_levels_follow_the_watch() {
    let (world, fakes, client) = throttled().await;
    world.change(&fakes, throttle_event("lib/hello", false)).await;
    eventually(|| scope(&client) == Some(ThrottleScope::Namespace)).await;
    world.change(&fakes, container_event(State::InProgress)).await;
    eventually(|| scope(&client).is_none()).await;
    let other = QueueKey {
        action: "lib/other".parse().unwrap(),
        ..key()
    };
    let found = client.throttle(&other).unwrap();
    assert_eq!(found.scope, ThrottleScope::Namespace);
    assert!(!found.retry_after.is_zero());
    world.change(&fakes, container_event(State::Removed)).await;
    eventually(|| scope(&client) == Some(ThrottleScope::Namespace)).await;
    world.change(&fakes, throttle_event("", false)).await;
    eventually(|| scope(&client).is_none() && client.throttle(&other).is_none()).await;
}

#[tokio::test]
async fn a_throttle_that_ended_while_the_watch_was_cut_is_over_after_it_resumes() {
    let (world, fakes, client) = throttled().await;
    fakes[0].cut_watches().await;
    world.log(throttle_event("lib/hello", false));
    world.log(throttle_event("", false));
    eventually(|| scope(&client).is_none()).await;
}

#[tokio::test]
async fn a_throttle_that_a_new_snapshot_lacks_is_over() {
    let (world, fakes, client) = throttled().await;
    world.forget(&throttle_event("lib/hello", true));
    world.forget(&throttle_event("", true));
    fakes[0].watch_say(resync()).await;
    fakes[0].cut_watches().await;
    eventually(|| scope(&client).is_none()).await;
}

#[tokio::test]
async fn a_new_epoch_a_removed_queue_and_a_deleted_namespace_end_a_throttle() {
    let removed = v1::WatchEvent {
        event: Some(v1::watch_event::Event::Queue(v1::QueueInfo {
            key: Some((&key()).into()),
            epoch: 1,
            removed: true,
            ..Default::default()
        })),
    };
    for end in [queue_event(1, 2), removed] {
        let (world, fakes, client) = throttled().await;
        world.change(&fakes, end).await;
        eventually(|| scope(&client) == Some(ThrottleScope::Namespace)).await;
    }
    let (world, fakes, client) = throttled().await;
    world.change(&fakes, namespace_event(0, true)).await;
    eventually(|| scope(&client).is_none()).await;
}

#[tokio::test]
async fn changes_are_told_at_once_and_what_is_on_comes_first() {
    let (world, fakes, client) = throttled().await;
    let mut throttles = client.throttles();
    let short = |change: ThrottleChange| {
        let scope = change.throttle.map(|throttle| throttle.scope);
        (change.action.map(|action| action.to_string()), scope)
    };
    assert_eq!(
        short(throttles.next().await),
        (None, Some(ThrottleScope::Namespace))
    );
    let action = Some("lib/hello".to_owned());
    assert_eq!(
        short(throttles.next().await),
        (action.clone(), Some(ThrottleScope::Action))
    );
    world.change(&fakes, throttle_event("lib/hello", false)).await;
    assert_eq!(short(throttles.next().await), (action.clone(), None));
    // Off and on again: the reader is told of the throttle that holds now, once.
    world.change(&fakes, throttle_event("lib/hello", true)).await;
    assert_eq!(
        short(throttles.next().await),
        (action.clone(), Some(ThrottleScope::Action))
    );
    world.change(&fakes, queue_event(1, 2)).await;
    assert_eq!(short(throttles.next().await), (action, None));
}

#[tokio::test]
async fn a_rate_is_final_and_is_known_from_then_on() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let call = {
        let client = client.clone();
        tokio::spawn(async move {
            let options = InvokeOptions::default();
            client
                .invoke(&key().namespace, &key().action, json!({}), options)
                .await
        })
    };
    let sent = fakes[0].submissions(1).await;
    let throttled = v1::Throttled {
        scope: v1::throttled::Scope::Rate.into(),
        limit: Some(60),
        retry_after_ms: 40_000,
    };
    fakes[0]
        .reject(&sent[0].id, v1::rejection::Kind::Throttled(throttled))
        .await;
    let Err(InvokeError::Rejected { rejection, .. }) = call.await.unwrap() else {
        panic!("a rate is final")
    };
    let retry_after = Duration::from_secs(40);
    assert_eq!(
        rejection,
        Rejection::Throttled {
            scope: ThrottleScope::Rate,
            limit: Some(60),
            retry_after
        }
    );
    let known = client.throttle(&key()).unwrap();
    assert_eq!((known.scope, known.limit), (ThrottleScope::Rate, Some(60)));
    assert!(known.retry_after <= retry_after && known.retry_after > Duration::from_secs(15));
}

#[tokio::test]
async fn a_client_may_refuse_early_and_does_not_unless_told() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    world.log(throttle_event("lib/hello", true));
    let settings = Settings {
        refuse_early: true,
        ..Settings::default()
    };
    let early = builder(&fakes).settings(settings).connect().await.unwrap();
    let invoke = |client: &Client, may_have_run| {
        let client = client.clone();
        let options = InvokeOptions {
            may_have_run,
            ..InvokeOptions::default()
        };
        tokio::spawn(async move {
            client
                .invoke(&key().namespace, &key().action, json!({}), options)
                .await
        })
    };
    let error = invoke(&early, false).await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            InvokeError::Rejected {
                attempts: 0,
                may_have_run: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error.to_string().ends_with("was rejected before it was sent"),
        "{error}"
    );
    assert!(fakes[0].submissions_now().is_empty());
    // One that may have run, and a client with default settings, ask the scheduler.
    let _asks = invoke(&early, true);
    fakes[0].submissions(1).await;
    let client = builder(&fakes).connect().await.unwrap();
    let _asks = invoke(&client, false);
    fakes[0].submissions(2).await;
}
