//! Connecting: what is waited for, and the errors that say why it did not work.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use std::time::Duration;

use fake::{CLUSTER, Fake, Mode, World, builder, cluster, key, queue_event};
use whiskraft_client::{Client, ConnectError, InvokeOptions, Payload, Settings};

fn hurried() -> Settings {
    Settings {
        connect_deadline: Duration::from_millis(500),
        ..Settings::default()
    }
}

#[tokio::test]
async fn one_endpoint_is_enough_to_know_all() {
    let (_, fakes) = cluster(3).await;
    let client = Client::connect([fakes[1].address.clone()]).await.unwrap();
    assert_eq!(client.members().len(), 3);
    assert_eq!(client.cluster_id().as_deref(), Some(CLUSTER));
    for fake in &fakes {
        fake.connected().await;
    }
}

#[tokio::test]
async fn a_dead_endpoint_among_live_ones_does_not_matter() {
    let (_, fakes) = cluster(2).await;
    fakes[0].die().await;
    assert!(builder(&fakes).connect().await.is_ok());
}

#[tokio::test]
async fn nobody_there_is_an_error_with_the_cause() {
    let (_, fakes) = cluster(1).await;
    fakes[0].die().await;
    let error = builder(&fakes).settings(hurried()).connect().await.unwrap_err();
    let ConnectError::NoScheduler { endpoints, cause, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*endpoints, [fakes[0].address.clone()]);
    assert!(cause.contains("down by the test"), "{cause}");
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let (_, fakes) = cluster(1).await;
    let error = builder(&fakes).cluster_id("mine").connect().await.unwrap_err();
    assert_eq!(
        error,
        ConnectError::WrongCluster {
            expected: "mine".to_owned(),
            found: CLUSTER.to_owned()
        }
    );
    assert!(builder(&fakes).cluster_id(CLUSTER).connect().await.is_ok());
}

#[tokio::test]
async fn a_stranger_at_a_members_address_gets_nothing() {
    let world = World::default();
    let real = Fake::start(1, &world).await;
    let stranger = Fake::start(7, &World::default()).await;
    world.log(fake::member_event(2, &stranger.address));
    let client = builder(std::slice::from_ref(&real)).connect().await.unwrap();
    stranger.connected().await;
    world.change(std::slice::from_ref(&real), queue_event(2, 1)).await;
    let options = InvokeOptions {
        deadline: Duration::from_millis(300),
        ..InvokeOptions::default()
    };
    assert!(
        client
            .invoke(&key().namespace, &key().action, Payload::empty(), options)
            .await
            .is_err()
    );
    assert!(stranger.submissions_now().is_empty());
}

#[tokio::test]
async fn a_lazy_client_works_once_the_cluster_is_there() {
    let world = World::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = Client::builder()
        .endpoint(address.clone())
        .connect_lazy()
        .unwrap();
    let invocation = tokio::spawn(async move {
        client
            .invoke(
                &key().namespace,
                &key().action,
                Payload::empty(),
                InvokeOptions::default(),
            )
            .await
    });
    tokio::task::yield_now().await;
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let fake = Fake::serve(1, &world, listener, address.clone());
    fake.with(|state| state.mode = Mode::Echo);
    world.log(fake::member_event(1, &address));
    world.log(queue_event(1, 1));
    fake.cut_watches().await;
    assert!(invocation.await.unwrap().is_ok());
}

#[test]
fn all_futures_can_be_sent_between_threads() {
    fn check<T: Send>(_: impl FnOnce(&'static Client) -> T) {}
    check(|client| client.put_action(anything(), whiskraft_client::Expect::Anything));
    check(|client| client.get_action(anything()));
    check(|client| client.action_code(anything()));
    check(|client| client.delete_action(anything(), whiskraft_client::Expect::Anything));
    check(|client| client.list_actions(anything(), None, 0));
    check(|client| client.put_namespace(anything(), anything()));
    check(|client| client.find_activation(anything(), whiskraft_client::ActivationId::from_bytes([0; 16])));
    check(|client| client.invoke(anything(), anything(), Payload::empty(), InvokeOptions::default()));
    check(|client| client.submit(anything(), anything(), Payload::empty(), InvokeOptions::default()));
    check(|client| client.status());
    check(|client| client.status_all());
    check(|client| client.invoker_health());
    check(|client| client.watch(&[], None));
}

fn anything<T>() -> &'static T {
    unreachable!("only types matter here")
}
